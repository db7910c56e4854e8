"""Bars and sparklines, on a terminal that shows Unicode's block elements (U+2581 to U+258F) or one that does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.watch.history import TRACE_SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Strokes:
    """What is drawn with.

    Attributes:
        bar: from the thinnest piece of a bar to a whole cell.
        trace: from the lowest value of a sparkline to the highest.
        cut: one character where text was cut off.
        more: for lines that were left out.
    """

    bar: str
    trace: str
    cut: str
    more: str


UNICODE = Strokes("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "…", "…")
ASCII = Strokes("#", ".:-=+*%#", "~", "...")


def strokes_for(encoding: str, environ: Mapping[str, str]) -> Strokes:
    """What a terminal of this encoding shows.

    Under the locale C Python speaks UTF-8 all the same (PEP 540); who set it gets what it stands for.
    """
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "C"
    speaks_utf8 = encoding.lower().replace("-", "") == "utf8" and locale not in {"C", "POSIX"}
    return UNICODE if speaks_utf8 else ASCII


def bar(value: float, largest: float, cells: int, strokes: Strokes) -> str:
    """The size of a value, whatever its sign, beside the largest; without any padding."""
    if not largest > 0.0:
        return ""
    steps = len(strokes.bar)
    filled = round(min(abs(value) / largest, 1.0) * cells * steps)
    whole, rest = divmod(filled, steps)
    return strokes.bar[-1] * whole + (strokes.bar[rest - 1] if rest else "")


def sparkline(trace: Sequence[tuple[int, float]], slot: int, cells: int, strokes: Strokes) -> str:
    """The trace that ends in `slot`, as the means of so many cells; a cell without a value is a space.

    It is drawn above and below zero: a steady load is a level line, not magnified noise.
    """
    if not cells:
        return ""
    slots_per_cell = math.ceil(TRACE_SLOTS / cells)
    # Cells begin at multiples of their length, so that what is drawn moves on and does not change.
    first_cell = slot // slots_per_cell - cells + 1
    by_cell: list[list[float]] = [[] for _ in range(cells)]
    for number, value in trace:
        cell = number // slots_per_cell - first_cell
        if 0 <= cell < cells:
            by_cell[cell].append(value)
    means = [sum(values) / len(values) if values else None for values in by_cell]
    known = [mean for mean in means if mean is not None]
    lowest, highest = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
    per_value = (len(strokes.trace) - 1) / (highest - lowest) if highest > lowest else 0.0
    return "".join(" " if mean is None else strokes.trace[round((mean - lowest) * per_value)] for mean in means)
