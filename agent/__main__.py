"""The entry point: `wattpush` and `python -m agent` are the same program."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from agent import stderr, terminal

if TYPE_CHECKING:
    from types import FrameType

_NOTED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
"""What nohup and shells tell a program to ignore."""

_GARBAGE_THRESHOLD = 100_000
"""New objects before a garbage collection. With Python's default of 700, start-up collects sixty times and frees
next to nothing, because its objects stay alive. Long-running commands restore the default."""


def main() -> int:
    """Run the command line; return the exit code."""
    ignored = (number for number in _NOTED if signal.getsignal(number) is signal.SIG_IGN)
    terminal.IGNORED_AT_START.update(ignored)
    # Until a run handles signals itself, Ctrl-C ends the imports without a traceback, and there is nothing to reload.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    is_in_terminal = terminal.is_there() and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN  # nohup ignores it
    signal.signal(signal.SIGHUP, _end_with_terminal if is_in_terminal else signal.SIG_IGN)
    gc.set_threshold(_GARBAGE_THRESHOLD)
    stderr.install()
    from agent import cli

    code = cli.main()
    _divert_output()
    # Skips the garbage collection at exit, which takes most of the time of an exit.
    gc.freeze()
    return code


def _divert_output() -> None:
    """Send what libraries print at exit to stderr, such as `Cleaning up pins` on a Jetson: stdout is for results."""
    with suppress(OSError):
        sys.stdout.flush()
        os.dup2(2, 1)


def _end_with_terminal(number: int, _frame: FrameType | None) -> None:
    """Exit if the terminal is gone; SIGHUP may also be a request to reload that comes too early."""
    if not terminal.is_there():
        raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
