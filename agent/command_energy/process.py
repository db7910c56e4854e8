"""The command that is measured: started in our process group, and ended by the signals that are meant for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

from agent import terminal
from agent.errors import AgentError
from agent.run.signals import Signals, suspend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

    from typing_extensions import Self

_FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
"""The terminal sends these to all programs in the foreground, the command among them."""

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


class CommandError(AgentError):
    """The command cannot be run; the exit code is the one that a shell returns."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[assignment]  # a shell's, which sysexits.h does not have


class CommandSignals(Signals):
    """Collects the signals of the terminal and those for the command, the end of the command (SIGCHLD), and Ctrl-Z.

    Attributes:
        pending: what has arrived, in order; whoever handles a signal removes it.
        suspension_requested: whether Ctrl-Z (SIGTSTP) waits for the sweep under way: a process that is stopped in a
            sweep would keep the bus locked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pending: list[int] = []
        self.suspension_requested = False

    def __enter__(self) -> Self:
        super().__enter__()
        more = (signal.SIGQUIT, signal.SIGCHLD, signal.SIGTSTP)
        self._old_handlers |= {number: signal.signal(number, self._handle) for number in more}
        for number in terminal.IGNORED_AT_START:  # by nohup, or a shell without job control: the command inherits that
            signal.signal(number, signal.SIG_IGN)
        return self

    def suspend(self) -> None:
        """Stop, as the command does, until the shell continues both."""
        self.suspension_requested = False
        suspend()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTSTP:
            self.suspension_requested = True
        elif number != signal.SIGCHLD:
            self.pending.append(number)


class Command:
    """A command with its arguments, which may be run several times.

    Attributes:
        words: its name and arguments.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        """Find it.

        Args:
            words: its name and arguments.
            environ: its environment.

        Raises:
            CommandError: there is no such program.
        """
        self.words = tuple(words)
        self._environ = dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        name, path = words[0], environ.get("PATH", os.defpath)
        if not name:
            raise CommandError("measure: the command is an empty word", _NOT_FOUND)
        if shutil.which(name, path=path) is None:
            if shutil.which(name, os.F_OK, path) is None and not os.path.exists(name):  # noqa: PTH110 - may be no path
                raise CommandError(f"measure: {name}: command not found", _NOT_FOUND)
            raise CommandError(f"measure: {name}: not an executable file", _NOT_EXECUTABLE)

    def start(self) -> None:
        """Run it with our standard streams, in our process group. Raises CommandError."""
        name = self.words[0]
        try:
            self._process = subprocess.Popen(self.words, env=self._environ)  # noqa: S603 - the user's command
        except FileNotFoundError as error:
            raise CommandError(f"measure: {name}: {error.strerror}; does its interpreter exist?", _NOT_FOUND) from error
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise CommandError(f"measure: {name}: {reason}", _NOT_EXECUTABLE) from error

    def exit_status(self) -> int | None:
        """Its exit status, 128 + N for death by signal N as shells have it; None while it runs."""
        code = None if self._process is None else self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def pass_on(self, number: int) -> None:
        """Send it a signal that was sent to us, unless the terminal has sent it to both."""
        if self._process is not None and not (number in _FROM_TERMINAL and terminal.is_in_foreground()):
            self._process.send_signal(number)
