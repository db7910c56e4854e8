"""A measurement as a table, for a person."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING

from agent.errors import one_line

if TYPE_CHECKING:
    from agent.command_energy.results import Measurement, Row

_DIGITS = 4
_MOST_DECIMALS = 6
_LONGEST_COMMAND = 60
_UNKNOWN = "-"


def table(measurement: Measurement) -> str:
    """The lines of the table, and the notes below."""
    has_idle, has_spread = measurement.idle_seconds is not None, len(measurement.counted_runs()) > 1
    rows = measurement.rows()
    total = measurement.total()
    titles = ["device", "joules"]
    titles += ["spread"] * has_spread + ["net joules", "idle watts"] * has_idle
    titles += ["mean watts", "peak watts", "seconds", "measured"]
    lines = [titles, *(_cells(row, has_spread=has_spread, has_idle=has_idle) for row in rows)]
    last = _cells(total, has_spread=has_spread, has_idle=has_idle)
    measured = sum(row.joules.mean is not None for row in rows)
    last[-1] = "" if measured == len(rows) else f"{measured} of {len(rows)}"
    lines.append(last)
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    reasons = ["", *(f"  {one_line(row.error)}" if row.error is not None else "" for row in rows), ""]
    text = [_heading(measurement)]
    for line, reason in zip(lines, reasons, strict=True):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        text.append(("  ".join(cells) + reason).rstrip())
    text += [f"note: {note}" for note in measurement.notes]
    return "\n".join(text) + "\n"


def _heading(measurement: Measurement) -> str:
    command = one_line(shlex.join(measurement.command), _LONGEST_COMMAND)
    runs = measurement.counted_runs()
    times = f"mean of {len(runs)} runs" if len(runs) > 1 else f"{_number(runs[0].seconds)} s"
    status = measurement.runs[-1].exit_status
    ended = f", exit status {status}" if status else ""
    idle = "" if measurement.idle_seconds is None else f", net of the power in {measurement.idle_seconds:g} s before"
    return f"{command}: {times}{ended}{idle}"


def _cells(row: Row, *, has_spread: bool, has_idle: bool) -> list[str]:
    cells = [one_line(row.device), _number(row.joules.mean)]
    if has_spread:
        cells.append(_number(row.joules.spread))
    if has_idle:
        cells += [_number(row.net_joules.mean), _number(row.idle_watts)]
    cells += [
        _number(row.mean_watts),
        "" if row.device == "total" and row.peak_watts is None else _number(row.peak_watts),
    ]
    return [*cells, _number(row.seconds), f"{100 * row.coverage:.0f} %"]


def _number(value: float | None) -> str:
    """A number with four digits, or with all before its point."""
    if value is None:
        return _UNKNOWN
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(_DIGITS - 1 - magnitude, 0), _MOST_DECIMALS)}f}"
