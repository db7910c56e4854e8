"""The program: `wattpush`, and `python -m agent`, which is the same."""

from __future__ import annotations

import gc
import signal
import sys

# How many new objects there have to be before Python looks for garbage among them; by itself it does so for every 700,
# sixty times in one start, and finds next to nothing: what a start makes stays.
_GARBAGE_THRESHOLD = 10_000


def main() -> int:
    """Run the command line; return the exit code."""
    # The imports take a moment. Until a run takes the signals over, Ctrl-C ends it without a traceback, and there is
    # nothing yet to reload.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.set_threshold(_GARBAGE_THRESHOLD)
    from agent import cli

    code = cli.main()
    # At its end Python would look for garbage in everything once more, and that is most of what an end takes.
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(main())
