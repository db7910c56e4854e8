"""The loop of a watch: a sweep at each sample interval, shown when it ends, until a signal ends the watch."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Protocol

from agent.run.loop import Ticker
from agent.run.permissions import refuse_to_run_without_permission
from agent.run.signals import suspend

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType, TracebackType

    from typing_extensions import Self

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.stopping import Waiting
    from agent.run.sweeper import Sweeper
    from agent.watch.history import History, VoltsOnly

_POLL_SECONDS = 1.0
"""How often to check for a late sweep, and whether a background job is in the foreground again."""


class Display(Protocol):
    """A terminal or a pipe that shows the readings."""

    def open(self) -> None:
        """Start, or continue after `close`."""

    def show(self, outcomes: Sequence[Outcome | VoltsOnly]) -> None:
        """Show a sweep that the history already has."""

    def refresh(self) -> None:
        """Update the display without a new sweep if there is a reason to."""

    def close(self) -> None:
        """Restore the terminal. Called however the watch ends."""

    def sum_up(self) -> None:
        """Show the result, after `close`, if the watch was ended by a person."""

    @property
    def is_hidden(self) -> bool:
        """Whether nothing can be shown now, because this is a background job of its terminal."""


def watch(  # noqa: PLR0913 - the parts of a watch, by keyword
    *,
    sample_interval_seconds: float,
    sweeper: Sweeper,
    history: History,
    display: Display,
    clock: Clock,
    waiting: Waiting,
    suspension: Suspension,
) -> None:
    """Show sweeps until a stop is requested, or until the terminal is gone (SIGHUP).

    Raises:
        PermissionDeniedError: this user may not read any of the devices.
        BrokenPipeError: the reader of the output has ended.
    """
    sample = Ticker(clock.monotonic(), sample_interval_seconds)
    is_first = True
    try:
        display.open()
        while not (waiting.stop_requested or waiting.reload_requested):
            outcomes = sweeper.take_result()
            if outcomes is None:
                display.refresh()
            else:
                if is_first:
                    refuse_to_run_without_permission(outcomes)
                    is_first = False
                display.show(history.add(outcomes))
            if suspension.is_requested and not sweeper.is_busy:
                display.close()
                suspension.suspend()
                display.open()
            if clock.monotonic() >= sample.next_seconds and not sweeper.is_busy:
                sample.advance(clock.monotonic())
                sweeper.sweep()
            until_next_seconds = sample.next_seconds - clock.monotonic()
            if sweeper.is_busy:
                waiting.wait(_POLL_SECONDS)
            else:
                waiting.wait(min(until_next_seconds, _POLL_SECONDS) if display.is_hidden else until_next_seconds)
    finally:
        display.close()
    display.sum_up()


class Suspension:
    """Delays Ctrl-Z (SIGTSTP) until no sweep is under way: a process stopped during a sweep would keep the bus locked.

    It also catches SIGWINCH, a new size of the terminal, so that the signal ends a wait, and ignores SIGTTIN and
    SIGTTOU, by which the kernel stops a background job that uses its terminal.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Self:
        handlers: dict[int, Callable[[int, FrameType | None], None] | signal.Handlers] = {
            signal.SIGTSTP: self._request,
            signal.SIGWINCH: _do_nothing,
            signal.SIGTTIN: signal.SIG_IGN,
            signal.SIGTTOU: signal.SIG_IGN,
        }
        self._old_handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def suspend(self) -> None:
        """Stop until the shell continues this process."""
        self.is_requested = False
        suspend()

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.is_requested = True


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """A signal handler; catching the signal is enough."""
