"""`wattpush scan`: lists the chips on the buses, through every mux channel."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.commands import cleanup_on_stop, is_simulated, load_settings, simulated_from
from agent.errors import UsageError, exit_code
from agent.i2c.place import BOARD, bus_path
from agent.log import print_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.clock import Clock
    from agent.i2c.place import BusName
    from agent.scan.machine import Machine
    from agent.settings import Settings

HELP = "list the chips on the I2C buses, through every mux channel"

_DESCRIPTION = """\
Lists the chips and muxes on the I2C buses, through every mux channel, and the
present readings of power monitors; also the chips that the kernel reads, and
the rails that a Raspberry Pi 5 measures itself.

Effect on your chips: the scan reads one byte from every address, and registers
of chips at 0x40-0x4f, the addresses of power monitors. It configures nothing,
and does not access a chip that a kernel driver owns. It writes only to chips
at 0x70-0x77, which may be muxes: a mux can be recognised only by writing its
control byte. The scan writes 0x00 first, which closes every channel of a mux,
and further bytes only while the chip returns each of them as a mux does; at
the end it closes every channel. Displays and sensors that are known to use
these addresses take the bytes for register numbers.

If the board also has internal buses, name that of the header: --bus 1. During
the scan, no other program may use a mux without locking the bus."""

_FIRST_CONVERSIONS_SECONDS = 0.01
"""Longer than the first conversion of any chip after power-on: INA3221, 3 inputs x (1.1 + 1.1 ms), SBOS576, table 8."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--bus",
        metavar="N",
        type=_bus,
        action="append",
        default=[],
        help="only /dev/i2c-N, a path to it, or the board's default bus (N = board); may be repeated "
        "(default: every /dev/i2c-N)",
    )
    parser.add_argument("--toml", action="store_true", help="print a configuration of what is found, ready to edit")


def _bus(text: str) -> BusName:
    if text == BOARD or text.startswith("/"):
        return text
    if text.isascii() and text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f'{text!r} is neither "board" nor the N of a /dev/i2c-N, nor a path')


def run(options: argparse.Namespace) -> int:
    """Scan; return the exit code."""
    from agent.scan.configuration import as_toml
    from agent.scan.machine import scan_machine
    from agent.scan.progress import bar_on

    clock = SystemClock()
    simulated = load_settings(options) if is_simulated(options) else None
    with ExitStack() as stack:
        stack.enter_context(cleanup_on_stop())
        machine = _machine(options, simulated, clock, stack)
        with bar_on(sys.stderr, clock) as progress:
            found = scan_machine(machine, clock, progress)
    for note in found.notes:
        print_error(f"note: {note}")
    if options.toml and (found.has_devices or not found.errors):
        sys.stdout.write(f"# {simulated_from(simulated)}.\n" if simulated else "")
        sys.stdout.writelines(f"# INCOMPLETE: {' '.join(str(error).split())}\n" for error in found.errors)
        sys.stdout.write(as_toml(found))
    elif not options.toml:
        from agent.scan.table import print_scans

        sys.stdout.write(f"{simulated_from(simulated)}.\n\n" if simulated else "")
        print_scans(found, sys.stdout)
    sys.stdout.flush()  # results come before errors, even if both go to one file
    if options.toml and not found.has_devices and not found.errors:
        print_error("warning: nothing was found that wattpush reads, so the configuration has no device")
    for error in found.errors:
        print_error(str(error))
    return exit_code(found.errors)


def _machine(options: argparse.Namespace, simulated: Settings | None, clock: Clock, stack: ExitStack) -> Machine:
    from agent.scan.machine import this_machine

    wanted = tuple(dict.fromkeys(options.bus))
    if simulated is None:
        return this_machine(wanted)
    return simulated_machine(simulated, wanted, clock, stack)


def simulated_machine(settings: Settings, wanted: Sequence[BusName], clock: Clock, stack: ExitStack) -> Machine:
    """The hardware that a configuration describes, powered on a moment ago."""
    from agent.run.assembly import Hardware, RunOptions
    from agent.scan.machine import Machine

    hardware = Hardware(settings, RunOptions(is_simulated=True), clock, stack)
    buses = _simulated_buses(wanted, hardware.bus_names) or hardware.bus_names
    clock.sleep(_FIRST_CONVERSIONS_SECONDS)  # simulated chips power on now, and read zero until then
    return Machine(buses, hardware.open_bus, hardware.sysfs, hardware.hwmon_folder, hardware.find_rails)


def _simulated_buses(wanted: Sequence[BusName], names: Sequence[BusName]) -> tuple[BusName, ...]:
    """The wanted buses as the configuration names them. Raises UsageError if it has no such bus."""
    by_path = {bus_path(name): name for name in names}
    for bus in wanted:
        if bus_path(bus) not in by_path:
            shown = ", ".join(by_path) or "none"
            raise UsageError(f"scan --bus {bus}: only the buses of the configuration are simulated: {shown}")
    return tuple(by_path[bus_path(bus)] for bus in wanted)
