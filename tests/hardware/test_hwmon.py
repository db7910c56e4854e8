"""Chips that the kernel owns, read from the files of its drivers."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.chips import Measurement, hwmon
from agent.errors import PermissionDeniedError, SensorError
from agent.measure.readings import Failure, Reading
from agent.settings import Device
from agent.simulate.clock import HandClock
from agent.simulate.hwmon import SimulatedHwmon
from agent.simulate.rails import ConstantRail
from tests.bench import Bench, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable


class Chip:
    """A chip of hwmon with its one device."""

    def __init__(self, chip: hwmon.Chip) -> None:
        self._chip = chip

    def read(self) -> Measurement:
        (measurement,) = self._chip.read()
        return measurement

    def where(self) -> str:
        (where,) = self._chip.where()
        return where


def chip(folder: Path, sensor: str = "ina3221", **keys: Any) -> Chip:
    return Chip(hwmon.Chip((Device("module", "hwmon", sensor=sensor, **keys),), folder))


def write(folder: Path, name: str, inputs: dict[int, tuple[str | None, int, int]]) -> Path:
    """A chip's folder: by input its label, millivolts and milliamperes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{name}\n")
    for number, (label, millivolts, milliamperes) in inputs.items():
        if label is not None:
            (folder / f"in{number}_label").write_text(f"{label}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
    return folder


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    """An Orin: a thermometer, then the monitor, whose driver has a labelled sum of shunt voltages."""
    write(tmp_path / "hwmon0", "tmp451", {})
    monitor = write(
        tmp_path / "hwmon1",
        "ina3221",
        {1: ("VDD_IN", 19072, 992), 2: ("VDD_CPU_GPU_CV", 19064, -40), 3: ("VDD_SOC", 19048, 312)},
    )
    (monitor / "in7_label").write_text("sum of shunt voltages\n")
    (monitor / "in7_input").write_text("12\n")
    return tmp_path


def test_an_input_is_found_by_the_chips_name_and_its_label(orin: Path) -> None:
    assert chip(orin, label="VDD_IN").read() == Measurement(19.072, 0.992)
    assert chip(orin, label="VDD_CPU_GPU_CV").read() == Measurement(19.064, -0.04)


def test_an_input_is_found_by_its_number(orin: Path) -> None:
    assert chip(orin, input=3).read() == Measurement(19.048, 0.312)


def test_an_input_is_found_on_the_second_chip_of_one_name(orin: Path) -> None:
    write(orin / "hwmon2", "ina3221", {1: ("VDDQ", 5000, 100)})
    assert chip(orin, label="VDDQ").read() == Measurement(5.0, 0.1)


def test_ambiguous_inputs_are_refused_with_both_places(
    orin: Path,
) -> None:
    """As on an AGX Orin: two chips of one name, and two inputs labelled NC on one of them."""
    write(orin / "hwmon2", "ina3221", {1: ("NC", 5000, 100), 2: ("VDDQ", 5001, 101), 3: ("NC", 5002, 102)})
    for keys, wanted in (({"label": "NC"}, 'label "NC"'), ({"input": 1}, "input 1")):
        with pytest.raises(SensorError, match=f"hwmon ina3221: 2 inputs are {wanted}: .*hwmon2 input 1.*by its folder"):
            chip(orin, **keys).read()
    with pytest.raises(SensorError, match="2 inputs are label"):
        chip(orin, str(orin / "hwmon2"), label="NC").read()
    assert chip(orin, str(orin / "hwmon2"), input=3).read() == Measurement(5.002, 0.102)


@pytest.mark.parametrize("folder", ["hwmon4", "1-0040", "1-0040/hwmon/hwmon9"])
def test_an_input_is_found_by_its_chip_or_hwmon_folder(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "hwmon4", "ina226", {1: (None, 12000, 1500)})
    (tmp_path / "1-0040").mkdir()
    write(tmp_path / "1-0040/hwmon/hwmon9", "ina226", {1: (None, 12000, 1500)})
    found = chip(tmp_path, str(tmp_path / folder), input=1)
    assert found.read() == Measurement(12.0, 1.5)


def test_a_changed_hwmon_number_costs_one_reading(orin: Path) -> None:
    monitor = chip(orin, label="VDD_IN")
    monitor.read()
    (orin / "hwmon1").rename(orin / "hwmon5")
    with pytest.raises(SensorError, match="No such file"):
        monitor.read()
    assert monitor.read() == Measurement(19.072, 0.992)


def register(root: Path, device: str, number: int, name: str, millivolts: int) -> None:
    """A chip as the kernel registers it: hwmonN is below its device, and linked from the class folder."""
    folder = write(root / "devices" / device / "hwmon" / f"hwmon{number}", name, {1: (None, millivolts, 1000)})
    (root / "class").mkdir(exist_ok=True)
    (root / "class" / folder.name).symlink_to(folder)


@pytest.mark.reliability(
    6.3,
    "the drivers of three chips loaded again in another order, so that their hwmonN change places between two readings",
    "one error, then the same rails again: never the volts of the chip that has the number now",
)
def test_a_hwmon_number_that_moves_brings_no_other_rail(tmp_path: Path, measured: Callable[[str], None]) -> None:
    chips = {"1-0040": ("ina226", 19000), "1-0041": ("ina228", 5000), "1-0045": ("ina3221", 12000)}
    monitors = {
        device: [chip(tmp_path / "class", sensor, input=1) for sensor in (name, str(tmp_path / "devices" / device))]
        for device, (name, _) in chips.items()
    }
    errors = 0
    for order in permutations(chips):
        for number, device in enumerate(order):
            register(tmp_path, device, number, *chips[device])
        for device, (_, millivolts) in chips.items():
            for monitor in monitors[device]:
                try:
                    found = monitor.read()
                except SensorError:
                    errors += 1
                    found = monitor.read()
                assert found == Measurement(millivolts / 1000, 1.0)
        shutil.rmtree(tmp_path / "devices")
        shutil.rmtree(tmp_path / "class")
    assert errors
    measured(f"6 orders, by name and by folder: {errors} errors, 0 wrong numbers")


@pytest.mark.parametrize(
    ("sensor", "keys", "message"),
    [
        (
            "ina3221",
            {"label": "VDD"},
            r'^hwmon ina3221: no label "VDD"; can be configured: label = "VDD_IN", .*, label = "VDD_SOC"$',
        ),
        ("ina3221", {"input": 4}, r'^hwmon ina3221: no input 4; can be configured: label = "VDD_IN", '),
        ("ina3221", {"label": "sum of shunt voltages"}, r'" is a voltage without the current of that rail; can be '),
        (
            "tmp451",
            {"input": 1},
            r"^hwmon tmp451: no input 1; its driver documents no voltage and current of one rail$",
        ),
        (
            "ina226",
            {"input": 1},
            r"^no hwmon chip is named ina226 \(under .*: ina3221, tmp451\); is its driver loaded\? wattpush scan ",
        ),
        ("/sys/no/such", {"input": 1}, r"^hwmon /sys/no/such: no such folder; is its kernel driver loaded\?$"),
    ],
)
def test_a_missing_input_is_reported_with_those_present(
    orin: Path, sensor: str, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(SensorError, match=message):
        chip(orin, sensor, **keys).read()


ABSURD = {
    "nothing": "",
    "letters": "abc\n",
    "a fraction": "1.5\n",
    "a digit that is not ASCII": "\N{SUPERSCRIPT TWO}\n",
    "Python's underscore": "1_000\n",
    "a plus sign": "+5\n",
    "400 digits": "1" * 400 + "\n",
    "400 zeros before it": "0" * 400 + "5\n",
    "100 kV and 100 kA": "99999999\n",
    "below zero by far": "-99999999\n",
}


@pytest.mark.reliability(
    6.2,
    "numbers of the kernel that are absurd or endless; a FIFO, a folder, a device or a loop in place of a file",
    "an error that names the file; nothing is waited for",
)
@pytest.mark.parametrize("name", ["in1_input", "curr1_input", "power1_input"])
@pytest.mark.parametrize("content", ABSURD.values(), ids=ABSURD)
def test_an_absurd_number_is_an_error_that_names_its_file(
    tmp_path: Path, content: str, name: str, measured: Callable[[str], None]
) -> None:
    folder = write(tmp_path / "hwmon1", "ina226", {1: (None, 12000, 1500)})
    (folder / "power1_input").write_text("18000000\n")
    assert chip(tmp_path, "ina226", input=1).read() == Measurement(12.0, 1.5)
    (folder / name).write_text(content)
    message = f"hwmon1/{name}: |hwmon1/.* A are not the -?100.000 W that the chip itself measures"
    with pytest.raises(SensorError, match=message):
        chip(tmp_path, "ina226", input=1).read()
    measured(f"{len(ABSURD)} contents, such as 400 digits, `1_000` and 99999999")


@pytest.mark.reliability(
    6.2,
    "numbers of the kernel that are absurd or endless; a FIFO, a folder, a device or a loop in place of a file",
    "an error that names the file; nothing is waited for",
)
@pytest.mark.parametrize("name", ["in1_input", "curr1_input"])
@pytest.mark.parametrize("kind", ["FIFO", "folder", "endless device", "loop"])
def test_what_is_not_a_file_is_never_waited_for(orin: Path, kind: str, name: str) -> None:
    file = orin / "hwmon1" / name
    file.unlink()
    if kind == "FIFO":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("/dev/zero" if kind == "endless device" else file)
    for other in ("name", "in1_label"):  # of a chip beside it
        (orin / "hwmon7").mkdir(exist_ok=True)
        os.mkfifo(orin / "hwmon7" / other)
    with pytest.raises(SensorError, match=f"hwmon1/{name}: |no label"):
        chip(orin, label="VDD_IN").read()
    assert chip(orin, label="VDD_SOC").read() == Measurement(19.048, 0.312)


def test_an_unreadable_file_is_named_in_the_error(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind root, and tests may run as root: so opening raises what the kernel would.
    open_file = os.open

    def refuse(path: Path, flags: int) -> int:
        if path.name == "in1_input":
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, flags)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionDeniedError, match=r"hwmon1/in1_input: permission denied; sudo chmod a\+r /"):
        chip(orin, label="VDD_IN").read()


def test_a_failing_kernel_chip_recovers_and_affects_no_other(orin: Path) -> None:
    text = "".join(
        f'[[device]]\nname = "{name}"\nchip = "hwmon"\nsensor = "ina3221"\nlabel = "{label}"\n'
        for name, label in (("module", "VDD_IN"), ("soc", "VDD_SOC"))
    )
    bench = Bench(settings_of(text, 'sample_interval = "1s"\n'), hwmon_folder=orin)
    bench.rails = {}  # the files say what is right
    assert bench.kinds(bench.run()) == {"module": Reading, "soc": Reading}
    file = orin / "hwmon1/in1_input"
    file.rename(orin / "away")
    outcomes = [bench.run_next() for _ in range(60)]
    assert all(bench.kinds(outcome) == {"module": Failure, "soc": Reading} for outcome in outcomes)
    (orin / "away").rename(file)
    bench.clock.sleep(10.0)
    assert bench.kinds(bench.run()) == {"module": Reading, "soc": Reading}


# Which voltage and current are of one rail

VIN = ("vin", 12000)


def write_chip(folder: Path, name: str, **files: int | tuple[str, int]) -> Path:
    """A chip's folder: by attribute, such as in1, its value, or its label and value."""
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for attribute, value in files.items():
        if isinstance(value, tuple):
            (folder / f"{attribute}_label").write_text(f"{value[0]}\n")
        (folder / f"{attribute}_input").write_text(f"{value[1] if isinstance(value, tuple) else value}\n")
    return folder


@pytest.mark.reliability(
    6.1,
    "a chip of the kernel whose first voltage and first current are of two rails (12 V in, 30 A out)",
    "refused; the error names what can be configured",
)
@pytest.mark.parametrize("power", [("pout1", 27_000_000), 27_000_000])
def test_a_regulators_input_voltage_never_meets_its_output_current(
    tmp_path: Path, power: tuple[str, int] | int, measured: Callable[[str], None]
) -> None:
    write_chip(tmp_path / "hwmon0", "ir38064", in1=VIN, in2=("vout1", 900), curr1=("iout1", 30000), power1=power)
    offered = 'is a voltage without the current of that rail; can be configured: label = "vout1"$'
    with pytest.raises(SensorError, match=f'^hwmon ir38064: label "vin" {offered}'):
        chip(tmp_path, "ir38064", label="vin").read()
    with pytest.raises(SensorError, match=f"^hwmon ir38064: input 1 {offered}"):
        chip(tmp_path, "ir38064", input=1).read()
    assert chip(tmp_path, "ir38064", label="vout1").read() == Measurement(0.9, 30.0)
    assert [found.label for found in hwmon.power_inputs(tmp_path)] == ["vout1"]
    measured("12 V x 30 A = 360 W is refused; the 27 W of the output are read")


CHIPS = {
    "in0 is the shunt": ("ina226", {"in0": 12, "in1": 12000, "curr1": 1500, "power1": 18_000_000}, {1: (12.0, 1.5)}),
    "in0 is the shunt of an ina238": ("ina238", {"in0": 12, "in1": 48000, "curr1": -1500}, {1: (48.0, -1.5)}),
    "in4 is a shunt, curr4 a sum": (
        "ina3221",
        {"in1": 5000, "in3": 3300, "in4": 40, "curr1": 100, "curr3": 200, "curr4": 300},
        {1: (5.0, 0.1), 3: (3.3, 0.2)},
    ),
    "in0 is the rail, in1 the chip's own supply": (
        "ltc2947",
        {"in0": ("VP-VM", 12000), "in1": ("DVCC", 5000), "curr1": ("IP-IM", 2000), "power1": ("Power", 24_000_000)},
        {0: (12.0, 2.0)},
    ),
    "in2 is another pin": (
        "ltc2945",
        {"in1": 48000, "in2": 1000, "curr1": 500, "power1": 24_000_000},
        {1: (48.0, 0.5)},
    ),
    "the current out is that in": (
        "adm1278",
        {"in1": ("vin1", 12000), "in2": ("vout1", 11900), "curr1": ("iout1", 3000), "power1": ("pin1", 36_000_000)},
        {1: (12.0, 3.0)},
    ),
    "vout1 is another pin": (
        "adm1293",
        {"in1": ("vin1", 12000), "in2": ("vout1", 900), "curr1": ("iout1", 3000)},
        {1: (12, 3)},
    ),
    "values that need scaling": ("adm1075", {"in1": ("vin1", 12000), "curr1": ("iout1", 3000)}, {}),
    "a PMBus supply": (
        "dps920ab",
        {
            "in1": ("vin", 230_000),
            "in2": ("vout1", 12000),
            "in3": ("vout2", 5000),
            "curr1": ("iin", 400),
            "curr2": ("iout1", 7000),
            "power1": ("pin", 92_000_000),
            "power2": ("pout1", 84_000_000),
        },
        {1: (230.0, 0.4), 2: (12.0, 7.0)},
    ),
    "no labels, unknown driver": ("other", {"in1": 12000, "curr1": 3000, "power1": 36_000_000}, {}),
    "equal labels": ("other", {"in5": ("VDD", 1000), "in6": ("X", 2), "curr2": ("VDD", 500)}, {5: (1.0, 0.5)}),
    "two currents with one label": ("other", {"in1": ("NC", 1), "curr1": ("NC", 2), "curr2": ("NC", 3)}, {}),
    "a thermometer": ("coretemp", {"temp1": 40000}, {}),
}


@pytest.mark.parametrize(("name", "files", "right"), CHIPS.values(), ids=CHIPS)
def test_only_volts_and_amperes_of_one_rail_are_read(
    tmp_path: Path, name: str, files: dict[str, int | tuple[str, int]], right: dict[int, tuple[float, float]]
) -> None:
    folder = write_chip(tmp_path / "hwmon0", name, **files)
    found = {}
    for number in range(9):
        with suppress(SensorError):
            read = chip(tmp_path, str(folder), input=number).read()
            found[number] = (read.volts, read.amperes)
    assert found == right
    assert [one.number for one in hwmon.power_inputs(tmp_path)] == list(right)


def test_a_power_of_another_rail_refuses_the_pair(tmp_path: Path) -> None:
    """An LTC2945 that is set up to multiply with ADIN, say 5 V behind a regulator."""
    folder = write_chip(tmp_path / "hwmon0", "ltc2945", in1=12000, curr1=1000, power1=5_000_000)
    monitor = chip(tmp_path, "ltc2945", input=1)
    with pytest.raises(SensorError, match=r"12.000 V x 1.000 A are not the 5.000 W that the chip itself measures"):
        monitor.read()
    (folder / "power1_input").write_text("12100000\n")
    assert monitor.read() == Measurement(12.0, 1.0)
    (folder / "curr1_input").write_text("3000\n")  # confirmed: a load that changes meanwhile is no error
    assert monitor.read() == Measurement(12.0, 3.0)


def test_a_small_power_neither_refuses_nor_confirms(tmp_path: Path) -> None:
    folder = write_chip(tmp_path / "hwmon0", "ina226", in1=5000, curr1=10, power1=200_000)
    monitor = chip(tmp_path, "ina226", input=1)
    assert monitor.read() == Measurement(5.0, 0.01)
    (folder / "curr1_input").write_text("1000\n")
    with pytest.raises(SensorError, match="that the chip itself measures"):
        monitor.read()


@given(st.binary(max_size=64))
def test_any_content_is_a_plausible_number_or_an_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = write_chip(Path(root) / "hwmon0", "ina226", in1=5000, curr1=10)
        (folder / "in1_input").write_bytes(content)
        try:
            volts = chip(Path(root), "ina226", input=1).read().volts
        except SensorError:
            return
        assert volts == int(content) / 1000
        assert -1 < volts <= 36


# The shunt that a driver computes with

FILE_OF_INA226, FILE_OF_INPUT_2, BINDING = "shunt_resistor", "shunt2_resistor", "device/of_node/shunt-resistor"
BINDING_OF_ADI = "device/of_node/shunt-resistor-micro-ohms"
DEFAULT = " (the driver's default: compare it with the board)"


@pytest.mark.parametrize(
    ("name", "number", "file", "content", "said"),
    [
        ("ina226", 1, FILE_OF_INA226, b"2000\n", ", computed for a shunt of 0.002 ohm"),
        ("ina226", 1, FILE_OF_INA226, b"10000\n", f", computed for a shunt of 0.01 ohm{DEFAULT}"),
        ("ina226", 1, FILE_OF_INA226, b"nonsense\n", ""),
        ("ina260", 1, None, b"", ""),  # its shunt is inside
        ("ina3221", 2, FILE_OF_INPUT_2, b"5000\n", ", computed for a shunt of 0.005 ohm"),
        ("ina3221", 1, FILE_OF_INPUT_2, b"5000\n", ""),
        ("ina238", 1, BINDING, (15_000).to_bytes(4, "big"), ", computed for a shunt of 0.015 ohm"),
        ("ina238", 1, BINDING, b"12", f", computed for a shunt of 0.01 ohm{DEFAULT}"),
        ("ina238", 1, None, b"", f", computed for a shunt of 0.01 ohm{DEFAULT}"),
        ("ltc2945", 1, BINDING_OF_ADI, (500).to_bytes(4, "big"), ", computed for a shunt of 0.0005 ohm"),
        ("ltc2945", 1, None, b"", f", computed for a shunt of 0.001 ohm{DEFAULT}"),
    ],
)
def test_the_shunt_of_the_driver_is_told(  # noqa: PLR0917 - a table
    tmp_path: Path, name: str, number: int, file: str | None, content: bytes, said: str
) -> None:
    folder = write_chip(tmp_path / "hwmon0", name, in1=5000, in2=5000, curr1=100, curr2=100)
    if file is not None:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(content)
    monitor = chip(tmp_path, name, input=number)
    monitor.read()
    assert monitor.where() == f"{folder}/in{number}_input and curr{number}_input{said}"


def test_labelled_rails_tell_their_shunt_before_the_label(tmp_path: Path) -> None:
    folder = write_chip(tmp_path / "hwmon0", "lm5066", in1=VIN, curr1=("iin", 100))
    monitor = chip(tmp_path, "lm5066", label="vin")
    monitor.read()
    shown = f"{folder}/in1_input and curr1_input, computed for a shunt of 0.001 ohm{DEFAULT} (vin)"
    assert monitor.where() == shown


# NVIDIA's older driver


def write_legacy(drivers: Path, place: str, inputs: dict[int, tuple[str, int, int]], number: int = 0) -> Path:
    """A chip of the driver ina3221x as JetPack 4 shows it: by input, from zero, its label, millivolts, milliamperes."""
    folder = drivers / "ina3221x" / place / f"iio:device{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina3221x\n")
    for channel, (label, millivolts, milliamperes) in inputs.items():
        (folder / f"rail_name_{channel}").write_text(f"{label}\n")
        (folder / f"in_voltage{channel}_input").write_text(f"{millivolts}\n")
        (folder / f"in_current{channel}_input").write_text(f"{milliamperes}\n")
        (folder / f"in_power{channel}_input").write_text(f"{millivolts * milliamperes // 1000}\n")
    return folder


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    """A Jetson Nano, and an Xavier's second chip beside it."""
    write_legacy(
        tmp_path,
        "6-0040",
        {0: ("POM_5V_IN", 5088, 412), 1: ("POM_5V_GPU", 5080, 40), 2: ("POM_5V_CPU", 5072, -8)},
    )
    write_legacy(tmp_path, "1-0041", {0: ("VDDRQ", 19000, 100)}, 1)
    return tmp_path


def legacy_chip(drivers: Path, sensor: str = "ina3221x", **keys: Any) -> Chip:
    device = Device("module", "hwmon", sensor=sensor, **keys)
    return Chip(hwmon.Chip((device,), drivers / "no hwmon", drivers))


def test_an_ina3221x_input_is_found_by_label_or_number(nano: Path) -> None:
    assert legacy_chip(nano, label="POM_5V_IN").read() == Measurement(5.088, 0.412)
    assert legacy_chip(nano, label="POM_5V_CPU").read() == Measurement(5.072, -0.008)
    assert legacy_chip(nano, label="VDDRQ").read() == Measurement(19.0, 0.1)
    assert legacy_chip(nano, str(nano / "ina3221x/6-0040"), input=2).read() == Measurement(5.08, 0.04)
    assert legacy_chip(nano, str(nano / "ina3221x/6-0040/iio:device0"), input=1).read() == Measurement(5.088, 0.412)


def test_an_ina3221x_driver_under_hwmon_is_read_too(tmp_path: Path) -> None:
    write(tmp_path / "ina3221x/1-0040/hwmon/hwmon3", "other", {1: ("VDD_IN", 5000, 100)})
    assert legacy_chip(tmp_path, label="VDD_IN").read() == Measurement(5.0, 0.1)


def test_a_missing_ina3221x_input_is_reported_with_those_present(nano: Path) -> None:
    with pytest.raises(SensorError, match=r'"POM"; can be configured: label = "VDDRQ", label = "POM_5V_IN", '):
        legacy_chip(nano, label="POM").read()
    with pytest.raises(SensorError, match=r"^no hwmon chip is named ina3221 "):
        legacy_chip(nano, "ina3221", input=1).read()


def test_a_scan_finds_ina3221x_inputs_by_their_stable_folder(nano: Path) -> None:
    found = hwmon.power_inputs(nano / "no hwmon", nano)
    assert [(one.name, one.folder.name, one.number, one.label) for one in found] == [
        ("ina3221x", "1-0041", 1, "VDDRQ"),
        ("ina3221x", "6-0040", 1, "POM_5V_IN"),
        ("ina3221x", "6-0040", 2, "POM_5V_GPU"),
        ("ina3221x", "6-0040", 3, "POM_5V_CPU"),
    ]


def test_a_simulated_ina3221x_is_read_like_the_real_one(tmp_path: Path) -> None:
    clock = HandClock()
    device = Device("module", "hwmon", sensor="ina3221x", label="POM_5V_IN")
    other = Device("gpu", "hwmon", sensor="ina3221x", input=1)
    rails = {"module": ConstantRail(5.0, 0.4, clock.monotonic), "gpu": ConstantRail(4.0, 0.1, clock.monotonic)}
    tree = SimulatedHwmon([device, other], rails, tmp_path, clock.monotonic)
    folder = str(tree.folders["ina3221x"])
    assert sorted(path.name for path in tree.folders["ina3221x"].iterdir()) == [
        "in_current0_input",
        "in_current1_input",
        "in_voltage0_input",
        "in_voltage1_input",
        "name",
        "rail_name_1",
    ]
    assert legacy_chip(tmp_path, folder, label="POM_5V_IN").read() == Measurement(5.0, 0.4)
    assert legacy_chip(tmp_path, folder, input=1).read() == Measurement(4.0, 0.1)
