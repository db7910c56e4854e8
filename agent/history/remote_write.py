"""Remote write as a destination of a run: takes closed intervals, keeps and sends them in threads of its own.

::

    main loop ──sweeps, intervals──> keeper ──frames──> backlog ──frames──> sender ──requests──> server
                                       └─ waits until the counters are saved

The main loop waits for neither thread: it appends to a queue. Both threads end with `end`, within the time it gives.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from agent.energy.state_file import file_name
from agent.history.backlog import Backlog
from agent.history.dating import Dating, system_timebase
from agent.history.post import Poster
from agent.history.rows import IntervalRows, SweepRows
from agent.history.runtime_folder import runtime_folder
from agent.history.samples import ABSENT, VALUE_BYTES, count_samples
from agent.history.sender import Sender
from agent.http.endpoint import authority
from agent.threads import NoThreadError, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from agent.clock import Clock
    from agent.energy.meter import EnergyMeter
    from agent.energy.state import RemoteCounters
    from agent.errors import AgentError
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import RemoteStatus, Snapshot
    from agent.settings import RemoteWriteSettings, Settings

log = logging.getLogger(__name__)

SAVE_SECONDS: Final = 60.0
"""The longest that the rows of an interval wait for its counters to be saved; later they are kept without them."""

_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 3600.0

_MOST_VALUES = 20_000
"""In a frame, so that a request stays small, however long an interval is."""

_MOST_INTERVALS = 1000
"""That wait for the keeper while a disk does not answer."""

_LAST_REQUEST_SECONDS = 0.3
"""The longest that a request may take to end once it is aborted."""

_LAST_SAVE_SECONDS = 0.3
"""How long the last counters may take to be saved at least, also if there is no time to send them, as at a reload."""


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


class RemoteWrite:
    """Keeps the history of a run; `start` starts its threads.

    Args:
        settings: the configuration.
        remote: its table `[remote_write]`.
        backlog: for what is kept; closed at the end.
        dating: of the rows.
        poster: sends a request.
        clock: for all waits.
        wake: ends the main thread's wait when all has ended.
        folder: of the backlog.
        is_once: nothing is sent before `end`, and then everything without pauses.
        live: series of the configuration before this one; None at the start of a process.
    """

    def __init__(  # noqa: PLR0913 - its parts, and by keyword its surroundings
        self,
        settings: Settings,
        remote: RemoteWriteSettings,
        backlog: Backlog,
        dating: Dating,
        poster: Poster,
        *,
        clock: Clock,
        wake: Callable[[], None],
        folder: Path | None = None,
        is_once: bool = False,
        live: frozenset[Labels] | None = None,
    ) -> None:
        self.server = authority(remote.url)
        self.folder = folder
        self.timeout_seconds = remote.timeout_seconds
        self._settings = settings
        self._backlog = backlog
        self._dating = dating
        self._poster = poster
        self._clock = clock
        self._wake = wake
        self._is_once = is_once
        self._sweep_rows = SweepRows(settings, remote.job, live) if remote.resolution == "sample" else None
        elsewhere = () if self._sweep_rows is None else self._sweep_rows.table
        self._interval_rows = IntervalRows(settings, remote.job, elsewhere, live)
        self._sweeps: list[tuple[int, bytes]] = []
        self._last_milliseconds = -1
        self._sender = Sender(
            backlog,
            poster.post,
            clock,
            interval_seconds=settings.interval_seconds,
            catch_up=remote.catch_up,
            random=random.random,
        )
        self._waiting: deque[_Interval] = deque()
        self._keeper_has_work = threading.Event()
        self._sender_has_work = threading.Event()
        self._is_all_kept = threading.Event()
        self._has_sender_ended = threading.Event()
        self._has_ended = threading.Event()
        self._are_threads_running = False
        self._is_ending = False
        self._ends_series = False
        self._counters_until_seconds = math.inf
        self._send_until_seconds = math.inf
        self._crash: BaseException | None = None
        self._last_failure: AgentError | None = None
        self._lost_intervals = 0
        self._why_unknown = ""

    def start(self) -> None:
        """Start the threads; without a thread left, the next interval tries again."""
        try:
            if not self._are_threads_running:
                start_thread("history", self._run, self._keep_all, self._has_ended)
                self._are_threads_running = True
                start_thread("remote-write", self._run, self._send_all, self._has_sender_ended)
        except NoThreadError as error:
            log.warning("remote write to %s: %s", self.server, error)
            if self._are_threads_running:
                self._has_sender_ended.set()  # the keeper alone: everything is kept, nothing is sent

    @property
    def status(self) -> RemoteStatus:
        """At this moment; never waits."""
        return self._backlog.status

    @property
    def words(self) -> str:
        """For the status line."""
        if (failure := self._sender.failure) is not None:
            return f"history is kept here: {failure}"
        if self._why_unknown:
            return f"history is kept here: {self._why_unknown}"
        return f"history goes to {self.server}"

    def forget(self, carried: RemoteCounters) -> None:
        """Take carried counters off; see `run.carried`."""
        self._backlog.forget(carried)

    def add_sweep(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> None:
        """Keep the samples of a sweep that has been added to the meters."""
        if self._sweep_rows is not None:
            self._sweeps.append((self._now_milliseconds(), self._sweep_rows.row(outcomes, meters)))

    def add_interval(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Keep a closed interval, and the sweeps in it, once its counters are saved."""
        if self._crash is not None:
            raise self._crash
        if self._is_ending:
            return
        sweeps, self._sweeps = tuple(self._sweeps), []
        sweep_row = b"" if self._sweep_rows is None else self._sweep_rows.interval_row(snapshot.devices)
        if len(self._waiting) >= _MOST_INTERVALS:
            self._waiting.popleft()
            self._lost_intervals += 1
            if self._lost_intervals == 1:
                log.error("history: the disk does not answer, and memory is bounded: the oldest intervals are lost")
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
        if not self._are_threads_running:
            self.start()
        self._keeper_has_work.set()

    def _now_milliseconds(self) -> int:
        """For a row; times of rows rise."""
        self._last_milliseconds = max(self._last_milliseconds + 1, self._dating.now_milliseconds())
        return self._last_milliseconds

    def end(self, send_until_seconds: float, *, ends_series: bool) -> None:
        """Begin to end: keep what is waiting, send what the time allows, then write everything to disk.

        May be called again with an earlier time.

        Args:
            send_until_seconds: on the monotonic clock; a request under way is then aborted.
            ends_series: whether a last row of stale markers ends every series.
        """
        now = self._clock.monotonic()
        self._send_until_seconds = min(self._send_until_seconds, send_until_seconds)
        half_seconds = max(0.0, self._send_until_seconds - now) / 2
        counters_until_seconds = now + max(half_seconds, _LAST_SAVE_SECONDS)
        self._counters_until_seconds = min(self._counters_until_seconds, counters_until_seconds)
        if self._is_ending:
            return
        self._ends_series = ends_series
        self._is_ending = True
        if not self._are_threads_running:
            self.start()
        if not self._are_threads_running:  # no thread: the little that there is to do is done here
            self._has_sender_ended.set()
            self._run(self._keep_all, self._has_ended)
        self._keeper_has_work.set()
        self._sender_has_work.set()

    @property
    def has_ended(self) -> bool:
        """Whether everything has ended and is on disk, as far as the disk takes it."""
        return self._has_ended.is_set()

    @property
    def failure(self) -> AgentError | None:
        """Why the last request of a run with `is_once` was not accepted; None if it was."""
        if self._crash is not None:
            raise self._crash
        return self._last_failure

    @property
    def live(self) -> frozenset[Labels]:
        """The series that have not ended; read when everything has ended."""
        of_intervals = frozenset(self._interval_rows.live)
        return of_intervals if self._sweep_rows is None else of_intervals | self._sweep_rows.live

    def close(self) -> None:
        """End at once, if nothing has ended it before; waits only a moment."""
        if not self._is_ending and not self._are_threads_running and not self._waiting:
            self._is_ending = True
            self._backlog.close()
            self._poster.close()
            self._has_ended.set()
        elif not self._is_ending:
            self.end(self._clock.monotonic(), ends_series=False)
        self._has_ended.wait(_LAST_REQUEST_SECONDS + 1.0)

    def _run(self, work: Callable[[], None], ended: threading.Event) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again
            self._crash = error
        finally:
            self._is_all_kept.set()
            ended.set()
            self._wake()

    # The keeper's thread.

    def _keep_all(self) -> None:
        wait_seconds = 0.0
        while not (self._is_ending and not self._waiting):
            self._keeper_has_work.wait(wait_seconds)
            self._keeper_has_work.clear()
            while self._waiting:
                self._keep(self._waiting.popleft())
            if not self._is_ending:
                wait_seconds = min(max(0.0, self._backlog.tend()), _LONGEST_WAIT_SECONDS)
        self._keep_the_end()
        self._is_all_kept.set()
        self._sender_has_work.set()
        while (left_seconds := self._send_until_seconds - self._clock.monotonic()) > 0:
            if self._has_sender_ended.wait(min(_POLL_SECONDS, left_seconds)):
                break
        self._poster.stop()
        self._has_sender_ended.wait(_LAST_REQUEST_SECONDS)
        self._backlog.close()
        self._poster.close()

    def _keep(self, interval: _Interval) -> None:
        may_have_counters = interval.may_have_counters and self._is_saved(interval)
        row = self._interval_rows.row(replace(interval.snapshot, has_counters=may_have_counters))
        rows = interval.sweeps
        if self._sweep_rows is not None and not may_have_counters:
            without_counters = self._sweep_rows.without_counters
            rows = tuple((at, without_counters(values)) for at, values in rows)
        nothing_else = ABSENT * (len(row) // VALUE_BYTES)
        self._add(
            [
                *((at, values + nothing_else) for at, values in rows),
                (interval.closed_at_milliseconds, interval.sweep_row + row),
            ]
        )
        self._log_the_clock()

    def _keep_the_end(self) -> None:
        """The sweeps since the last interval are in no saved counters: they are kept without them."""
        sweeps, self._sweeps = self._sweeps, []
        last_row = self._interval_rows.last_row() if self._ends_series else b""
        nothing_else = ABSENT * len(self._interval_rows.table)
        rows: list[tuple[int, bytes]] = []
        if self._sweep_rows is not None:
            rows = [(at, self._sweep_rows.without_counters(values) + nothing_else) for at, values in sweeps]
            last_row = self._sweep_rows.last_row() + last_row if self._ends_series else b""
        if count_samples(last_row):
            rows.append((self._now_milliseconds(), last_row))
        self._add(rows)

    def _add(self, rows: list[tuple[int, bytes]]) -> None:
        table = self._table()
        most_rows = max(1, _MOST_VALUES // max(1, len(table)))
        for at in range(0, len(rows), most_rows):
            some = rows[at : at + most_rows]
            self._backlog.add(table, [time for time, _ in some], b"".join(values for _, values in some))
        self._sender_has_work.set()

    def _table(self) -> tuple[Labels, ...]:
        sweeps = () if self._sweep_rows is None else self._sweep_rows.table
        return sweeps + self._interval_rows.table

    def _is_saved(self, interval: _Interval) -> bool:
        # Counted from its end: of several intervals that wait, none waits for the one before it, too.
        give_up_at = interval.closed_at_seconds + SAVE_SECONDS
        while True:
            left_seconds = min(give_up_at, self._counters_until_seconds) - self._clock.monotonic()
            if interval.save.wait(min(_POLL_SECONDS, left_seconds)):
                return interval.save.may_publish
            if left_seconds <= 0:
                return False

    def _log_the_clock(self) -> None:
        """Say once why nothing can be dated, and once that it can."""
        reason = self._dating.why_unknown()
        if reason and not self._why_unknown:
            log.warning("remote write to %s: nothing is sent yet, all is kept: %s", self.server, reason)
        elif self._why_unknown and not reason:
            log.info("remote write to %s: the clock is known now", self.server)
        self._why_unknown = reason

    # The sender's thread.

    def _send_all(self) -> None:
        while not (self._is_ending or self._is_once):
            wait_seconds = self._sender.step()
            self._sender_has_work.wait(min(max(0.0, wait_seconds), _LONGEST_WAIT_SECONDS))
            self._sender_has_work.clear()
        self._is_all_kept.wait()
        has_time = self._clock.monotonic() < self._send_until_seconds
        if has_time and (self._is_once or self._sender.failure is None):
            self._last_failure = self._sender.send_all(self._send_until_seconds)


def open_remote_write(  # noqa: PLR0913 - by keyword, what a run knows
    settings: Settings,
    remote: RemoteWriteSettings,
    *,
    saved: RemoteCounters,
    environ: Mapping[str, str],
    clock: Clock,
    wake: Callable[[], None],
    is_simulated: bool,
    is_once: bool,
    live: frozenset[Labels] | None,
) -> RemoteWrite:
    """Open the backlog of a configuration, whose state file is locked; the disk may hang.

    Raises:
        AgentError: the backlog cannot be used, or the environment names a proxy that cannot be used.
    """
    dating = Dating(system_timebase(), trusts_clock=remote.clock == "system")
    folder = backlog_folder(settings.state_dir, is_simulated=is_simulated)
    backlog = Backlog(
        folder,
        runtime_folder(environ),
        dating,
        clock,
        max_bytes=remote.max_backlog_bytes,
        max_age_seconds=remote.max_age_seconds,
        saved=saved,
    )
    poster = Poster(remote, clock=clock, environ=environ)
    return RemoteWrite(
        settings, remote, backlog, dating, poster, clock=clock, wake=wake, folder=folder, is_once=is_once, live=live
    )


def backlog_folder(state_dir: Path | None, *, is_simulated: bool) -> Path | None:
    """The folder of the backlog; simulated samples have one of their own. None keeps everything in memory."""
    if state_dir is None:
        return None
    return state_dir / ("history" if file_name(is_simulated=is_simulated) == "counters" else "history-simulated")
