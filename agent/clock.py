"""Time as it is handed in: the running program gets the system's, tests get one that they turn by hand."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: `monotonic` for every duration and tick, `time` for nothing but the time stamps that people see."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment of this boot; stands still while the machine is suspended."""

    def time(self) -> float:
        """Unix time in seconds; may be stepped at any moment."""

    def sleep(self, seconds: float) -> None:
        """Return `seconds` later."""


class SystemClock:
    """The machine's own clocks."""

    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    time = staticmethod(time.time)  # last: from here on the name is this one, not the module
