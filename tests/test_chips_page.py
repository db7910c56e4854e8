"""docs/chips.md and the table of README.md: what is not generated agrees with the code, and no chip is left out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent import chips
from agent.chips import _kernel_drivers, _signatures
from agent.i2c.muxes import MUX_KINDS, mux_names
from agent.settings import CHIP_ALIASES
from scripts import reference_chips
from scripts.reference_chips import ACCURACY
from tests.tables import rows

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "chips.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
ON_I2C = [name for name, options in chips.options().items() if options.addresses is not None]


def test_the_readme_has_every_chip_alias_and_mux() -> None:
    table = rows(README, "| chip | `chip =` |")
    named = {name for row in table for name in re.findall(r"`([^`]+)`", row[1])}
    assert named == {*chips.names(), *CHIP_ALIASES, "[[mux]]"}
    for kind in MUX_KINDS.values():
        assert kind.part in table[-1][0]


def test_the_help_lists_every_chip_on_i2c() -> None:
    *most, last = (name.upper() for name in ON_I2C)
    assert chips.parts() == f"{', '.join(most)} and {last}"


def test_the_readme_shows_the_numbers_of_the_drivers() -> None:
    by_name = {name: row for row in rows(README, "| chip | `chip =` |") for name in re.findall(r"`(\w+)`", row[1])}
    assert by_name["ina260"][2:6] == ["0-36 V, +-15 A", "inside", "0x40-0x4F", "16.9 s"]
    assert by_name["ina219"][2:6] == ["0-26 V, +-320 mV", "on your board", "0x40-0x4F", "0.14 s"]
    assert by_name["ina3221"][2:6] == ["3 inputs, 0-26 V, +-163.8 mV", "on your board", "0x40-0x43", "16.9 s an input"]
    assert by_name["ina228"][2:6] == ["0-85 V, +-163.84 mV, 20 bits", "on your board", "0x40-0x4F", "8.4 s"]
    assert "the chip's own sum" in by_name["ina228"][6]


def test_every_chip_has_an_accuracy_and_a_datasheet() -> None:
    assert set(ACCURACY) == set(ON_I2C)
    assert [row[0].lower() for row in rows(PAGE, "| chip | current |")] == ON_I2C


def test_the_example_is_share_plus_offset() -> None:
    example = {row[0]: row[2] for row in rows(PAGE, "| chip | current |")}
    assert example["INA226"] == "+-0.6 mA"  # 0.1 % of 0.5 A, and 10 uV on 0.1 ohm
    assert example["INA260"] == "+-5.8 mA"  # 0.15 % of 0.5 A, and 5 mA
    assert example["INA219"] == "+-4.5 mA"  # 0.5 % of 0.5 A, and 200 uV on 0.1 ohm


def test_the_text_about_small_currents_follows_from_the_table() -> None:
    offset_volts = ACCURACY["ina219"].offset_volts
    assert offset_volts is not None
    assert offset_volts / 0.1 == pytest.approx(2e-3)
    assert offset_volts / 0.01 == pytest.approx(20e-3)
    assert "may show 2 mA on 0.1 ohm without a load, and 20 mA on 0.01 ohm" in PAGE


def test_every_printed_shunt_is_the_value_beside_it() -> None:
    table = rows(PAGE, "| printed | `shunt_ohms` |")
    assert set(reference_chips.SHUNTS_OHMS) < {row[0] for row in table}
    for printed, ohms, _ in table:
        # IEC 60062: R stands where the decimal point is.
        assert ohms in ("-", f"{float(printed.replace('R', '0.')):g}")


def test_a_scan_is_sure_of_the_chips_that_the_page_names() -> None:
    (named,) = re.findall(r"A scan is sure of a chip with an ID register: ([^.]*)\.", PAGE)
    sure = {signature.part for signature in _signatures.SIGNATURES if signature.is_sure}
    unsure = {part for row in _signatures.SIGNATURES if not row.is_sure for part in re.findall(r"INA\d+", row.part)}
    assert set(named.split(", ")) == sure - {"INA237"}  # some have the ID of an INA238
    for part in unsure:
        assert part in PAGE[PAGE.index("It cannot tell:") :]


def test_every_driver_with_rails_is_in_the_table() -> None:
    table = rows(PAGE, "| driver | `input` or `label` |")
    named = {name: row[1] for row in table for name in re.findall(r"`([^`]+)`", row[0])}
    numbered = {name: row for row in _kernel_drivers.NUMBERED for name in row.names}
    labelled = {name: row for row in _kernel_drivers.LABELLED for name in row.names}
    assert set(named) == {*numbered, *labelled}
    for name, row in labelled.items():
        shown = re.findall(r"`([^`]+)`", named[name])
        for volts, _, _ in row.rails:
            assert {volts.replace("#", ""), volts.replace("#", "1")} & set(shown), name
    for name, numbers in numbered.items():
        assert named[name].split(", ") == [str(number) for number in numbers.pairs]


def test_the_muxes_have_every_name_that_the_configuration_takes() -> None:
    table = rows(PAGE, "| mux | `chip =` |")
    assert {name for row in table for name in re.findall(r"`([^`]+)`", row[1])} == set(mux_names())
