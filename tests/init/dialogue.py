"""The real program on a real terminal: a person who reads the prompts and types answers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest

from tests.run.running import LONG_SECONDS, PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COLUMNS = 80


class Dialogue:
    """A program on a terminal of its own, which is the controlling one.

    Attributes:
        text: everything that the terminal has shown.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._terminal, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        environ = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
        # Signals as a login shell leaves them, also where the tests themselves run under nohup.
        usual = ["setsid", "--ctty", "env", "--default-signal"]
        self.process = subprocess.Popen(
            [*usual, *command], cwd=PROJECT, env=environ, stdin=theirs, stdout=theirs, stderr=theirs
        )
        self._theirs = theirs
        self._read = 0
        self.text = ""
        self._is_open = True

    def expect(self, prompt: str) -> str:
        """Wait until the terminal shows this text; return the words between what was expected before and it."""
        while (found := self.text.find(prompt, self._read)) < 0:
            if not self._receive():
                pytest.fail(f"the program ended before {prompt!r}:\n{self.text}")
        before = self.text[self._read : found]
        self._read = found + len(prompt)
        return " ".join(before.split())

    def answer(self, prompt: str, answer: str) -> str:
        """Type a line once the prompt is there; return the words before it."""
        before = self.expect(prompt)
        self.press(f"{answer}\n")
        return before

    def press(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def hang_up(self) -> None:
        """Close the window."""
        self._is_open = False
        os.close(self._theirs)
        os.close(self._terminal)

    @property
    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self._terminal)[3] & termios.ECHO)

    def end(self) -> int:
        """Wait for the end; return the exit code."""
        if self._is_open:
            while self.process.poll() is None:
                self._receive(0.05)
            while self._receive(0):
                pass
        return self.process.wait(LONG_SECONDS)

    def lines(self) -> list[str]:
        """The lines on the screen, without what was drawn over."""
        plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.text)
        return [line.rpartition("\r")[2].rstrip() for line in plain.replace("\r\n", "\n").split("\n")]

    def _receive(self, seconds: float = LONG_SECONDS) -> bool:
        """Read what the terminal shows; False if there is nothing, or the program has ended."""
        ready, _, _ = select.select([self._terminal], [], [], min(seconds, 0.5))
        if ready:
            self.text += os.read(self._terminal, 65536).decode()
            return True
        return seconds > 0.5 and self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait(LONG_SECONDS)
        if self._is_open:
            self.hang_up()


@contextlib.contextmanager
def dialogue(command: Sequence[str]) -> Iterator[Dialogue]:
    running = Dialogue(command)
    try:
        yield running
    finally:
        running.close()


def answer_for_the_builtin_node(person: Dialogue) -> None:
    """Every question of `wattpush init --simulate`, up to the file; the gateway is on this machine."""
    for name in ("cpu", "accelerator", "skip", "radio"):
        person.answer("  name [", name)
    person.answer("  shunt: ", "R050")
    person.answer("another shunt [0.05]: ", "")
    person.answer("  name [", "skip")
    person.answer("Pushgateway [http://127.0.0.1:9091]: ", "")
    person.answer("[Y/n]: ", "")
    assert person.end() == 0, person.text
