"""Sweeps in a thread of their own, for commands that read the devices and push nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.threads import Background

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.stopping import Waiting


class Sweeps(Protocol):
    """Reads every device once, as `agent.measure.sweep.Sweep` does."""

    def run(self) -> Sequence[Outcome]:
        """Return one outcome for every device."""


class Sweeper(Background["Sequence[Outcome]"]):
    """Runs one sweep at a time, so that a bus that hangs does not block the main thread.

    While it is busy, only its thread may use the buses.
    """

    def __init__(self, sweep: Sweeps, wake: Callable[[], None]) -> None:
        super().__init__("sweep", wake)
        self._sweep = sweep

    def sweep(self) -> None:
        """Start a sweep; only when none is under way."""
        self.start(self._sweep.run)

    def finish(self, seconds: float, clock: Clock, waiting: Waiting) -> bool:
        """Wait until the sweep under way has closed its muxes; return whether it ended, so that buses may be closed."""
        give_up_at = clock.monotonic() + seconds
        while not self.has_ended and clock.monotonic() < give_up_at:
            waiting.wait(give_up_at - clock.monotonic())
        return self.has_ended
