"""`wattpush measure`: the energy of each device while a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.commands import collect_garbage_as_usual, is_simulated, load_settings, parse_duration, simulated_from
from agent.errors import AgentError, UsageError
from agent.log import print_error

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from agent.command_energy.measuring import Measuring
    from agent.command_energy.process import Command, CommandSignals
    from agent.command_energy.report import ReportFile
    from agent.command_energy.results import Measurement
    from agent.settings import Settings

HELP = "the energy of each device while a command runs; pushes nothing"

OPERANDS = "-- COMMAND [ARGUMENT]..."
"""What stands behind the options; cli.py hands it over as `options.operands`."""

_LAST_SWEEP_SECONDS = 0.4
"""The longest that a sweep under way may take to end once everything is measured."""

_SIMULATED_INTERVAL_SECONDS = 1.0
"""The longest sample interval of simulated chips: nothing has configured them, so that the first reading takes this
long."""

_DESCRIPTION = """\
Reads every device before, while and after COMMAND runs, with or without a running service, and prints the energy, the
mean and peak power and the time measured of each device on stderr when it ends. Nothing is written to a chip, pushed or
saved. The command reads and writes the terminal, pipes and files as without measure, and its exit status is returned:
128 + N if signal N ended it, 127 if there is no such command, 126 if it cannot be executed. SIGTERM and SIGHUP are
passed on to it."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.description = _DESCRIPTION
    parser.usage = f"wattpush measure [OPTION]... {OPERANDS}"
    add = parser.add_argument
    add(
        "--runs",
        metavar="N",
        type=_runs,
        default=1,
        help="run the command N times, and show the mean of the energy and its spread, the sample standard deviation; "
        "stop after a run that fails",
    )
    add(
        "--idle",
        metavar="DURATION",
        type=_duration,
        help="measure the idle power for DURATION first, and also show the energy above it",
    )
    add(
        "--json",
        metavar="FILE",
        help="write the results, and those of every run, to FILE instead of the table; - is stdout",
    )


def _runs(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, not {text!r}")
    return int(text)


def _duration(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not seconds:
        raise argparse.ArgumentTypeError("expected more than 0 seconds")
    return seconds


def run(options: Namespace) -> int:
    """Measure; return the exit code."""
    if not options.operands:
        raise UsageError(f"measure: no command; wattpush measure {OPERANDS}")
    environ = dict(os.environ)  # the opening of a bus sets variables of Blinka's
    from agent.command_energy.measuring import Measuring, StoppedError
    from agent.command_energy.process import Command, CommandSignals
    from agent.command_energy.report import ReportFile
    from agent.command_energy.sampler import Sampler
    from agent.run.assembly import RunOptions, make_watched_sweep

    collect_garbage_as_usual()
    with CommandSignals() as signals, ExitStack() as stack:
        settings = _settings(options)
        command = Command(options.operands, environ)
        report = None if options.json is None else ReportFile(options.json)
        if report is not None:
            stack.callback(report.close)
        clock = SystemClock()
        if is_simulated(options):
            print_error(simulated_from(settings))
        hardware = stack.enter_context(ExitStack())
        sweep = make_watched_sweep(settings, RunOptions(is_simulated=is_simulated(options)), clock, hardware)
        sampler = Sampler(settings, sweep, clock, signals.wake)
        measuring = Measuring(settings, sampler, command, signals, clock)
        try:
            measuring.measure(options.runs, options.idle)
        except StoppedError as stopped:
            return 128 + stopped.number  # as in a shell
        finally:
            sweep.end_if(lambda: True)
            if not sampler.finish(_LAST_SWEEP_SECONDS, clock, signals):
                hardware.pop_all()  # a thread hangs and still uses what would be closed; the system closes it at exit
        measurement = _measurement(options, settings, command, sampler.interval_seconds, measuring)
        status = _show(measurement, report, signals)
        return status if measuring.failure is None else measuring.failure.exit_code


def _settings(options: Namespace) -> Settings:
    settings = load_settings(options)
    for warning in settings.warnings:
        print_error(f"warning: {warning}")
    if is_simulated(options):
        interval_seconds = min(settings.sample_interval_seconds, _SIMULATED_INTERVAL_SECONDS)
        return replace(settings, sample_interval_seconds=interval_seconds)
    return settings


def _measurement(
    options: Namespace, settings: Settings, command: Command, interval_seconds: float, measuring: Measuring
) -> Measurement:
    from agent.command_energy.notes import notes
    from agent.command_energy.results import Measurement

    return Measurement(
        command.words,
        settings.hostname,
        is_simulated(options),
        interval_seconds,
        options.idle,
        options.runs,
        tuple(measuring.runs),
        (*measuring.notes, *notes(measuring.runs, interval_seconds)),
    )


def _show(measurement: Measurement, report: ReportFile | None, signals: CommandSignals) -> int:
    """Write the results; return the exit status of the command, or that of a file that could not be written."""
    from agent.command_energy.report import write_all
    from agent.command_energy.table import table

    def has_to_end() -> bool:
        return bool(signals.pending)

    def show_table() -> None:
        # Not through `sys.stderr`, which drops what its reader has no room for.
        with suppress(OSError):  # closed by its reader, a terminal that is gone, a full disk
            write_all(2, table(measurement).encode(sys.stderr.encoding, "backslashreplace"), has_to_end)

    status = measurement.runs[-1].exit_status
    if report is None:
        show_table()
        return status
    try:
        report.write(measurement, has_to_end)
    except AgentError as error:
        print_error(str(error))
        show_table()  # so that nothing is lost
        return status or error.exit_code
    for note in measurement.notes:
        print_error(f"note: {note}")
    return status
