"""The live page in a real Chromium, served by the real server for an agent on simulated chips."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.errors import UnreachableError
from agent.serve.server import ScrapeServer
from tests.chromium import running_chromium
from tests.serve.node import SERVE, Node
from tests.servers import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.simulate.clock import HandClock
    from tests.chromium import Browser, Tab

NAME = "<script>alert(1)</script> \u202e a long name of a device"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_chromium() as running:
        yield running


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    opened = browser.tab()
    yield opened
    opened.close()


@pytest.fixture
def node(clock: HandClock) -> Node:
    node = Node(clock, NAME)
    node.sweep(30)
    node.push()
    node.unplug("disk")
    node.sweep(3)
    return node


@pytest.fixture
def url(node: Node) -> Iterator[str]:
    server = ScrapeServer(SERVE, node.agent)
    try:
        yield "http://{}:{}/".format(*server.address)
    finally:
        server.close()


WATTS = "document.querySelector('td.watts')?.textContent.replace('\\u00a0', ' ')"
LOST = "document.getElementById('lost').textContent"


def test_the_page_violates_no_policy_of_its_own(tab: Tab, url: str) -> None:
    tab.open(url)
    tab.until("performance.getEntriesByType('resource').some(entry => entry.initiatorType === 'fetch')")
    assert tab.complaints() == []
    # What the policy forbids, the browser refuses: the next complaint shows that this test would see one.
    tab.value("document.body.append(Object.assign(document.createElement('img'), {src: '/picture.png'}))")
    assert "violates the following Content Security Policy" in str(tab.complaints())


def test_the_page_updates_without_a_reload(tab: Tab, url: str, node: Node) -> None:
    tab.open(url)
    assert tab.value(WATTS) == "6.000 W"
    tab.value("window.isSame = true; window.cell = document.querySelector('td.watts')")
    node.rails["cpu"].amperes = 1.0
    node.sweep(3)
    tab.until(WATTS, lambda text: text == "12.00 W")
    assert tab.value("window.isSame && window.cell.isConnected")
    assert "18.00" in tab.value("document.title")


def test_an_update_keeps_the_focus_the_selection_and_the_place(tab: Tab, url: str, node: Node) -> None:
    tab.emulate(360, 300)
    tab.open(url)
    tab.value(
        "document.getElementById('health').focus(); getSelection().selectAllChildren(document.querySelector('h1'))"
    )
    tab.value("scrollTo(0, 200)")
    node.rails["cpu"].amperes = 1.0
    node.unplug(NAME)
    node.sweep(3)
    tab.until("document.querySelectorAll('tr.bad').length", lambda count: count == 2)
    assert tab.value("[document.activeElement.id, getSelection().toString(), scrollY]") == ["health", "node-17", 200]


@pytest.mark.parametrize("part", ["style", "script"])
def test_a_page_of_another_version_is_loaded_again(tab: Tab, url: str, part: str) -> None:
    tab.open(url)
    tab.value(f"window.isSame = true; document.querySelector('{part}').append(' ')")
    tab.until("window.isSame === undefined && document.querySelector('main') !== null")
    assert tab.value(WATTS) == "6.000 W"


def test_an_agent_that_is_gone_is_shown_until_it_is_back(tab: Tab, url: str, node: Node) -> None:
    tab.open(url)
    node.agent.health = lambda: 1 / 0  # type: ignore[assignment, return-value] # the connection ends without an answer
    assert tab.until(LOST).startswith("Not reachable since ")
    assert "old" in tab.value("document.body.className")
    assert ("status", "", "") in [(role, "", "") for role, _, _ in tab.accessible()]
    del node.agent.health
    tab.until(f"!{LOST}")


# Timers that a test fires by hand.
HAND_TIMERS = """
window.timers = new Map();
window.setTimeout = (run, ms) => { window.timers.set(window.timers.size + 1, [run, ms]); return window.timers.size; };
window.clearTimeout = number => window.timers.delete(number);
"""


def test_numbers_from_before_a_sleep_are_marked_until_new_ones_come(tab: Tab, url: str) -> None:
    tab.open(url)
    marked = "reachedAt = new Date(Date.now() - 20000); refresh(); document.body.className"
    assert tab.value(marked) == "old"
    tab.until("document.body.className", lambda name: name == "")
    assert tab.value(LOST) == ""


def test_a_hidden_tab_asks_for_nothing(tab: Tab, url: str) -> None:
    tab.ask("Page.addScriptToEvaluateOnNewDocument", source=HAND_TIMERS)
    tab.open(url)
    waits = "[...timers.values()].map(([, ms]) => ms)"
    assert tab.value(waits) == [2000]
    tab.value("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    tab.value("document.dispatchEvent(new Event('visibilitychange'))")
    assert tab.value(waits) == []
    tab.value("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    tab.until(waits, lambda found: found == [2000])
    assert tab.value("performance.getEntriesByType('resource').length") == 1


def test_an_address_with_a_password_updates_too(tab: Tab, url: str) -> None:
    tab.ask("Page.addScriptToEvaluateOnNewDocument", source=HAND_TIMERS)
    tab.open(url.replace("//", "//user:secret@"))
    tab.value("[...timers.values()][0][0]()")  # until the page was fetched, or could not be
    assert tab.value(LOST) == ""
    assert tab.value("performance.getEntriesByType('resource').length") == 1


def test_the_page_is_a_plain_table_without_a_script(tab: Tab, url: str, node: Node) -> None:
    tab.ask("Emulation.setScriptExecutionDisabled", value=True)
    tab.open(url)
    rows = tab.value("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
    assert "6.000\u00a0W" in rows[0]
    assert "failed" in rows[1]
    node.rails["cpu"].amperes = 1.0
    node.sweep(3)
    tab.until(WATTS, lambda text: text == "12.00 W")  # it reloads itself


def test_a_name_with_a_script_is_text(tab: Tab, url: str) -> None:
    tab.open(url)
    assert tab.value("document.querySelectorAll('tbody th bdi')[2].textContent") == NAME
    assert tab.value("document.scripts.length") == 1
    assert tab.reports("Page.javascriptDialogOpening") == []


@pytest.mark.parametrize("width", [360, 600, 961, 1280])
def test_nothing_scrolls_sideways(tab: Tab, url: str, width: int) -> None:
    tab.emulate(width)
    tab.open(url)
    assert tab.value("document.documentElement.scrollWidth") <= width
    outside = (
        "[...document.querySelectorAll('main *')].filter(one => !one.closest('.unseen, thead, caption, svg')"
        " && one.getBoundingClientRect().right > innerWidth).map(one => one.outerHTML)"
    )
    assert tab.value(outside) == []
    cut = "[...document.querySelectorAll('td')].filter(one => one.scrollWidth > one.clientWidth)"
    assert tab.value(f"{cut}.map(one => one.outerHTML)") == []


# The ratio of WCAG for each element with text of its own, on the nearest background that is not transparent.
CONTRASTS = """
(() => {
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(c => c / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = one => {
    const color = getComputedStyle(one).backgroundColor;
    return color === 'rgba(0, 0, 0, 0)' ? back(one.parentElement) : color;
  };
  return [...document.querySelectorAll('body, body *:not(script, svg, svg *)')]
    .filter(one => [...one.childNodes].some(child => child.nodeType === 3 && child.data.trim()))
    .map(one => {
      const [dark, bright] = [light(getComputedStyle(one).color), light(back(one))].sort((a, b) => a - b);
      return [(bright + 0.05) / (dark + 0.05), one.textContent];
    });
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(tab: Tab, url: str, node: Node, scheme: str) -> None:
    node.gateway.fail = lambda _: UnreachableError("gateway.invalid: connection refused")
    node.push()
    tab.emulate(scheme=scheme)
    tab.open(url)
    is_dark = tab.value("getComputedStyle(document.body).backgroundColor") == "rgb(14, 17, 22)"
    assert is_dark == (scheme == "dark")
    found = tab.value(CONTRASTS)
    assert len(found) > 20
    assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
    node.agent.health = lambda: 1 / 0  # type: ignore[assignment, return-value] # the connection ends without an answer
    tab.until(LOST)
    assert [(ratio, text) for ratio, text in tab.value(CONTRASTS) if ratio < 4.5] == []


def test_the_tab_key_reaches_the_links_in_order(tab: Tab, url: str) -> None:
    tab.open(url)
    reached = []
    for _ in range(2):
        tab.press("Tab")
        reached.append(tab.value("document.activeElement.textContent"))
        assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert reached == ["Metrics", "Health"]
    assert tab.value("[...document.links].map(link => link.href)") == [f"{url}metrics", f"{url}-/healthy"]


@pytest.mark.parametrize("width", [360, 1280])
def test_a_screen_reader_finds_the_table_and_the_plots(tab: Tab, url: str, width: int) -> None:
    tab.emulate(width)
    tab.open(url)
    found = tab.accessible()
    assert ("table", "Devices", "") in found
    headings = [name for role, name, _ in found if role == "columnheader"]
    assert headings == ["Device", "Power", "Voltage", "Current", "Energy", "Last 15 minutes"]
    assert [name for role, name, _ in found if role == "rowheader"] == ["cpu ok", "disk failed", f"{NAME} ok"]
    plots = [(name, description) for role, name, description in found if role == "image"]
    assert plots[0] == (
        "Power of cpu in the last 15 minutes",
        "minimum 6.000\u00a0W, maximum 6.000\u00a0W, last 6.000\u00a0W",
    )
    assert [name for name, _ in plots][1:] == [f"Power of {name} in the last 15 minutes" for name in ("disk", NAME)]
    assert "6.000\u00a0W" in [name for role, name, _ in found if role == "cell"]
    assert [name for role, name, _ in found if role == "heading"] == ["node-17"]


def test_the_page_updates_behind_a_password(tab: Tab, node: Node, tmp_path: Path) -> None:
    """The user and the password may stand in the address, from which a script may not fetch."""
    settings = replace(SERVE, username="node", password_file=write_file(tmp_path / "password", "s3cret"))
    server = ScrapeServer(settings, node.agent)
    try:
        tab.open("http://node:s3cret@{}:{}/".format(*server.address))
        assert tab.value(WATTS) == "6.000 W"
        node.rails["cpu"].amperes = 1.0
        node.sweep(3)
        tab.until(WATTS, lambda text: text == "12.00 W")
        assert tab.value(LOST) == ""
    finally:
        server.close()
