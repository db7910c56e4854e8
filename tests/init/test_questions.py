"""Answers that a person may give, and what they become."""

from __future__ import annotations

import io
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import chips
from agent.config import parse
from agent.config.values import InvalidError, grouping_value, printed_ohms
from agent.i2c.muxes import MUX_KINDS
from agent.init.gateway import complete_url
from agent.init.questions import ask_devices, ask_hostname, ask_muxes
from agent.init.terminal import StandardTerminal
from agent.scan.configuration import Answers, ChosenDevice, as_toml, found_devices
from agent.scan.machine import MachineScan
from agent.simulate.mux import SimulatedMux
from tests.bench import ina3221, with_shunt
from tests.scan import parts
from tests.scan.node import ScannedNode
from tests.scan.test_scan_results import only_parts

if TYPE_CHECKING:
    from collections.abc import Iterable

DESTINATION = ("serve", {"listen": "127.0.0.1:9812"})


class Script:
    """A person who answers the questions in order."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.said: list[str] = []

    def say(self, text: str = "") -> None:
        self.said.append(text)

    show = say

    def ask(self, question: str, default: str = "") -> str:
        self.said.append(question)
        return self.answers.pop(0).strip() or default

    ask_secretly = ask


def test_an_answer_that_is_not_utf8_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python reads with surrogateescape in the locale C."""
    typed = io.TextIOWrapper(io.BytesIO(b"\xff\ncpu\n"), "utf-8", "surrogateescape")
    monkeypatch.setattr(sys, "stdin", typed)
    assert StandardTerminal().ask("name") == "cpu"


@given(st.integers(1, 999))
def test_every_way_to_write_a_shunt_means_the_same(milliohms: int) -> None:
    ohms = milliohms / 1000
    for text in (f"{ohms}", f"R{milliohms:03}", f"0r{milliohms:03}", f"{milliohms}m", f"{milliohms} mohm"):
        assert printed_ohms(text) == pytest.approx(ohms), text
    for text in (f"{milliohms} mOhms", f"{milliohms}m\u03a9", f"{milliohms} m\u2126", f".{milliohms:03}"):
        assert printed_ohms(text) == pytest.approx(ohms), text
    assert printed_ohms(f"0,{milliohms:03}") == pytest.approx(ohms)


@given(st.text(max_size=12))
def test_any_text_for_a_shunt_is_a_number_or_refused(text: str) -> None:
    found = printed_ohms(text)
    assert found is None or found >= 0


@pytest.mark.parametrize(
    ("typed", "url"),
    [
        ("push.example.org:9091", "http://push.example.org:9091"),
        ("push.example.org", "http://push.example.org:9091"),
        ("[::1]", "http://[::1]:9091"),
        ("push.example.org/prefix", "http://push.example.org/prefix"),
        ("https://push.example.org", "https://push.example.org"),
        ("push.example.org:port", "http://push.example.org:port"),
    ],
)
def test_what_a_url_lacks_is_added(typed: str, url: str) -> None:
    assert complete_url(typed) == url


def scanned(*kinds: str) -> MachineScan:
    """The scan of a bus with a chip of each kind, configured by a run."""
    text = "".join(with_shunt(kind, f"d{n}", "bus = 1", 0x40 + n) for n, kind in enumerate(kinds))
    node = ScannedNode(text)
    node.bench.run_until_read()
    return MachineScan([node.scan()], [], {})


@cache
def two_chips() -> MachineScan:
    return scanned("ina226", "ina238")


def test_a_chip_that_looks_like_others_is_asked_for() -> None:
    found = scanned("ina231", "ina226")
    script = Script("cpu", "ina238", "INA231", "r100", "", "radio", "0.1", "")
    chosen = ask_devices(found_devices(found), chips.options(), script)
    assert script.answers == []
    assert any("none of ina226, ina230, ina231" in line for line in script.said)
    text = as_toml(found, Answers(chosen, {}, DESTINATION, "node"))
    assert [
        (device.name, device.chip)
        for device in parse(text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"}).devices
    ] == [
        ("cpu", "ina231"),
        ("radio", "ina226"),
    ]


def _usable(name: str) -> bool:
    try:
        return grouping_value(name) == name
    except InvalidError:
        return False


@given(names=st.lists(st.text(min_size=1).filter(_usable), min_size=2, max_size=2, unique=True), data=st.data())
def test_every_answer_is_in_the_file_as_it_was_given(names: list[str], data: st.DataObject) -> None:
    shunts = [data.draw(st.floats(1e-6, 1e6)) for _ in names]
    url = "http://[::1]:9091/$x"
    found = two_chips()
    devices = found_devices(found)
    answers = Answers(
        {
            device.name: ChosenDevice(name, device.chip, shunt_ohms)
            for device, name, shunt_ohms in zip(devices, names, shunts, strict=True)
        },
        {},
        ("pushgateway", {"url": url, "username": f"u{names[0]}".replace(":", ""), "password_file": "/etc/$HOME"}),
        names[1],
    )
    text = as_toml(found, answers)
    settings = parse(text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})
    assert [device.name for device in settings.devices] == names
    assert [device.shunt_ohms for device in settings.devices] == pytest.approx(shunts, rel=1e-8)
    assert settings.hostname == names[1]
    assert settings.pushgateway is not None
    assert settings.pushgateway.url == url
    assert settings.pushgateway.password_file == "/etc/$HOME"


def test_one_chip_is_asked_once_for_its_shunt() -> None:
    node = ScannedNode("".join(ina3221(f"d{n}", "bus = 1", n) for n in (1, 2, 3)))
    found = MachineScan([node.scan()], [], {})
    script = Script("a", "R010", "", "b", "", "c", "R020", "")
    chosen = ask_devices(found_devices(found), chips.options(), script)
    assert [device.shunt_ohms for device in chosen.values()] == [0.01, 0.01, 0.02]
    assert script.answers == []


def test_enter_leaves_out_an_input_that_nothing_is_connected_to() -> None:
    found = MachineScan([ScannedNode(ina3221("d2", "bus = 1", 2)).scan()], [], {})
    chosen = ask_devices(found_devices(found), chips.options(), Script("", "", "R010", "", ""))
    assert [device.name for device in chosen.values()] == ["i2c1-0x41-in2"]


def test_a_device_whose_shunt_is_unknown_can_be_skipped() -> None:
    node = ScannedNode("".join(ina3221(f"d{n}", "bus = 1", n) for n in (1, 2, 3)))
    found = found_devices(MachineScan([node.scan()], [], {}))
    script = Script("a", "", "skip", "b", "R020", "", "c", "skip")
    chosen = ask_devices(found, chips.options(), script)
    assert [(device.name, device.shunt_ohms) for device in chosen.values()] == [("b", 0.02)]
    assert any('or "skip"' in words for words in script.said)


def lookalike() -> MachineScan:
    four = SimulatedMux(0x73, MUX_KINDS["pca9546a"])
    four.attach(2, parts.IdChip(0x40, parts.INA226))
    return MachineScan([only_parts(four).scan()], [], {})


@pytest.mark.parametrize(("answers", "kind"), [([""], "pca9546a"), (["tca9548a", "TCA9545A"], "tca9545a")])
def test_a_mux_that_looks_like_others_is_asked_for(answers: Iterable[str], kind: str) -> None:
    found = lookalike()
    script = Script(*answers)
    muxes = ask_muxes(found.buses, script)
    assert muxes == {"m0": kind}
    devices = found_devices(found)
    chosen = ask_devices(devices, chips.options(), Script("cpu", "R100", ""))
    assert f'chip = "{kind}"' in as_toml(found, Answers(chosen, muxes, DESTINATION))


def test_a_hostname_of_its_own_is_not_asked_for() -> None:
    assert ask_hostname("node-17", Script()) is None


@pytest.mark.parametrize("own", ["raspberrypi", "Ubuntu.local", "localhost", "."])
def test_a_hostname_that_cannot_be_used_is_asked_for(own: str) -> None:
    assert ask_hostname(own, Script("..", "localhost", " roof ")) == "roof"
