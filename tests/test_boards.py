"""docs/boards.md: its addresses are those that the code accepts, and its commands can be typed."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from agent import chips
from agent.i2c.muxes import MUX_ADDRESSES

PAGE = (Path(__file__).parents[1] / "docs" / "boards.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    (.*)", PAGE, re.MULTILINE)
LEVELS = ("GND", "VS", "SDA", "SCL")


def rows(head: str) -> list[list[str]]:
    """The cells of the table with this head."""
    table = PAGE[PAGE.index(head) :].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_straps_of_a_mux_count_in_binary_from_its_lowest_address() -> None:
    found = {int(address, 16): straps for *straps, address in rows("| A2 | A1 | A0 | address |")}
    assert list(found) == list(MUX_ADDRESSES)
    for address, straps in found.items():
        bits = "".join({"GND": "0", "VCC": "1"}[strap] for strap in straps)
        assert address == MUX_ADDRESSES[0] + int(bits, 2)


def test_the_straps_of_an_ina260_give_every_address_that_it_may_have() -> None:
    table = rows("| A1 | A0 = GND |")
    assert [row[0] for row in table] == list(LEVELS)
    assert [int(cell, 16) for row in table for cell in row[1:]] == list(chips.options()["ina260"].addresses or ())


def test_the_straps_of_an_ina3221_give_every_address_that_it_may_have() -> None:
    (line,) = re.findall(r"^An INA3221, by A0 .*: (.*)\.$", PAGE, re.MULTILINE)
    found = [part.split() for part in line.split(", ")]
    assert [level for level, _ in found] == list(LEVELS)
    assert [int(address, 16) for _, address in found] == list(chips.options()["ina3221"].addresses or ())


def test_the_longest_pull_ups_follow_from_the_capacitance() -> None:
    """Rise time from 30 to 70 % is 0.8473 R C: 1000 ns at 100 kHz, 300 ns at 400 kHz (UM10204, 7.1)."""
    table = rows("| wire | about |")
    assert len(table) == 3
    for _, capacitance, slow, fast in table:
        farads = float(capacitance.removesuffix(" pF")) * 1e-12
        for kilohms, rise_seconds in ((slow, 1000e-9), (fast, 300e-9)):
            most = rise_seconds / (0.8473 * farads)
            assert float(kilohms.removesuffix(" kohm")) * 1e3 == pytest.approx(most, rel=0.05)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_good_shell(command: str) -> None:
    subprocess.run(["bash", "-n", "-c", command], check=True)


def test_nobody_is_told_to_enable_a_service_that_there_is_not() -> None:
    assert "sudo systemctl enable i2c" not in PAGE
    assert len(COMMANDS) >= 8
