"""The loop of a watch: a sweep each sample interval, shown as it comes, until a signal ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.run.loop import Ticker, refuse_to_run_without_permission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.loop import Waiting
    from agent.watch.history import History
    from agent.watch.suspension import Suspension
    from agent.watch.sweeper import Sweeper

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
