"""Waiting in a way that a stop ends, and what the stop may take."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, TypeVar

from agent.errors import BusyError
from agent.threads import Background, NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.clock import Clock
    from agent.run.agent import Agent
    from agent.run.saver import Saver

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

STOP_BUDGET_SECONDS = 1.6
"""From the signal on, the sweep and the push under way, the last push and the last save share this much. The rest of
the 2 s in which SIGTERM ends the process is for the end of the interpreter."""

STOP_SECONDS = 0.2
"""The longest that a push may take to end once it is aborted."""

SWEEP_SECONDS = 0.5
"""How long the sweep under way may take after the signal; one of buses that are well takes less."""

LEAST_SECONDS = 0.1
"""What the last save gets at least, even if a sweep has used up the budget."""


class Waiting(Protocol):
    """Lets the loop wait, and holds requests to stop or reload."""

    stop_requested: bool
    reload_requested: bool
    stop_requested_at_seconds: float | None  # on the monotonic clock

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or sooner when a signal arrives or a push ends."""


def in_thread(job: Callable[[], _Result], waiting: Waiting, wake: Callable[[], None], stopped: str) -> _Result:
    """Do something that may hang in a thread, so that a stop need not wait for it.

    Raises:
        BusyError: a stop was requested before it ended; with the message `stopped`.
        Exception: as raised by `job`.
    """
    results: list[_Result] = []
    background = Background[None]("wait", wake)
    background.start(lambda: results.append(job()))
    while not background.has_ended:
        if waiting.stop_requested:
            raise BusyError(stopped)
        waiting.wait(60.0)
    try:
        background.take_result()
    except NoThreadError:
        return job()
    return results[0]


def is_sweep_overdue(clock: Clock, waiting: Waiting) -> bool:
    """Whether a stop has waited for the sweep under way for long enough."""
    asked_at = waiting.stop_requested_at_seconds
    return asked_at is not None and clock.monotonic() - asked_at > SWEEP_SECONDS


def stop_deadline(clock: Clock, waiting: Waiting) -> float:
    """When a stop has to be over, on the monotonic clock."""
    now = clock.monotonic()
    asked_at = waiting.stop_requested_at_seconds
    return max(now + LEAST_SECONDS, (now if asked_at is None else asked_at) + STOP_BUDGET_SECONDS)


def await_last_save(agent: Agent, clock: Clock, waiting: Waiting, give_up_at_seconds: float) -> None:
    """Wait for the last save to end; say so if it does not."""
    saver = agent.parts.saver
    if saver is not None and not await_save(saver, clock, waiting, give_up_at_seconds):
        log.warning(
            "%s: the disk does not answer, so the last save is given up; after a reboot the counters start from zero",
            saver.file.path,
        )


def await_save(saver: Saver, clock: Clock, waiting: Waiting, give_up_at_seconds: float) -> bool:
    """Wait until nothing is being saved, less long after a stop; return whether that is so."""
    while saver.is_busy:
        if waiting.stop_requested:
            give_up_at_seconds = min(give_up_at_seconds, stop_deadline(clock, waiting))
        left_seconds = give_up_at_seconds - clock.monotonic()
        if left_seconds <= 0:
            return False
        waiting.wait(left_seconds)
    return True
