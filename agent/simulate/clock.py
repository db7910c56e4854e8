"""A clock that tests set by hand: hours of measuring pass in moments."""

from __future__ import annotations


class HandClock:
    """A clock that advances only when set or slept on; see `agent.clock.Clock`."""

    def __init__(self) -> None:
        """Start at an arbitrary second."""
        self.seconds = 1000.0

    def monotonic(self) -> float:
        """The present time in seconds."""
        return self.seconds

    def time(self) -> float:
        """The same, as Unix time."""
        return 1.7e9 + self.seconds

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.seconds += seconds
