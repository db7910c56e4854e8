"""The thread that reads, so that a bus that hangs keeps nobody at the terminal waiting."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.loop import Waiting

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
