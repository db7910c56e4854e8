"""The plot of a device's power: an inline SVG, with a line of means inside a band from lowest to highest.

The picture stretches to the width that it is given. Its labels are HTML beside it, which does not stretch. Lines are
steps, a step for each slot, and a slot without a reading is a gap.
"""

from __future__ import annotations

import math
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from agent.quantities import format_quantity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.serve.recent_power import Slot, Trace

_HEIGHT = 100
_SLOT_WIDTH = 4
_ROUND = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""The ends of a scale, times a power of ten."""

_SMALLEST_WATTS = 1e-3
"""A scale shows at least this much: below it is noise."""

_BELOW_ONE_WATT = 1.0 - 1e-9


def plot(name: str, number: int, trace: Trace) -> str:
    """Draw the trace of a device; `number` makes ids unique on the page."""
    known = [slot for slot in trace if slot is not None]
    scale = _Scale(known)
    words = "no reading"
    if known:
        lowest, highest = min(slot.lowest for slot in known), max(slot.highest for slot in known)
        last = known[-1].mean
        words = f"minimum {quantity(lowest, 'W')}, maximum {quantity(highest, 'W')}, last {quantity(last, 'W')}"
    return (
        f'<div class="plot"><svg role="img" aria-labelledby="t{number}" aria-describedby="d{number}" '
        f'viewBox="0 0 {len(trace) * _SLOT_WIDTH} {_HEIGHT}" preserveAspectRatio="none">'
        f'<title id="t{number}">Power of {escape(name)} in the last 15 minutes</title>'
        f'<desc id="d{number}">{words}</desc>'
        f'<path class="grid" d="M0 0H{len(trace) * _SLOT_WIDTH}M0 {scale.y(0.0)}H{len(trace) * _SLOT_WIDTH}"/>'
        f"{_paths(trace, scale) if known else ''}</svg>"
        f"{scale.labels() if known else ''}</div>"
    )


def quantity(value: float, unit: str) -> str:
    """A value with its unit, without padding: `-324.1 mA`, with a true minus sign and a space that does not break."""
    return format_quantity(value, unit).strip().replace("-", "\u2212").replace(" ", "\u00a0")


class _Scale:
    """From watts to the vertical coordinate. It always includes zero, so that noise of a steady load stays small."""

    def __init__(self, slots: Sequence[Slot]) -> None:
        highest = max((slot.highest for slot in slots), default=0.0)
        lowest = min((slot.lowest for slot in slots), default=0.0)
        self._top = _round_up(highest) if highest > 0.0 or lowest >= 0.0 else 0.0
        self._bottom = -_round_up(-lowest) if lowest < 0.0 else 0.0

    def y(self, watts: float) -> int:
        return round((self._top - watts) / (self._top - self._bottom) * _HEIGHT)

    def labels(self) -> str:
        return (
            f'<span class="top" aria-hidden="true">{_label(self._top)}</span>'
            f'<span class="bottom" aria-hidden="true">{_label(self._bottom)}</span>'
        )


def _round_up(watts: float) -> float:
    """The next round number."""
    watts = max(watts, _SMALLEST_WATTS)
    power = 10.0 ** math.floor(math.log10(watts))
    return next(step * power for step in _ROUND if step * power >= watts * (1 - 1e-9))


def _label(watts: float) -> str:
    prefix, factor = ("m", 1e-3) if 0.0 < abs(watts) < _BELOW_ONE_WATT else ("", 1.0)
    return f"{watts / factor:g}\u00a0{prefix}W".replace("-", "\u2212")


def _paths(trace: Trace, scale: _Scale) -> str:
    band, line = [], []
    for has_reading, run in groupby(enumerate(trace), key=lambda numbered: numbered[1] is not None):
        if has_reading:
            numbers, slots = zip(*run, strict=True)
            left = numbers[0] * _SLOT_WIDTH
            highest = _steps(slots, lambda slot: scale.y(slot.highest))
            lowest = _steps(slots[::-1], lambda slot: scale.y(slot.lowest), -_SLOT_WIDTH)
            band.append(f"M{left} {highest[0]}{highest[1]}V{lowest[0]}{lowest[1]}z")
            start, steps = _steps(slots, lambda slot: scale.y(slot.mean))
            line.append(f"M{left} {start}{steps}")
    return f'<path class="band" d="{"".join(band)}"/><path class="line" d="{"".join(line)}"/>'


def _steps(slots: Sequence[Slot], y: Callable[[Slot], int], width: int = _SLOT_WIDTH) -> tuple[int, str]:
    """The first height, and a step for each run of slots of one height."""
    heights = [(height, sum(1 for _ in run)) for height, run in groupby(map(y, slots))]
    return heights[0][0], "".join(
        (f"V{height}" if number else "") + f"h{count * width}" for number, (height, count) in enumerate(heights)
    )
