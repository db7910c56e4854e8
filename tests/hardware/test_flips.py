"""Bits that flip on the way, although acknowledged: no wrong reading, no power loss that never was."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from agent.measure.readings import Failure, Reading, Settling
from tests.bench import SHORTEST, Bench, ina260, ina3221, mux, with_shunt
from tests.noise import random_flips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.simulate.wire import Message

AUTO = 'averaging = "auto"'
CHIPS = ("ina260", "ina3221", *SHORTEST)
BITS_PER_SECOND = 100_000


def three_of(chip: str, more: str = AUTO) -> str:
    """Three devices: one on each of three chips, or an input of one INA3221 each."""
    place = 'mux = "m0", channel = {}'
    if chip == "ina260":
        return mux("m0", 0x70) + "".join(ina260(f"d{n}", place.format(n), more=more) for n in range(3))
    if chip == "ina3221":
        return mux("m0", 0x70) + "".join(ina3221(f"d{n}", place.format(1), n + 1, more=more) for n in range(3))
    return mux("m0", 0x70) + "".join(with_shunt(chip, f"d{n}", place.format(n), more=more) for n in range(3))


def let_transfers_take_time(bench: Bench) -> None:
    """As on a bus of 100 kHz, so that conversions end between and within readings."""
    wire = bench.wire
    transact = type(wire).transfer

    def transfer(messages: Sequence[Message]) -> None:
        before = wire.bits
        try:
            transact(wire, messages)
        finally:
            bench.clock.sleep((wire.bits - before) / BITS_PER_SECOND)

    wire.transfer = transfer


class Tally:
    """What a number of sweeps came to. `Bench.run` compares each reading with its rail."""

    def __init__(self, bench: Bench, sweeps: int) -> None:
        self.readings = self.failures = self.power_losses = self.implausible = 0
        self.reasons: set[str] = set()
        for _ in range(sweeps):
            seen = set()
            for device, outcome in bench.run_next().items():
                self.readings += isinstance(outcome, Reading)
                if isinstance(outcome, Failure):
                    self.failures += 1
                    self.reasons.add(f"{device}: {outcome.error}")
                self.power_losses += isinstance(outcome, Settling) and outcome.power_lost
                if id(outcome.disturbance) not in seen:  # the devices of a chip share one
                    self.implausible += outcome.disturbance.implausible
                seen.add(id(outcome.disturbance))


@pytest.mark.parametrize("interval", ["100ms", "1s"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_flipped_bit_is_neither_a_reading_nor_a_power_loss(chip: str, interval: str) -> None:
    bench = Bench.of(three_of(chip), f'sample_interval = "{interval}"\n')
    let_transfers_take_time(bench)
    bench.run_until_read(30)
    random_flips(bench.wire, 1e-3, random.Random(7))
    tally = Tally(bench, 700)
    assert tally.power_losses == 0
    assert tally.implausible > 0
    assert tally.readings >= 0.999 * 700 * 3, tally.reasons
