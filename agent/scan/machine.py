"""Scans a whole machine: its buses, the chips that its kernel reads, and the rails that the board measures itself."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import AgentError, BusError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.chips import Measurement
    from agent.chips.hwmon import PowerInput
    from agent.clock import Clock
    from agent.i2c.place import BusName
    from agent.i2c.transfers import OpenBus
    from agent.scan.results import BusScan

SYSFS = Path("/sys")

COMPATIBLE = Path("/proc/device-tree/compatible")

_USB_ADAPTERS = ("BLINKA_MCP2221", "BLINKA_FT232H", "BLINKA_U2IF", "BLINKA_GREATFET", "BLINKA_NOVA")
"""Variables that select an adapter without a /dev/i2c-N (Blinka's documentation, "Supported boards")."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware to scan, real or simulated.

    Attributes:
        board: asks the firmware for the rails that a Raspberry Pi 5 measures itself; None on other machines.
        errors: found before the scan begins.
    """

    buses: Sequence[BusName]
    open_bus: Callable[[BusName], OpenBus]
    sysfs: Path
    hwmon_folder: Path
    board: Callable[[], Mapping[str, Measurement]] | None
    errors: tuple[AgentError, ...] = ()


@dataclass(frozen=True, slots=True)
class MachineScan:
    """Everything found on a machine.

    Attributes:
        buses: the result of each bus.
        kernel_inputs: the inputs of chips that the kernel owns, with what they read; None if they cannot be read.
        board: the rails that a Raspberry Pi 5 measures itself, their sum among them; empty on other machines.
        errors: what could not be scanned; each message names the place, the reason and the next step.
        notes: what is missing and not needed, because the board measures itself.
    """

    buses: Sequence[BusScan]
    kernel_inputs: Sequence[tuple[PowerInput, Measurement | None]]
    board: Mapping[str, Measurement]
    errors: Sequence[AgentError] = ()
    notes: Sequence[AgentError] = ()

    @property
    def has_devices(self) -> bool:
        """Whether anything was found that wattpush reads."""
        is_read_by_kernel = any(power_input.is_enabled for power_input, _ in self.kernel_inputs)
        return is_read_by_kernel or bool(self.board) or any(chip.inputs for bus in self.buses for chip in bus.chips)


def this_machine(wanted: Sequence[BusName] = ()) -> Machine:
    """The real hardware with the wanted buses, or with all of them."""
    from agent.chips import rpi_pmic
    from agent.chips.hwmon import CLASS_FOLDER
    from agent.i2c import hints
    from agent.i2c.adapters import open_bus, prepare_blinka

    buses = wanted or _all_buses(os.environ)
    prepare_blinka(buses)
    # Even without a bus, the scan lists sensors that the kernel reads.
    errors = () if buses else (BusError(f"there is no /dev/i2c-N; {hints.of_missing_bus()}"),)
    board = None if rpi_pmic.find_program() is None else rpi_pmic.Chip(()).find
    return Machine(buses, open_bus, SYSFS, CLASS_FOLDER, board, errors)


def _all_buses(environ: Mapping[str, str]) -> tuple[BusName, ...]:
    """Every bus of the machine; if there is none, the one that an adapter variable of Blinka selects."""
    from agent.i2c.sysfs import bus_numbers

    numbers = bus_numbers()
    return numbers or (("board",) if any(environ.get(name) for name in _USB_ADAPTERS) else ())


def scan_machine(machine: Machine, clock: Clock, progress: Callable[[int, int, str], None]) -> MachineScan:
    """Scan every bus, and ask the kernel and the board; `progress` as for `scan_bus`."""
    buses = _scan_buses(machine, clock, progress)
    kernel_inputs = _kernel_inputs(machine.hwmon_folder)
    board, board_errors = _board_rails(machine.board)
    errors = [*machine.errors, *board_errors, *(error for found in buses for error in found.errors)]
    if board and not buses:  # no bus: a board that measures itself needs none
        return MachineScan(buses, kernel_inputs, board, notes=errors)
    return MachineScan(buses, kernel_inputs, board, errors)


def _scan_buses(machine: Machine, clock: Clock, progress: Callable[[int, int, str], None]) -> list[BusScan]:
    from agent.i2c.bus import Bus
    from agent.i2c.sysfs import kernel_parent
    from agent.scan import scan_bus

    def parents(bus: BusName) -> list[int]:
        found: list[int] = []
        parent = None if isinstance(bus, str) else kernel_parent(bus, machine.sysfs)
        while parent is not None:
            found.append(parent)
            parent = kernel_parent(parent, machine.sysfs)
        return found

    names = (f"m{number}" for number in count())
    found: dict[BusName, BusScan] = {}
    # A bus that the kernel makes of a mux channel comes after the bus of the mux.
    for bus in sorted(machine.buses, key=lambda bus: (len(parents(bus)), str(bus).zfill(9))):
        hidden = {address for parent in parents(bus) if parent in found for address in found[parent].trunk_addresses}
        found[bus] = scan_bus(Bus(bus, [], machine.open_bus, clock, machine.sysfs), names, hidden, progress)
    return [found[bus] for bus in machine.buses if bus in found]


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
