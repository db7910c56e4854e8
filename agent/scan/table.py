"""What was found, as a table for a person: 80 columns are enough, colours only where the terminal wants them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.config.tables import MUX_ADDRESSES
from agent.i2c.place import bus_path
from agent.scan.results import ASSUMED_SHUNT_OHMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TextIO

    from agent.chips import Measurement
    from agent.chips.hwmon import PowerInput
    from agent.i2c.place import Place
    from agent.scan.results import Finds, FoundChip

    Row = tuple[str, str, str, str, str]
    """What it is, how sure that is, volts, amperes and watts."""

_WIDTH_ELSEWHERE = 80
_OF_ASSUMED_SHUNT = "*"


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, as for every other output; rich would end the process with 1."""
        raise  # noqa: PLE0704 - rich calls this where it has caught the BrokenPipeError


def print_finds(
    finds: Sequence[Finds], kernel_inputs: Sequence[tuple[PowerInput, Measurement | None]], stream: TextIO
) -> None:
    """Print a table for each bus, and one for the chips of the kernel."""
    console = _Console(
        file=stream,
        width=None if stream.isatty() else _WIDTH_ELSEWHERE,
        # The names of drivers and the labels of the kernel are no markup.
        markup=False,
        highlight=False,
        emoji=False,
    )
    for on_bus in finds:
        console.print(_title(on_bus, finds), style="bold")
        _print_bus(on_bus, console)
        console.print()
    if kernel_inputs:
        console.print("power chips of the kernel (hwmon)", style="bold")
        console.print(_kernel_table(kernel_inputs))
        console.print()


def _title(on_bus: Finds, finds: Iterable[Finds]) -> str:
    path = bus_path(on_bus.bus)
    for owned in (owned for other in finds for owned in other.kernel_owned):
        for channel, number in owned.channels:
            if number == on_bus.bus:
                return f"{path}: channel {channel} of the kernel's mux {owned.place}"
    return path


def _print_bus(on_bus: Finds, console: Console) -> None:
    rows = sorted(_rows(on_bus), key=lambda placed: _order(placed[0], on_bus))
    if on_bus.troubles:
        console.print("incomplete: see the errors", style="bold red")
    elif not rows:
        console.print("nothing answers; is it powered, and are SDA and SCL where they belong?")
    if not rows:
        return
    table = _table("where", "address", "what", "sure")
    for place, row in rows:
        where = "trunk" if place.mux is None else f"{place.mux.name} ch {place.channel}"
        cells = [Text(cell) for cell in (where, f"0x{place.address:02x}", *row)]
        table.add_row(*cells, style=_style(row, place))
    console.print(table)
    for note in _notes(on_bus):
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


def _order(place: Place, on_bus: Finds) -> tuple[int, int, int]:
    """The trunk, then mux after mux as they were found, channel after channel; there by address."""
    if place.mux is None:
        return (-1, 0, place.address)
    muxes = [found.mux.name for found in on_bus.muxes]
    return (muxes.index(place.mux.name), place.channel or 0, place.address)


def _rows(on_bus: Finds) -> Iterator[tuple[Place, Row]]:
    for owned in on_bus.kernel_owned:
        channels = ", ".join(f"/dev/i2c-{number}" for _, number in owned.channels)
        yield owned.place, (owned.driver + (f": {channels}" if channels else ""), "kernel", "", "", "")
    for found in on_bus.muxes:
        yield found.place, (f"{found.kind.part} = {found.mux.name}", _sure(is_sure=found.kind.is_sure), "", "", "")
    for unknown in on_bus.unknown:
        yield unknown.place, ("unknown" + (f", {unknown.note}" if unknown.note else ""), "", "", "", "")
    for chip in on_bus.chips:
        for row in _chip_rows(chip):
            yield chip.place, row


def _chip_rows(chip: FoundChip) -> Iterator[Row]:
    sure = _sure(is_sure=chip.identity.is_sure)
    if not chip.inputs:
        yield f"{chip.identity.part}, not read by wattpush", sure, "", "", ""
    for found in chip.inputs:
        what = chip.identity.part + ("" if found.number is None else f" input {found.number}")
        if found.problem is not None:
            what += f": {found.problem}"
        mark = _OF_ASSUMED_SHUNT if chip.has_external_shunt else " "
        yield what, sure, *_numbers(found.measurement, mark)


def _sure(*, is_sure: bool) -> str:
    return "yes" if is_sure else "likely"


def _numbers(measurement: Measurement | None, mark: str = " ") -> tuple[str, str, str]:
    if measurement is None:
        return "", "", ""
    volts, amperes = measurement.volts, measurement.amperes
    return f"{volts:.3f} ", f"{amperes:.4f}{mark}", f"{volts * amperes:.3f}{mark}"


def _notes(on_bus: Finds) -> Iterator[str]:
    if any(chip.has_external_shunt for chip in on_bus.chips):
        yield (
            f"{_OF_ASSUMED_SHUNT} if the shunt has {ASSUMED_SHUNT_OHMS:g} ohm: "
            "nobody can see it over the bus, look it up on the board"
        )
    for mux in on_bus.muxes:
        if not mux.kind.is_sure:
            yield f"{mux.mux.name}: {mux.kind.proof}"
    for proof in sorted({chip.identity.proof for chip in on_bus.chips if not chip.identity.is_sure}):
        yield f"likely: {proof}"
    shared = sorted(on_bus.hiding - {found.mux.address for found in on_bus.muxes})
    if on_bus.muxes and shared:
        yield (
            f"{', '.join(f'0x{address:02x}' for address in shared)}: on the trunk, so heard behind every channel; "
            "a chip with the same address behind a mux cannot be told apart from it"
        )


def _kernel_table(kernel_inputs: Iterable[tuple[PowerInput, Measurement | None]]) -> Table:
    table = _table("chip", "sits at", "input", "label")
    for power_input, measurement in kernel_inputs:
        cells = (power_input.name, power_input.folder.name, str(power_input.number), power_input.label or "")
        table.add_row(*map(Text, cells), *_numbers(measurement))
    return table
