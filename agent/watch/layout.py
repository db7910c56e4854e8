"""The layout of the table: a view as lines of text that fit into a terminal, with a style for each piece."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len, set_cell_size

from agent.measure.readings import Failure, Reading, Settling
from agent.quantities import format_duration, format_energy, format_quantity, format_range
from agent.watch.glyphs import bar, sparkline
from agent.watch.history import TRACE_SLOTS, VoltsOnly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.errors import AgentError
    from agent.watch.glyphs import Glyphs
    from agent.watch.history import Row, View

Piece = tuple[str, str]
"""Text and its style, a key of `live.STYLES`."""

Line = list[Piece]

_QUANTITY_CELLS = len(format_quantity(0.0, "W"))
_SPAN_CELLS = len(format_range(0.0, 0.0, "W"))
_ENERGY_CELLS = len(format_energy(0.0))
_LEAST_NAME_CELLS, _MOST_NAME_CELLS = 11, 32
_MOST_BAR_CELLS = 20
_LEAST_CELLS = {
    "volts": _QUANTITY_CELLS,
    "amperes": _QUANTITY_CELLS,
    "energy": _ENERGY_CELLS,
    "span": _SPAN_CELLS,
    "trace": 10,
    "bar": 6,
}

_PAGE_SECONDS = 10.0
"""How long a page of rows stays before the next page."""

_TITLES = 1
_HEADING_TOTAL_AND_FOOT = 3


class _Columns(NamedTuple):
    """The width of each column; 0 if the terminal is too narrow for it."""

    name: int
    volts: int = 0
    amperes: int = 0
    watts: int = _QUANTITY_CELLS
    bar: int = 0
    trace: int = 0
    span: int = 0
    energy: int = 0

    def with_column(self, column: str, width: int) -> _Columns:
        """Add a column in its least width, if it fits."""
        wider = self._replace(**{column: _LEAST_CELLS[column]})
        return wider if wider.spare_cells(width) >= 0 else self

    def spare_cells(self, width: int) -> int:
        """The cells that the columns and the spaces between them leave free; negative if they do not fit."""
        return width - sum(self) - sum(cells > 0 for cells in self) + 1


def lines(view: View, width: int, height: int, glyphs: Glyphs, *, has_keys: bool = True) -> list[Line]:
    """Lay out the table.

    Args:
        view: what to show.
        width: of the terminal, in cells.
        height: of the terminal, in lines. Devices that do not fit take turns, and a line counts those not shown.
        glyphs: the characters that the terminal can show.
        has_keys: whether a key quits; otherwise only a signal does.
    """
    columns = _columns(width, [row.device for row in view.rows])
    others = _HEADING_TOTAL_AND_FOOT + _TITLES
    gaps: list[Line] = [[]] if len(view.rows) + others + 2 <= height else []
    room = max(0, height - others)
    shown, hidden = _page(view, room)
    table = [_heading(view, width, glyphs), *gaps, _titles(view, columns)]
    names = _names([row.device for row in view.rows], columns.name, glyphs)
    table += [_row(replace(row, device=names[row.device]), view, columns, width, glyphs) for row in shown]
    if hidden:
        table.append(_more(hidden, width, glyphs))
    is_cut = any(_message_cells(columns, width) < cell_len(str(error)) for error in _errors(view.rows))
    is_cut = is_cut or bool(_errors(hidden))
    table += [_total(view, columns), *gaps, _foot(view, columns, width, has_keys=has_keys, is_cut=is_cut)]
    return [_cut(line, width) for line in table[:height]]


def _page(view: View, room: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Return the rows of the current page, and the other rows. Every page has the same number of rows."""
    rows = view.rows
    if len(rows) <= room:
        return rows, ()
    count = max(0, room - 1)
    if not count:
        return (), rows
    slots_a_page = math.ceil(_PAGE_SECONDS / view.slot_seconds)
    page = view.slot // slots_a_page % math.ceil(len(rows) / count)
    start = min(page * count, len(rows) - count)
    return rows[start : start + count], rows[:start] + rows[start + count :]


def _columns(width: int, names: Sequence[str]) -> _Columns:
    """Choose the columns that fit: numbers first, then whole names, then the rest; finally longer traces and bars."""
    wanted_name = min(max(len("device"), *map(cell_len, names)), _MOST_NAME_CELLS)
    columns = _Columns(name=min(wanted_name, _LEAST_NAME_CELLS))
    for column in ("amperes", "volts"):
        columns = columns.with_column(column, width)
    columns = columns._replace(name=min(wanted_name, columns.name + max(0, columns.spare_cells(width))))
    if columns.name == wanted_name:
        columns = columns.with_column("energy", width)
    if not columns.energy:
        return columns
    for column in ("span", "trace", "bar"):
        columns = columns.with_column(column, width)
    if columns.bar and columns.trace:
        spare = columns.spare_cells(width)
        for_bar = min(spare // 4, _MOST_BAR_CELLS - columns.bar)
        # As many cells as possible with a whole number of slots in each.
        slots_per_cell = math.ceil(TRACE_SLOTS / (columns.trace + spare - for_bar))
        columns = columns._replace(bar=columns.bar + for_bar, trace=math.ceil(TRACE_SLOTS / slots_per_cell))
    return columns


def _heading(view: View, width: int, glyphs: Glyphs) -> Line:
    rest: Line = [
        ("  every ", "faint"),
        (format_duration(view.sample_interval_seconds), ""),
        ("  at ", "faint"),
        (_time_of_day(view.read_unix_seconds), ""),
    ]
    simulated: Line = [("  ", ""), (" SIMULATED ", "alert")] if view.is_simulated else []
    source: Line = []
    if not view.is_configured:
        words = "built-in node" if view.is_simulated else "no configuration: found by a scan"
        source = [("  ", ""), (words, "notice")]
    # What the numbers are is the last to go, and first of all that they are not real.
    choices = ([*rest, *source, *simulated], [*source, *simulated], simulated)
    name_cells = min(cell_len(view.hostname), _LEAST_NAME_CELLS)
    rest = next((choice for choice in choices if _cells(choice) + name_cells <= width), simulated)
    room = max(0, width - _cells(rest))
    return [(_fit(view.hostname, min(room, cell_len(view.hostname)), glyphs), "strong"), *rest]


def _cells(line: Line) -> int:
    return sum(cell_len(text) for text, _ in line)


def _titles(view: View, columns: _Columns) -> Line:
    ago = format_duration(TRACE_SLOTS * view.slot_seconds)
    last = f"last {ago}" if len(f"last {ago}") <= columns.trace else ago
    titles = ("device", "  volts", "amperes", "  watts", "", last, "     min..max", " energy")
    return _in_columns(columns, [(title, "faint") for title in titles])


def _row(row: Row, view: View, columns: _Columns, width: int, glyphs: Glyphs) -> Line:
    name = (row.device, "strong")
    match row.outcome:
        case Reading(volts=volts, amperes=amperes, power_watts=watts):
            is_back = watts < 0.0
            extremes = row.extremes
            span = format_range(extremes.min_watts, extremes.max_watts, "W") if extremes is not None else ""
            return _in_columns(
                columns,
                (
                    name,
                    (format_quantity(volts, "V"), ""),
                    (format_quantity(amperes, "A"), ""),
                    (format_quantity(watts, "W"), "back" if is_back else "strong"),
                    (bar(watts, view.largest_watts, columns.bar, glyphs), "back" if is_back else "bar"),
                    (sparkline(row.trace, view.slot, columns.trace, glyphs), "trace"),
                    (span, ""),
                    (format_energy(row.joules), ""),
                ),
            )
        case VoltsOnly():
            return [name, (" ", ""), *_volts_only(row.outcome, columns, width, glyphs)]
        case Failure(error=error):
            text, style = _on_one_line(str(error)), "bad"
        case Settling(power_lost=True):
            text, style = "its chip lost its power and was configured again", "bad"
        case Settling(ready_at_seconds=ready_at_seconds):
            wait_seconds = max(0.0, ready_at_seconds - view.now_seconds)
            text, style = f"converting, first result in {wait_seconds:.1f} s", "notice"
        case _:
            text, style = "not read yet", "faint"
    return [name, (" ", ""), (_fit(text, _message_cells(columns, width), glyphs), style)]


def _volts_only(outcome: VoltsOnly, columns: _Columns, width: int, glyphs: Glyphs) -> Line:
    room = _message_cells(columns, width)
    if outcome.volts is None or not columns.volts:
        return [(_fit(outcome.problem, room, glyphs), "notice")]
    volts = format_quantity(outcome.volts, "V")
    return [(volts, ""), (" ", ""), (_fit(outcome.problem, room - len(volts) - 1, glyphs), "notice")]


def _message_cells(columns: _Columns, width: int) -> int:
    """The width for a message in place of the numbers."""
    return width - columns.name - 1


def _errors(rows: Sequence[Row]) -> list[AgentError]:
    return [row.outcome.error for row in rows if isinstance(row.outcome, Failure)]


def _more(rows: Sequence[Row], width: int, glyphs: Glyphs) -> Line:
    failing = [row.device for row in rows if isinstance(row.outcome, Failure)]
    line: Line = [(f"{glyphs.more} {len(rows)} more in turns", "notice")]
    if not failing:
        return line
    text = f", {len(failing)} of them failing: {', '.join(failing)}"
    room = width - _cells(line)
    return [*line, (_fit(text, min(room, cell_len(text)), glyphs), "bad")]


def _total(view: View, columns: _Columns) -> Line:
    """The total power of the devices that can be read now, how many those are unless all, and the total energy.

    What another device has in its sum counts once.
    """
    readings = view.readings
    rows = [row for row in view.rows if not row.is_in_sum]
    powers = [row.outcome.power_watts for row in rows if isinstance(row.outcome, Reading)]
    pieces = [("", "")] * len(columns)
    pieces[0] = ("total", "strong")
    pieces[3] = (format_quantity(sum(powers), "W") if powers else "", "strong")
    if len(readings) < len(view.rows):
        count = f"{len(readings)} of {len(view.rows)}"
        # A column without a total, and wide enough.
        for column in (5, 2, 1):
            if len(count) <= columns[column]:
                pieces[column] = (count, "notice")
                break
    pieces[7] = (format_energy(sum(row.joules for row in rows)), "strong")
    return _in_columns(columns, pieces)


def _foot(view: View, columns: _Columns, width: int, *, has_keys: bool, is_cut: bool) -> Line:
    end = "q quits." if has_keys else "Ctrl-C ends."
    if view.stale_seconds:
        seconds = f"{view.stale_seconds:.0f} s"
        return [(f"{end} ", "faint"), (f"No sweep has ended for {seconds}: these numbers are old.", "bad")]
    if is_cut:
        command = "wattpush check --hardware" if view.is_configured else "wattpush watch | cat"
        return [(f"{end} Nothing is pushed. Errors in full: {command}", "faint")]
    began = _time_of_day(view.began_unix_seconds)
    shown = [name for name, cells in (("min..max", columns.span), ("energy", columns.energy)) if cells]
    since = f" {' and '.join(shown)} since {began}." if shown else ""
    choices = (f"{end} Nothing is pushed.{since}", f"{end}{since}", end)
    return [(next((choice for choice in choices if len(choice) <= width), end), "faint")]


def _in_columns(columns: _Columns, pieces: Sequence[Piece]) -> Line:
    line: Line = []
    for cells, (text, style) in zip(columns, pieces, strict=True):
        if cells:
            line += [(" ", ""), (set_cell_size(text, cells), style)]
    return line[1:]


def _fit(text: str, cells: int, glyphs: Glyphs) -> str:
    """Pad or cut text to this many cells; an ellipsis marks a cut."""
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return set_cell_size(text, cells - 1) + glyphs.ellipsis if cells > 0 else ""


def _names(devices: Sequence[str], cells: int, glyphs: Glyphs) -> dict[str, str]:
    """Cut names to this many cells: at their ends or, where they would then look alike, in their middles or beginnings.

    A scan, for example, names the inputs of one chip m0-ch4-0x41-in1 and so on.
    """
    cuts = [
        {device: _fit_around(device, cells, end_cells, glyphs) for device in devices}
        for end_cells in (0, cells // 2, cells - 1)
    ]
    return max(cuts, key=lambda cut: len(set(cut.values())))


def _fit_around(text: str, cells: int, end_cells: int, glyphs: Glyphs) -> str:
    """As `_fit`, but keep this many cells of the end of a text that is cut."""
    if cell_len(text) <= cells:
        return set_cell_size(text, cells)
    return set_cell_size(text, cells - 1 - end_cells) + glyphs.ellipsis + set_cell_size(text[::-1], end_cells)[::-1]


def _cut(line: Line, width: int) -> Line:
    """Cut a line to a terminal that is narrower than the narrowest table."""
    cut: Line = []
    for text, style in line:
        cells = min(cell_len(text), width)
        cut.append((set_cell_size(text, cells), style))
        width -= cells
    return cut


def _on_one_line(text: str) -> str:
    """Replace control characters: the message of a driver must not control the terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def _time_of_day(unix_seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(unix_seconds))
