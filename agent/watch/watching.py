"""The loop of a watch: a sweep each sample interval, shown as it comes, until a signal ends it."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Protocol

from agent.run.loop import Ticker, refuse_to_run_without_permission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.loop import Waiting
    from agent.watch.history import History

_LOOK_AT_A_LATE_SWEEP_SECONDS = 1.0


class Face(Protocol):
    """What is looked at."""

    def enter(self) -> None:
        """Begin."""

    def swept(self, outcomes: Sequence[Outcome]) -> None:
        """Show a sweep; the history holds it already."""

    def woken(self) -> None:
        """Look whether there is a reason to show something without a sweep."""

    def leave(self) -> None:
        """End, whatever has happened."""


def watch(  # noqa: PLR0913 - what it is made of, each by its name
    *,
    sample_interval_seconds: float,
    sweeper: Sweeper,
    history: History,
    face: Face,
    clock: Clock,
    waiting: Waiting,
    suspension: Suspension,
) -> None:
    """Show sweeps until a stop is requested, or until the terminal is gone (SIGHUP).

    Raises:
        PermissionDeniedError: nothing at all can be read, because this user may not.
        BrokenPipeError: nobody reads what is shown.
    """
    sample = Ticker(clock.monotonic(), sample_interval_seconds)
    is_first = True
    face.enter()
    try:
        while not (waiting.stop_requested or waiting.reload_requested):
            outcomes = sweeper.take_outcomes()
            if outcomes is None:
                face.woken()
            else:
                if is_first:
                    refuse_to_run_without_permission(outcomes)
                    is_first = False
                history.add(outcomes)
                face.swept(outcomes)
            if suspension.is_requested and not sweeper.is_busy:
                face.leave()
                suspension.suspend()
                face.enter()
            if clock.monotonic() >= sample.next_seconds and not sweeper.is_busy:
                sample.advance(clock.monotonic())
                sweeper.start()
            late_seconds = _LOOK_AT_A_LATE_SWEEP_SECONDS
            waiting.wait(late_seconds if sweeper.is_busy else sample.next_seconds - clock.monotonic())
    finally:
        face.leave()


_Ended = list["Sequence[Outcome] | BaseException"]


class Sweeps(Protocol):
    """What reads every device once; `agent.measure.sweep.Sweep` is one."""

    def run(self) -> Sequence[Outcome]:
        """One outcome for every device."""


class Sweeper:
    """Runs one sweep at a time in a thread of its own. While it is busy, the buses belong to that thread alone."""

    def __init__(self, sweep: Sweeps, wake: Callable[[], None]) -> None:
        self._sweep = sweep
        self._wake = wake
        self._under_way: _Ended | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a sweep is under way, or has ended and its outcomes have not been taken."""
        return self._under_way is not None

    def start(self) -> None:
        """Begin a sweep; only when none is under way."""
        if self._under_way is not None:
            raise RuntimeError("a sweep is under way")
        # A thread a sweep, as for pushes: one that is stuck for good can simply be left behind.
        self._under_way = ended = _Ended()
        threading.Thread(target=self._run, args=(ended,), name="sweep", daemon=True).start()

    def take_outcomes(self) -> Sequence[Outcome] | None:
        """Of the sweep that has ended since the last call, if one has. Raises what the sweep raised."""
        if not self._under_way:
            return None
        (ended,) = self._under_way
        self._under_way = None
        if isinstance(ended, BaseException):
            raise ended
        return ended

    def finish(self, seconds: float, clock: Clock, waiting: Waiting) -> bool:
        """Let the sweep under way close its muxes; return whether it has ended, and the buses may be closed."""
        give_up_at = clock.monotonic() + seconds
        while self._under_way == [] and clock.monotonic() < give_up_at:
            waiting.wait(give_up_at - clock.monotonic())
        return self._under_way != []

    def _run(self, ended: _Ended) -> None:
        try:
            ended.append(self._sweep.run())
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
            ended.append(error)
        self._wake()


class Suspension:
    """Puts SIGTSTP off: a process that is stopped in the middle of a sweep would keep the bus from everybody else.

    SIGWINCH is caught as well, so that it ends a wait of `Wakeups`.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Self:
        handlers = {signal.SIGTSTP: self._request, signal.SIGWINCH: _do_nothing}
        self._old_handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def suspend(self) -> None:
        """Stop as the system does it by default: not at all where no shell could ever continue it (setpgid(2))."""
        self.is_requested = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        self.is_requested = True


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """As signal calls it."""
