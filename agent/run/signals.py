"""Waiting that ends at once when there is a reason: a signal, or word from another thread."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

_STOP = (signal.SIGTERM, signal.SIGINT)
_ALL = (*_STOP, signal.SIGHUP)


class Wakeups:
    """SIGTERM, SIGINT and SIGHUP as flags, and one pipe that every reason to wake writes to.

    A handler only sets a flag: whatever is under way, such as a transaction on a bus, is finished first. (An Event
    would not do, since its lock may be held by the very thread that the handler interrupts.)
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self.reload_requested = False

    def __enter__(self) -> Self:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_fd = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, self._handle) for number in _ALL}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        ends = self._read_end, self._write_end
        # The numbers may be those of other files soon: a thread that was left behind must not write there.
        self._read_end = self._write_end = -1
        for end in ends:
            os.close(end)

    def wake(self) -> None:
        """End a wait; from any thread."""
        with suppress(BlockingIOError, OSError):  # a full pipe wakes as well, a closed one has nobody left to wake
            os.write(self._write_end, b"\0")

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or sooner if there is a reason, at once if it is there already."""
        there, _, _ = select.select([self._read_end], [], [], max(0.0, seconds))
        if there:
            with suppress(BlockingIOError):
                while os.read(self._read_end, 512):
                    pass

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal calls it
        if number == signal.SIGHUP:
            self.reload_requested = True
        else:
            self.stop_requested = True
