"""Clocks are passed in: the program uses the system's, tests use one that they advance by hand."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_SMALLEST_STEP_SECONDS = 5.0
"""NTP slews the clock by less; a smaller step does not matter."""


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


class ClockSteps:
    """How far the wall clock has been set since this was made.

    Machines without a battery for their clock boot in the past, and set it once they reach a time server.
    """

    def __init__(
        self,
        unix: Callable[[], float] = time.time,
        since_boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
    ) -> None:
        """Compare Unix time with the time since boot, which includes the time that the machine is suspended."""
        self._unix = unix
        self._since_boot = since_boot
        self._offset_seconds = unix() - since_boot()
        self._seconds = 0.0

    def seconds(self) -> float:
        """The steps so far, added up; the same value until the clock is set again."""
        steps_seconds = self._unix() - self._since_boot() - self._offset_seconds
        if abs(steps_seconds - self._seconds) > _SMALLEST_STEP_SECONDS:
            self._seconds = steps_seconds
        return self._seconds
