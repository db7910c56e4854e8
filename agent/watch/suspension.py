"""Ctrl-Z and a terminal of another size, as signals that wait for a good moment."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self


class Suspension:
    """Puts SIGTSTP off: a process that is stopped in the middle of a sweep would keep the bus from everybody else.

    SIGWINCH is caught as well, so that it ends a wait of `Signals`.
    """

    def __init__(self) -> None:
        self.is_requested = False

    def __enter__(self) -> Self:
        handlers = {signal.SIGTSTP: self._request, signal.SIGWINCH: _do_nothing}
        self._old_handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)

    def suspend(self) -> None:
        """Stop as the system does it by default: not at all where no shell could ever continue it (setpgid(2))."""
        self.is_requested = False
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        self.is_requested = True


def _do_nothing(number: int, frame: FrameType | None) -> None:
    """As signal calls it."""
