"""The entry point: `wattpush` and `python -m agent` are the same program."""

from __future__ import annotations

import gc
import signal
import sys

from agent import stderr

_GARBAGE_THRESHOLD = 100_000
"""New objects before a garbage collection. With Python's default of 700, start-up collects sixty times and frees
next to nothing, because its objects stay alive. Long-running commands restore the default."""


def main() -> int:
    """Run the command line; return the exit code."""
    # Until a run handles signals itself, Ctrl-C ends the imports without a traceback, and there is nothing to reload.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(_GARBAGE_THRESHOLD)
    stderr.install()
    from agent import cli

    code = cli.main()
    # Skips the garbage collection at exit, which takes most of the time of an exit.
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
