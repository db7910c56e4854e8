"""Time that is turned by hand: hours of measuring pass in moments."""

from __future__ import annotations


class HandClock:
    """A clock that stands until it is turned, by hand or by whoever sleeps on it; see `agent.clock.Clock`."""

    def __init__(self) -> None:
        """Begin at some second."""
        self.seconds = 1000.0

    def monotonic(self) -> float:
        """The second it is."""
        return self.seconds

    def time(self) -> float:
        """The same, as Unix time."""
        return 1.7e9 + self.seconds

    def sleep(self, seconds: float) -> None:
        """Turn the clock."""
        self.seconds += seconds
