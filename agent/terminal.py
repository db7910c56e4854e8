"""The controlling terminal: a run in the foreground of a terminal ends with it."""

from __future__ import annotations

import os

IGNORED_AT_START: set[int] = set()
"""The signals that our parent has told this process to ignore, as nohup does; `__main__` notes them."""

_OPEN = os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


def is_there() -> bool:
    """Whether this process has a controlling terminal; one that was closed is gone (ENXIO, tty(4))."""
    try:
        os.close(os.open("/dev/tty", _OPEN))
    except OSError:
        return False
    return True


def is_in_foreground() -> bool:
    """Whether what is typed into the controlling terminal, such as Ctrl-C, sends a signal to this process."""
    try:
        file = os.open("/dev/tty", _OPEN)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(file) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(file)
