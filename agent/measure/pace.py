"""The pace of a bus: whether reading its chips takes so long that the devices on other buses lose samples."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from agent.errors import BusError
from agent.i2c.place import bus_path
from agent.measure.back_off import LONGEST_BACK_OFF_SECONDS

if TYPE_CHECKING:
    from agent.i2c.place import BusName

log = logging.getLogger(__name__)

# Of the sample interval, and at least as long as it takes to tell a slow bus; a watchdog and a push wait for the end.
_LIMIT_SHARE = 0.9
_SHORTEST_LIMIT_SECONDS = 0.5
_LONGEST_LIMIT_SECONDS = 15.0

# Of the limit: a bus that took more leaves too little to another such bus; one that took much more has to rest.
_SHARE_OF_A_SLOW_BUS = 0.5
_SHARE_OF_AN_OVERLONG_SWEEP = 1.5
_OVERLONG_SWEEPS = 3
"""In a row, before a bus rests: a chip that lets single transfers time out is tried less and less often anyway."""
_LATE_SWEEPS = 10
"""In a row, before it is logged: a process that was not scheduled for a moment shows nothing."""
_PAUSE_SECONDS = 3.0
"""A single reading up to this long shows no slow bus: the process may have been paused in it."""
_REST_SWEEPS = 3
"""How long a bus rests: this many times as long as its last sweep."""


def limit_seconds(sample_interval_seconds: float) -> float:
    """How long a sweep may take before chips on slow buses have to wait for the next one."""
    return min(max(sample_interval_seconds * _LIMIT_SHARE, _SHORTEST_LIMIT_SECONDS), _LONGEST_LIMIT_SECONDS)


class Pace:
    """How long the sweeps of one bus take.

    Attributes:
        error: why a chip was not read.
        is_slow: whether the last sweep took so long that no second bus like it fits into a sweep.
        rests_until_seconds: on the monotonic clock.
    """

    def __init__(self, bus: BusName, sample_interval_seconds: float) -> None:
        self.error = BusError(
            f"{bus_path(bus)}: too slow to read all its chips in every sweep, so they take turns; "
            "set a longer sample_interval, or check the adapter and the wiring"
        )
        self.is_slow = False
        self.rests_until_seconds = -math.inf
        self._limit_seconds = limit_seconds(sample_interval_seconds)
        self._overlong_sweeps = 0
        self._late_sweeps = 0
        self._is_logged = False

    def note(self, took_seconds: float, now_seconds: float, *, is_cut_short: bool, is_hung: bool) -> None:
        """Record a sweep of the bus. If it lasts that they are late, say so; if they are overlong, let the bus rest."""
        self.is_slow = took_seconds > self._limit_seconds * _SHARE_OF_A_SLOW_BUS
        is_overlong = took_seconds > self._limit_seconds * _SHARE_OF_AN_OVERLONG_SWEEP and not is_hung
        self._overlong_sweeps = self._overlong_sweeps + 1 if is_overlong else 0
        if self._overlong_sweeps >= _OVERLONG_SWEEPS:
            self.rests_until_seconds = now_seconds + min(took_seconds * _REST_SWEEPS, LONGEST_BACK_OFF_SECONDS)
        self._late_sweeps = self._late_sweeps + 1 if is_cut_short or is_overlong else 0
        if self._late_sweeps == _LATE_SWEEPS and not self._is_logged:
            self._is_logged = True
            log.warning("%s", self.error)


class SweepTime:
    """The time that one sweep of a bus has left for further chips."""

    def __init__(self, limit_seconds: float, *, is_slow: bool) -> None:
        """Begin; a bus that `is_slow` is given no benefit of the doubt."""
        self._limit_seconds = limit_seconds
        self._is_slow = is_slow
        self._longest_seconds = 0.0
        self._second_longest_seconds = 0.0
        self._forgiven_seconds = 0.0

    def note_reading(self, seconds: float) -> None:
        """Record how long a chip took that answered."""
        slowest = sorted((self._second_longest_seconds, self._longest_seconds, seconds))
        self._second_longest_seconds, self._longest_seconds = slowest[1:]

    def note_failure(self, seconds: float) -> None:
        """Record how long a chip took that failed.

        First time-outs cost the chips after them nothing: in the next sweep, the chips that they came from are last.
        """
        if not self._is_slow:
            self._forgiven_seconds += seconds

    def is_left(self, taken_seconds: float) -> bool:
        """Whether another chip fits in; `taken_seconds` is how long the sweep has held the bus."""
        chip_seconds = self._longest_seconds
        if chip_seconds <= _PAUSE_SECONDS and not self._is_slow:
            chip_seconds = self._second_longest_seconds
        pause_seconds = self._longest_seconds - chip_seconds
        return taken_seconds - self._forgiven_seconds - pause_seconds + chip_seconds <= self._limit_seconds
