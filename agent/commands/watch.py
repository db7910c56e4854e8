"""`wattpush watch`: a live table in the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.commands import collect_garbage_as_usual, is_simulated, load_settings
from agent.errors import ExitCode
from agent.log import print_error
from agent.run.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

HELP = "live table of all devices in the terminal; pushes nothing"

_LAST_SWEEP_SECONDS = 1.2
"""The longest that a sweep under way may take to end and close its muxes: SIGTERM ends the process within 2 s."""

_DESCRIPTION = """\
Reads every device once per sample interval, with or without a running service, and shows volts, amperes and watts, a
bar relative to the highest power seen, a sparkline of the last minutes, the range of the power, and the energy since
the start. An error replaces the numbers. Devices that do not fit on the screen take turns. If the output is not a
terminal, or TERM is dumb, it writes one line per device and sweep in logfmt instead. Nothing is pushed or saved. The
key q ends it, and leaves the energy since the start on the screen."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options: only those of every command."""
    parser.description = _DESCRIPTION


def run(options: Namespace) -> int:
    """Watch; return the exit code."""
    from agent.run.assembly import RunOptions, make_watched_sweep
    from agent.watch.glyphs import glyphs_for
    from agent.watch.history import History
    from agent.watch.keyboard import Keyboard
    from agent.watch.live import LiveTable, Output, make_console
    from agent.watch.plain import PlainLines
    from agent.watch.watching import Suspension, Sweeper, watch

    collect_garbage_as_usual()
    with Signals() as signals, Suspension() as suspension, ExitStack() as stack:
        settings = load_settings(options)
        for warning in settings.warnings:
            print_error(f"warning: {warning}")
        clock = SystemClock()
        simulated = is_simulated(options)
        sweep = make_watched_sweep(settings, RunOptions(is_simulated=simulated), clock, stack)
        sweeper = Sweeper(sweep, signals.wake)
        history = History(settings, clock, is_simulated=simulated)
        output = Output(sys.stdout.fileno(), sys.stdout.encoding, signals, clock)
        console = make_console(os.environ)
        display: LiveTable | PlainLines = PlainLines(output, history, clock, is_simulated=simulated)
        if sys.stdout.isatty() and not console.is_dumb_terminal:
            keyboard = Keyboard(sys.stdin.fileno(), signals.inputs, signals.stop)
            glyphs = glyphs_for(sys.stdout.encoding, os.environ)
            display = LiveTable(output, keyboard, console, history, glyphs, clock)
        try:
            watch(
                sample_interval_seconds=settings.sample_interval_seconds,
                sweeper=sweeper,
                history=history,
                display=display,
                clock=clock,
                waiting=signals,
                suspension=suspension,
            )
        finally:
            if not sweeper.finish(_LAST_SWEEP_SECONDS, clock, signals):
                stack.pop_all()  # a thread hangs and still uses what would be closed; the system closes it at exit
    return ExitCode.OK
