"""Scan, check and run as a person does it, with real processes and a real Pushgateway."""

from __future__ import annotations

import fcntl
import re
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent import chips
from agent.config import parse
from agent.errors import ExitCode
from agent.simulate.rails import ConstantRail
from tests.run.running import LONG_SECONDS, groups_of, on_a_terminal
from tests.scan.machine import Machine
from tests.scan.node import KERNELS, messages_to

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    machine.add_strangers()
    yield machine
    machine.server.close()


def test_scan_check_and_once_push_every_chip_found(machine: Machine, pushgateway_url: str) -> None:
    scanned = machine.run("scan", "--toml")
    assert (scanned.returncode, scanned.stderr) == (0, "")
    assert machine.all_muxes_are_closed()
    assert messages_to(machine.log, [KERNELS]) == []
    text = scanned.stdout.replace("http://127.0.0.1:9091", pushgateway_url)
    text = f'state_dir = "{machine.folder}/state"\n{text}'.replace("[pushgateway]", '[pushgateway]\njob = "scanned"')
    file = machine.folder / "config.toml"
    file.write_text(text)

    checked = machine.run("--config", str(file), "check", "--hardware")
    first, *lines = checked.stdout.splitlines()
    assert (checked.returncode, first) == (0, f"ok       {file}: 10 devices, 3 muxes"), checked
    assert len(lines) >= 13
    assert all(line.startswith("ok ") for line in lines), checked.stdout
    assert machine.all_muxes_are_closed()

    once = machine.run("--config", str(file), "--once")
    assert once.returncode == 0, once.stderr
    groups = groups_of(pushgateway_url, "scanned")
    assert set(groups) == {"", *(device.name for device in machine.settings.devices)}
    for device in machine.settings.devices:
        rail = machine.rails[device.name]
        assert isinstance(rail, ConstantRail)
        assert abs(groups[device.name]["wattpush_device_volts"] - rail.volts) < 1e-6
        assert abs(groups[device.name]["wattpush_device_amperes"] - rail.amperes) < 1e-6


def test_toml_comments_on_what_is_invisible_on_a_bus(machine: Machine) -> None:
    text = machine.run("scan", "--toml").stdout
    assert parse(text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"}).devices
    assert "# INA3221 at 0x44 behind mux m1 (0x71 on /dev/i2c-1) channel 2: wattpush does not read it." in text
    assert text.count("shunt_ohms = 0.1   # read it on the resistor: R100 is 0.1, R050 is 0.05,") == 3
    assert "# Now 2.000 V, 0.0600 A." in text


def test_the_table_in_a_pipe_is_plain_and_80_columns_wide(machine: Machine) -> None:
    scanned = machine.run("scan")
    assert scanned.returncode == 0
    assert "\x1b" not in scanned.stdout
    assert max(map(len, scanned.stdout.splitlines())) <= 80
    rows = [re.split(r"  +| (?=0x|yes|likely|kernel )", line.strip()) for line in scanned.stdout.splitlines()]
    for row in (
        ["trunk", "0x43", "ina3221", "kernel"],
        ["trunk", "0x50", "unknown"],
        ["m0 ch 6", "0x72", "TCA9548A = m2", "yes"],
        ["m1 ch 2", "0x44", "INA3221, not read by wattpush", "yes"],
        ["m2 ch 3", "0x40", "INA260", "yes", "3.600", "0.2200", "0.792"],
        ["m0 ch 4", "0x41", "INA3221 input 1", "yes", "2.400", "0.1000*", "0.240*"],
    ):
        assert row in rows, scanned.stdout
    words = " ".join(scanned.stdout.split())
    assert "* if the shunt has 0.1 ohm" in words
    assert "0x43, 0x4f, 0x50: on the trunk, so also answers behind every channel" in words


def test_a_bus_held_by_another_process_has_its_exit_code(machine: Machine) -> None:
    device_file = machine.folder / "i2c-1"
    device_file.touch()
    with device_file.open() as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        scanned = machine.run("scan")
    assert scanned.returncode == ExitCode.TEMPFAIL
    assert "/dev/i2c-1: another process has held the bus for 1 s" in scanned.stderr
    assert machine.log == []


@pytest.mark.parametrize("command", ["scan", "check --hardware"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_signal_during_a_scan_leaves_every_channel_closed(
    machine: Machine, command: str, number: signal.Signals
) -> None:
    config = machine.folder / "config.toml"
    config.write_text(machine.run("scan", "--toml").stdout)
    in_the_middle, go_on = threading.Event(), threading.Event()
    transfer = machine.wire.transfer

    def stop_there(messages: Any) -> None:
        transfer(messages)
        if machine.world.muxes["m0"].open_channels:
            in_the_middle.set()
            go_on.wait(LONG_SECONDS)

    machine.wire.transfer = stop_there
    with machine.start(*command.split(), "--config", str(config)) as process:
        assert in_the_middle.wait(LONG_SECONDS)
        process.send_signal(number)
        go_on.set()
        _, err = process.communicate(timeout=LONG_SECONDS)
    assert process.returncode == 128 + number
    assert err == ""
    assert machine.all_muxes_are_closed()


def test_colours_appear_on_a_terminal_unless_no_color_is_set() -> None:
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    arguments = ("--config", "config.toml.example", "scan", "--simulate")
    environ = {"TERM": "xterm-256color", "COLUMNS": "80"}
    assert colours.search(on_a_terminal(*arguments, environ={**environ, "NO_COLOR": ""}))
    plain = on_a_terminal(*arguments, environ={**environ, "NO_COLOR": "1"})
    assert "TCA9548A = m0" in plain
    assert not colours.search(plain)
