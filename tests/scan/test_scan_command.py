"""The scan command: which buses it scans, exit codes, errors with their fixes, stdout and stderr."""

from __future__ import annotations

import errno
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import access, chips, cli
from agent.chips import Measurement, hwmon
from agent.config import parse
from agent.errors import ExitCode
from agent.i2c import hints, sysfs
from agent.i2c.adapters import open_bus
from agent.i2c.bus import Bus
from agent.i2c.muxes import MUX_KINDS
from agent.i2c.place import Place
from agent.scan import machine, scan_bus
from agent.scan.configuration import as_toml
from agent.scan.machine import MachineScan
from agent.scan.progress import bar_on
from agent.simulate.clock import HandClock
from agent.simulate.wire import Wire
from tests.bench import Bench, ina260, ina3221
from tests.emulated_i2c_dev import EmulatedI2CDev
from tests.hardware.test_hwmon import write
from tests.scan import parts
from tests.scan.node import ScannedNode, sysfs_of

if TYPE_CHECKING:
    from agent.settings import Settings


class Linux:
    """A machine whose /dev/i2c-N are simulated wires, scanned by the command in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.clock = HandClock()
        self.wires: dict[int, Wire] = {}
        self.dev = EmulatedI2CDev(self.wires, folder)
        self.dev.install(monkeypatch)
        self.sysfs = folder / "sys"
        self.hwmon = folder / "hwmon"
        self.hwmon.mkdir()
        monkeypatch.setattr(sysfs, "bus_numbers", lambda: tuple(sorted(self.wires)))
        monkeypatch.setattr(machine, "SYSFS", self.sysfs)
        monkeypatch.setattr(hwmon, "CLASS_FOLDER", self.hwmon)

    def wire(self, number: int) -> Wire:
        return self.wires.setdefault(number, Wire(self.clock.monotonic))


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Linux:
    return Linux(monkeypatch, tmp_path)


def settings_of(text: str) -> Settings:
    return parse(text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})


def test_every_bus_or_each_named_bus_is_scanned(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    for number in (1, 7, 10):
        linux.wire(number).attach(parts.IdChip(0x40 + number % 5, parts.INA226))
    assert cli.main(["scan"]) == ExitCode.OK
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("/dev/")]
    assert titles == ["/dev/i2c-1", "/dev/i2c-7", "/dev/i2c-10"]
    assert cli.main(["scan", "--bus", "7", "--bus", "1", "--bus", "7"]) == ExitCode.OK
    titles = [line for line in capsys.readouterr().out.splitlines() if line.startswith("/dev/")]
    assert titles == ["/dev/i2c-7", "/dev/i2c-1"]


def test_an_empty_bus_is_reported_as_empty(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    linux.wire(1)
    assert cli.main(["scan"]) == ExitCode.OK
    assert capsys.readouterr().out.startswith("/dev/i2c-1\nnothing answers; is it powered")


def test_toml_of_an_empty_bus_is_an_example_with_a_warning(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    linux.wire(1)
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    shown = capsys.readouterr()
    assert shown.err == "wattpush: warning: nothing was found that wattpush reads, so the configuration has no device\n"
    assert "[[device]]" not in shown.out.replace("#[[device]]", "")
    assert settings_of(
        shown.out.replace("\n#[", "\n[")
        .replace("\n#name", "\nname")
        .replace("\n#chip", "\nchip")
        .replace("\n#bus", "\nbus")
        .replace("\n#address", "\naddress")
    ).devices


def test_without_a_bus_the_scan_explains_how_to_enable_one(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    assert linux.wires == {}
    assert cli.main(["scan"]) == ExitCode.IOERR
    output = capsys.readouterr().err
    assert output.startswith("wattpush: there is no /dev/i2c-N; is I2C enabled? sudo modprobe i2c-dev")


def test_without_a_bus_the_kernels_readings_are_still_shown(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    """An overlay such as ina2xx needs no i2c-dev, and so no /dev/i2c-N."""
    assert linux.wires == {}
    write(linux.hwmon / "hwmon1", "ina226", {1: (None, 5000, 100)})
    assert cli.main(["scan"]) == ExitCode.IOERR
    shown = capsys.readouterr()
    assert "ina226 hwmon1" in shown.out
    assert "there is no /dev/i2c-N" in shown.err
    assert cli.main(["scan", "--toml"]) == ExitCode.IOERR
    out = capsys.readouterr().out
    assert out.startswith("# INCOMPLETE: there is no /dev/i2c-N; is I2C enabled? ")
    assert [device.name for device in settings_of(out).devices] == ["ina226-in1"]


def test_table_and_toml_are_marked_incomplete_after_an_error(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    node = ScannedNode()
    linux.wires[1] = node.wire
    node.wire.faults.fail_when(
        lambda t: errno.EREMOTEIO if (t.messages[0].address, t.messages[0].data) == (0x71, b"\x80") else None
    )
    assert cli.main(["scan"]) == ExitCode.IOERR
    assert capsys.readouterr().out.startswith("/dev/i2c-1\nincomplete: see the errors\n")
    assert cli.main(["scan", "--toml"]) == ExitCode.IOERR
    out = capsys.readouterr().out
    assert out.startswith("# INCOMPLETE: mux m1 (0x71 on /dev/i2c-1) does not answer: NACK; check its power")
    assert "m1-ch7-0x40" not in {device.name for device in settings_of(out).devices}


def test_an_adapter_that_only_blinka_knows_is_the_board_bus(
    linux: Linux, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert linux.wires == {}
    monkeypatch.setenv("BLINKA_MCP2221", "1")
    monkeypatch.setitem(sys.modules, "board", None)  # not installed
    assert cli.main(["scan"]) == ExitCode.IOERR
    assert "the board's default bus: Blinka cannot open it" in capsys.readouterr().err


def test_a_missing_bus_is_reported_with_the_existing_ones(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    linux.wire(1).attach(parts.IdChip(0x40, parts.INA226))
    assert cli.main(["scan", "--bus", "9", "--bus", "1"]) == ExitCode.IOERR
    shown = capsys.readouterr()
    assert "INA226" in shown.out
    assert "/dev/i2c-9: No such file or directory" in shown.err
    assert shown.err.endswith("this machine has /dev/i2c-1; i2cdetect -l says more\n")


def test_a_denied_permission_has_its_exit_code_and_a_command(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    linux.wire(1)
    linux.dev.refusal = errno.EACCES
    assert cli.main(["scan"]) == ExitCode.NOPERM
    assert f"sudo usermod -aG i2c {access.this_user()}, then log in again" in capsys.readouterr().err


def test_a_device_file_owned_by_root_hints_at_i2c_tools() -> None:
    if Path("/").stat().st_gid != 0:
        pytest.skip("needs a file that belongs to the group root")
    assert "sudo apt install i2c-tools" in hints.of_denied_permission("/")


@pytest.mark.parametrize(
    ("kind", "address", "straps"),
    [
        ("tca9548a", 0x70, "0x70 is A2 low, A1 low, A0 low"),
        ("pca9547", 0x73, "0x73 is A2 low, A1 high, A0 high"),
        ("tca9544a", 0x74, "0x74 is A2 high, A1 low, A0 low"),
        ("tca9545a", 0x72, "0x72 is A1 high, A0 low"),
        ("tca9545a", 0x76, "0x76 is A2 high, A1 high, A0 low"),
        ("pca9540b", 0x70, "it has no address straps"),
    ],
)
def test_a_silent_mux_is_reported_with_its_straps(kind: str, address: int, straps: str) -> None:
    assert hints.of_silent_mux(address, MUX_KINDS[kind].addresses).endswith(straps)


@pytest.mark.parametrize("bus", ["x", "-1", "1.5", "\N{SUPERSCRIPT TWO}", ""])
def test_an_invalid_bus_is_a_usage_error(bus: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["scan", f"--bus={bus}"])
    assert caught.value.code == ExitCode.USAGE
    assert 'neither "board" nor the N of a /dev/i2c-N' in capsys.readouterr().err


def test_help_describes_the_writes_of_a_scan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["scan", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "a mux can be recognised only by writing its control byte" in out


def test_a_kernel_mux_channel_is_scanned_as_a_separate_bus(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = linux.sysfs / "devices/i2c-1/i2c-11"
    adapter.mkdir(parents=True)
    sysfs_of(linux.sysfs, {(1, 0x70): "pca954x"})
    (linux.sysfs / "bus/i2c/devices/i2c-11").symlink_to(adapter)
    (linux.sysfs / "bus/i2c/devices/1-0070/channel-3").symlink_to(adapter)
    kernels_mux, trunk_chip = parts.Foreign(0x70), parts.Foreign(0x50)
    for number in (1, 11):  # parts before the mux answer behind it too
        linux.wire(number).attach(kernels_mux)
        linux.wire(number).attach(trunk_chip)
    text = ina260("i2c11-0x40", "bus = 1")
    node = ScannedNode(text)
    linux.wire(11).attach(node.bench.chip("i2c11-0x40"))
    assert cli.main(["scan"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert "pca954x: /dev/i2c-11" in out
    assert "/dev/i2c-11: channel 3 of the kernel's mux 0x70 on /dev/i2c-1" in out
    assert out.count("0x50") == 1
    assert kernels_mux.written == []
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    (device,) = settings_of(capsys.readouterr().out).devices
    assert (device.name, device.place) == ("i2c11-0x40", Place(11, None, None, 0x40))


def test_kernel_chips_become_devices_that_read_the_shown_values(
    linux: Linux, capsys: pytest.CaptureFixture[str]
) -> None:
    linux.wire(1)
    orin = write(linux.hwmon / "hwmon1", "ina3221", {1: ("VDD_IN", 19072, 992), 2: ("VDD_CPU", 19064, -40)})
    for number, millivolts in ((4, 12), (5, 13)):  # what the driver calls in4 and in5 are shunt voltages, curr4 a sum
        (orin / f"in{number}_input").write_text(f"{millivolts}\n")
    (orin / "curr4_input").write_text("1300\n")
    write(linux.hwmon / "hwmon0", "coretemp", {1: (None, 1000, 1000)})
    for number in (2, 10):
        folder = write(linux.hwmon / f"hwmon{number}", "ina226", {1: (None, 5000 + number, 100)})
        (linux.hwmon.parent / f"1-004{number % 7}").mkdir()
        (folder / "device").symlink_to(linux.hwmon.parent / f"1-004{number % 7}")
        write(linux.hwmon.parent / f"1-004{number % 7}/hwmon/hwmon{number}", "ina226", {1: (None, 5000 + number, 100)})
    assert cli.main(["scan"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert [line.split() for line in out.splitlines() if line.startswith("ina")] == [
        ["ina3221", "hwmon1", "1", "VDD_IN", "19.072", "0.9920", "18.919"],
        ["ina3221", "hwmon1", "2", "VDD_CPU", "19.064", "-0.0400", "-0.763"],
        ["ina226", "1-0042", "1", "5.002", "0.1000", "0.500"],
        ["ina226", "1-0043", "1", "5.010", "0.1000", "0.501"],
    ]
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    devices = settings_of(capsys.readouterr().out).devices
    assert [device.name for device in devices] == [
        "ina3221-VDD_IN",
        "ina3221-VDD_CPU",
        "ina226-in1",
        "ina226-in1-1-0043",
    ]
    assert [hwmon.Chip((device,), linux.hwmon).read()[0] for device in devices] == [
        Measurement(19.072, 0.992),
        Measurement(19.064, -0.04),
        Measurement(5.002, 0.1),
        Measurement(5.010, 0.1),
    ]


def test_kernel_inputs_with_shared_labels_become_distinct_devices(
    linux: Linux, capsys: pytest.CaptureFixture[str]
) -> None:
    """An AGX Orin has two INA3221, whose free inputs are all labelled NC; beside them, one without labels."""
    linux.wire(1)
    for number, address in ((3, "0040"), (4, "0041")):
        chip = linux.hwmon.parent / f"1-{address}"
        labels: dict[int, tuple[str | None, int, int]] = {
            1: ("NC", 1000 * number, 10),
            2: (f"VDD_{number}", 1000 * number, 20),
            3: ("NC", 1000 * number, 30),
        }
        folder = write(chip / f"hwmon/hwmon{number}", "ina3221", labels)
        (folder / "device").symlink_to(chip)
        (linux.hwmon / f"hwmon{number}").symlink_to(folder)
    write(linux.hwmon / "hwmon5", "ina3221", {1: (None, 5000, 10)})
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    devices = settings_of(capsys.readouterr().out).devices
    measurements = [hwmon.Chip((device,), linux.hwmon).read()[0] for device in devices]
    assert [(measured.volts, measured.amperes) for measured in measurements] == [
        *((volts, milliamperes / 1000) for volts in (3.0, 4.0) for milliamperes in (10, 20, 30)),
        (5.0, 0.01),
    ]


def test_a_bus_named_by_a_link_gives_a_valid_configuration(linux: Linux, tmp_path: Path) -> None:
    link = tmp_path / "i2c-rack"
    link.symlink_to("/dev/i2c-1")
    bench = Bench.of(ina260("cpu", "bus = 1", 0x4F))
    linux.wires[1] = bench.wire
    scanned = scan_bus(Bus(str(link), [], open_bus, linux.clock), iter(()))
    (device,) = settings_of(as_toml(MachineScan([scanned], [], {}))).devices
    assert (device.name, device.place) == ("i2c-rack-0x4f", Place(str(link), None, None, 0x4F))


def test_any_label_gives_a_valid_configuration(tmp_path: Path) -> None:
    label = 'a "b" \\ [c] \N{OHM SIGN} ${HOME} $$'
    found = hwmon.PowerInput("ina3221", tmp_path, 1, label)
    (device,) = settings_of(as_toml(MachineScan([], [(found, None)], {}))).devices
    assert device.label == label


def test_a_label_that_toml_cannot_hold_is_not_used(linux: Linux) -> None:
    write(linux.hwmon / "hwmon1", "ina3221", {1: ("VDD\x07IN", 19072, 992)})
    (found,) = hwmon.power_inputs(linux.hwmon)
    assert found.label is None
    (device,) = settings_of(as_toml(MachineScan([], [(found, None)], {}))).devices
    assert (device.name, device.input) == ("ina3221-in1", 1)


def test_an_unreadable_kernel_input_is_shown_without_numbers(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    linux.wire(1)
    folder = write(linux.hwmon / "hwmon1", "ina3221", {1: ("[bold]VDD_IN", 19072, 992)})
    (folder / "in1_input").write_text("")
    assert cli.main(["scan"]) == ExitCode.OK
    assert "ina3221 hwmon1  1     [bold]VDD_IN  " in capsys.readouterr().out


def test_a_simulated_scan_reproduces_its_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    module = '[[device]]\nname = "ina3221-VDD_IN"\nchip = "hwmon"\nsensor = "ina3221"\nlabel = "VDD_IN"\n'
    radio = "".join(ina3221(f"i2c1-0x41-in{number}", "bus = 1", number, more="") for number in (1, 2, 3))
    text = '[pushgateway]\nurl = "http://127.0.0.1:9091"\n' + radio + ina260("i2c1-0x4a", "bus = 1", 0x4A, "") + module
    file.write_text(text)
    assert cli.main(["--config", str(file), "scan", "--simulate", "--toml"]) == ExitCode.OK
    out = capsys.readouterr().out
    assert settings_of(out).devices == settings_of(text).devices
    assert "# Now 0.000 V" not in out, "a simulated chip was read before its first conversion"


def test_only_a_simulated_scan_begins_with_a_warning(
    linux: Linux, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[pushgateway]\nurl = "http://127.0.0.1:9091"\n' + ina260("cpu", "bus = 1", 0x4A, ""))
    for arguments in (["scan"], ["scan", "--toml"]):
        assert cli.main(["--config", str(file), *arguments, "--simulate"]) == ExitCode.OK
        first = capsys.readouterr().out.splitlines()[0]
        assert "SIMULATED from the configuration: no chip and no number below is real." in first
        linux.wire(1)
        assert cli.main(arguments) == ExitCode.OK
        assert "SIMULATED" not in capsys.readouterr().out


def test_a_simulated_scan_knows_the_buses_of_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[pushgateway]\nurl = "http://127.0.0.1:9091"\n' + ina260("cpu", "bus = 1", 0x4A, ""))
    command = ["--config", str(file), "scan", "--simulate", "--bus"]
    assert cli.main([*command, "/dev/i2c-1"]) == ExitCode.OK
    assert "INA260" in capsys.readouterr().out
    assert cli.main([*command, "9"]) == ExitCode.USAGE
    error = "scan --bus 9: only the buses of the configuration are simulated: /dev/i2c-1"
    assert error in capsys.readouterr().err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_long_scan_shows_a_progress_bar_on_a_terminal(*, is_terminal: bool) -> None:
    stream, clock = (Terminal() if is_terminal else io.StringIO()), HandClock()
    with bar_on(stream, clock) as progress:
        for done in range(4):
            progress(done, 64, "on [/dev/i2c-1]")
            clock.sleep(0.1)
        assert stream.getvalue() == ""
        clock.sleep(1.0)
        progress(40, 64, "on [/dev/i2c-1]")
    assert ("40/64" in stream.getvalue()) == ("on [/dev/i2c-1]" in stream.getvalue()) == is_terminal
    assert bool(stream.getvalue()) == is_terminal
