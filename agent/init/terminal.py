"""Questions and answers on a terminal, in plain text of 80 columns."""

from __future__ import annotations

import getpass
import shutil
import sys
import textwrap
from typing import Protocol

_MOST_COLUMNS = 80
_NOT_UTF8 = "That is not text in UTF-8; type it again."


class Terminal(Protocol):
    """Where a person answers. The questions raise EOFError at the end of the input: Ctrl-D, or a closed terminal."""

    def say(self, text: str = "") -> None:
        """Print a paragraph; its own indentation is kept."""

    def show(self, text: str) -> None:
        """Print lines as they are."""

    def ask(self, question: str, default: str = "") -> str:
        """The answer without surrounding spaces; the default, shown in brackets, for an empty line."""

    def ask_secretly(self, question: str) -> str:
        """The answer as it was typed, which the terminal does not show."""


class StandardTerminal:
    """The terminal of standard input and output."""

    def say(self, text: str = "") -> None:
        """See `Terminal`."""
        columns = min(_MOST_COLUMNS, shutil.get_terminal_size().columns)
        indent = " " * (len(text) - len(text.lstrip(" ")))
        lines = textwrap.wrap(
            text.strip(),
            columns,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.show("\n".join(lines) + "\n")

    def show(self, text: str) -> None:
        """See `Terminal`."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def ask(self, question: str, default: str = "") -> str:
        """See `Terminal`. Not `input`, which writes its prompt to standard error."""
        while True:
            self.show(f"{question} [{default}]: " if default else f"{question}: ")
            try:
                line = sys.stdin.readline()
                line.encode()  # in the locale C, Python reads such bytes as characters that no file can hold
            except UnicodeError:
                self.say(_NOT_UTF8)
                continue
            if not line:
                raise EOFError
            return line.strip() or default

    def ask_secretly(self, question: str) -> str:
        """See `Terminal`."""
        while True:
            try:
                return getpass.getpass(f"{question}: ")
            except UnicodeDecodeError:
                self.say(_NOT_UTF8)


def confirm(terminal: Terminal, question: str, *, default: bool) -> bool:
    """The answer to a question of yes or no."""
    while True:
        answer = terminal.ask(f"{question} [{'Y/n' if default else 'y/N'}]").lower()
        if not answer:
            return default
        if answer in ("y", "yes", "n", "no"):
            return answer.startswith("y")
        terminal.say("Answer y or n.")
