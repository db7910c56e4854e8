"""Signals as flags, and a wait that a signal or another thread ends."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from agent import terminal

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from typing_extensions import Self

_STOP = (signal.SIGTERM, signal.SIGINT)
_ALL = (*_STOP, signal.SIGHUP)


class Signals:
    """SIGTERM and SIGINT request a stop, SIGHUP a reload; each ends `wait`, and so does `wake`.

    SIGHUP from a terminal that is closed requests a stop.

    The handler only sets a flag, so that an operation under way, such as an I2C transfer, finishes first. Waiting uses
    a pipe: the thread that the handler interrupts may hold the lock of a threading.Event.

    Attributes:
        inputs: other file descriptors; a wait ends while there is something to read from one of them.
    """

    def __init__(self) -> None:
        self.stop_requested = False
        self.reload_requested = False
        self.stop_requested_at_seconds: float | None = None
        self.inputs: set[int] = set()

    def __enter__(self) -> Self:
        self._read_end, self._write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_fd = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        # A process that ignores SIGHUP, as under nohup, is meant to outlive its terminal.
        self._ends_with_terminal = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN and terminal.is_there()
        self._old_handlers = {number: signal.signal(number, self._handle) for number in _ALL}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        ends = self._read_end, self._write_end
        # The numbers may soon belong to other files: a thread that was abandoned must not write there.
        self._read_end = self._write_end = -1
        for end in ends:
            os.close(end)

    def wake(self) -> None:
        """End a wait; may be called from any thread."""
        with suppress(BlockingIOError, OSError):  # a full pipe ends the wait too; when it is closed, no wait is left
            os.write(self._write_end, b"\0")

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or sooner after a signal or `wake`, including one since the last wait."""
        readable, _, _ = select.select([self._read_end, *self.inputs], [], [], max(0.0, seconds))
        if self._read_end in readable:
            with suppress(BlockingIOError):
                while os.read(self._read_end, 512):
                    pass

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        has_hung_up = number == signal.SIGHUP and self._ends_with_terminal and not terminal.is_there()
        if number == signal.SIGHUP and not has_hung_up:
            self.reload_requested = True
        else:
            self._request_stop()

    def stop(self) -> None:
        """Request a stop, as a signal does."""
        self._request_stop()
        self.wake()

    def _request_stop(self) -> None:
        if not self.stop_requested:
            self.stop_requested_at_seconds = time.monotonic()
            self.stop_requested = True


def suspend() -> None:
    """Stop by the default action of Ctrl-Z, until the shell continues this process.

    The default action does nothing if no shell could continue it (setpgid(2)).
    """
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)
