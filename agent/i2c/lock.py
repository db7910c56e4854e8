"""The lock on a bus's device file, which keeps other processes off the bus."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.errors import BusError, BusyError
from agent.locks import holder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.clock import Clock

# Short compared with a sweep, so that a waiting process gets its turn even if another one sweeps without a pause.
_POLL_SECONDS = 0.0005


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
