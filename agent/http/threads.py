"""Starts threads where the system may have none left (TasksMax= of the unit, ulimit -u)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import UnreachableError

if TYPE_CHECKING:
    import threading


class NoThreadError(UnreachableError):
    """The system has no thread left; what needs one fails, and may work the next time."""


def start_thread(thread: threading.Thread) -> None:
    """Start it; raises NoThreadError if the system has none left."""
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(f"{error}; raise TasksMax= or ulimit -u") from error
