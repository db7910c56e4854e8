"""docs/boards.md: the code accepts its addresses, and a shell its commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent import chips
from agent.i2c.muxes import MUX_ADDRESSES
from tests.tables import rows

PAGE = (Path(__file__).parents[1] / "docs" / "boards.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (.*)", PAGE, re.MULTILINE)
LEVELS = ("GND", "VS", "SDA", "SCL")


def test_the_pins_of_a_mux_cover_every_address() -> None:
    ((base, steps),) = re.findall(r"^A mux is at (0x[0-9a-f]+) plus [^:]*: (.*) \(", PAGE, re.MULTILINE)
    found = [int(base, 16)]
    for step in re.findall(r"A\d adds (\d)", steps):
        found += [address + int(step) for address in found]
    assert found == list(MUX_ADDRESSES)


def test_ina260_straps_cover_every_address() -> None:
    table = rows(PAGE, "| A1 | A0 = GND |")
    assert [row[0] for row in table] == list(LEVELS)
    assert [int(cell, 16) for row in table for cell in row[1:]] == list(chips.options()["ina260"].addresses or ())


def test_ina3221_straps_cover_every_address() -> None:
    (line,) = re.findall(r"^An INA3221, by A0 .*: (.*)\.$", PAGE, re.MULTILINE)
    found = [part.split() for part in line.split(", ")]
    assert [level for level, _ in found] == list(LEVELS)
    assert [int(address, 16) for _, address in found] == list(chips.options()["ina3221"].addresses or ())


def test_the_largest_pull_ups_follow_from_the_capacitance() -> None:
    """Rise time from 30 to 70 % is 0.8473 R C: 1000 ns at 100 kHz, 300 ns at 400 kHz (UM10204, 7.1)."""
    table = rows(PAGE, "| wire | about |")
    assert len(table) == 3
    for _, capacitance, slow, fast in table:
        farads = float(capacitance.removesuffix(" pF")) * 1e-12
        for kilohms, rise_seconds in ((slow, 1000e-9), (fast, 300e-9)):
            most = rise_seconds / (0.8473 * farads)
            assert float(kilohms.removesuffix(" kohm")) * 1e3 == pytest.approx(most, rel=0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_valid_shell(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_the_page_enables_only_services_that_exist() -> None:
    assert "sudo systemctl enable i2c" not in PAGE
    assert len(COMMANDS) >= 8
