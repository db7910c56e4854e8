"""Turns closed intervals and sweeps into frames of the backlog, once their counters are saved.

The main thread adds to a queue and never waits; one other thread, the keeper's, takes from it. What leaves a node holds
saved counters only, so that no counter at the server is ever higher than the one that a killed run continues from.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from agent.history.merging import MOST_VALUES
from agent.history.rows import IntervalRows, SweepRows
from agent.history.samples import ABSENT, count_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.clock import Clock
    from agent.energy.meter import EnergyMeter
    from agent.history.backlog import Backlog
    from agent.history.dating import Dating
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import Snapshot
    from agent.settings import RemoteWriteSettings, Settings

log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 60.0
"""The longest that the rows of an interval wait for its counters to be saved; later they are kept without them."""

_POLL_SECONDS = 0.2

_MOST_INTERVALS = 1000
"""That wait for the keeper while a disk does not answer."""


class Save(Protocol):
    """A save of counters; see `run.saver.Save`."""

    @property
    def may_publish(self) -> bool:
        """Whether the counters may be published."""

    def wait(self, seconds: float) -> bool:
        """Wait for its end; return whether it came in time."""


@dataclass(frozen=True, slots=True)
class _Interval:
    """A closed interval.

    Attributes:
        sweeps: the moment of each sweep, in milliseconds since boot, and its row.
        closed_at_milliseconds: since boot.
        closed_at_seconds: on the monotonic clock.
        sweep_row: what `SweepRows.interval_row` adds to the row of the interval.
        snapshot: of the interval.
        save: of the counters.
        may_have_counters: whether they may be sent once they are saved.
    """

    sweeps: tuple[tuple[int, bytes], ...]
    closed_at_milliseconds: int
    closed_at_seconds: float
    sweep_row: bytes
    snapshot: Snapshot
    save: Save
    may_have_counters: bool


class Keeper:
    """Keeps the rows of a run.

    Args:
        settings: the configuration.
        remote: its table `[remote_write]`.
        backlog: for the frames.
        dating: of the rows.
        clock: for waits.
        live: see `SweepRows`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - its parts
        self,
        settings: Settings,
        remote: RemoteWriteSettings,
        backlog: Backlog,
        dating: Dating,
        clock: Clock,
        live: frozenset[Labels] | None,
    ) -> None:
        self._backlog = backlog
        self._dating = dating
        self._clock = clock
        self._sweep_rows = SweepRows(settings, remote.job, live) if remote.resolution == "sample" else None
        self._interval_rows = IntervalRows(settings, remote.job, self._sweep_table, live)
        self._sweeps: list[tuple[int, bytes]] = []
        self._waiting: deque[_Interval] = deque()
        self._has_lost_intervals = False
        self._last_milliseconds = -1
        self._saves_until_seconds = math.inf

    @property
    def live(self) -> frozenset[Labels]:
        """The series that have not ended; read when everything is kept."""
        of_intervals = frozenset(self._interval_rows.live)
        return of_intervals if self._sweep_rows is None else of_intervals | self._sweep_rows.live

    @property
    def has_waiting(self) -> bool:
        """Whether closed intervals are not kept yet."""
        return bool(self._waiting)

    # The main thread.

    def add_sweep(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> None:
        """Keep the samples of a sweep that has been added to the meters."""
        if self._sweep_rows is not None:
            self._sweeps.append((self._now_milliseconds(), self._sweep_rows.row(outcomes, meters)))

    def add_interval(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Let a closed interval, and the sweeps in it, wait for `keep_next`."""
        sweeps, self._sweeps = tuple(self._sweeps), []
        sweep_row = b"" if self._sweep_rows is None else self._sweep_rows.interval_row(snapshot.devices)
        if len(self._waiting) >= _MOST_INTERVALS:
            self._waiting.popleft()
            if not self._has_lost_intervals:
                log.error("history: the disk hangs; %d intervals wait for it, and the oldest are lost", _MOST_INTERVALS)
            self._has_lost_intervals = True
        self._waiting.append(
            _Interval(
                sweeps,
                self._now_milliseconds(),
                self._clock.monotonic(),
                sweep_row,
                snapshot,
                save,
                may_have_counters,
            )
        )

    def wait_for_saves_until(self, seconds: float) -> None:
        """Keep intervals without their counters if these are not saved by then, on the monotonic clock."""
        self._saves_until_seconds = min(self._saves_until_seconds, seconds)

    def _now_milliseconds(self) -> int:
        """For a row; times of rows rise."""
        self._last_milliseconds = max(self._last_milliseconds + 1, self._dating.now_milliseconds())
        return self._last_milliseconds

    # The keeper's thread.

    def keep_next(self) -> bool:
        """Keep the oldest interval that waits; return False if there is none."""
        if not self._waiting:
            return False
        interval = self._waiting.popleft()
        may_have_counters = interval.may_have_counters and self._is_saved(interval)
        row = self._interval_rows.row(replace(interval.snapshot, has_counters=may_have_counters))
        sweeps = [(at, self._sweep(values, may_have_counters=may_have_counters)) for at, values in interval.sweeps]
        sweep_row = self._sweep(interval.sweep_row, may_have_counters=may_have_counters)
        self._add(sweeps, (interval.closed_at_milliseconds, sweep_row + row))
        return True

    def keep_end(self, *, ends_series: bool) -> None:
        """Keep the sweeps since the last interval, without counters: no save has those.

        Args:
            ends_series: whether a last row of stale markers ends every series.
        """
        sweeps, self._sweeps = self._sweeps, []
        sweeps = [(at, self._sweep(values, may_have_counters=False)) for at, values in sweeps]
        last = None
        if ends_series:
            last_row = self._interval_rows.last_row()
            if self._sweep_rows is not None:
                last_row = self._sweep_rows.last_row() + last_row
            if count_samples(last_row):
                last = self._now_milliseconds(), last_row
        self._add(sweeps, last)

    def _sweep(self, values: bytes, *, may_have_counters: bool) -> bytes:
        """The part of a row that sweeps have, perhaps without its counters."""
        if self._sweep_rows is None or may_have_counters:
            return values
        return self._sweep_rows.without_counters(values)

    def _add(self, sweeps: list[tuple[int, bytes]], last: tuple[int, bytes] | None) -> None:
        """Add the rows of sweeps, and then a whole row, to the backlog, as frames that are small enough for a request.

        The rows of sweeps are made whole a frame at a time: those of a long interval would fill the memory.
        """
        table = (*self._sweep_table, *self._interval_rows.table)
        nothing_else = ABSENT * len(self._interval_rows.table)
        most_rows = max(1, MOST_VALUES // max(1, len(table)))
        rows = len(sweeps) + (last is not None)
        for at in range(0, rows, most_rows):
            some = [(time, values + nothing_else) for time, values in sweeps[at : at + most_rows]]
            if last is not None and at + most_rows >= rows:
                some.append(last)
            self._backlog.add(table, [time for time, _ in some], b"".join(values for _, values in some))

    @property
    def _sweep_table(self) -> tuple[Labels, ...]:
        return () if self._sweep_rows is None else self._sweep_rows.table

    def _is_saved(self, interval: _Interval) -> bool:
        # Counted from its end: of several intervals that wait, none waits for the one before it, too.
        give_up_at = interval.closed_at_seconds + SAVE_SECONDS
        while True:
            left_seconds = min(give_up_at, self._saves_until_seconds) - self._clock.monotonic()
            if interval.save.wait(min(_POLL_SECONDS, left_seconds)):
                return interval.save.may_publish
            if left_seconds <= 0:
                return False
