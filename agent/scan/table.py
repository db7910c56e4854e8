"""Prints the results of a scan as a table: 80 columns suffice, colours only if the terminal supports them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.i2c.muxes import MUX_ADDRESSES
from agent.i2c.place import bus_path
from agent.scan.muxes import proof
from agent.scan.results import ASSUMED_SHUNT_OHMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from agent.chips import Measurement
    from agent.chips.hwmon import PowerInput
    from agent.i2c.place import Place
    from agent.scan.machine import MachineScan
    from agent.scan.results import BusScan, FoundChip

    Row = tuple[str, str, str, str, str]
    """Its name, how certain that is, volts, amperes and watts."""

_WIDTH_ELSEWHERE = 80
_OF_ASSUMED_SHUNT = "*"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Let the command line handle it, as for every other output; rich would exit with 1."""
        raise  # noqa: PLE0704 - rich calls this where it has caught the BrokenPipeError


def print_scans(found: MachineScan, stream: TextIO) -> None:
    """Print a table for each bus, one for the chips of the kernel, and one for the rails that the board measures."""
    console = _Console(
        file=stream,
        width=None if stream.isatty() else _WIDTH_ELSEWHERE,
        # The kernel's driver names and labels are not markup.
        markup=False,
        highlight=False,
        emoji=False,
    )
    for scan in found.buses:
        console.print(_title(scan, found.buses), style="bold")
        _print_bus(scan, console)
        console.print()
    if found.kernel_inputs:
        console.print("power chips of the kernel (hwmon)", style="bold")
        console.print(_kernel_table(found.kernel_inputs))
        console.print()
    if found.board:
        console.print("rails that this board measures itself (rpi-pmic)", style="bold")
        table = _table("rail")
        for rail, measurement in found.board.items():
            table.add_row(Text(rail), *_numbers(measurement))
        console.print(table)
        console.print()


def _title(scan: BusScan, scans: Iterable[BusScan]) -> str:
    path = bus_path(scan.bus)
    for owned in (owned for other in scans for owned in other.kernel_owned):
        for channel, number in owned.channels:
            if number == scan.bus:
                return f"{path}: channel {channel} of the kernel's mux {owned.place}"
    return path


def _print_bus(scan: BusScan, console: Console) -> None:
    rows = sorted(_rows(scan), key=lambda placed: _order(placed[0], scan))
    if scan.errors:
        console.print("incomplete: see the errors", style="bold red")
    elif not rows:
        console.print("nothing answers; is it powered, and are SDA and SCL connected correctly?")
    if not rows:
        return
    table = _table("where", "address", "what", "sure")
    for place, row in rows:
        where = "trunk" if place.mux is None else f"{place.mux.name} ch {place.channel}"
        cells = [Text(cell) for cell in (where, f"0x{place.address:02x}", *row)]
        table.add_row(*cells, style=_style(row, place))
    console.print(table)
    for note in _notes(scan):
        console.print(note)


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title in ("where", "address", "sure"))
    for title in ("volts ", "amperes ", "watts "):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _style(row: Row, place: Place) -> str | None:
    if row[1] in ("", "kernel"):
        return "dim"
    return "cyan" if place.address in MUX_ADDRESSES else None


def _order(place: Place, scan: BusScan) -> tuple[int, int, int]:
    """The trunk, then the muxes in the order in which they were found; there by channel and address."""
    if place.mux is None:
        return (-1, 0, place.address)
    muxes = [mux.name for mux in scan.muxes]
    return (muxes.index(place.mux.name), place.channel or 0, place.address)


def _rows(scan: BusScan) -> Iterator[tuple[Place, Row]]:
    for owned in scan.kernel_owned:
        channels = ", ".join(f"/dev/i2c-{number}" for _, number in owned.channels)
        yield owned.place, (owned.driver + (f": {channels}" if channels else ""), "kernel", "", "", "")
    for mux in scan.muxes:
        yield mux.place, (f"{mux.kind.part} = {mux.name}", _sure(is_sure=not scan.lookalikes.get(mux.name)), "", "", "")
    for unknown in scan.unknown:
        yield unknown.place, ("unknown" + (f", {unknown.note}" if unknown.note else ""), "", "", "", "")
    for chip in scan.chips:
        for row in _chip_rows(chip):
            yield chip.place, row


def _chip_rows(chip: FoundChip) -> Iterator[Row]:
    sure = _sure(is_sure=chip.signature.is_sure)
    if not chip.inputs:
        yield f"{chip.signature.part}, not read by wattpush", sure, "", "", ""
    for found in chip.inputs:
        what = chip.signature.part + ("" if found.number is None else f" input {found.number}")
        if found.problem is not None:
            what += f": {found.problem}"
        suffix = _OF_ASSUMED_SHUNT if chip.has_external_shunt else " "
        yield what, sure, *_numbers(found.measurement, suffix)


def _sure(*, is_sure: bool) -> str:
    return "yes" if is_sure else "likely"


def _numbers(measurement: Measurement | None, suffix: str = " ") -> tuple[str, str, str]:
    if measurement is None:
        return "", "", ""
    volts, amperes = measurement.volts, measurement.amperes
    return f"{volts:.3f} ", f"{amperes:.4f}{suffix}", f"{volts * amperes:.3f}{suffix}"


def _notes(scan: BusScan) -> Iterator[str]:
    for owned in scan.kernel_owned:
        if owned.unread:
            yield f"0x{owned.place.address:02x}: {owned.driver}: {owned.unread}"
    if any(chip.has_external_shunt for chip in scan.chips):
        yield (
            f"{_OF_ASSUMED_SHUNT} if the shunt has {ASSUMED_SHUNT_OHMS:g} ohm: "
            "it is invisible on the bus, look it up on the board"
        )
    for mux in scan.muxes:
        others = scan.lookalikes.get(mux.name)
        if others:
            yield f"{mux.name}: {proof(mux.kind, others)}"
    for evidence in sorted({chip.signature.proof for chip in scan.chips if not chip.signature.is_sure}):
        yield f"likely: {evidence}"
    shared = [f"0x{address:02x}" for address in sorted(scan.trunk_addresses - {mux.address for mux in scan.muxes})]
    if scan.muxes and shared:
        yield (
            f"{', '.join(shared)}: on the trunk, so also answers behind every channel; "
            "a chip with the same address behind a mux cannot be told apart from it"
        )


def _kernel_table(kernel_inputs: Iterable[tuple[PowerInput, Measurement | None]]) -> Table:
    table = _table("chip", "sits at", "input", "label")
    for power_input, measurement in kernel_inputs:
        label = power_input.label or ""
        if not power_input.is_enabled:
            label = f"{label} (off)".strip()
        cells = (power_input.name, power_input.folder.name, str(power_input.number), label)
        table.add_row(*map(Text, cells), *_numbers(measurement))
    return table
