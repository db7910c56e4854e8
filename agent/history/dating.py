"""When a sample was taken: time since boot, and Unix time once the clock is known to be right.

A machine without a battery for its clock boots in the past, and some boot in the future. One sample from the future and
Prometheus refuses those of every other node, so nothing is dated before the clock has been synchronised in this boot.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from agent.energy.state_file import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable

TIMESYNC_FILE: Final = Path("/run/systemd/timesync/synchronized")
"""systemd-timesyncd touches it each time it has adjusted the clock.

Source: systemd-timesyncd.service(8).
"""

STA_UNSYNC: Final = 0x40
TIME_ERROR: Final = 5
"""What adjtimex(2) says of a clock that is not synchronised; the kernel's include/uapi/linux/timex.h."""

_LARGEST_STEP_SECONDS = 5.0
"""A clock without a time server that is set by less than this stays known."""

_LARGEST_DRIFT = 500e-6
"""The most that the kernel corrects the frequency of a clock by; no usable crystal is worse.

Source: the kernel's include/linux/timex.h, MAXFREQ.
"""

_READING_SECONDS = 0.05
_READINGS = 10


class Timebase(Protocol):
    """The clocks of a machine; tests have their own."""

    boot: str

    def since_boot(self) -> float:
        """Seconds since boot, suspension included (CLOCK_BOOTTIME)."""

    def unix(self) -> float:
        """Unix time in seconds; may be wrong, and stepped at any time."""

    def is_synchronised(self) -> bool:
        """Whether the clock is synchronised with a time server at this moment."""


class Dating:
    """Dates samples of this boot.

    Args:
        timebase: the clocks.
        trusts_clock: whether the clock is always right (`clock = "system"`).
    """

    def __init__(self, timebase: Timebase, *, trusts_clock: bool = False) -> None:
        self.timebase = timebase
        self._trusts_clock = trusts_clock
        # The offset when the clock was last synchronised, and that moment since boot: one value, because several
        # threads ask.
        self._known: tuple[float, float] | None = None
        self._step_seconds = 0.0

    @property
    def boot(self) -> str:
        """The present boot."""
        return self.timebase.boot

    def now_milliseconds(self) -> int:
        """Time since boot, for a row."""
        return round(1000 * self.timebase.since_boot())

    def offset_milliseconds(self) -> int | None:
        """Unix time minus time since boot; None while the clock is not known to be right.

        Once it was synchronised it is trusted for the rest of the boot, also without a network, until it is stepped.
        """
        # Ask first: time daemons set the clock before they call it synchronised.
        is_synchronised = not self._trusts_clock and self.timebase.is_synchronised()
        reading = self._read()
        if reading is None:
            return None
        offset_seconds, since_boot_seconds = reading
        if is_synchronised:
            self._known = reading
        elif not self._trusts_clock and not self._is_still_right(offset_seconds, since_boot_seconds):
            return None
        return round(1000 * offset_seconds)

    def why_unknown(self) -> str:
        """Why the clock is not known to be right, and what to do, as text on one line; empty if it is known."""
        if self.offset_milliseconds() is not None:
            return ""
        if self._step_seconds:
            direction = "forward" if self._step_seconds > 0 else "back"
            return (
                f"the clock was set {direction} by {abs(self._step_seconds):.0f} s while no time server was reached; "
                "samples are dated once it is synchronised again"
            )
        obstacle = self.timebase.obstacle if isinstance(self.timebase, SystemTimebase) else ""
        if obstacle:
            return obstacle
        return (
            "the clock has not been synchronised since boot; see `timedatectl timesync-status` (chrony also needs "
            'rtcsync in chrony.conf), or set clock = "system" in [remote_write] if the clock is set in another way'
        )

    def _is_still_right(self, offset_seconds: float, since_boot_seconds: float) -> bool:
        """Whether it was synchronised and has only drifted since; else nothing is known until it is again."""
        known = self._known
        if known is None:
            return False
        step_seconds = offset_seconds - known[0]
        drift_seconds = _LARGEST_DRIFT * (since_boot_seconds - known[1])
        if abs(step_seconds) <= _LARGEST_STEP_SECONDS + drift_seconds:
            return True
        self._step_seconds = step_seconds
        self._known = None
        return False

    def _read(self) -> tuple[float, float] | None:
        """Unix time minus time since boot, and time since boot, in seconds; None if the process was paused each time.

        A pause between the two readings would look like a step of the clock.
        """
        for _ in range(_READINGS):
            before_seconds = self.timebase.since_boot()
            unix_seconds = self.timebase.unix()
            after_seconds = self.timebase.since_boot()
            if after_seconds - before_seconds <= _READING_SECONDS:
                return unix_seconds - (before_seconds + after_seconds) / 2, after_seconds
        return None


class SystemTimebase:
    """The machine's own clocks.

    Args:
        timesync_file: that systemd-timesyncd touches.
        kernel_status: whether the kernel calls the clock synchronised; raises OSError if it may not be asked.
    """

    def __init__(self, timesync_file: Path, kernel_status: Callable[[], bool]) -> None:
        self.boot = boot_id()
        self._timesync_file = timesync_file
        self._kernel_status = kernel_status
        self._seen_nanoseconds: int | None = None
        self._error: OSError | None = None

    def since_boot(self) -> float:
        """Seconds since boot, suspension included."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def unix(self) -> float:
        """Unix time in seconds."""
        return time.time()

    def is_synchronised(self) -> bool:
        """Whether the kernel says so, or systemd-timesyncd has adjusted the clock since the last call."""
        try:
            is_synchronised = self._kernel_status()
            self._error = None
        except OSError as error:
            is_synchronised = False
            self._error = error
        return self._was_adjusted() or is_synchronised

    @property
    def obstacle(self) -> str:
        """Why the last call could not tell, and what to do; empty if it could."""
        if self._error is None:
            return ""
        return (
            f"this process may not ask whether the clock is synchronised (adjtimex: {self._error.strerror}); in a "
            "systemd unit allow it with ProtectClock=no and SystemCallFilter=adjtimex clock_adjtime clock_adjtime64, "
            'or set clock = "system" in [remote_write] if the clock is always right'
        )

    def _was_adjusted(self) -> bool:
        """Whether the file is new to us: it stays until the end of the boot, whatever happens to the clock later."""
        try:
            touched_nanoseconds = self._timesync_file.stat().st_mtime_ns
        except OSError:
            return False
        is_new = touched_nanoseconds != self._seen_nanoseconds
        self._seen_nanoseconds = touched_nanoseconds
        # A file of the future, or from before the boot, says that the clock has been set since.
        age_seconds = self.unix() - touched_nanoseconds / 1e9
        return is_new and -_LARGEST_STEP_SECONDS <= age_seconds <= self.since_boot() + _LARGEST_STEP_SECONDS


def system_timebase(timesync_file: Path | None = None) -> SystemTimebase:
    """The machine's own clocks: synchronised if `adjtimex` says so, or systemd-timesyncd.

    Source: adjtimex(2), STA_UNSYNC; systemd-timesyncd.service(8), /run/systemd/timesync/synchronized.
    """
    read = adjtimex_reader()

    def is_synchronised() -> bool:
        state, status = read()
        return state != TIME_ERROR and not status & STA_UNSYNC

    return SystemTimebase(timesync_file or TIMESYNC_FILE, is_synchronised)


def adjtimex_reader() -> Callable[[], tuple[int, int]]:
    """A function that returns the state of the kernel's clock and its status bits, and changes nothing.

    It raises OSError if the kernel refuses to say, as in a systemd unit with ProtectClock=yes, or cannot.

    Source: adjtimex(2) and the kernel's include/uapi/linux/timex.h; `modes` of 0 only reads.
    """
    import ctypes
    import errno

    class Timex(ctypes.Structure):
        """The head of struct timex, whose `long` has 4 or 8 bytes, and more room than the rest of it needs."""

        _fields_ = (
            ("modes", ctypes.c_uint),
            ("offset", ctypes.c_long),
            ("freq", ctypes.c_long),
            ("maxerror", ctypes.c_long),
            ("esterror", ctypes.c_long),
            ("status", ctypes.c_int),
            ("rest", ctypes.c_byte * 512),
        )

    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        adjtimex = None

    def read() -> tuple[int, int]:
        if adjtimex is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        timex = Timex()
        state = adjtimex(ctypes.byref(timex))
        if state < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return state, timex.status

    return read
