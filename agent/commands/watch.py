"""`wattpush watch`: a live table in the terminal."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.build_info import hostname
from agent.clock import SystemClock
from agent.commands import (
    cleanup_on_stop,
    collect_garbage_as_usual,
    config_file,
    has_file,
    is_simulated,
    load_settings,
)
from agent.errors import ExitCode, exit_code
from agent.log import print_error
from agent.run.signals import Signals

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from agent.settings import Settings
    from agent.watch.history import History

HELP = "live table of all devices in the terminal; pushes nothing"

_LAST_SWEEP_SECONDS = 1.2
"""The longest that a sweep under way may take to end and close its muxes: SIGTERM ends the process within 2 s."""

_DESCRIPTION = """\
Reads every device once per sample interval, with or without a running service, and shows volts, amperes and watts, a
bar relative to the highest power seen, a sparkline of the last minutes, the range of the power, and the energy since
the start. An error replaces the numbers. Devices that do not fit on the screen take turns. If the output is not a
terminal, or TERM is dumb, it writes one line per device and sweep in logfmt instead. Nothing is pushed or saved. The
key q or Ctrl-C ends it, and leaves the energy since the start on the screen. Without a configuration it scans the buses
and shows what is there, without the amperes of a chip whose shunt it cannot know."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options: only those of every command."""
    parser.description = _DESCRIPTION


def run(options: Namespace) -> int:
    """Watch; return the exit code."""
    from agent.watch.history import History

    if not is_simulated(options) and not has_file(options):
        return _watch_what_is_found(options)
    settings = load_settings(options)
    for warning in settings.warnings:
        print_error(f"warning: {warning}")
    return _watch(settings, History(settings, SystemClock(), is_simulated=is_simulated(options)))


def _watch_what_is_found(options: Namespace) -> int:
    """Scan the buses, as there is no configuration, and watch what is there."""
    from agent import chips
    from agent.scan.found_settings import found_settings
    from agent.scan.machine import scan_machine, this_machine
    from agent.scan.progress import bar_on
    from agent.watch.history import History

    clock = SystemClock()
    with cleanup_on_stop(), bar_on(sys.stderr, clock) as progress:
        found = scan_machine(this_machine(), clock, progress)
    for note in found.notes:
        print_error(f"note: {note}")
    for error in found.errors:
        print_error(str(error))
    missing = f"{config_file(options)}: no such file"
    if not found.has_devices:
        hint = "wattpush watch --simulate shows a node without hardware"
        print_error(f"{missing}, and a scan found nothing that wattpush reads; {hint}")
        return exit_code(found.errors) or ExitCode.CONFIG
    print_error(f"{missing}, so this is what a scan found; wattpush init writes a configuration")
    devices = found_settings(found, chips.options(), hostname=hostname())
    history = History(
        devices.settings,
        clock,
        is_simulated=False,
        unknown_shunts=devices.unknown_shunts,
        unsure_kinds=devices.unsure_kinds,
    )
    return _watch(devices.settings, history)


def _watch(settings: Settings, history: History) -> int:
    from agent.run.assembly import RunOptions, make_watched_sweep
    from agent.run.sweeper import Sweeper
    from agent.watch.glyphs import glyphs_for
    from agent.watch.keyboard import Keyboard
    from agent.watch.live import LiveTable, Output, make_console
    from agent.watch.plain import PlainLines
    from agent.watch.watching import Suspension, watch

    collect_garbage_as_usual()
    clock = SystemClock()
    with Signals() as signals, Suspension() as suspension, ExitStack() as stack:
        options = RunOptions(is_simulated=history.is_simulated)
        sweeper = Sweeper(make_watched_sweep(settings, options, clock, stack), signals.wake)
        output = Output(sys.stdout.fileno(), sys.stdout.encoding, signals, clock)
        console = make_console(os.environ)
        display: LiveTable | PlainLines = PlainLines(output, history, clock)
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
