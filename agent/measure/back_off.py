"""The back-off of a failing chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent.errors import AgentError

LONGEST_BACK_OFF_SECONDS = 10.0


class BackOff(NamedTuple):
    """Probe a chip in the sweep after its first failure, and half as often after each further one.

    Attributes:
        failures: in a row.
        probe_at_seconds: when to try the chip again, on the monotonic clock.
        error: the last failure.
    """

    failures: int = 0
    probe_at_seconds: float = 0.0
    error: AgentError | None = None

    def after(self, error: AgentError, now_seconds: float, sample_interval_seconds: float) -> BackOff:
        """The back-off after one more failure."""
        # Half an interval less, so that the sweep which is due then does probe the chip.
        sweeps = 2 ** min(self.failures, 16) - 0.5
        wait_seconds = min(LONGEST_BACK_OFF_SECONDS, sample_interval_seconds * sweeps)
        return BackOff(self.failures + 1, now_seconds + wait_seconds, error)

    def reason(self, now_seconds: float) -> AgentError | None:
        """The failure that the chip backs off after; None when it is due."""
        return self.error if now_seconds < self.probe_at_seconds else None


NO_BACK_OFF = BackOff()
