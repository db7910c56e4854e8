"""Standard error that never blocks: lines that are not read are dropped and counted, and the run goes on.

A full pipe, or a terminal whose output is stopped (Ctrl-S), blocks every write to it: a log line would stop the
sampling thread, and SIGTERM with it. O_NONBLOCK on the file itself would change it for all programs that share it, such
as the shell. So pipes and terminals are opened again for this process alone; where that is not allowed, and with the
journal's socket, a poll says whether the next line fits.

Source: pipe(7): a write of up to PIPE_BUF bytes is atomic. It either fits or fails with EAGAIN.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Callable

_CUT = b" ... (cut)\n"


class Stderr(io.TextIOBase):
    """Takes the place of `sys.stderr`. Writing to it never blocks, and never raises.

    Attributes:
        notice: the line that tells how many lines are missing.
    """

    def __init__(self, file_descriptor: int, encoding: str = "utf-8") -> None:
        self._file_descriptor = file_descriptor
        self._encoding = encoding
        self._output = _own_description(file_descriptor)
        self._poll = select.poll()
        self._poll.register(self._output, select.POLLOUT)
        self._rest = b""  # of a line of which a terminal took only the beginning
        self._missing = 0
        self.notice: Callable[[int], str] = _notice

    @property
    def encoding(self) -> str:  # type: ignore[override] # a plain attribute in typeshed
        """The encoding of what is written; characters that it lacks are escaped."""
        return self._encoding

    def fileno(self) -> int:
        """The file descriptor that it stands for."""
        return self._file_descriptor

    def isatty(self) -> bool:
        """Whether a person sees it."""
        return os.isatty(self._file_descriptor)

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, text: str) -> int:
        """Write each line of a text that its reader has room for."""
        *lines, rest = text.split("\n")
        for line in (*(f"{line}\n" for line in lines), *filter(None, (rest,))):
            if self._missing and self._put(self.notice(self._missing)):
                self._missing = 0
            if self._missing or not self._put(line):
                self._missing += 1
        return len(text)

    def _put(self, line: str) -> bool:
        """Write one line; return whether it is on its way, in part at least."""
        data = line.encode(self._encoding, "backslashreplace")
        if len(data) > select.PIPE_BUF:
            data = data[: select.PIPE_BUF - len(_CUT)] + _CUT
        try:
            if self._rest:
                self._rest = self._rest[self._write(self._rest) :]
            if self._rest:
                return False
            self._rest = data[self._write(data) :]
        except OSError:  # full; or broken: closed by its reader, a terminal that is gone, a full disk
            return False
        return True

    def _write(self, data: bytes) -> int:
        if not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self._output, data)


def install() -> None:
    """Replace `sys.stderr`; one that is closed is left alone."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            sys.stderr = cast("TextIO", Stderr(sys.stderr.fileno(), sys.stderr.encoding))


def _own_description(file_descriptor: int) -> int:
    """A file descriptor of this process alone that does not block, if that can be had."""
    mode = os.fstat(file_descriptor).st_mode
    if stat.S_ISFIFO(mode) or os.isatty(file_descriptor):
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            return os.open(f"/proc/self/fd/{file_descriptor}", flags)
        except OSError:  # another user's terminal, or a pipe without a reader
            return file_descriptor
    return file_descriptor


def _notice(missing: int) -> str:
    lines = f"{missing} lines are" if missing > 1 else "1 line is"
    return f"wattpush: {lines} missing here: this output was not read\n"
