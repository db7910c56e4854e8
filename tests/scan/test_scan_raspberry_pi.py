"""A Raspberry Pi 5 without a sensor is a node: scan, check and run as processes, with a program for `vcgencmd`."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent import chips, cli
from agent.chips import Device, Measurement, rpi_pmic
from agent.config import parse
from agent.errors import ExitCode
from agent.scan import machine
from agent.simulate.rails import ConstantRail
from agent.simulate.rpi_pmic import SimulatedFirmware
from tests.hardware.raspberry_pi import INPUT_VOLTS, NO_DEVICE, PI_4, RAILS, TOTAL_WATTS, Vcgencmd, on_path
from tests.run.running import LONG_SECONDS, PROJECT, groups_of

if TYPE_CHECKING:
    from pathlib import Path

Completed = subprocess.CompletedProcess[str]


@pytest.fixture
def vcgencmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vcgencmd:
    return on_path(tmp_path, monkeypatch)


def wattpush(*arguments: str) -> Completed:
    """The real program on this machine, whose I2C buses, if it has any, are left alone."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_BUSES, *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )


_WITHOUT_BUSES = """
import sys
from agent import __main__ as program
from agent.i2c import sysfs
sysfs.bus_numbers = lambda: ()
sys.exit(program.main())
"""


def test_a_pi_5_without_a_sensor_is_a_node_in_two_commands(
    vcgencmd: Vcgencmd, tmp_path: Path, pushgateway_url: str
) -> None:
    scanned = wattpush("scan", "--toml")
    assert scanned.returncode == ExitCode.OK, scanned.stderr
    (note,) = scanned.stderr.splitlines()
    assert note.startswith("wattpush: note: there is no /dev/i2c-N; ")
    assert len(vcgencmd.calls) == 1
    text = scanned.stdout.replace("http://127.0.0.1:9091", pushgateway_url)
    assert "INCOMPLETE" not in text
    text = f'state_dir = "{tmp_path}/state"\n{text}'.replace("[pushgateway]", '[pushgateway]\njob = "pi5"')
    file = tmp_path / "config.toml"
    file.write_text(text)

    checked = wattpush("--config", str(file), "check", "--hardware")
    assert checked.returncode == ExitCode.OK, checked.stdout + checked.stderr
    (line,) = (line for line in checked.stdout.splitlines() if "board" in line)
    assert f"vcgencmd pmic_read_adc: sum of 12 rails ({', '.join(RAILS)}): 5.125 V, 0.543 A" in line

    once = wattpush("--config", str(file), "--once")
    assert once.returncode == ExitCode.OK, once.stderr
    board = groups_of(pushgateway_url, "pi5")["board"]
    assert board["wattpush_device_volts"] == INPUT_VOLTS
    assert board["wattpush_device_watts"] == pytest.approx(TOTAL_WATTS, rel=1e-6)
    assert board["wattpush_device_up"] == 1


def test_the_table_shows_every_rail_and_their_sum(vcgencmd: Vcgencmd) -> None:
    scanned = wattpush("scan")
    assert (scanned.returncode, len(vcgencmd.calls)) == (ExitCode.OK, 1)
    _, _, table = scanned.stdout.partition("rails that this board measures itself (rpi-pmic)\n")
    rows = [line.split() for line in table.splitlines() if line.strip()]
    assert [row[0] for row in rows] == ["rail", *RAILS, "all"]
    assert rows[-1] == ["all", "5.125", "0.5429", f"{TOTAL_WATTS:.3f}"]


@pytest.mark.parametrize(("says", "status"), [(PI_4, 255), (NO_DEVICE, 255), ("", 0)])
def test_another_board_with_vcgencmd_has_no_rails(
    vcgencmd: Vcgencmd, says: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    vcgencmd.says(says, status)
    monkeypatch.setattr("agent.i2c.sysfs.bus_numbers", lambda: ())
    assert cli.main(["scan", "--toml"]) == ExitCode.IOERR
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "there is no /dev/i2c-N" in line


def test_a_pi_5_says_why_its_rails_are_not_read(
    vcgencmd: Vcgencmd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compatible = tmp_path / "compatible"
    compatible.write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    monkeypatch.setattr(machine, "COMPATIBLE", compatible)
    monkeypatch.setattr("agent.i2c.sysfs.bus_numbers", lambda: ())
    vcgencmd.says(NO_DEVICE, 255)
    assert cli.main(["scan", "--toml"]) == ExitCode.IOERR
    assert "there is neither /dev/vcio_gencmd nor /dev/vcio" in capsys.readouterr().err


NODE = """
[[device]]
name = "board"
chip = "rpi-pmic"
rail = "all"

[[device]]
name = "core"
chip = "rpi-pmic"
rail = "VDD_CORE"
"""


def test_everything_works_on_a_simulated_pi_5(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'hostname = "n"\n[pushgateway]\nurl = "http://127.0.0.1:9"\n{NODE}')
    recording = tmp_path / "recording.csv"
    recording.write_text("seconds,volts,amperes\n0,5.0,0.5\n1000,5.0,0.5\n")
    assert cli.main(["--config", str(file), "check", "--hardware", "--simulate"]) == ExitCode.OK
    assert "sum of 12 rails" in capfd.readouterr().out
    assert cli.main(["--config", str(file), "scan", "--toml", "--simulate"]) == ExitCode.OK
    scanned = parse(capfd.readouterr().out, chips.options(), default_hostname="n", environ={"HOME": "/nowhere"})
    (found,) = scanned.devices
    assert (found.name, found.chip, found.rail) == ("board", "rpi-pmic", "all")
    play = ["--config", str(file), "--once", "--dry-run", "--trace", f"core={recording}"]
    assert cli.main(play) == ExitCode.OK
    lines = capfd.readouterr().out.splitlines()
    assert "wattpush_device_amperes 0.5" in lines
    assert any(line.startswith("wattpush_device_info{") and 'input="VDD_CORE"' in line for line in lines)


def test_a_simulated_sum_holds_the_power_of_every_rail() -> None:
    """`VDD_NEW` is a rail of firmware that the simulation does not know."""

    def watts_of(**rails: float) -> list[float]:
        devices = [Device(name, "rpi-pmic", rail=name) for name in rails]
        powers = {name: ConstantRail(5.0, watts / 5.0, lambda: 0.0) for name, watts in rails.items()}
        firmware = SimulatedFirmware(devices, powers, lambda: 0.0)
        wanted = [*devices, *([] if "all" in rails else [Device("all", "rpi-pmic", rail="all")])]
        found = rpi_pmic.Chip(wanted, firmware.answer).read()
        return [one.volts * one.amperes for one in found if isinstance(one, Measurement)]

    assert watts_of(all=3.0) == pytest.approx([3.0], rel=1e-6)
    assert watts_of(all=3.0, VDD_CORE=1.5, VDD_NEW=0.5) == pytest.approx([5.0, 1.5, 0.5], rel=1e-6)
    # Without a device for the sum, the other rails take 2 W.
    assert watts_of(VDD_CORE=1.5) == pytest.approx([1.5, 3.5], rel=1e-6)
