"""`wattpush check`: finds every problem in one run, and changes nothing."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.commands import cleanup_on_stop, config_file, is_simulated, load_settings, simulated_from
from agent.errors import UsageError, worst
from agent.log import counted

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from agent.check import Finding
    from agent.errors import ExitCode
    from agent.settings import Settings

HELP = "find every problem in the configuration, the hardware and the gateway at once; changes nothing"

_DESCRIPTION = """\
Prints one line per check: ok, note, warning or failed, with the next step. The exit code is that of the worst failure;
notes and warnings leave it at 0."""

_COLOURS = {"ok": 32, "note": 36, "warning": 33, "failed": 31}
"""ECMA-48, select graphic rendition: green, cyan, yellow, red."""

_STATUS_COLUMNS = 9


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.description = _DESCRIPTION
    parser.add_argument("--hardware", action="store_true", help="also find, identify and read every mux and chip")
    parser.add_argument(
        "--gateway",
        action="store_true",
        help="also test the gateway and the remote write server: DNS, TLS, credentials; then push and delete a test "
        "group, and send an empty request",
    )


def run(options: Namespace) -> int:
    """Check; return the exit code."""
    settings = load_settings(options)
    if options.gateway and settings.pushgateway is None and settings.remote_write is None:
        if not settings.has_destination:
            raise UsageError("check --gateway needs a configuration: the built-in node of --simulate has no gateway")
        raise UsageError(
            "check --gateway needs a gateway, but the configuration has no [pushgateway] url, and no [remote_write] url"
        )
    codes: set[ExitCode] = set()
    with ExitStack() as stack:
        stack.enter_context(cleanup_on_stop())
        for finding in _findings(options, settings, stack):
            codes.add(finding.exit_code)
            print_finding(finding)
    return worst(codes)


def _findings(options: Namespace, settings: Settings, stack: ExitStack) -> Iterator[Finding]:
    from agent.check import Finding, Status, ok, warning

    devices, muxes = len(settings.devices), len(settings.muxes)
    found = f"{counted(devices, 'device')}, {muxes} mux{'' if muxes == 1 else 'es'}"
    if settings.has_destination:
        yield ok(str(config_file(options)), found)
    else:
        yield Finding(
            Status.NOTE,
            str(config_file(options)),
            f"no such file; checked instead: the built-in node of --simulate, {found}",
            "wattpush init writes a configuration",
        )
    for words in settings.warnings:
        text, _, hint = words.partition("; ")
        yield warning("configuration", text, hint)
    if settings.state_dir is not None:
        from agent.check.state import check_state_dir
        from agent.energy.state_file import file_name

        yield from check_state_dir(settings.state_dir, file_name(is_simulated=is_simulated(options)))
    if not options.gateway:  # which reads them anyway
        yield from _file_findings(settings)
    if settings.serve is not None:
        from agent.check.serve import check_serve
        from agent.clock import SystemClock

        yield from check_serve(settings.serve, SystemClock(), os.environ)
    if options.hardware:
        if is_simulated(options):
            yield Finding(
                Status.NOTE, "hardware", simulated_from(settings), "leave out --simulate to check the real hardware"
            )
        yield from _hardware_findings(options, settings, stack)
    if options.gateway:
        yield from _destination_findings(settings)


def _file_findings(settings: Settings) -> Iterator[Finding]:
    gateway, remote_write = settings.pushgateway, settings.remote_write
    if gateway is not None and gateway.files:
        from agent.check.connection import check_files
        from agent.push.gateway import endpoint_of

        yield from check_files(endpoint_of(gateway), os.environ)
    if remote_write is not None and remote_write.files:
        from agent.check.remote_write import check_remote_write_files

        yield from check_remote_write_files(remote_write, os.environ)


def _destination_findings(settings: Settings) -> Iterator[Finding]:
    from agent.clock import SystemClock

    gateway, remote_write = settings.pushgateway, settings.remote_write
    if gateway is not None:
        from agent.check.gateway import check_gateway

        yield from check_gateway(settings, gateway, SystemClock(), os.environ)
    if remote_write is not None:
        from agent.check.remote_write import check_remote_write

        yield from check_remote_write(settings, remote_write, SystemClock(), os.environ)


def _hardware_findings(options: Namespace, settings: Settings, stack: ExitStack) -> Iterator[Finding]:
    from agent.check.hardware import check_hardware
    from agent.clock import SystemClock
    from agent.run.assembly import Hardware, RunOptions, make_buses

    clock = SystemClock()
    hardware = Hardware(settings, RunOptions(is_simulated=is_simulated(options)), clock, stack)
    buses = make_buses(settings, hardware, clock)
    yield from check_hardware(settings, buses, hardware.open_kernel_chip, hardware.sysfs)


def print_finding(finding: Finding) -> None:
    """Print one line; on a terminal, wrapped to its width and coloured unless NO_COLOR (no-color.org) is set."""
    status, text = finding.status.value, str(finding)
    head = f"{status:<{_STATUS_COLUMNS}}"
    line = f"{head}{text}"
    if sys.stdout.isatty():
        import textwrap

        columns = max(40, shutil.get_terminal_size().columns)
        line = textwrap.fill(
            text,
            columns,
            initial_indent=head,
            subsequent_indent=" " * _STATUS_COLUMNS,
            break_long_words=False,
            break_on_hyphens=False,
        )
        if not os.environ.get("NO_COLOR"):
            line = f"\x1b[{_COLOURS[status]}m{status}\x1b[0m{line.removeprefix(status)}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
