"""Chips with equal addresses behind several muxes: whatever disturbs the wire, no device gets another one's numbers."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.noise import (
    Stranger,
    leaves_open,
    nacks_in_a_row,
    random_bursts,
    random_nacks,
    random_silence,
    reads_a_chip,
    stock_script,
)
from tests.reliability.noisy import (
    EIGHT_INA260,
    FOUR_AND_FOUR,
    NESTED,
    THREE_MUXES,
    TWICE_FOUR_INA260,
    NoisyNode,
    Tally,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.simulate.wire import Message
    from tests.noise import Program

NODES = {"two muxes": TWICE_FOUR_INA260, "three muxes": THREE_MUXES, "nested muxes": NESTED}
MANY = pytest.param(100_000, marks=pytest.mark.long, id="100000")
FEW = 4_000


def read(node: NoisyNode, readings: int) -> None:
    """Sweep until there are so many readings."""
    while node.tally.read < readings:
        node.sweep(50)
        assert node.tally.wrong == [], (node.tally.wrong[0], node.tally.due)


@pytest.mark.reliability(
    4.12,
    "both at random, together",
    "a reading counts only if every mux is seen to be as it should be; no number is another rail's",
)
@pytest.mark.parametrize("readings", [FEW, MANY])
def test_no_row_of_nacks_lets_another_rail_answer(readings: int, measured: Callable[[str], None]) -> None:
    taken = 0
    for name, text in NODES.items():
        node = NoisyNode(text, sample_interval="100ms")
        draws = random.Random(name)
        nacks_in_a_row(node.wire, 0.01, draws)
        random_bursts(node.wire, node.clock, 0.002, draws)
        read(node, readings // len(NODES) + 1)
        assert node.tally.power_losses == 0
        assert node.tally.share > 0.8, (name, node.tally)
        taken += node.tally.read
    if taken >= 100_000:
        measured("0 wrong of 100,000 readings")


@pytest.mark.reliability(
    4.14,
    "a mux that does not answer for up to 3 s, at any moment, its channels as they were",
    "no other chip can have answered, or the reading is discarded",
)
@pytest.mark.parametrize("readings", [FEW, MANY])
def test_a_silent_mux_lets_no_other_rail_answer(readings: int, measured: Callable[[str], None]) -> None:
    taken = 0
    for name, text in NODES.items():
        node = NoisyNode(text, sample_interval="100ms")
        draws = random.Random(name)
        random_nacks(node.wire, 0.02, draws)
        random_silence(node.wire, node.clock, [mux.address for mux in node.world.muxes.values()], 1e-3, draws)
        read(node, readings // len(NODES) + 1)
        assert node.tally.power_losses == 0
        taken += node.tally.read
    if taken >= 100_000:
        measured("0 wrong of 100,000 readings")


def one_chip(mux: int, channels: list[int], draws: random.Random) -> Program:
    """A stock script that reads one of its chips at a time."""

    def visit() -> Iterator[list[Message]]:
        return stock_script(mux, [draws.choice(channels)], 0x40, draws)()

    return visit


PROGRAMS: dict[str, Callable[[int, list[int], random.Random], Program]] = {
    "a driver that leaves its channel open": leaves_open,
    "`i2cset` and `i2cget` by hand": lambda mux, channels, draws: reads_a_chip(mux, channels, 0x40, draws),
    "a stock script": one_chip,
}


@pytest.mark.reliability(
    4.21,
    "a program that does not lock the bus switches our muxes every 50 ms to 1 s, at any moment",
    "the reading is taken again, then discarded; every switch that is seen is counted. For a minute after one, "
    "the other muxes are read back after every register",
)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("readings", [FEW, pytest.param(34_000, marks=pytest.mark.long, id="34000")])
def test_no_strangers_switch_makes_a_wrong_number(program: str, readings: int, measured: Callable[[str], None]) -> None:
    total = Tally()
    for name, text in NODES.items():
        node = NoisyNode(text, sample_interval="100ms")
        draws = random.Random(f"{name}/{program}")
        strangers = [
            Stranger(
                node.wire,
                node.clock,
                draws,
                PROGRAMS[program](address, [0, 1, 2, 3, 7], draws),
                pause_seconds=(0.05, longest_seconds),
            )
            for address, longest_seconds in ((0x70, 0.05), (0x71, 1.0))
        ]
        node.has_stock_script = program == "a stock script"
        read(node, readings // len(NODES) + 1)
        total.add(node.tally)
        assert node.bench.sweep.mux_conflicts > 0, name
        assert all(stranger.visits > 10 for stranger in strangers)
        assert node.tally.power_losses == 0
        assert node.tally.share > 0.9, (name, node.tally)
    numbers = total.numbers()
    if readings > FEW:
        measured(f"{program}: {numbers}")


@pytest.mark.parametrize("sweeps", [150, pytest.param(2_000, marks=pytest.mark.long)])
def test_a_script_on_the_only_mux_costs_no_pace(sweeps: int) -> None:
    node = NoisyNode(EIGHT_INA260, sample_interval="100ms")
    draws = random.Random(sweeps)
    Stranger(node.wire, node.clock, draws, stock_script(0x70, range(8), 0x40, draws), pause_seconds=(0.05, 0.3))
    random_nacks(node.wire, 0.02, draws)
    node.has_stock_script = True
    node.sweep(sweeps)
    node.tally.numbers()
    assert node.tally.power_losses == 0
    assert node.tally.share > 0.95, node.tally
    assert node.clock.seconds - node.begun_seconds < sweeps * 0.1 * 1.03


def test_without_strangers_no_mux_conflict_is_counted() -> None:
    node = NoisyNode(FOUR_AND_FOUR, sample_interval="100ms")
    random_nacks(node.wire, 0.1, random.Random(4))
    node.sweep(200)
    assert node.bench.sweep.mux_conflicts == 0
