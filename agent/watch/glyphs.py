"""Bars and sparklines as text of a fixed width.

They use Unicode's block elements (U+2581 to U+258F), or ASCII where the terminal cannot show them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.watch.history import TRACE_SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters of bars and sparklines.

    Attributes:
        bar: from the thinnest part of a cell to a whole cell.
        trace: from the lowest value of a sparkline to the highest.
        ellipsis: one character, where text is cut off.
        more: stands for lines that are left out.
    """

    bar: str
    trace: str
    ellipsis: str
    more: str


UNICODE = Glyphs("▏▎▍▌▋▊▉█", "▁▂▃▄▅▆▇█", "…", "…")
ASCII = Glyphs("#", ".:-=+*%#", "~", "...")


def glyphs_for(encoding: str, environ: Mapping[str, str]) -> Glyphs:
    """Choose the glyphs for a terminal with this encoding.

    Even in the C locale Python writes UTF-8 (PEP 540), but a user who sets that locale expects ASCII.
    """
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "C"
    has_utf8 = encoding.lower().replace("-", "") == "utf8" and locale not in {"C", "POSIX"}
    return UNICODE if has_utf8 else ASCII


def bar(value: float, largest: float, cells: int, glyphs: Glyphs) -> str:
    """Draw the magnitude of a value relative to the largest; not padded."""
    if not largest > 0.0:
        return ""
    steps = len(glyphs.bar)
    filled = round(min(abs(value) / largest, 1.0) * cells * steps)
    whole, rest = divmod(filled, steps)
    return glyphs.bar[-1] * whole + (glyphs.bar[rest - 1] if rest else "")


def sparkline(trace: Sequence[tuple[int, float]], slot: int, cells: int, glyphs: Glyphs) -> str:
    """Draw the trace up to `slot`, one mean for each cell; a cell without a value is a space.

    The range always includes zero, so that a steady load is a level line and not magnified noise.
    """
    if not cells:
        return ""
    slots_per_cell = math.ceil(TRACE_SLOTS / cells)
    # Cells start at multiples of their length, so that the drawing scrolls without changing.
    first_cell = slot // slots_per_cell - cells + 1
    by_cell: list[list[float]] = [[] for _ in range(cells)]
    for number, value in trace:
        cell = number // slots_per_cell - first_cell
        if 0 <= cell < cells:
            by_cell[cell].append(value)
    means = [sum(values) / len(values) if values else None for values in by_cell]
    known = [mean for mean in means if mean is not None]
    lowest, highest = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
    per_value = (len(glyphs.trace) - 1) / (highest - lowest) if highest > lowest else 0.0
    return "".join(" " if mean is None else glyphs.trace[round((mean - lowest) * per_value)] for mean in means)
