"""Chips that the kernel owns, read from the files of its drivers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.chips import Measurement, hwmon
from agent.errors import PermissionDeniedError, SensorError
from agent.measure.readings import Failure, Reading
from agent.settings import Device
from agent.simulate.clock import HandClock
from agent.simulate.hwmon import SimulatedHwmon
from agent.simulate.rails import ConstantRail
from tests.bench import Bench, settings_of

if TYPE_CHECKING:
    from pathlib import Path


def chip(folder: Path, sensor: str = "ina3221", **keys: Any) -> hwmon.Chip:
    return hwmon.Chip(Device("module", "hwmon", sensor=sensor, **keys), folder)


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


@pytest.mark.parametrize(
    ("sensor", "keys", "message"),
    [
        (
            "ina3221",
            {"label": "VDD"},
            r'^hwmon ina3221: no label "VDD" \(labels there: VDD_CPU_GPU_CV, VDD_IN, VDD_SOC\)$',
        ),
        ("ina3221", {"input": 4}, r"^hwmon ina3221: no input 4 \(labels there: VDD_CPU_GPU_CV, VDD_IN, VDD_SOC\)$"),
        ("ina3221", {"label": "sum of shunt voltages"}, r"^hwmon ina3221: no label"),
        ("ina226", {"input": 1}, r"^no hwmon chip is named ina226 \(under .*: ina3221, tmp451\)$"),
        ("/sys/no/such", {"input": 1}, r"^hwmon /sys/no/such: no such folder; is its kernel driver loaded\?$"),
    ],
)
def test_a_missing_input_is_reported_with_those_present(
    orin: Path, sensor: str, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(SensorError, match=message):
        chip(orin, sensor, **keys).read()


@pytest.mark.parametrize("content", ["", "abc\n", "1.5\n", "\N{SUPERSCRIPT TWO}\n"])
def test_a_file_without_a_number_is_named_in_the_error(orin: Path, content: str) -> None:
    (orin / "hwmon1/curr1_input").write_text(content)
    with pytest.raises(SensorError, match="hwmon1/curr1_input"):
        chip(orin, label="VDD_IN").read()


def test_an_unreadable_file_is_named_in_the_error(orin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Permissions do not bind root, and tests may run as root: so the read itself raises what the kernel would.
    from pathlib import Path as AnyPath

    read_text = AnyPath.read_text

    def refuse(self: Path, encoding: str | None = None) -> str:
        if self.name == "in1_input":
            raise PermissionError(13, "Permission denied", str(self))
        return read_text(self, encoding)

    monkeypatch.setattr(AnyPath, "read_text", refuse)
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


def legacy_chip(drivers: Path, sensor: str = "ina3221x", **keys: Any) -> hwmon.Chip:
    device = Device("module", "hwmon", sensor=sensor, **keys)
    return hwmon.Chip(device, drivers / "no hwmon", drivers)


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
    with pytest.raises(SensorError, match=r'"POM" \(labels there: POM_5V_CPU, POM_5V_GPU, POM_5V_IN, VDDRQ\)$'):
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
