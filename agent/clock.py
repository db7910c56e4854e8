"""Clocks are passed in: the program uses the system's, tests use one that they advance by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `monotonic` for durations and ticks, `time` only for time stamps."""

    def monotonic(self) -> float:
        """Seconds since some fixed time in this boot; does not advance while the machine is suspended."""

    def time(self) -> float:
        """Unix time in seconds; may be stepped at any time."""

    def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    time = staticmethod(time.time)  # last, because it hides the module
