"""The controlling terminal: a run in the foreground of a terminal ends with it."""

from __future__ import annotations

import os

_OPEN = os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


def is_there() -> bool:
    """Whether this process has a controlling terminal; one that was closed is gone (ENXIO, tty(4))."""
    try:
        os.close(os.open("/dev/tty", _OPEN))
    except OSError:
        return False
    return True
