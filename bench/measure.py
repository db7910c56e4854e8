"""Measurements: samples, their median and spread, and the goals of a row of the table."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Samples:
    """One quantity measured repeatedly, in `unit`."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The median value."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Half the range between the lower and the upper quartile, as a share of the median."""
        if len(self.values) < 2 or not self.median:
            return 0.0
        lower, _, upper = statistics.quantiles(self.values, n=4, method="inclusive")
        return (upper - lower) / 2 / abs(self.median)

    def __str__(self) -> str:
        spread = f" ± {self.spread * 100:.0f} %" if len(self.values) > 1 else ""
        return f"{number(self.median)} {self.unit}{spread}"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit for the value, or for its ratio to the stock variant: at most `limit`, or at least."""

    limit: float
    unit: str = ""
    is_ratio: bool = False
    at_least: bool = False

    def __str__(self) -> str:
        unit = "x" if self.is_ratio else self.unit
        return f"{'≥' if self.at_least else '≤'} {self.limit:,g} {unit}".rstrip()

    def share_used(self, measured: float) -> float:
        """The share of the goal's allowance that is used: up to 1, the goal is reached."""
        return self.limit / measured if self.at_least else measured / self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        stock: the stock variant, or the floor.
        goals: empty for a row that only explains another.
        before: the figure of the first version, which read everything once and checked nothing; with an "x", its ratio
            to the stock variant, as its machine was another one.
    """

    what: str
    stock: Samples | None
    ours: Samples
    goals: tuple[Goal, ...] = ()
    before: str = ""

    @property
    def ratio(self) -> float | None:
        """Our median divided by the stock variant's."""
        return self.ours.median / self.stock.median if self.stock is not None and self.stock.median else None

    def share_used(self, goal: Goal) -> float:
        """See `Goal.share_used`. Raises ValueError for a ratio without a stock variant."""
        if not goal.is_ratio:
            return goal.share_used(self.ours.median)
        if self.ratio is None:
            raise ValueError(f"{self.what}: a ratio needs a stock variant")
        return goal.share_used(self.ratio)

    @property
    def is_reached(self) -> bool:
        """Whether every goal is reached."""
        return all(self.share_used(goal) <= 1.0 for goal in self.goals)


@dataclass(frozen=True, slots=True)
class Findings:
    """The results of a benchmark: rows of the table, and Markdown text below it."""

    rows: tuple[Row, ...]
    text: str = ""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: in full for the page, or a tenth of it for a rough picture."""

    is_quick: bool

    def times(self, full: int, quick: int) -> int:
        """A number of repetitions."""
        return quick if self.is_quick else full


def interleaved(
    repetitions: int, variants: Mapping[str, Callable[[], Sequence[float]]]
) -> dict[str, list[tuple[float, ...]]]:
    """Measure several variants in turns, so that other load on the machine affects all alike.

    Returns:
        For each variant, one tuple for each quantity that it measures, with a value for each repetition.
    """
    taken: dict[str, list[Sequence[float]]] = {name: [] for name in variants}
    for _ in range(repetitions):
        for name, measure in variants.items():
            taken[name].append(measure())
    return {name: list(zip(*values, strict=True)) for name, values in taken.items()}


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"
