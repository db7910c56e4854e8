"""The clock of the simulated parts in these tests."""

from __future__ import annotations


class HandClock:
    """A clock that stands still until a test advances it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def advance(self, seconds: float) -> None:
        self.seconds += seconds
