"""The readings since the watch began, as the values that the table shows."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from agent.energy.meter import EnergyMeters
from agent.measure.readings import Reading

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from agent.clock import Clock
    from agent.energy.interval import Extremes
    from agent.measure.readings import Outcome
    from agent.settings import Settings

TRACE_SLOTS = 120
"""The number of slots in the trace of a device's power; each slot holds the mean of its readings."""

_SHORTEST_SLOT_SECONDS = 1.0
_OVERDUE_SECONDS = 1.0


class VoltsOnly(NamedTuple):
    """A reading without its amperes, which depend on an unknown shunt.

    Attributes:
        volts: None if its chip may be of another kind, which would have measured other volts.
    """

    device: str
    volts: float | None
    unix_seconds: float

    @property
    def problem(self) -> str:
        """What is missing, and where to say it."""
        unknown = "shunt unknown" if self.volts is not None else "chip and shunt unknown"
        return f"{unknown}: run wattpush init"


@dataclass(frozen=True, slots=True)
class Row:
    """One device.

    Attributes:
        outcome: of the last sweep; None before the first.
        extremes: of all readings since the watch began; None before the first.
        joules: energy delivered since the watch began, minus the energy that flowed back.
        measured_seconds: the time that this energy covers.
        is_in_sum: whether another device has this power too; see `Settings.parts_of_sums`.
        trace: slot number and mean watts of the last TRACE_SLOTS slots, oldest first, without slots that have no
            reading.
    """

    device: str
    outcome: Outcome | VoltsOnly | None
    extremes: Extremes | None
    joules: float
    measured_seconds: float
    is_in_sum: bool
    trace: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the table shows at one moment.

    Attributes:
        is_configured: whether a person has described the devices: not those of a scan, or of the built-in node.
        began_unix_seconds: when the watch began.
        read_unix_seconds: when the last sweep ended.
        now_seconds: on the monotonic clock, like the times of the outcomes.
        watched_seconds: from the beginning to the last sweep.
        stale_seconds: the age of the last sweep if the next is overdue, else 0.
        rows: in the order of the configuration.
        largest_watts: the largest power of any device since the watch began, in either direction.
        slot: the number of the current slot.
        slot_seconds: the length of a slot.
    """

    hostname: str
    sample_interval_seconds: float
    is_simulated: bool
    is_configured: bool
    began_unix_seconds: float
    read_unix_seconds: float
    now_seconds: float
    watched_seconds: float
    stale_seconds: float
    rows: tuple[Row, ...]
    largest_watts: float
    slot: int
    slot_seconds: float

    @property
    def readings(self) -> list[Reading]:
        """The readings of the last sweep, without the devices that could not be read."""
        return [row.outcome for row in self.rows if isinstance(row.outcome, Reading)]


class _Trace:
    """The mean power of one device, slot by slot."""

    def __init__(self) -> None:
        self._full: deque[tuple[int, float]] = deque(maxlen=TRACE_SLOTS - 1)
        self._slot: int | None = None
        self._sum_watts = 0.0
        self._readings = 0

    def add(self, slot: int, watts: float) -> None:
        if slot != self._slot:
            self._full.extend(self._open())
            self._slot, self._sum_watts, self._readings = slot, 0.0, 0
        self._sum_watts += watts
        self._readings += 1

    def means(self) -> tuple[tuple[int, float], ...]:
        return (*self._full, *self._open())

    def _open(self) -> tuple[tuple[int, float], ...]:
        return () if self._slot is None else ((self._slot, self._sum_watts / self._readings),)


class History:
    """Takes sweeps and makes views. Energy starts at zero; counters that a run saved are not used.

    Attributes:
        sample_interval_seconds: the time between two sweeps.
        is_simulated: whether no real chip is read.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        *,
        is_simulated: bool,
        unknown_shunts: Container[str] = (),
        unsure_kinds: Container[str] = (),
    ) -> None:
        self._unknown_shunts = unknown_shunts
        self._unsure_kinds = unsure_kinds
        self._settings = settings
        self.sample_interval_seconds = settings.sample_interval_seconds
        self._clock = clock
        self.is_simulated = is_simulated
        names = [device.name for device in settings.devices]
        self._parts_of_sums = settings.parts_of_sums()
        self._meters = EnergyMeters(names, settings.max_gap_seconds, {}, settings.sample_interval_seconds)
        self._outcomes: dict[str, Outcome | VoltsOnly] = {}
        self._traces = {name: _Trace() for name in names}
        # At least the time between two sweeps, so that no slot is without a reading.
        self._slot_seconds = max(_SHORTEST_SLOT_SECONDS, settings.sample_interval_seconds)
        self._began_seconds = self._swept_at_seconds = clock.monotonic()
        self._began_unix_seconds = self._read_unix_seconds = clock.time()

    def add(self, sweep: Sequence[Outcome]) -> Sequence[Outcome | VoltsOnly]:
        """Add a sweep that has just ended; return its outcomes without what depends on an unknown shunt."""
        outcomes = [self._known(outcome) for outcome in sweep]
        self._meters.add(outcome for outcome in outcomes if not isinstance(outcome, VoltsOnly))
        for outcome in outcomes:
            self._outcomes[outcome.device] = outcome
            if isinstance(outcome, Reading):
                self._traces[outcome.device].add(self._slot_at(outcome.at_seconds), outcome.power_watts)
        self._swept_at_seconds = self._clock.monotonic()
        self._read_unix_seconds = self._clock.time()
        return outcomes

    def _known(self, outcome: Outcome) -> Outcome | VoltsOnly:
        if not isinstance(outcome, Reading) or outcome.device not in self._unknown_shunts:
            return outcome
        volts = None if outcome.device in self._unsure_kinds else outcome.volts
        return VoltsOnly(outcome.device, volts, outcome.unix_seconds)

    def joules(self, device: str) -> float:
        """Energy delivered to a device since the watch began, minus the energy that flowed back."""
        counters = self._meters.devices[device].saved.counters
        return counters.joules - counters.returned_joules

    @property
    def stale_seconds(self) -> float:
        """The age of the last sweep if the next is overdue, else 0."""
        seconds = self._clock.monotonic() - self._swept_at_seconds
        return seconds if seconds > self.sample_interval_seconds + _OVERDUE_SECONDS else 0.0

    def view(self) -> View:
        """Make the view of this moment."""
        now_seconds = self._clock.monotonic()
        # No push acknowledges these intervals, so each covers everything since the watch began.
        snapshots = [closed.pending for closed in self._meters.close_intervals()]
        return View(
            hostname=self._settings.hostname,
            sample_interval_seconds=self.sample_interval_seconds,
            is_simulated=self.is_simulated,
            is_configured=self._settings.has_destination,
            began_unix_seconds=self._began_unix_seconds,
            read_unix_seconds=self._read_unix_seconds,
            now_seconds=now_seconds,
            watched_seconds=self._swept_at_seconds - self._began_seconds,
            stale_seconds=self.stale_seconds,
            rows=tuple(
                Row(
                    snapshot.device,
                    self._outcomes.get(snapshot.device),
                    snapshot.extremes,
                    self.joules(snapshot.device),
                    self._meters.devices[snapshot.device].saved.counters.measured_seconds,
                    snapshot.device in self._parts_of_sums,
                    self._traces[snapshot.device].means(),
                )
                for snapshot in snapshots
            ),
            largest_watts=max(
                (max(abs(found.min_watts), abs(found.max_watts)) for one in snapshots if (found := one.extremes)),
                default=0.0,
            ),
            slot=self._slot_at(now_seconds),
            slot_seconds=self._slot_seconds,
        )

    def _slot_at(self, seconds: float) -> int:
        return math.floor((seconds - self._began_seconds) / self._slot_seconds)
