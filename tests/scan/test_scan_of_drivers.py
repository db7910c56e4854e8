"""What each hwmon driver of the kernel shows becomes a configuration that reads its rails, and nothing else.

The trees are those that the drivers make, by their sources in Linux 6.12 and 6.16: drivers/hwmon/<driver>.c, and for
PMBus chips the pages that drivers/hwmon/pmbus/<driver>.c declares and the labels that pmbus_core.c gives them. The
values are chosen so that volts of one rail and amperes of another give another power.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, NamedTuple

import pytest

from agent import cli
from agent.chips import Measurement, hwmon
from agent.errors import ExitCode, SensorError
from agent.settings import Device
from agent.simulate.clock import HandClock
from agent.simulate.hwmon import SimulatedHwmon
from agent.simulate.rails import ConstantRail
from tests.scan.test_scan_command import Linux, settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Files = Mapping[str, int | tuple[str, int]]
    """By attribute, such as in1: its value, or its label and its value. Other files by their whole name."""


class Driver(NamedTuple):
    """A chip as its driver shows it, and its rails: by `input` or `label` volts and amperes."""

    files: Files
    rails: Mapping[int | str, tuple[float, float]]


def pmbus(*pages: Mapping[str, int]) -> Files:
    """The files of a PMBus chip, by page the values of its registers: vin, iin, vout, iout, pin, pout and others.

    As pmbus_core: a value that is on one page only keeps its plain label, unless it is of an output; phases, such as
    "iout.0", follow the value of their page.
    """
    files: dict[str, int | tuple[str, int]] = {}
    for kind, registers in (
        ("in", ("vin", "vmon", "vcap", "vout")),
        ("curr", ("iin", "iout")),
        ("power", ("pin", "pout")),
    ):
        numbers = count(1)
        for register in registers:
            is_paged = register.endswith("out") or any(register in page for page in pages[1:])
            for number, page in enumerate(pages if is_paged else pages[:1], 1):
                for name, value in page.items():
                    base, dot, phase = name.partition(".")
                    if base == register:
                        label = f"{base}{number if is_paged else ''}{dot}{phase}"
                        files[f"{kind}{next(numbers)}"] = (label, value)
    return files


def monitor(millivolts: int = 12000, milliamperes: int = 1500, **more: int) -> Files:
    """An INA2xx: in0 is the shunt voltage, in1 the bus voltage."""
    microwatts = abs(millivolts * milliamperes)
    return {"in0": 15, "in1": millivolts, "curr1": milliamperes, "power1": microwatts, "update_interval": 35, **more}


INA226 = Driver(monitor(shunt_resistor=10_000, in1_crit=0, curr1_crit=0, power1_crit=0), {1: (12.0, 1.5)})
INA238 = Driver(monitor(48000, -2000, in1_max=102_396, temp1=31_000), {1: (48.0, -2.0)})
HOT_SWAP = {"vin": 12000, "iout": 3000, "pin": 36_000_000}

DRIVERS: Mapping[str, Driver] = {
    **dict.fromkeys(("ina219", "ina220"), Driver(monitor(5000, -400, shunt_resistor=100_000), {1: (5.0, -0.4)})),
    **dict.fromkeys(("ina226", "ina230", "ina231", "ina232", "ina234"), INA226),
    "ina260": Driver(monitor(), {1: (12.0, 1.5)}),
    "sy24655": Driver(monitor(shunt_resistor=2000, power1_average=18_000_000), {1: (12.0, 1.5)}),
    "ina209": Driver(monitor(24000, 800, curr1_crit=0, in1_reset_history=0), {1: (24.0, 0.8)}),
    **dict.fromkeys(("ina228", "ina237", "ina238"), INA238),
    "sq52206": Driver(monitor(20000, 700, energy1=9_000_000, power1_input_highest=15_000_000), {1: (20.0, 0.7)}),
    **dict.fromkeys(("ina700", "ina780"), Driver({"in1": 20000, "curr1": 700, "power1": 14_000_000}, {1: (20.0, 0.7)})),
    "ina3221": Driver(
        {
            "in1": ("VDD_IN", 19072),
            "in2": ("VDD_CPU", 19064),
            "in3": ("NC", 3300),
            "in4": 5,
            "in5": 6,
            "in6": 7,
            "in7": ("sum of shunt voltages", 18),
            "curr1": 992,
            "curr2": 400,
            "curr3": 0,
            "curr4": 1392,
            "shunt1_resistor": 5000,
            "in1_enable": 1,
        },
        {"VDD_IN": (19.072, 0.992), "VDD_CPU": (19.064, 0.4), "NC": (3.3, 0.0)},
    ),
    "ltc2945": Driver({"in1": 48000, "in2": 1000, "curr1": 500, "power1": 24_000_000}, {1: (48.0, 0.5)}),
    "ltc2947": Driver(
        {
            "in0": ("VP-VM", 12000),
            "in1": ("DVCC", 5000),
            "curr1": ("IP-IM", -2000),
            "power1": ("Power", -24_000_000),
            "energy1": 1,
        },
        {"VP-VM": (12.0, -2.0)},
    ),
    "ltc2991": Driver(
        {"in0": 3300, "in1": 5000, "in3": 3301, "in4": 3302, "in5": 1800, "curr1": 400, "curr3": 200, "temp1": 30_000},
        {1: (5.0, 0.4), 5: (1.8, 0.2)},  # V3 and V4 have no shunt
    ),
    "ltc2992": Driver(
        {
            "in0": 48000,
            "in1": 24000,
            "in2": 1,
            "in3": 2,
            "in4": 3,
            "in5": 4,
            "curr1": 500,
            "curr2": 2000,
            "power1": 24_000_000,
            "power2": 48_000_000,
        },
        {0: (48.0, 0.5), 1: (24.0, 2.0)},
    ),
    "ltc4151": Driver({"in1": 48000, "in2": 1000, "curr1": 500}, {1: (48.0, 0.5)}),
    "ltc4282": Driver(
        {
            "in1": ("VDD", 12000),
            "in2": ("VGPIO", 700),
            "curr1": ("ISENSE", 3000),
            "power1": ("Power", 36_000_000),
            "energy1": 1,
        },
        {"VDD": (12.0, 3.0)},
    ),
    "adm1177": Driver({"in0": 12000, "curr1": 2000}, {0: (12.0, 2.0)}),
    "tmp513": Driver(
        {"in0": 12000, "curr1": 2000, "curr2": 1900, "power1": 24_000_000, "temp1": 30_000}, {0: (12.0, 2.0)}
    ),
    "powerz": Driver(
        {
            "in0": ("VBUS", 20000),
            "in1": ("VCC1", 1700),
            "in2": ("VCC2", 0),
            "in3": ("VDP", 600),
            "in4": ("VDM", 600),
            "in5": ("VDD", 3300),
            "curr1": ("IBUS", -3000),
        },
        {"VBUS": (20.0, -3.0)},
    ),
    "corsairpsu": Driver(
        {
            "in0": ("v_in", 230_000),
            "in1": ("v_out +12v", 12000),
            "in2": ("v_out +5v", 5000),
            "in3": ("v_out +3.3v", 3300),
            "curr1": ("curr in", 500),
            "curr2": ("curr +12v", 7000),
            "curr3": ("curr +5v", 2000),
            "curr4": ("curr +3.3v", 1000),
            "power1": ("power total", 100_000_000),
            "power2": ("power +12v", 84_000_000),
            "power3": ("power +5v", 10_000_000),
            "power4": ("power +3.3v", 3_300_000),
        },
        {"v_out +12v": (12.0, 7.0), "v_out +5v": (5.0, 2.0), "v_out +3.3v": (3.3, 1.0)},
    ),
    # Its power is that of the voltage at its input; vout1 of some is another pin.
    **dict.fromkeys(
        ("adm1272", "adm1273", "adm1276", "adm1278", "adm1281"),
        Driver(pmbus({**HOT_SWAP, "vout": 11900}), {"vin": (12.0, 3.0)}),
    ),
    **dict.fromkeys(("adm1293", "adm1294"), Driver(pmbus({**HOT_SWAP, "vout": 900}), {"vin": (12.0, 3.0)})),
    "adm1275": Driver(pmbus({"vout": 11900, "iout": 3000}), {"vout1": (11.9, 3.0)}),
    **dict.fromkeys(
        ("lm25056", "lm25066", "lm5064", "lm5066", "lm5066i"),
        Driver(pmbus({"vin": 12000, "vmon": 900, "vout": 11900, "iin": 3000, "pin": 36_000_000}), {"vin": (12.0, 3.0)}),
    ),
    "ltc4286": Driver(pmbus({**HOT_SWAP, "vout": 11900}), {"vout1": (11.9, 3.0)}),
    "ina233": Driver(
        pmbus({"vin": 12000, "vmon": 4, "vout": 12000, "iout": 2000, "pout": 24_000_000}), {"vout1": (12.0, 2.0)}
    ),
    "ir38064": Driver(pmbus({"vin": 12000, "vout": 900, "iout": 30_000, "pout": 27_000_000}), {"vout1": (0.9, 30.0)}),
    "tps53679": Driver(
        pmbus(
            {
                "vin": 12000,
                "iin": 5000,
                "pin": 60_000_000,
                "vout": 900,
                "iout": 50_000,
                "iout.0": 25_000,
                "iout.1": 25_001,
                "pout": 45_000_000,
            },
            {"vout": 1800, "iout": 5000, "iout.0": 5001, "pout": 9_000_000},
        ),
        {"vin": (12.0, 5.0), "vout1": (0.9, 50.0), "vout2": (1.8, 5.0)},
    ),
    # The input currents are of the rails, the input voltage is of all.
    "isl68137": Driver(
        pmbus(
            *(
                {**({"vin": 12000} if page == 0 else {}), "iin": 100 * page, "vout": 900 + page, "iout": 1000 * page}
                for page in range(3)
            )
        ),
        {"vout1": (0.9, 0.0), "vout2": (0.901, 1.0), "vout3": (0.902, 2.0)},
    ),
    "irps5401": Driver(
        pmbus(
            {"vin": 12000, "iin": 100, "pin": 1_200_000, "vout": 1000, "iout": 1100, "pout": 1_100_000},
            {"vin": 5000, "iin": 500, "pin": 2_500_000, "vout": 3300, "iout": 700, "pout": 2_310_000},
        ),
        {"vin1": (12.0, 0.1), "vin2": (5.0, 0.5), "vout1": (1.0, 1.1), "vout2": (3.3, 0.7)},
    ),
    "max34440": Driver(
        pmbus(*({"vout": 1000 + page, "iout": 100 * page} for page in range(6)), *({} for _ in range(8))),
        {f"vout{page + 1}": (1 + page / 1000, page / 10) for page in range(6)},
    ),
    # Each channel measures a voltage or a current.
    "max34451": Driver(pmbus({"vout": 1000}, {"iout": 500}, {"vout": 1001}, {"iout": 501}), {}),
    "pfe3000": Driver(
        pmbus(
            {"vin": 230_000, "iin": 1000, "pin": 230_000_000, "vout": 12000, "iout": 18_000, "pout": 216_000_000},
            {"vout": 5000, "iout": 1000, "pin": 6_000_000, "pout": 5_000_000},
            {"vout": 3},
        ),
        {"vin": (230.0, 1.0), "vout1": (12.0, 18.0), "vout2": (5.0, 1.0)},
    ),
    "dps920ab": Driver(
        pmbus({"vin": 230_000, "iin": 400, "pin": 92_000_000, "vout": 12000, "iout": 7000, "pout": 84_000_000}),
        {"vin": (230.0, 0.4), "vout1": (12.0, 7.0)},
    ),
    # Voltages alone.
    "ltc2978": Driver(pmbus({"vin": 12000, "vout": 1000}, {"vout": 1001}), {}),
    "ltc3880": Driver(
        pmbus({"vin": 12000, "iin": 300, "vout": 1000, "iout": 2000, "pout": 2_000_000}, {"vout": 1800, "iout": 500}),
        {"vin": (12.0, 0.3), "vout1": (1.0, 2.0), "vout2": (1.8, 0.5)},
    ),
    # Ports of a switch that powers others: equal labels.
    "tps23861": Driver(
        {"in0": ("Port1", 48000), "in1": ("Port2", 47000), "in4": ("Input", 48100), "curr1": ("Port1", 100)}
        | {"curr2": ("Port2", 200)},
        {"Port1": (48.0, 0.1), "Port2": (47.0, 0.2)},
    ),
}

FIXED_SHUNT: Mapping[str, Files] = {
    "adm1075": pmbus({"vin": 1200, "iout": 3000, "pin": 3_600_000}),
    "ltc2990": {"in0": 3300, "in1": 5000, "curr1": 400},
    "ltc4215": {"in1": 12000, "in2": 11900, "curr1": 3000, "power1": 36_000_000},
    "ltc4222": {"in1": 12000, "in2": 700, "curr1": 3000, "in3": 5000, "curr2": 100},
    "ltc4245": {"in1": 12000, "curr1": 3000, "power1": 36_000_000, "in5": 11900},
    "ltc4260": {"in1": 48000, "in2": 700, "curr1": 500},
    "ltc4261": {"in1": 700, "in2": 701, "curr1": 500},
    "max16065": {"in0": 1000, "in12": 12000, "curr1": 3000},
}
"""Chips whose drivers compute with a shunt that they cannot be told, or in volts at a pin."""


def install(linux: Linux, name: str, files: Files, *, driver: str | None = None, number: int = 3) -> Path:
    """Put a chip into the /sys of the machine as the kernel does; return the folder of its hwmon."""
    device = linux.hwmon.parent / f"devices/i2c-1/1-00{0x40 + number:02x}"
    folder = device / f"hwmon/hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "device").symlink_to("../..")
    drivers = linux.hwmon.parent / "bus/i2c/drivers" / (driver or name)
    drivers.mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(drivers)
    (linux.hwmon / folder.name).symlink_to(folder)
    for attribute, value in files.items():
        if isinstance(value, tuple):
            (folder / f"{attribute}_label").write_text(f"{value[0]}\n")
        is_input = attribute.removeprefix("temp").lstrip("abcdefghijklmnopqrstuvwxyz").isdecimal()
        number_file = folder / (f"{attribute}_input" if is_input else attribute)
        number_file.write_text(f"{value[1] if isinstance(value, tuple) else value}\n")
    return folder


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Linux:
    machine = Linux(monkeypatch, tmp_path)
    machine.wire(1)
    return machine


def scanned(linux: Linux, capsys: pytest.CaptureFixture[str]) -> dict[int | str | None, tuple[float, float]]:
    """By `input` or `label`, what the devices of a scanned configuration read."""
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    output = capsys.readouterr().out
    assert "Cannot be read" not in output
    if "[[device]]" not in output.replace("#[[device]]", ""):
        return {}
    devices = settings_of(output).devices
    readings = {device.label or device.input: hwmon.Chip((device,), linux.hwmon).read()[0] for device in devices}
    assert len(readings) == len(devices)
    return {key: (reading.volts, reading.amperes) for key, reading in readings.items()}


@pytest.mark.parametrize("name", DRIVERS)
def test_a_scan_configures_exactly_the_rails_of_each_driver(
    linux: Linux, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    install(linux, name, DRIVERS[name].files)
    assert scanned(linux, capsys) == DRIVERS[name].rails


def test_an_input_that_is_switched_off_is_no_device(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    """Its label still counts: NC would mean either of two inputs once it is switched on."""
    inputs: Files = {
        "in1": ("NC", 5000),
        "in2": ("NC", 0),
        "in3": ("VDD", 3300),
        "curr1": 100,
        "curr2": 0,
        "curr3": 50,
        "in1_enable": 1,
        "in2_enable": 0,
        "in3_enable": 1,
    }
    folder = install(linux, "ina3221", inputs)
    for kind in ("in", "curr"):
        (folder / f"{kind}2_input").write_text("")  # the kernel answers ENODATA
    assert scanned(linux, capsys) == {1: (5.0, 0.1), "VDD": (3.3, 0.05)}
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    switch = folder.parents[1] / "hwmon/hwmon*/in2_enable"
    assert f"\n# ina3221 'NC' is switched off: echo 1 | sudo tee {switch}\n" in capsys.readouterr().out
    assert cli.main(["scan"]) == ExitCode.OK
    assert "NC (off)" in capsys.readouterr().out
    for number in (1, 3):
        (folder / f"in{number}_enable").write_text("0\n")
    assert scanned(linux, capsys) == {}


@pytest.mark.parametrize("name", FIXED_SHUNT)
def test_amperes_of_a_shunt_nobody_can_tell_are_refused(
    linux: Linux, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    install(linux, name, FIXED_SHUNT[name])
    assert scanned(linux, capsys) == {}
    for number in range(13):
        with pytest.raises(SensorError, match=r"(no input|voltage without).* its driver cannot be told the shunt of "):
            hwmon.Chip((Device("x", "hwmon", sensor=name, input=number),), linux.hwmon).read()


def test_a_name_unknown_to_us_is_found_by_its_driver(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    """A new chip of an old driver: the driver gives all of them the same files."""
    install(linux, "ina999", DRIVERS["ina226"].files, driver="ina2xx")
    assert scanned(linux, capsys) == {1: (12.0, 1.5)}


@pytest.mark.parametrize("name", ["adm1278", "adm1293"])
def test_a_new_hot_swap_chip_has_the_rail_of_its_driver(
    linux: Linux, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Its vout1 may be another pin, so the rule for PMBus chips of unknown drivers would be wrong."""
    install(linux, "adm9999", DRIVERS[name].files, driver="adm1275")
    assert scanned(linux, capsys) == DRIVERS[name].rails


def test_a_new_chip_of_a_driver_without_a_shunt_is_refused(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    files: Files = {"in1": ("A", 12000), "curr1": ("A", 3000)}
    install(linux, "ltc9999", files, driver="ltc4215")
    assert scanned(linux, capsys) == {}
    with pytest.raises(SensorError, match="cannot be told the shunt"):
        hwmon.Chip((Device("x", "hwmon", sensor="ltc9999", input=1),), linux.hwmon).read()


def test_two_voltages_with_one_label_share_no_current(linux: Linux, capsys: pytest.CaptureFixture[str]) -> None:
    files: Files = {"in1": ("vin", 12000), "in2": ("vin", 5000), "in3": ("VDD", 3300)}
    install(linux, "unheard", {**files, "curr1": ("iin", 3000), "curr2": ("VDD", 100)})
    assert scanned(linux, capsys) == {"VDD": (3.3, 0.1)}
    with pytest.raises(SensorError, match=r"input 2 is a voltage without .* can be configured: label = .VDD.$"):
        hwmon.Chip((Device("x", "hwmon", sensor="unheard", input=2),), linux.hwmon).read()


@pytest.mark.parametrize("label", ["x" * 101, "a\nb", "\x1b[31m", "\u202e"])
def test_a_label_that_no_configuration_holds_is_a_number(
    linux: Linux, capsys: pytest.CaptureFixture[str], label: str
) -> None:
    install(linux, "ina3221", {"in1": (label, 5000), "in2": ("VDD", 3300), "curr1": 100, "curr2": 50})
    assert scanned(linux, capsys) == {1: (5.0, 0.1), "VDD": (3.3, 0.05)}


def test_a_name_with_control_characters_breaks_no_configuration(
    linux: Linux, capsys: pytest.CaptureFixture[str]
) -> None:
    install(linux, "ina226\n[x]", DRIVERS["ina226"].files)
    assert scanned(linux, capsys) == {}


def test_chips_of_all_drivers_side_by_side_have_distinct_names(
    linux: Linux, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (name, driver) in enumerate({**DRIVERS, "second": DRIVERS["ina226"]}.items()):
        install(linux, name if name != "second" else "ina226", driver.files, number=number)
    assert cli.main(["scan", "--toml"]) == ExitCode.OK
    devices = settings_of(capsys.readouterr().out).devices
    assert len(devices) == sum(len(driver.rails) for driver in DRIVERS.values()) + 1
    for device in devices:
        assert isinstance(hwmon.Chip((device,), linux.hwmon).read()[0], Measurement)


@pytest.mark.parametrize("name", [name for name, driver in DRIVERS.items() if driver.rails])
def test_a_simulated_chip_has_the_rails_of_the_real_one(tmp_path: Path, name: str) -> None:
    clock = HandClock()
    devices = [
        Device(str(key), "hwmon", sensor=name, **({"label": key} if isinstance(key, str) else {"input": key}))
        for key in DRIVERS[name].rails
    ]
    rails = {str(key): ConstantRail(*values, clock.monotonic) for key, values in DRIVERS[name].rails.items()}
    SimulatedHwmon(devices, rails, tmp_path, clock.monotonic)
    for device in devices:
        (reading,) = hwmon.Chip((device,), tmp_path).read()
        assert (reading.volts, reading.amperes) == (rails[device.name].volts, rails[device.name].amperes)


@pytest.mark.parametrize("name", ["ina233", "lm5066", "ltc4282", "adm1278"])
def test_a_simulated_input_of_a_labelled_chip_is_read_by_number(tmp_path: Path, name: str) -> None:
    clock = HandClock()
    device = Device("load", "hwmon", sensor=name, input=1)
    SimulatedHwmon([device], {"load": ConstantRail(12.0, 1.5, clock.monotonic)}, tmp_path, clock.monotonic)
    assert hwmon.Chip((device,), tmp_path).read() == (Measurement(12.0, 1.5),)
