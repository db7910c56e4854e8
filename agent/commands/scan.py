"""`wattpush scan`: lists the chips on the buses, through every mux channel."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.commands import SIMULATED, cleanup_on_stop, is_simulated, load_settings
from agent.errors import AgentError, BusError, UsageError, exit_code
from agent.i2c.place import BOARD, bus_path
from agent.log import print_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    from rich.progress import Progress

    from agent.chips import Measurement
    from agent.chips.hwmon import PowerInput
    from agent.clock import Clock
    from agent.i2c.place import BusName
    from agent.i2c.transfers import OpenBus
    from agent.scan.results import BusScan

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

_SLOW_SECONDS = 0.5
"""How long a scan takes before it shows a progress bar."""

SYSFS = Path("/sys")

COMPATIBLE = Path("/proc/device-tree/compatible")

_USB_ADAPTERS = ("BLINKA_MCP2221", "BLINKA_FT232H", "BLINKA_U2IF", "BLINKA_GREATFET", "BLINKA_NOVA")
"""Variables that select an adapter without a /dev/i2c-N (Blinka's documentation, "Supported boards")."""


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
    from agent.scan.configuration import as_toml, has_devices

    clock = SystemClock()
    with ExitStack() as stack:
        stack.enter_context(cleanup_on_stop())
        scanned = _prepare(options, clock, stack)
        with _bar_on(sys.stderr, clock) as progress:
            scans = _scan(scanned, clock, progress)
        kernel_inputs = _kernel_inputs(scanned.hwmon_folder)
        board, board_errors = _board_rails(scanned.board)
    errors = [*scanned.errors, *board_errors, *(error for found in scans for error in found.errors)]
    if board and not scans:  # no bus: a board that measures itself needs none
        for error in errors:
            print_error(f"note: {error}")
        errors = []
    is_empty = not has_devices(scans, kernel_inputs, board)
    if options.toml and not (is_empty and errors):
        sys.stdout.write(f"# {SIMULATED}.\n" if is_simulated(options) else "")
        sys.stdout.writelines(f"# INCOMPLETE: {' '.join(str(error).split())}\n" for error in errors)
        sys.stdout.write(as_toml(scans, kernel_inputs, board))
    elif not options.toml:
        from agent.scan.table import print_scans

        sys.stdout.write(f"{SIMULATED}.\n\n" if is_simulated(options) else "")
        print_scans(scans, kernel_inputs, sys.stdout, board)
    sys.stdout.flush()  # results come before errors, even if both go to one file
    if options.toml and is_empty and not errors:
        print_error("warning: nothing was found that wattpush reads, so the configuration has no device")
    for error in errors:
        print_error(str(error))
    return exit_code(errors)


@dataclass(frozen=True, slots=True)
class _Scanned:
    """The hardware to scan, real or simulated, and the errors found before the scan begins.

    Attributes:
        board: asks the firmware for the rails that a Raspberry Pi 5 measures itself; None on other machines.
    """

    buses: Sequence[BusName]
    open_bus: Callable[[BusName], OpenBus]
    sysfs: Path
    hwmon_folder: Path
    board: Callable[[], Mapping[str, Measurement]] | None
    errors: tuple[AgentError, ...] = ()


def _prepare(options: argparse.Namespace, clock: Clock, stack: ExitStack) -> _Scanned:
    wanted = tuple(dict.fromkeys(options.bus))
    if is_simulated(options):
        from agent.run.assembly import Hardware, RunOptions

        hardware = Hardware(load_settings(options), RunOptions(is_simulated=True), clock, stack)
        wanted = _simulated_buses(wanted, hardware.bus_names)
        clock.sleep(_FIRST_CONVERSIONS_SECONDS)  # simulated chips power on now, and read zero until then
        return _Scanned(
            wanted or hardware.bus_names, hardware.open_bus, hardware.sysfs, hardware.hwmon_folder, hardware.find_rails
        )
    from agent.chips import rpi_pmic
    from agent.chips.hwmon import CLASS_FOLDER
    from agent.i2c import hints
    from agent.i2c.adapters import open_bus, prepare_blinka

    buses = wanted or _all_buses(os.environ)
    prepare_blinka(buses)
    # Even without a bus, the scan lists sensors that the kernel reads.
    errors = () if buses else (BusError(f"there is no /dev/i2c-N; {hints.of_missing_bus()}"),)
    board = None if rpi_pmic.find_program() is None else rpi_pmic.Chip(()).find
    return _Scanned(buses, open_bus, SYSFS, CLASS_FOLDER, board, errors)


def _simulated_buses(wanted: Sequence[BusName], names: Sequence[BusName]) -> tuple[BusName, ...]:
    """The wanted buses as the configuration names them. Raises UsageError if it has no such bus."""
    by_path = {bus_path(name): name for name in names}
    for bus in wanted:
        if bus_path(bus) not in by_path:
            shown = ", ".join(by_path) or "none"
            raise UsageError(f"scan --bus {bus}: only the buses of the configuration are simulated: {shown}")
    return tuple(by_path[bus_path(bus)] for bus in wanted)


def _all_buses(environ: Mapping[str, str]) -> tuple[BusName, ...]:
    """Every bus of the machine; if there is none, the one that an adapter variable of Blinka selects."""
    from agent.i2c.sysfs import bus_numbers

    numbers = bus_numbers()
    return numbers or (("board",) if any(environ.get(name) for name in _USB_ADAPTERS) else ())


def _scan(scanned: _Scanned, clock: Clock, progress: Callable[[int, int, str], None]) -> list[BusScan]:
    from agent.i2c.bus import Bus
    from agent.i2c.sysfs import kernel_parent
    from agent.scan import scan_bus

    def parents(bus: BusName) -> list[int]:
        found: list[int] = []
        parent = None if isinstance(bus, str) else kernel_parent(bus, scanned.sysfs)
        while parent is not None:
            found.append(parent)
            parent = kernel_parent(parent, scanned.sysfs)
        return found

    names = (f"m{number}" for number in count())
    found: dict[BusName, BusScan] = {}
    # A bus that the kernel makes of a mux channel comes after the bus of the mux.
    for bus in sorted(scanned.buses, key=lambda bus: (len(parents(bus)), str(bus).zfill(9))):
        hidden = {address for parent in parents(bus) if parent in found for address in found[parent].trunk_addresses}
        found[bus] = scan_bus(Bus(bus, [], scanned.open_bus, clock, scanned.sysfs), names, hidden, progress)
    return [found[bus] for bus in scanned.buses if bus in found]


def _kernel_inputs(class_folder: Path) -> list[tuple[PowerInput, Measurement | None]]:
    from agent.chips import hwmon
    from agent.settings import Device

    found: list[tuple[PowerInput, Measurement | None]] = []
    for power_input in hwmon.power_inputs(class_folder):
        device = Device("", "hwmon", sensor=str(power_input.folder), input=power_input.number)
        try:
            found.append((power_input, hwmon.Chip((device,)).read()[0]))
        except AgentError:  # such as a disabled input
            found.append((power_input, None))
    return found


def _board_rails(
    find: Callable[[], Mapping[str, Measurement]] | None,
) -> tuple[Mapping[str, Measurement], list[AgentError]]:
    """The rails that the board measures itself, none on most; errors are only those of a Raspberry Pi 5."""
    if find is None:
        return {}, []
    try:
        return find(), []
    except AgentError as error:
        return {}, [error] if _is_pi_5() else []


def _is_pi_5() -> bool:
    """Whether the SoC is that of a Raspberry Pi 5 (device tree of raspberrypi/linux, bcm2712-rpi-5-b.dts)."""
    try:
        return b"brcm,bcm2712" in COMPATIBLE.read_bytes().split(b"\0")
    except OSError:  # no device tree: a PC
        return False


@contextmanager
def _bar_on(stream: TextIO, clock: Clock) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar, on a terminal, for a slow scan."""
    if not stream.isatty():
        yield lambda *_: None
        return
    began_seconds = clock.monotonic()
    bar: Progress | None = None

    def show(done: int, total: int, where: str) -> None:
        nonlocal bar
        if clock.monotonic() - began_seconds < _SLOW_SECONDS:
            return
        if bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
            bar = Progress(*columns, console=Console(file=stream), auto_refresh=False, transient=True)
            bar.add_task("", total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=done, total=total, description=where, refresh=True)

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()
