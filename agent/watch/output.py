"""Standard output that never keeps the program waiting: not on a terminal stopped with Ctrl-S, not on a full pipe."""

from __future__ import annotations

import errno
import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.clock import Clock
    from agent.run.loop import Waiting

# At most this is written where there is room for something. A pipe that is ready takes so much without waiting
# (pipe(7): PIPE_BUF); a terminal that is ready mostly does.
_CHUNK_BYTES = 1024
_LOOK_AGAIN_SECONDS = 0.1
_LAST_WORD_SECONDS = 0.3


class Output:
    """Writes to a file descriptor for as long as nobody wants the program to stop."""

    def __init__(self, file_descriptor: int, encoding: str, waiting: Waiting, clock: Clock) -> None:
        self.file_descriptor = file_descriptor
        self._encoding = encoding
        self._waiting = waiting
        self._clock = clock

    def is_ready(self, within_seconds: float = 0.0) -> bool:
        """Whether somebody takes what is written."""
        return bool(select.select([], [self.file_descriptor], [], within_seconds)[1])

    def write(self, text: str) -> None:
        """Write all of it; less if the program is to stop while nobody takes it.

        Raises:
            BrokenPipeError: nobody will ever take it: the reader has ended, or the terminal is gone.
        """
        data = self._encoded(text)
        while data and not self._waiting.stop_requested:
            if self.is_ready(_LOOK_AGAIN_SECONDS):
                data = data[self._write(data) :]

    def write_last(self, text: str) -> None:
        """Write what the program ends with, if it can be written at once; raises as `write` does."""
        data = self._encoded(text)
        ends_seconds = self._clock.monotonic() + _LAST_WORD_SECONDS
        while data and self.is_ready(max(0.0, ends_seconds - self._clock.monotonic())):
            data = data[self._write(data) :]

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, errors="replace")

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self.file_descriptor, data[:_CHUNK_BYTES])
        except OSError as error:
            if error.errno == errno.EIO:  # what a terminal says that has hung up
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            raise
