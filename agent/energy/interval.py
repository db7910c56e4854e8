"""An interval: sums and extremes over some readings, and the means that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple


class Extremes(NamedTuple):
    """The lowest and highest readings of an interval."""

    min_volts: float
    max_volts: float
    min_amperes: float
    max_amperes: float
    min_watts: float
    max_watts: float


class Means(NamedTuple):
    """Means over the readings of an interval, signed."""

    volts: float
    amperes: float
    watts: float


@dataclass(slots=True)
class Interval:
    """Sums and extremes over some readings. Two intervals add up to one."""

    readings: int = 0
    sum_volts: float = 0.0
    sum_amperes: float = 0.0
    sum_watts: float = 0.0
    min_volts: float = math.inf
    max_volts: float = -math.inf
    min_amperes: float = math.inf
    max_amperes: float = -math.inf
    min_watts: float = math.inf
    max_watts: float = -math.inf

    def add(self, volts: float, amperes: float, watts: float) -> None:
        """Add one reading."""
        self.readings += 1
        self.sum_volts += volts
        self.sum_amperes += amperes
        self.sum_watts += watts
        self.min_volts = min(self.min_volts, volts)
        self.max_volts = max(self.max_volts, volts)
        self.min_amperes = min(self.min_amperes, amperes)
        self.max_amperes = max(self.max_amperes, amperes)
        self.min_watts = min(self.min_watts, watts)
        self.max_watts = max(self.max_watts, watts)

    def __add__(self, other: Interval) -> Interval:
        return Interval(
            self.readings + other.readings,
            self.sum_volts + other.sum_volts,
            self.sum_amperes + other.sum_amperes,
            self.sum_watts + other.sum_watts,
            min(self.min_volts, other.min_volts),
            max(self.max_volts, other.max_volts),
            min(self.min_amperes, other.min_amperes),
            max(self.max_amperes, other.max_amperes),
            min(self.min_watts, other.min_watts),
            max(self.max_watts, other.max_watts),
        )

    def means(self) -> Means | None:
        """The means; None without a reading."""
        if not self.readings:
            return None
        return Means(self.sum_volts / self.readings, self.sum_amperes / self.readings, self.sum_watts / self.readings)

    def extremes(self) -> Extremes | None:
        """The extremes; None without a reading."""
        if not self.readings:
            return None
        return Extremes(
            self.min_volts, self.max_volts, self.min_amperes, self.max_amperes, self.min_watts, self.max_watts
        )
