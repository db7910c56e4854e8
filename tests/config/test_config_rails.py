"""The key `rail` of a board that measures itself."""

from __future__ import annotations

import pytest

from agent import chips
from agent.config import parse
from agent.errors import ConfigError
from agent.settings import Device, Settings

HEAD = 'hostname = "n"\n[pushgateway]\nurl = "http://gateway:9091"\n'


def parsed(*devices: str) -> Settings:
    text = HEAD + "".join(f"[[device]]\n{device}\n" for device in devices)
    return parse(text, chips.options(), default_hostname="n", environ={"HOME": "/home/pi"})


def problems(*devices: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parsed(*devices)
    return caught.value.problems


def on(rail: str, name: str = "core", more: str = "") -> str:
    return f'name = "{name}"\nchip = "rpi-pmic"\nrail = "{rail}"\n{more}'


def test_rails_of_one_board_are_one_chip() -> None:
    module = 'name = "module"\nchip = "hwmon"\nsensor = "ina3221"\ninput = 1\n'
    settings = parsed(on("all", "board"), module, on("VDD_CORE"))
    board, core = Device("board", "rpi-pmic", rail="all"), Device("core", "rpi-pmic", rail="VDD_CORE")
    assert (settings.devices[0], settings.devices[2]) == (board, core)
    assert settings.kernel_chips() == ((board, core), (settings.devices[1],))
    assert settings.chips() == ()
    assert [device.source for device in settings.devices] == ["rpi-pmic all", "hwmon ina3221 1", "rpi-pmic VDD_CORE"]


def test_a_rail_is_required_and_nothing_else_is_taken() -> None:
    assert problems('name = "core"\nchip = "rpi-pmic"\n') == (
        'device[1] "core": rail: missing; write rail = "all" for the sum, or the name of a rail',
    )
    why = "not used by rpi-pmic: the board measures itself; remove this line"
    for line in ("bus = 1", "address = 0x40", "input = 1", "shunt_ohms = 0.1", 'sensor = "x"', 'label = "x"'):
        assert problems(on("all", more=line)) == (f'device[1] "core": {line.split()[0]}: {why}',)
    assert problems(on("all", more='mux = "m0"\nchannel = 1\naveraging = "auto"')) == tuple(
        f'device[1] "core": {key}: {why}' for key in ("mux", "channel", "averaging")
    )


def test_a_folder_with_a_number_of_hwmon_is_warned_about() -> None:
    stable = "/sys/bus/i2c/devices/1-0040"
    for sensor in ("/sys/class/hwmon/hwmon3", "/sys/class/hwmon/hwmon12/", f"{stable}/hwmon/hwmon3"):
        (warning,) = parsed(f'name = "cpu"\nchip = "hwmon"\nsensor = "{sensor}"\ninput = 1').warnings
        told = (
            f'device[1] "cpu": sensor: "{sensor}" may be another chip after the next boot; write the name of the chip'
        )
        assert warning.startswith(told)
    for sensor in (stable, "ina3221", "hwmon3"):
        assert parsed(f'name = "cpu"\nchip = "hwmon"\nsensor = "{sensor}"\ninput = 1').warnings == ()


def test_the_sum_in_other_letters_is_refused() -> None:
    assert problems(on("All")) == ('device[1] "core": rail: "All"; did you mean "all"?',)


def test_a_rail_on_another_chip_is_refused() -> None:
    for chip in ('chip = "ina260"\nbus = 1\naddress = 0x40', 'chip = "hwmon"\nsensor = "x"\ninput = 1'):
        (problem,) = problems(f'name = "cpu"\nrail = "all"\n{chip}')
        assert problem.endswith("only by rpi-pmic; remove this line")


@pytest.mark.parametrize("rail", ["EXT5V", "BATT"])
def test_a_rail_without_current_is_refused(rail: str) -> None:
    assert problems(on(rail)) == (
        f'device[1] "core": rail: "{rail}" has volts but no amperes, so its power is not known',
    )


def test_two_devices_on_one_rail_are_refused() -> None:
    assert problems(on("all", "a"), on("VDD_CORE", "b"), on("all", "c")) == (
        'device[3] "c": rail: "all" is already read by device[1] "a"',
    )


def test_a_rail_beside_the_sum_is_warned_about() -> None:
    settings = parsed(on("all", "board"), on("VDD_CORE"), on("HDMI", "screen"))
    assert settings.warnings == tuple(
        f'device[{number}] "{name}": rail: its power is in device[1] "board" too, so a sum over all devices, '
        "as in the dashboards, counts it twice; remove one of them"
        for number, name in ((2, "core"), (3, "screen"))
    )
    assert settings.parts_of_sums() == {"core", "screen"}
    for alone in (parsed(on("all", "board")), parsed(on("VDD_CORE"), on("HDMI", "screen"))):
        assert (alone.warnings, alone.parts_of_sums()) == ((), frozenset())
