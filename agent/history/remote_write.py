"""Remote write as a destination of a run: two threads, between which the backlog lies.

    main thread    sweeps, closed intervals       never waits: it adds to the queue of keeper.py
        |
    "history"      waits for saved counters, makes frames (keeper.py): memory and its mirror in the runtime folder
        |
    "remote-write" sends the frames, oldest first (sender.py, post.py); moves them to disk in an outage (backlog.py)

Both threads end with `end`, within the time that it gives: the sender first, then the keeper, which closes the backlog.
"""

from __future__ import annotations

import logging
import math
import random
import threading
from typing import TYPE_CHECKING

from agent.energy.state_file import file_name
from agent.history.backlog import Backlog
from agent.history.dating import Dating, system_timebase
from agent.history.keeper import Keeper
from agent.history.post import Poster
from agent.history.runtime_folder import runtime_folder
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
    from agent.history.keeper import Save
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import RemoteStatus, Snapshot
    from agent.settings import RemoteWriteSettings, Settings

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 3600.0

_LAST_REQUEST_SECONDS = 0.3
"""The longest that a request may take to end once it is aborted."""

_LAST_SAVE_SECONDS = 0.3
"""How long the last counters may take to be saved at least, also if there is no time to send them, as at a reload."""


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
        self._backlog = backlog
        self._dating = dating
        self._poster = poster
        self._clock = clock
        self._wake = wake
        self._is_once = is_once
        self._keeper = Keeper(settings, remote, backlog, dating, clock, live)
        self._sender = Sender(
            backlog,
            poster.post,
            clock,
            interval_seconds=settings.interval_seconds,
            catch_up=remote.catch_up,
            random=random.random,
        )
        self._keeper_has_work = threading.Event()
        self._sender_has_work = threading.Event()
        self._is_all_kept = threading.Event()
        self._has_sender_ended = threading.Event()
        self._has_ended = threading.Event()
        self._are_threads_running = False
        self._is_ending = False
        self._ends_series = False
        self._send_until_seconds = math.inf
        self._crash: BaseException | None = None
        self._last_failure: AgentError | None = None
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
            return f"history is kept on this node: {failure}"
        if self._why_unknown:
            return f"history is kept on this node: {self._why_unknown}"
        return f"history goes to {self.server}"

    @property
    def is_kept(self) -> bool:
        """Whether the last request failed, or nothing can be sent yet."""
        return self._sender.failure is not None or bool(self._why_unknown)

    def forget(self, carried: RemoteCounters) -> None:
        """Take carried counters off; see `run.carried`."""
        self._backlog.forget(carried)

    def add_sweep(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> None:
        """Keep the samples of a sweep that has been added to the meters."""
        self._keeper.add_sweep(outcomes, meters)

    def add_interval(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Keep a closed interval, and the sweeps in it, once its counters are saved."""
        if self._crash is not None:
            raise self._crash
        if self._is_ending:
            return
        self._keeper.add_interval(snapshot, save, may_have_counters=may_have_counters)
        if not self._are_threads_running:
            self.start()
        self._keeper_has_work.set()

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
        self._keeper.wait_for_saves_until(now + max(half_seconds, _LAST_SAVE_SECONDS))
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
        return self._keeper.live

    def close(self) -> None:
        """End at once, if nothing has ended it before; waits only a moment."""
        if not self._is_ending and not self._are_threads_running and not self._keeper.has_waiting:
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
        wait_seconds = _LONGEST_WAIT_SECONDS
        while not self._is_ending:
            self._keeper_has_work.wait(wait_seconds)
            self._keeper_has_work.clear()
            self._keep_waiting()
            if self._has_sender_ended.is_set():  # it has no thread
                wait_seconds = self._maintain()
        self._keep_waiting()
        self._keeper.keep_end(ends_series=self._ends_series)
        self._is_all_kept.set()
        self._sender_has_work.set()
        while (left_seconds := self._send_until_seconds - self._clock.monotonic()) > 0:
            if self._has_sender_ended.wait(min(_POLL_SECONDS, left_seconds)):
                break
        self._poster.stop()
        self._has_sender_ended.wait(_LAST_REQUEST_SECONDS)
        self._backlog.close()
        self._poster.close()

    def _keep_waiting(self) -> None:
        while self._keeper.keep_next():
            self._sender_has_work.set()
            self._log_the_clock()

    def _log_the_clock(self) -> None:
        """Say once why nothing can be dated, and once that it can."""
        reason = self._dating.why_unknown()
        if reason and not self._why_unknown:
            log.warning("remote write to %s: nothing is sent yet, every sample is kept: %s", self.server, reason)
        elif self._why_unknown and not reason:
            log.info("remote write to %s: the clock is known now; samples are sent", self.server)
        self._why_unknown = reason

    # The sender's thread: the only one that waits for the disk, so that the keeper always reaches the runtime folder.

    def _maintain(self) -> float:
        """Maintain the backlog; return when to do it again."""
        return min(max(0.0, self._backlog.maintain()), _LONGEST_WAIT_SECONDS)

    def _send_all(self) -> None:
        while not (self._is_ending or self._is_once):
            wait_seconds = min(self._maintain(), max(0.0, self._sender.step()))
            self._sender_has_work.wait(wait_seconds)
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
