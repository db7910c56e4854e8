"""The lock on a bus's device file, which keeps other processes off the bus, and the name of the process that has it."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import BusError, BusyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.clock import Clock

# Short compared with a sweep, so that a waiting process gets its turn even if another one sweeps without a pause.
_POLL_SECONDS = 0.0005

_LOCKS = Path("/proc/locks")


@contextmanager
def exclusive_lock(file_descriptor: int, bus: str, clock: Clock, wait_seconds: float) -> Iterator[None]:
    """Hold the lock on a device file.

    Args:
        file_descriptor: of the device file.
        bus: its name in errors.
        clock: for the wait.
        wait_seconds: how long to wait for another process; 0 tries once.

    Raises:
        BusyError: another process has the lock for longer.
        BusError: the file cannot be locked.
    """
    give_up_at = clock.monotonic() + wait_seconds
    while not _take(file_descriptor, bus):
        if clock.monotonic() >= give_up_at:
            what = f"has held the bus for {wait_seconds:g} s" if wait_seconds else "holds the bus"
            name = holder(file_descriptor)
            named = "" if name is None else f": {name}"
            raise BusyError(f"{bus}: another process {what}{named}; is a second agent running?")
        clock.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        fcntl.flock(file_descriptor, fcntl.LOCK_UN)


def _take(file_descriptor: int, bus: str) -> bool:
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise BusError(f"{bus}: cannot be locked: {error.strerror}", error.errno) from error
    return True


def holder(file_descriptor: int, locks: Path = _LOCKS) -> str | None:
    """The process that has the lock, such as `i2cdetect, pid 1234`; None if it cannot be seen from here.

    A process of another container has no number here, and a sandbox may hide its name.

    Source: proc(5). A line is `1: FLOCK ADVISORY WRITE 1234 00:05:678 0 EOF`: the process, then the file as
    major:minor:inode, the first two in hexadecimal. A line with `->` is a process that waits.
    """
    status = os.fstat(file_descriptor)
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        lines = locks.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        fields = line.split()
        if "FLOCK" in fields and "->" not in fields and file in fields:
            pid = fields[fields.index(file) - 1]
            return f"{_name(pid)}pid {pid}" if pid.isdecimal() and pid != "0" else None
    return None


def _name(pid: str) -> str:
    try:
        return Path("/proc", pid, "comm").read_text(encoding="utf-8", errors="replace").strip() + ", "
    except OSError:
        return ""
