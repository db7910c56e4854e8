"""The live page: what it says about an agent on simulated chips."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from prometheus_client import generate_latest

from agent.energy.state import RemoteCounters
from agent.errors import RejectedError, UnreachableError
from agent.measure.readings import Failure
from agent.metrics.catalogue import RemoteStatus
from agent.serve.live_page import HEADERS, LivePage
from agent.serve.live_view import RemoteView
from tests.run.running import CPU, DISK, MemoryGateway, agent_of, samples_of, settings_for, world_for
from tests.serve.node import SERVE, Node
from tests.serve.shown import Shown, shown

if TYPE_CHECKING:
    from agent.simulate.clock import HandClock


@pytest.fixture
def node(clock: HandClock) -> Node:
    return Node(clock)


def test_a_page_before_the_first_sweep_shows_no_number(node: Node) -> None:
    page = shown(node.agent)
    assert page.device("cpu")[0] == "not read yet"
    assert page.facts["Power now"].startswith("none of 0 of 2 devices")
    assert page.facts["Pushgateway"].startswith("not pushed yet")
    assert "no sweep has finished yet" in page.text


def test_a_device_shows_its_last_reading_and_the_total(node: Node) -> None:
    node.sweep(4)
    node.rails["cpu"].amperes = -0.25
    node.sweep(3)
    page = shown(node.agent)
    assert page.device("cpu")[:4] == ["ok", "-3.00 W", "12.00 V", "-250 mA"]
    assert page.device("disk")[:4] == ["ok", "6.000 W", "12.00 V", "500.0 mA"]
    assert page.facts["Power now"] == "3.000 W of 2 devices"
    assert "healthy" in page.text


def test_a_device_that_fails_shows_its_error_and_no_number(node: Node) -> None:
    node.sweep(4)
    node.unplug("cpu")
    node.sweep()
    page = shown(node.agent)
    state, message, energy = page.device("cpu")
    assert (state, energy) == ("failed", "none")
    assert message.startswith("no INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 0")
    assert page.facts["Power now"] == "6.000 W of 1 of 2 devices"


def test_a_chip_that_settles_shows_when_its_first_result_comes(node: Node) -> None:
    node.agent.take_sweep()
    assert re.fullmatch(r"first result in 1\.\d s", shown(node.agent).device("cpu")[1])


def test_a_chip_that_lost_its_power_says_so(node: Node) -> None:
    node.sweep(4)
    chip: Any = node.world.chips["cpu"]
    chip.power_loss()
    node.agent.take_sweep()
    assert shown(node.agent).device("cpu")[:2] == ["settling", "its chip lost its power and was configured again"]


def test_a_device_that_waits_for_its_turn_is_not_failed(node: Node) -> None:
    node.sweep(4)
    view = node.agent.live_view()
    (outcome,) = [device.outcome for device in view.devices if device.name == "cpu"]
    assert outcome is not None
    waiting = Failure("cpu", UnreachableError("they take turns"), tried=False)
    view = replace(view, devices=tuple(replace(device, outcome=waiting) for device in view.devices))
    assert Shown(LivePage().page(view)).device("cpu")[:2] == ["waiting", "they take turns"]


def test_readings_of_a_loop_that_hangs_are_stale(node: Node) -> None:
    node.sweep(4)
    node.clock.sleep(60)
    page = shown(node.agent)
    assert "the last sweep ended 61 s ago" in page.text
    assert page.device("cpu")[:2] == ["stale", "last read 61 s ago"]
    assert page.facts["Power now"].startswith("none")


def test_energy_is_that_of_the_metrics(node: Node) -> None:
    node.sweep(4)
    assert shown(node.agent).device("cpu")[-1] == "none"
    node.push()
    node.sweep(5)  # not published and perhaps not saved: a crash would take it back
    registry = node.agent.scrape_registry()
    assert registry is not None
    joules = samples_of(generate_latest(registry).decode())["wattpush_device_joules_total"]
    counted = joules[("device", "cpu"), ("hostname", "node-17")]
    assert shown(node.agent).device("cpu")[-1] == f"{counted:.3f} J"


def test_energy_that_flowed_back_is_shown_beside(node: Node) -> None:
    node.rails["cpu"].amperes = -0.5
    node.sweep(12)
    node.push()
    assert re.fullmatch(r"0\.000 J [\d.]+ J returned", shown(node.agent).device("cpu")[-1])


def test_counters_that_may_not_be_published_are_not_shown(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.sweep(4)
    node.push()
    published = node.agent.published
    assert published is not None
    monkeypatch.setattr(type(node.agent), "published", replace(published, has_counters=False))
    assert shown(node.agent).device("cpu")[-1] == "none"


def test_failing_pushes_show_since_when_and_why(node: Node) -> None:
    node.sweep(4)
    node.push()
    node.clock.sleep(3)
    assert shown(node.agent).facts["Pushgateway"] == "last push accepted 3 s ago, http://gateway.invalid:9091"
    node.gateway.fail = lambda _: RejectedError("gateway.invalid: <b>400</b>")
    node.push()
    node.clock.sleep(150)
    node.push()
    facts = shown(node.agent).facts
    assert facts["Pushgateway"] == "failing for 2 min gateway.invalid: <b>400</b> (and 2 more groups)"
    node.gateway.fail = lambda _: None
    node.push()
    assert shown(node.agent).facts["Pushgateway"].startswith("last push accepted 0 s ago")


def test_the_backlog_of_remote_write_is_shown(node: Node) -> None:
    status = RemoteStatus(RemoteCounters(), 12_345, 56_000, 64_000_000, node.clock.time() - 7200, None)
    remote = RemoteView("history is kept on this node: refused", True, status)
    view = replace(node.agent.live_view(), remote=remote)
    page = Shown(LivePage().page(view))
    assert ("div", {"class": "bad"}) in page.tags
    assert page.facts["Remote write"] == (
        "history is kept on this node: refused 12,345 samples (56.00 kB) wait, the oldest for 2 h"
    )


@pytest.mark.parametrize(
    ("samples", "words"),
    [(0, "nothing waits"), (1, "1 sample (90.00 B) waits"), (1000, "1,000 samples (90.00 B) wait")],
)
def test_a_backlog_of_any_size_is_a_sentence(node: Node, samples: int, words: str) -> None:
    status = RemoteStatus(RemoteCounters(), samples, 90, 64_000_000, None, None)
    view = replace(node.agent.live_view(), remote=RemoteView("sent", False, status))
    assert Shown(LivePage().page(view)).facts["Remote write"] == f"sent {words}"


def test_names_and_errors_are_text(clock: HandClock) -> None:
    name = "<script>alert(1)</script>&\u202e\"'"
    node = Node(clock)
    node.sweep(4)
    view = node.agent.live_view()
    cpu = replace(view.devices[0], name=name, outcome=Failure(name, UnreachableError("<img src=x>")))
    recent = view.recent._replace(traces={name: view.recent.traces["cpu"]})
    page = Shown(LivePage().page(replace(view, hostname="<h1>", devices=(cpu,), recent=recent)))
    assert page.source.count("<script") == 1
    assert "<img" not in page.source
    assert "&lt;h1&gt;" in page.source
    assert page.rows[1][0].startswith(name)


def test_the_policy_allows_the_style_and_the_script_only(node: Node) -> None:
    page = shown(node.agent)
    policy = HEADERS["Content-Security-Policy"]
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.source, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")
    assert not [name for _, attributes in page.tags for name in attributes if name == "style" or name.startswith("on")]


def test_nothing_is_fetched_from_another_place(node: Node) -> None:
    page = shown(node.agent)
    links = [value or "" for _, found in page.tags for name, value in found.items() if name in {"href", "src"}]
    assert [link for link in links if not link.startswith("data:")] == ["metrics", "-/healthy"]
    assert "url(" not in page.source


def test_plots_have_a_title_and_tell_their_extremes(node: Node) -> None:
    node.sweep(12)
    node.rails["cpu"].amperes = 1.0
    node.sweep(12)
    (svg, *_) = re.findall(r"<svg.*?</svg>", shown(node.agent).source)
    picture = ET.fromstring(svg)
    title, description = picture[0], picture[1]
    assert title.text == "Power of cpu in the last 15 minutes"
    assert (description.text or "").replace("\xa0", " ") == "minimum 6.000 W, maximum 12.00 W, last 12.00 W"
    assert picture.get("aria-labelledby") == title.get("id")
    assert picture.get("aria-describedby") == description.get("id")


def test_a_page_is_made_once_for_a_sweep(node: Node) -> None:
    page = LivePage()
    node.sweep(4)
    first = page.page(node.agent.live_view())
    assert page.page(node.agent.live_view()) is first
    node.agent.take_sweep()
    second = page.page(node.agent.live_view())
    assert second is not first
    node.push()
    assert page.page(node.agent.live_view()) != second


def test_a_reload_keeps_the_plots_of_the_same_chips(clock: HandClock) -> None:
    node = Node(clock)
    node.sweep(30)
    later = Node(clock)
    moved = replace(DISK, place=CPU.place)
    later.agent = agent_of(settings_for(CPU, moved, serve=SERVE), later.world, clock, MemoryGateway())
    page = LivePage()
    page.page(later.agent.live_view())
    before = node.agent.live_view().recent.traces
    later.agent.take_over_from(node.agent)
    view = later.agent.live_view()
    assert view.recent.traces["cpu"] == before["cpu"]
    assert len(before["cpu"].runs) == 1
    assert view.recent.traces["disk"].runs == ()
    assert b"last 6.000" in page.page(view)


def test_without_serve_nothing_is_kept(clock: HandClock) -> None:
    settings = settings_for(CPU)
    agent = agent_of(settings, world_for(settings, clock), clock, MemoryGateway())
    agent.take_sweep()
    with pytest.raises(RuntimeError, match="nothing is served"):
        agent.live_view()
