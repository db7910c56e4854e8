"""Bars and sparklines, on a terminal that shows Unicode's block elements (U+2581 to U+258F) or one that does not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.watch.history import TRACE_SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NUMBER_CHARACTERS = 5
"""A number with its sign and its point: `12.01`, `-1.25`, `324.1`."""

_PREFIXES = (("m", 1e-3), ("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
_JOULES_PER_WATT_HOUR = 3600.0


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


def number(value: float, characters: int = NUMBER_CHARACTERS) -> str:
    """With as many decimals as fit; longer than `characters` if not even its whole part fits."""
    text = ""
    # From the most decimals on: only the rounded number shows how many places it takes before the point.
    for decimals in range(characters - 2, -1, -1):
        text = f"{value:.{decimals}f}"
        if len(text) <= characters:
            break
    return number(0.0, characters) if value and not float(text) else text  # no sign for what is rounded to zero


def quantity(value: float, unit: str) -> str:
    """A number and its unit, such as `324.1 mA` or `12.01 V `: always NUMBER_CHARACTERS + 2 + len(unit) wide."""
    prefix, factor = _prefix_for(value, NUMBER_CHARACTERS)
    return f"{number(value / factor):>{NUMBER_CHARACTERS}} {prefix + unit:<{len(unit) + 1}}"


def span(lowest: float, highest: float, unit: str) -> str:
    """Two numbers under one prefix, such as `1.61..9.98 W `: always 2 * NUMBER_CHARACTERS + 2 + len(unit) wide."""
    characters = NUMBER_CHARACTERS - 1
    prefix, factor = _prefix_for(max(lowest, highest, key=abs), characters)
    numbers = "..".join(number(value / factor, characters) for value in (lowest, highest))
    return f"{numbers:>{2 * characters + 2}} {prefix + unit:<{len(unit) + 1}}"


def energy(joules: float) -> str:
    """In joules below a watt hour, in watt hours from there on; always as wide."""
    if abs(joules) < _JOULES_PER_WATT_HOUR:
        return f"{quantity(joules, 'J')} "
    return quantity(joules / _JOULES_PER_WATT_HOUR, "Wh")


def duration(seconds: float) -> str:
    """A time in the largest unit that makes it a round number: `250 ms`, `1.5 s`, `2 min`, `3 h`."""
    for unit, unit_seconds in (("h", 3600.0), ("min", 60.0)):
        if seconds >= unit_seconds and seconds % unit_seconds == 0:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:g} s" if seconds >= 1.0 else f"{seconds * 1000:g} ms"


def _prefix_for(value: float, characters: int) -> tuple[str, float]:
    """The prefix under which a value has at most three digits before the point, as it is rounded; none for a zero."""
    smallest = _PREFIXES[0][1]
    if float(number(value / smallest, characters)) == 0.0:
        return "", 1.0
    for prefix, factor in _PREFIXES[:-1]:
        text = number(value / factor, characters)
        if abs(float(text)) < 1000.0 and len(text) <= characters:
            return prefix, factor
    return _PREFIXES[-1]
