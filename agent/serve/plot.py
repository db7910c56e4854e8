"""The plot of a device's power: an inline SVG, with a line of means inside a band from lowest to highest.

The picture stretches to the width that it is given. Its labels are HTML beside it, which does not stretch. Lines are
steps, a step for each slot, and a slot without a reading is a gap.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from agent.quantities import format_quantity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.serve.recent_power import Trace

_HEIGHT = 100
_SLOT_WIDTH = 4

# The step to a height, by the height: a lookup is much faster than formatting.
_FORTH = [f"V{height}h{_SLOT_WIDTH}" for height in range(_HEIGHT + 1)]
_BACK = [f"V{height}h-{_SLOT_WIDTH}" for height in range(_HEIGHT + 1)]

_ROUND = (1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0)
"""The ends of a scale, times a power of ten."""

_SMALLEST_WATTS = 0.9e-3
"""A scale shows at least this much: below it is noise."""

_HEADROOM = 1.05
"""A level line is not drawn on the end of the scale."""

_LARGE = (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))

_ALMOST = 1.0 - 1e-9
"""Round numbers are products, which may be a little too small."""


def plot(title: str, number: int, trace: Trace) -> str:
    """Draw the trace of a device; `number` makes ids unique on the page."""
    width = trace.slots * _SLOT_WIDTH
    lowest = min((min(run.lowest) for run in trace.runs), default=0.0)
    highest = max((max(run.highest) for run in trace.runs), default=0.0)
    scale = _Scale(lowest, highest)
    (zero,) = scale.heights([0.0])
    words, paths, labels = "no reading", "", ""
    if trace.runs:
        last = trace.runs[-1].means[-1]
        words = f"minimum {quantity(lowest, 'W')}, maximum {quantity(highest, 'W')}, last {quantity(last, 'W')}"
        paths, labels = _paths(trace, scale), scale.labels()
    return (
        f'<div class="plot"><svg role="img" aria-labelledby="t{number}" aria-describedby="d{number}" '
        f'viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none">'
        f'<title id="t{number}">{escape(title)}</title>'
        f'<desc id="d{number}">{words}</desc>'
        f'<path class="grid" d="M0 0H{width}M0 {zero}H{width}"/>'
        f"{paths}</svg>{labels}</div>"
    )


def quantity(value: float, unit: str) -> str:
    """A value with its unit, without padding: `-324.1 mA`, with a true minus sign and a space that does not break."""
    return format_quantity(value, unit).strip().replace("-", "\u2212").replace(" ", "\u00a0")


class _Scale:
    """From watts to the vertical coordinate. It always includes zero, so that noise of a steady load stays small."""

    def __init__(self, lowest: float, highest: float) -> None:
        self._top = _round_up(highest) if highest > 0.0 or lowest >= 0.0 else 0.0
        self._bottom = -_round_up(-lowest) if lowest < 0.0 else 0.0
        self._per_watt = _HEIGHT / (self._top - self._bottom)

    def heights(self, watts: Iterable[float]) -> list[int]:
        top, per_watt = self._top, self._per_watt
        return [round((top - value) * per_watt) for value in watts]

    def labels(self) -> str:
        return (
            f'<span class="top" aria-hidden="true">{_label(self._top)}</span>'
            f'<span class="bottom" aria-hidden="true">{_label(self._bottom)}</span>'
        )


def _round_up(watts: float) -> float:
    """The next round number that is a little larger."""
    watts = max(watts, _SMALLEST_WATTS) * _HEADROOM
    power = 10.0 ** math.floor(math.log10(watts))
    return next(step * power for step in _ROUND if step * power >= watts)


def _label(watts: float) -> str:
    size = abs(watts)
    prefix, factor = ("m", 1e-3) if 0.0 < size < _ALMOST else ("", 1.0)
    for larger, larger_factor in _LARGE:
        if size >= larger_factor * _ALMOST:
            prefix, factor = larger, larger_factor
    return f"{watts / factor:g}\u00a0{prefix}W".replace("-", "\u2212")


def _paths(trace: Trace, scale: _Scale) -> str:
    band, line = [], []
    for run in trace.runs:
        left = run.first * _SLOT_WIDTH
        upper, lower = scale.heights(run.highest), scale.heights(run.lowest)
        band.append(f"M{left} {upper[0]}")
        band += [_FORTH[height] for height in upper]
        band += [_BACK[height] for height in reversed(lower)]
        band.append("z")
        means = scale.heights(run.means)
        line.append(f"M{left} {means[0]}")
        line += [_FORTH[height] for height in means]
    return f'<path class="band" d="{"".join(band)}"/><path class="line" d="{"".join(line)}"/>'
