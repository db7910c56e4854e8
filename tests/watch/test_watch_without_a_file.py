"""A watch without a configuration shows what a scan finds, and no number that a scan cannot know."""

from __future__ import annotations

import re
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from agent import chips
from agent.errors import ExitCode
from agent.scan.found_settings import found_settings
from agent.scan.machine import MachineScan
from agent.simulate.rails import ConstantRail
from tests.bench import ina260, mux
from tests.run.running import program
from tests.scan.machine import Machine
from tests.scan.node import KERNELS, ScannedNode, messages_to
from tests.watch.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.watch.terminal import Terminal


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.add_strangers()
    yield machine
    machine.server.close()


def fields(line: str) -> dict[str, str]:
    return dict(re.findall(r'(\w+)=("[^"]*"|\S+)', line))


def test_a_pipe_gets_what_a_scan_found(machine: Machine) -> None:
    watching = machine.start("watch")
    assert watching.stdout is not None
    assert watching.stderr is not None
    try:
        found: dict[str, dict[str, str]] = {}
        while len(found) < len(machine.settings.devices):
            read = fields(watching.stdout.readline())
            if "volts" in read:
                found[read["device"]] = read
        watching.send_signal(signal.SIGTERM)
        watching.stdout.read()
        errors = watching.stderr.read()
        assert watching.wait() == 0
    finally:
        watching.kill()
        watching.stdout.close()
        watching.stderr.close()
    assert "no such file, so this is what a scan found; wattpush init writes a configuration" in errors
    for device in machine.settings.devices:
        read, rail = found[device.name], machine.rails[device.name]
        assert isinstance(rail, ConstantRail)
        assert float(read["volts"]) == pytest.approx(rail.volts)
        if device.chip == "ina3221":
            assert read["error"] == '"shunt unknown: run wattpush init"'
            assert not {"amperes", "watts", "joules"} & set(read)
        else:
            assert float(read["amperes"]) == pytest.approx(rail.amperes)
    assert machine.all_muxes_are_closed()
    assert messages_to(machine.log, [KERNELS]) == []


def test_the_table_says_that_it_shows_a_scan(machine: Machine, tmux: Terminal) -> None:
    command = shlex.join(machine.command("watch"))
    tmux.start(f'{command}; echo "ended with $?"; read -r _', 80, 24)
    screen = tmux.shows(" mJ")
    assert "no configuration: found by a scan" in screen.splitlines()[0]
    (row,) = (line for line in screen.splitlines() if line.startswith("m0-ch4-0x41-in1"))
    assert row == "m0-ch4-0x41-in1 2.400 V  shunt unknown: run wattpush init"
    tmux.press("q")
    screen = tmux.shows("ended with 0")
    assert "a scan found" in screen
    assert ": 7 of 10 devices, total " in screen


def test_a_bus_without_chips_ends_with_the_next_step(tmp_path: Path) -> None:
    machine = Machine(tmp_path, mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0'))
    machine.world.chips["cpu"].unplug()
    try:
        ended = machine.run("watch")
    finally:
        machine.server.close()
    assert (ended.returncode, ended.stdout) == (ExitCode.CONFIG, "")
    assert "no such file, and a scan found nothing that wattpush reads" in ended.stderr
    assert "wattpush watch --simulate" in ended.stderr


def test_a_machine_without_a_bus_ends_with_the_scans_errors(tmp_path: Path) -> None:
    with program(tmp_path / "none.toml", "watch", module="tests.run.without_a_file") as running:
        assert running.end()[0] == ExitCode.IOERR
        assert "there is no /dev/i2c-N; " in running.stderr
        assert "wattpush watch --simulate" in running.stderr


def test_the_builtin_node_is_named_above_the_table(tmp_path: Path, tmux: Terminal) -> None:
    words = f'"$python" -m tests.run.without_a_file {tmp_path / "none.toml"} watch --simulate'
    tmux.start(words, 80, 24)
    heading = tmux.shows(" W ").splitlines()[0]
    assert re.fullmatch(r"demo-simulated  every 1 s  at \S+  built-in node   SIMULATED", heading.rstrip())


def test_settings_of_a_scan_go_nowhere_and_know_no_shunt() -> None:
    node = ScannedNode()
    node.add_strangers()
    made = found_settings(MachineScan([node.scan()], [], {}), chips.options(), hostname="node-17")
    assert made.settings.hostname == "node-17"
    assert not made.settings.has_destination
    assert made.settings.state_dir is None
    assert made.settings.warnings == ()
    assert {device.place for device in made.settings.devices} == {
        device.place for device in node.bench.settings.devices
    }
    assert made.unknown_shunts == {f"m0-ch4-0x41-in{number}" for number in (1, 2, 3)}
    assert made.unsure_kinds == frozenset()


def test_a_chip_without_an_id_shows_no_volts() -> None:
    text = '[[device]]\nname = "i2c1-0x45"\nchip = "ina219"\nbus = 1\naddress = 0x45\nshunt_ohms = 0.1\n'
    node = ScannedNode(text)
    made = found_settings(MachineScan([node.scan()], [], {}), chips.options(), hostname="node-17")
    assert made.unsure_kinds == made.unknown_shunts == {"i2c1-0x45"}
    watched = Watched(text, unknown_shunts=made.unknown_shunts, unsure_kinds=made.unsure_kinds)
    watched.sweeps(5)
    assert watched.line("i2c1-0x45") == "i2c1-0x45 chip and shunt unknown: run wattpush init"


def test_an_unknown_shunt_adds_nothing_to_the_total() -> None:
    watched = Watched(unknown_shunts={"radio"})
    watched.load("cpu", 5.0, 1.0)
    watched.load("radio", 12.0, 2.0)
    watched.sweeps(4)
    assert watched.line("radio") == "radio  12.00 V  shunt unknown: run wattpush init"
    assert "5.000 W" in watched.line("total")
    assert "10.00 J" in watched.line("total")
    assert "1 of 2" in watched.line("total")
    assert "24" not in watched.text()
    assert watched.history.view().largest_watts == pytest.approx(5.0)
    assert watched.history.view().rows[1].trace == ()
