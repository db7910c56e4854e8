"""What a watch leaves on the screen when it ends: how long it was, and the energy of each device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from agent.quantities import format_elapsed, format_energy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.watch.history import Row, View

_MOST_LINES = 3
_INDENT = "  "

_LONGEST_GAP = 0.05
_LONGEST_GAP_SECONDS = 3.0
"""A device that was not read for longer than this, and this share of the watch, says for how long its energy is."""


def closing_lines(view: View, width: int) -> list[str]:
    """The text, in as many lines as it needs; with many devices only their number and the total."""
    simulated = " (SIMULATED)" if view.is_simulated else ""
    head = f"watched {format_elapsed(view.watched_seconds)}{simulated}:"
    rows = view.rows
    total = f"total {_energy(sum(row.joules for row in rows if not row.is_in_sum))}"
    read = [row for row in rows if row.measured_seconds]
    if not read:
        return _wrapped(head, ["nothing was measured"], width)
    each = [_words(row, view) for row in rows]
    text = _wrapped(head, each if len(rows) == 1 else [*each, total], width)
    if len(text) <= _MOST_LINES:
        return text
    count = f"{len(rows)} devices" if len(read) == len(rows) else f"{len(read)} of {len(rows)} devices"
    return _wrapped(head, [count, total], width)


def _words(row: Row, view: View) -> str:
    if not row.measured_seconds:
        return f"{row.device} not measured"
    gap_seconds = view.watched_seconds - row.measured_seconds
    is_partial = gap_seconds > max(_LONGEST_GAP_SECONDS, _LONGEST_GAP * view.watched_seconds)
    return f"{row.device} {_energy(row.joules)}" + (f" in {format_elapsed(row.measured_seconds)}" if is_partial else "")


def _energy(joules: float) -> str:
    return format_energy(joules).strip()


def _wrapped(head: str, items: Sequence[str], width: int) -> list[str]:
    return [*_fill([head, *(f"{item}," for item in items[:-1]), items[-1]], width)]


def _fill(words: Sequence[str], width: int) -> Iterator[str]:
    """Lines of whole words, where they fit."""
    line = words[0]
    for word in words[1:]:
        if cell_len(line) + 1 + cell_len(word) > width:
            yield line
            line = f"{_INDENT}{word}"
        else:
            line += f" {word}"
    yield line
