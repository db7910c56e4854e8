"""What is suggested for a chip that is not supported: another spelling of it, never another chip."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import chips
from agent.chips import _kernel_drivers
from agent.config import known_parts
from agent.config.known_parts import about_chip, about_mux
from agent.i2c.muxes import mux_names
from agent.settings import CHIP_ALIASES

PARTS = sorted({*CHIP_ALIASES, *(name for name in chips.names() if name.startswith("ina"))})


def suggested(text: str) -> str | None:
    found = re.search(r'did you mean "([^"]+)"', text)
    return None if found is None else found[1]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "spelling",
    [
        *("{letters}{number}B", "{letters}_{number}", "{letters}-{number}", "{letters} {number}", "{number}"),
        *("in{number}", "CJMCU-{number}", "GY-INA{number}", "INA{number}AIDGSR", "INA{number}-Q1"),
    ],
)
def test_another_spelling_of_a_part_is_recognised(part: str, spelling: str) -> None:
    given_name = spelling.format(letters=part[:3].upper(), number=part[3:])
    assert suggested(about_chip(given_name, chips.options())) == part


@pytest.mark.parametrize(("name", "meant"), [("ina26O", "ina260"), ("lNA219", "ina219"), ("ina322l", "ina3221")])
def test_letters_that_look_like_digits_are_forgiven(name: str, meant: str) -> None:
    assert suggested(about_chip(name, chips.options())) == meant


@given(
    st.integers(0, 99999), st.sampled_from(["ina", "INA", "in", "ian", "", "cjmcu-"]), st.sampled_from(["", "a", "x"])
)
def test_another_number_never_suggests_a_chip(number: int, letters: str, suffix: str) -> None:
    meant = suggested(about_chip(f"{letters}{number}{suffix}", chips.options()))
    assert meant is None or re.findall(r"\d+", meant) == [str(number)]


@pytest.mark.parametrize("name", ["ina225", "ina227", "ina2260", "imx219", "ltc228", "ads1219", "xyz", "", "260260"])
def test_another_part_names_the_supported_ones_and_packages(name: str) -> None:
    assert about_chip(name, chips.options()).endswith("; if a package provides it, install that package")
    assert suggested(about_chip(name, chips.options())) is None


@pytest.mark.parametrize("name", [*mux_names(), "TCA9548A", "PCA-9546", "tca9548", "CJMCU-9548"])
def test_a_mux_is_sent_to_its_own_table(name: str) -> None:
    assert about_chip(name, chips.options()) == "; describe a mux in a [[mux]] table"


@pytest.mark.parametrize(
    ("name", "sensor"),
    [(name, name.lower()) for name in ("INA233", "LTC2945", "ltc2947", "adm1275", "ina3221x", "lm5066i")]
    + [("INA780B", "ina780"), ("INA233AIDGSR", "ina233")],
)
def test_a_part_that_the_kernel_reads_is_sent_to_hwmon(name: str, sensor: str) -> None:
    text = about_chip(name, chips.options())
    assert f'chip = "hwmon" and sensor = "{sensor}"' in text


def test_the_chip_of_a_jetson_has_its_name_in_hwmon() -> None:
    assert 'sensor = "ina3221"' in about_chip("Jetson", chips.options())


def test_every_sensor_of_the_kernel_has_rails_in_hwmon() -> None:
    known = {name for row in (*_kernel_drivers.NUMBERED, *_kernel_drivers.LABELLED) for name in row.names}
    # Drivers of PMBus need no row: their labels say which values are of one rail.
    sensors = {known_parts._HWMON_NAMES.get(part, part) for part in known_parts._KERNEL_SENSORS}
    assert sensors - known == {"ltc4286"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("INA745B", "wattpush has no driver for the INA745: if a package provides it, install that package"),
        ("INA745", "wattpush has no driver for the INA745: if a package provides it, install that package"),
        ("ads1115", "the ADS1115 measures voltages only"),
        ("ACS-712", "the ACS712 has an analogue output"),
    ],
)
def test_a_part_that_cannot_be_read_says_why(name: str, why: str) -> None:
    assert why in about_chip(name, chips.options())


def test_no_part_that_is_called_unread_is_read() -> None:
    told = {*known_parts._UNREAD_MONITORS, *known_parts._CONVERTERS, *known_parts._ANALOGUE}
    assert not told & {*chips.names(), *CHIP_ALIASES, *known_parts._KERNEL_SENSORS}


@pytest.mark.parametrize(
    ("name", "meant"), [("hwmom", "hwmon"), ("HW-MON", "hwmon"), ("rpi_pmic", "rpi-pmic"), ("RPi5", "rpi-pmic")]
)
def test_a_misspelt_word_suggests_the_word(name: str, meant: str) -> None:
    assert suggested(about_chip(name, chips.options())) == meant


@pytest.mark.parametrize("name", ["ina226", "INA3221", "ltc2945", "LTC2945CUD", "hwmon", "cjmcu-ina219"])
def test_a_power_monitor_as_a_mux_is_sent_to_devices(name: str) -> None:
    assert about_mux(name) == "; describe a power monitor in a [[device]] table"


@pytest.mark.parametrize("name", ["pca9542", "PCA9542APW", "pca9849", "ltc4306", "MAX7357"])
def test_a_mux_that_only_the_kernel_drives_is_sent_there(name: str) -> None:
    message = about_mux(name)
    assert message.startswith("; the kernel has a driver for the ")
    assert message.endswith(": each channel is then a bus, without a [[mux]]")


def test_no_mux_that_is_sent_to_the_kernel_is_supported() -> None:
    parts = {known_parts._without_grade(name) for name in mux_names()}
    assert not parts & {*known_parts._KERNEL_MUXES}


@pytest.mark.parametrize("name", ["pca9641", "tca9539", "xyz", "tca9548b"])
def test_another_part_suggests_no_mux(name: str) -> None:
    assert about_mux(name).startswith('; supported are "pca9540b", ')
    assert suggested(about_mux(name)) is None


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Adafruit_INA260", "ina260"), ("adafruit-circuitpython-ina219", "ina219"), ("INA228 breakout", "ina228")],
)
def test_the_name_of_a_driver_or_a_board_suggests_its_chip(name: str, meant: str) -> None:
    assert suggested(about_chip(name, chips.options())) == meant
    assert suggested(about_mux("adafruit_tca9548a board")) == "tca9548a"


def test_the_supported_chips_are_listed_with_their_aliases() -> None:
    assert '"ina219", "ina220", "ina226"' in about_chip("xyz", chips.options())


def test_a_mux_that_is_known_by_a_typing_error_is_not_listed() -> None:
    assert about_mux("PCA9548") == '; did you mean "pca9548a"?'
    assert about_mux("pca9458") == '; did you mean "pca9548a"?'
    assert about_mux("TCA9458A") == '; did you mean "tca9548a"?'
    assert about_mux("pca9554").startswith("; supported are"), "an expander, with the digits of a PCA9545"
