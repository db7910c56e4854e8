"""The keys that end a watch, read from its terminal without ever waiting for them."""

from __future__ import annotations

import os
import select
import termios
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_QUIT = b"qQ\x04"
"""Ctrl-D is a key like others while the terminal passes on keys one by one."""

_ESCAPE = b"\x1b"
_LOCAL_MODES, _CHARACTERS = 3, 6
"""Where tcgetattr has them."""


def is_in_foreground(terminal: int) -> bool:
    """Whether this process may use the terminal: not as a background job. One that controls no jobs is free for all."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # not the controlling terminal of this process, or no terminal
        return True


class Keyboard:
    """Makes a terminal pass on each key at once and show none, between `open` and `close`.

    The kernel stops a background job that reads from its terminal or changes its mode (termios(3)): possibly while it
    holds a bus. So a watch uses its terminal in the foreground only, and ignores the signals that would stop it.

    Args:
        terminal: its file descriptor; of a file or pipe nothing is read.
        inputs: file descriptors that end a wait as soon as there is something to read.
        stop: called when a key asks for the end.
    """

    def __init__(self, terminal: int, inputs: set[int], stop: Callable[[], None]) -> None:
        self._terminal = terminal
        self._inputs = inputs
        self._stop = stop
        self._before: list[Any] | None = None

    @property
    def is_open(self) -> bool:
        """Whether keys are read."""
        return self._terminal in self._inputs

    def open(self) -> None:
        """Begin, or continue after the job was in the background; does nothing without a terminal in the foreground."""
        if self.is_open or not is_in_foreground(self._terminal):
            return
        with suppress(termios.error):  # no terminal, or one that hung up
            mode = termios.tcgetattr(self._terminal)
            # Of a job that was stopped with SIGSTOP, the shell restores the mode that this process has set.
            self._before = self._before or [*mode[:_CHARACTERS], list(mode[_CHARACTERS])]
            mode[_LOCAL_MODES] &= ~(termios.ECHO | termios.ICANON)
            mode[_CHARACTERS][termios.VMIN] = mode[_CHARACTERS][termios.VTIME] = 0
            # At once: to wait until all output is written would block on a terminal stopped with Ctrl-S.
            termios.tcsetattr(self._terminal, termios.TCSANOW, mode)
            self._inputs.add(self._terminal)

    def read(self) -> None:
        """Take the keys pressed since the last call."""
        if self.is_open and not is_in_foreground(self._terminal):
            self._inputs.discard(self._terminal)
        pressed = select.poll()
        pressed.register(self._terminal, select.POLLIN)
        while self.is_open and (events := pressed.poll(0)):
            keys = b""
            with suppress(OSError):  # hung up
                keys = os.read(self._terminal, 1024)
            if not keys or not events[0][1] & select.POLLIN:
                self._inputs.discard(self._terminal)  # otherwise its end would end every wait
            # An arrow or function key is a sequence that may contain any letter.
            elif not keys.startswith(_ESCAPE) and any(key in _QUIT for key in keys):
                self._stop()

    def close(self) -> None:
        """Restore the mode that the terminal had; not that of the shell, while this is a background job."""
        self._inputs.discard(self._terminal)
        if self._before is not None and is_in_foreground(self._terminal):
            # Switching flow control off resumes output that Ctrl-S has stopped, so that the screen can be restored.
            flowing = [self._before[0] & ~termios.IXON, *self._before[1:]]
            with suppress(termios.error):
                for mode in (flowing, self._before):
                    termios.tcsetattr(self._terminal, termios.TCSANOW, mode)
        self._before = None
