"""The entry point: `wattpush` and `python -m agent` are the same program."""

from __future__ import annotations

import gc
import signal
import sys

_GARBAGE_THRESHOLD = 100_000
"""New objects before a garbage collection. With Python's default of 700 a start collects sixty times and finds next to
nothing, because what a start makes stays. Commands that run for long go back to the default."""


def main() -> int:
    """Run the command line; return the exit code."""
    # Until a run handles signals itself, Ctrl-C ends the imports without a traceback, and there is nothing to reload.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(_GARBAGE_THRESHOLD)
    from agent import cli

    code = cli.main()
    # At exit Python would collect garbage among all objects once more, which is most of the time that an exit takes.
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
