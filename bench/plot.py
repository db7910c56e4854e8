"""A bar for each goal in SVG: the share of its allowance that is used, on a logarithmic scale."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Row

_LEFT, _WIDTH, _RIGHT, _LINE, _TOP = 620, 380, 70, 22, 62
_TICKS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
_REACHED, _MISSED = "#2a7f4f", "#c0392b"


def plot(rows: Sequence[Row]) -> str:
    """The picture: a bar that ends left of the line at 1 has reached its goal; a column gives the figures."""
    bars = [(f"{row.what} ({goal})", row.share_used(goal)) for row in rows for goal in row.goals]
    right = _LEFT + _WIDTH + _RIGHT
    height = _TOP + _LINE * len(bars) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right} {height}" role="img">',
        "<title>Share of each goal's allowance that is used</title>",
        "<style>text { font: 12px sans-serif; fill: #222 } .head { font-weight: bold }</style>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text class="head" x="{_LEFT}" y="20">Share of the allowance that is used (logarithmic)</text>',
        f'<text class="head" x="{_LEFT - 8}" y="{_TOP - 14}" text-anchor="end">what (goal)</text>',
    ]
    for tick in _TICKS:
        label = "goal" if tick == 1.0 else f"{tick:g}"
        parts.append(_line(tick, height, "#ddd", 1))
        parts.append(f'<text x="{_x(tick):.1f}" y="{_TOP - 14}" text-anchor="middle">{label}</text>')
    for line, (label, share) in enumerate(bars):
        y = _TOP + _LINE * line
        colour = _REACHED if share <= 1.0 else _MISSED
        style = f"fill: {colour}; font-weight: {'normal' if share <= 1.0 else 'bold'}"
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(_plain(label))}</text>',
            f'<rect x="{_LEFT}" y="{y + 3}" width="{_x(share) - _LEFT:.1f}" height="{_LINE - 8}" fill="{colour}"/>',
            f'<text x="{right - 12}" y="{y + 13}" text-anchor="end" style="{style}">{share:.2f}</text>',
        ]
    # The line at 1 comes last, over the bars.
    return "\n".join([*parts, _line(1.0, height, "#222", 2), "</svg>\n"])


def _line(share: float, height: int, colour: str, width: int) -> str:
    return f'<path d="M{_x(share):.1f} {_TOP - 8}V{height - 10}" stroke="{colour}" stroke-width="{width}"/>'


def _x(share: float) -> float:
    lowest, highest = math.log(_TICKS[0] / 2), math.log(_TICKS[-1])
    place = (math.log(max(share, 1e-9)) - lowest) / (highest - lowest)
    return _LEFT + _WIDTH * min(max(place, 0.005), 1.0)


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")
