"""The energy of a bursty load: the whole chain on simulated chips against the sum of stock snapshots."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from agent.energy.meter import EnergyMeters
from agent.measure.readings import Reading
from agent.simulate.clock import HandClock
from agent.simulate.rails import Segment, Steps
from agent.simulate.world import build_world
from bench import stock
from bench.measure import Effort, Findings, Goal, Row, Samples
from bench.nodes import configuration, settings_of
from tests.bench import sweep_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_PHASES = 20
_LOAD_SECONDS = 1200.0
_SETTLING_SECONDS = 60.0  # longer than the longest conversion
_OPEN_VOLTS = 5.0
_IDLE_AMPERES = 0.3
_BURST_AMPERES = (1.0, 3.0)
_BURST_SECONDS = (0.005, 0.5)
_MEAN_PAUSE_SECONDS = 0.8
_SAGGING_OHMS = 0.09  # a cable and a cheap supply


def measure(effort: Effort, _folder: Path) -> Findings:
    """The worst error over 20 phases of each load, on a stiff supply and on one that sags."""
    load_seconds = _LOAD_SECONDS / effort.times(1, 5)
    loads = range(effort.times(3, 1))
    rows = []
    for sample_seconds, most_percent in ((1.0, 0.3), (10.0, 1.0)):
        errors = [_worst_errors(load, sample_seconds, load_seconds, source_ohms=0.0) for load in loads]
        rows.append(
            _row(
                f"energy of a bursty load, sampled every {sample_seconds:g} s: worst error of {_PHASES} phases of "
                f"{len(loads)} loads",
                errors,
                (Goal(0.2, is_ratio=True), Goal(most_percent, "%")),
            )
        )
    for sample_seconds in (1.0, 10.0):
        errors = [_worst_errors(0, sample_seconds, load_seconds, source_ohms=_SAGGING_OHMS)]
        what = f"the same every {sample_seconds:g} s, one load, behind a supply that sags ({_SAGGING_OHMS} ohm)"
        rows.append(_row(what, errors))
    return Findings(tuple(rows))


def _row(what: str, errors: Sequence[tuple[float, float]], goals: tuple[Goal, ...] = ()) -> Row:
    stock_percent, our_percent = (max(percent) for percent in zip(*errors, strict=True))
    return Row(what, Samples((stock_percent,), "%"), Samples((our_percent,), "%"), goals)


class _ShiftedRail:
    """A load that begins at a given time."""

    def __init__(self, load: Steps, begins_seconds: float) -> None:
        self._load = load
        self._begins_seconds = begins_seconds

    def segments(self, start_seconds: float, end_seconds: float) -> Iterator[Segment]:
        """See `agent.simulate.rails.Rail.segments`."""
        return self._load.segments(start_seconds, end_seconds, self._begins_seconds)

    def joules(self, start_seconds: float, end_seconds: float) -> float:
        """The true energy between two times."""
        return sum(
            segment.volts * segment.amperes * (segment.end - segment.start)
            for segment in self.segments(start_seconds, end_seconds)
        )


def _bursts(load_number: int, seconds: float, source_ohms: float) -> Steps:
    """Random bursts of 5 to 500 ms and 1 to 3 A, with pauses of 0.8 s on average."""
    chance = random.Random(load_number)
    load = Steps()
    at = 0.0
    while at < seconds:
        load.append(at, _OPEN_VOLTS - source_ohms * _IDLE_AMPERES, _IDLE_AMPERES)
        at += chance.expovariate(1 / _MEAN_PAUSE_SECONDS)
        amperes = chance.uniform(*_BURST_AMPERES)
        load.append(at, _OPEN_VOLTS - source_ohms * amperes, amperes)
        at += chance.uniform(*_BURST_SECONDS)
    return load


def _worst_errors(
    load_number: int, sample_seconds: float, load_seconds: float, source_ohms: float
) -> tuple[float, float]:
    """The worst errors of the stock variant and of ours, in percent of the true energy.

    Each phase is a separate device on the same load, which begins a little later there.
    """
    top = f"sample_interval = {sample_seconds}\ninterval = 60\n"
    settings = settings_of(configuration(_PHASES, top=top))
    clock = HandClock()
    load = _bursts(load_number, load_seconds + 2 * _SETTLING_SECONDS, source_ohms)
    rails = {
        device.name: _ShiftedRail(load, clock.seconds + phase * sample_seconds / _PHASES)
        for phase, device in enumerate(settings.devices)
    }
    world = build_world(settings, clock.monotonic, rails)
    sweep = sweep_of(settings, world, clock)
    # The same loads on another set of chips, in their power-on configuration.
    stock_sensors = stock.open_sensors(build_world(settings, clock.monotonic, rails).open(1), _PHASES)
    begins_seconds = clock.seconds + _SETTLING_SECONDS
    while clock.seconds < begins_seconds:
        outcomes = sweep.run()
        clock.sleep(sample_seconds)
    meters = EnergyMeters(rails, max_gap_seconds=60.0, saved={})
    stock_joules = [0.0] * _PHASES
    begins_seconds = clock.seconds
    outcomes = sweep.run()
    if not all(isinstance(outcome, Reading) for outcome in outcomes):
        raise RuntimeError(f"some devices were not read: {outcomes}")
    meters.add(outcomes)
    while clock.seconds < begins_seconds + load_seconds:
        for phase, (_, _, watts) in enumerate(stock.sweep(stock_sensors)):
            stock_joules[phase] += watts * sample_seconds
        clock.sleep(sample_seconds)
        meters.add(sweep.run())
    true_joules = [rail.joules(begins_seconds, clock.seconds) for rail in rails.values()]
    our_joules = [saved.counters.joules for saved in meters.saved().values()]
    return _worst_percent(stock_joules, true_joules), _worst_percent(our_joules, true_joules)


def _worst_percent(measured: Sequence[float], true: Sequence[float]) -> float:
    return max(abs(one / other - 1) for one, other in zip(measured, true, strict=True)) * 100
