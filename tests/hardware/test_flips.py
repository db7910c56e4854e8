"""Bits that flip on the way, although acknowledged: no wrong reading, no power loss that never was."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from agent.measure.readings import Failure, Reading, Settling
from agent.simulate.chips import CONFIG, RegisterChip
from agent.simulate.rails import Segment
from tests.bench import FAST, SHORTEST, Bench, ina260, ina3221, mux, power_losses, settings_of, with_shunt
from tests.noise import random_flips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.simulate.wire import Message

AUTO = 'averaging = "auto"'
# INA230 to INA236 have the code of an INA226; of those with two ranges, the one with 12 bits.
CHIPS = ("ina260", "ina3221", *(chip for chip in SHORTEST if chip not in ("ina230", "ina231", "ina232", "ina236")))
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


@pytest.mark.reliability(
    1.21,
    "the same with every kind of chip, at 50 ms and 1 s",
    "no wrong number and no power loss; discarded readings are counted",
)
@pytest.mark.parametrize("interval", ["50ms", "1s"])
@pytest.mark.parametrize("sweeps", [500, pytest.param(7_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_flipped_bit_is_neither_a_reading_nor_a_power_loss(
    chip: str, sweeps: int, interval: str, measured: Callable[[str], None]
) -> None:
    bench = Bench.of(three_of(chip), f'sample_interval = "{interval}"\n')
    let_transfers_take_time(bench)
    bench.run_until_read(60)
    random_flips(bench.wire, 1e-3, random.Random(7))
    tally = Tally(bench, sweeps)
    assert tally.power_losses == 0
    assert tally.implausible > 0
    assert tally.readings >= 0.999 * sweeps * 3, tally.reasons
    if sweeps > 1000:
        measured(f"0 wrong of {sweeps * 3:,} readings, 0 power losses, each")


class NoisyLoad:
    """A load that draws another current, at another voltage, in every half millisecond."""

    STEP_SECONDS = 0.5e-3

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def segments(self, start_seconds: float, end_seconds: float) -> Iterator[Segment]:
        """See `Rail.segments`."""
        begin, step = start_seconds, math.floor(start_seconds / self.STEP_SECONDS)
        while True:
            end = min((step + 1) * self.STEP_SECONDS, end_seconds)
            draw = (step * 2654435761 + self._seed) % 1009 / 1008
            yield Segment(begin, end, 5.0 + 0.05 * draw, 0.7 - 0.1 * draw)
            if end >= end_seconds:
                return
            begin, step = end, step + 1


@pytest.mark.parametrize("more", ["auto", "fast"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_load_that_changes_quickly_is_never_called_implausible(chip: str, more: str) -> None:
    averaging = {"auto": AUTO, "fast": SHORTEST.get(chip, FAST)}[more]
    settings = settings_of(three_of(chip, averaging), 'sample_interval = "20ms"\n')
    bench = Bench(settings, rails={f"d{n}": NoisyLoad(n) for n in range(3)})
    let_transfers_take_time(bench)
    bench.run_until_read(60)
    tally = Tally(bench, 300)
    assert tally.implausible == 0
    assert tally.readings == 900, tally.reasons


@pytest.mark.parametrize("chip", CHIPS)
def test_a_flip_in_a_changing_load_stays_within_the_load(chip: str) -> None:
    """The bits below the change of the load between two readings are those that the registers cannot show."""
    settings = settings_of(three_of(chip, SHORTEST.get(chip, FAST)), 'sample_interval = "20ms"\n')
    bench = Bench(settings, rails={f"d{n}": NoisyLoad(n) for n in range(3)})
    let_transfers_take_time(bench)
    bench.run_until_read(60)
    random_flips(bench.wire, 1e-3, random.Random(3))
    for _ in range(250):
        for outcome in bench.run_next().values():
            if isinstance(outcome, Reading):
                assert 4.99 <= outcome.volts <= 5.06
                assert 0.59 <= outcome.amperes <= 0.71


@pytest.mark.parametrize("chip", CHIPS)
def test_what_is_written_arrives_although_bits_flip(chip: str) -> None:
    bench = Bench.of(three_of(chip))
    let_transfers_take_time(bench)
    bench.run_until_read(30)
    configurations = [configuration_of(bench, name) for name in ("d0", "d1", "d2")]
    draws = random.Random(11)
    random_flips(bench.wire, 2e-3, draws)
    for _ in range(60):
        for simulated in {id(part): part for part in bench.world.chips.values()}.values():
            assert isinstance(simulated, RegisterChip)
            simulated.power_loss()
        bench.sweep = bench.new_sweep()
        sweeps = [bench.run_next() for _ in range(6)]
        assert power_losses(sweeps, "d0") == 0  # nothing was read before
        assert bench.all_read(sweeps[-1])
        failures = [str(o.error) for outcomes in sweeps for o in outcomes.values() if isinstance(o, Failure)]
        assert not [failure for failure in failures if "does another program use this chip" in failure]
        assert [configuration_of(bench, name) for name in ("d0", "d1", "d2")] == configurations


def configuration_of(bench: Bench, name: str) -> list[int]:
    chip = bench.chip(name)
    return [chip._words[register] for register in {CONFIG, chip.PLANNING}]
