"""Rails, which simulated chips measure. Volts and amperes are piecewise constant."""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Segment:
    """A time span, in seconds, with constant volts and amperes."""

    start: float
    end: float
    volts: float
    amperes: float


class Rail(Protocol):
    """A supply conductor and the load on it."""

    def segments(self, start_seconds: float, end_seconds: float) -> Iterable[Segment]:
        """The segments from start to end, in order, without gap or overlap.

        An empty range gives one segment of length zero, with the values at that moment.
        """


class Steps:
    """Rows of seconds, volts and amperes. A row holds until the next one; the first row also holds before its time."""

    __slots__ = ("amperes", "seconds", "volts")

    def __init__(self) -> None:
        self.seconds = array("d")
        self.volts = array("d")
        self.amperes = array("d")

    def append(self, seconds: float, volts: float, amperes: float) -> None:
        """Add a row at or after the last one."""
        self.seconds.append(seconds)
        self.volts.append(volts)
        self.amperes.append(amperes)

    def row_at(self, seconds: float) -> int:
        """The index of the row that holds at this moment."""
        return max(bisect_right(self.seconds, seconds) - 1, 0)

    def segments(self, start_seconds: float, end_seconds: float, begins_seconds: float = 0.0) -> Iterator[Segment]:
        """The segments of a range, with second 0 of the rows at `begins_seconds`; see `Rail.segments`."""
        row = self.row_at(start_seconds - begins_seconds)
        begin = start_seconds
        while row + 1 < len(self.seconds):
            step = self.seconds[row + 1] + begins_seconds
            if step >= end_seconds:
                break
            if step > begin:
                yield Segment(begin, step, self.volts[row], self.amperes[row])
                begin = step
            row += 1
        yield Segment(begin, end_seconds, self.volts[row], self.amperes[row])


def values_at(rail: Rail, seconds: float) -> tuple[float, float]:
    """The volts and amperes at this moment."""
    (segment,) = rail.segments(seconds, seconds)
    return segment.volts, segment.amperes


class ConstantRail:
    """A rail with settable values. A new value holds from the moment it is set; the past does not change."""

    def __init__(self, volts: float, amperes: float, now: Callable[[], float]) -> None:
        """Start with these values, which also hold for the past.

        Args:
            volts: load side to ground.
            amperes: positive towards the load.
            now: the clock of the chip that measures the rail, in seconds.
        """
        self._now = now
        self._steps = Steps()
        self._steps.append(now(), volts, amperes)

    @property
    def volts(self) -> float:
        """The voltage now; settable."""
        return self._steps.volts[-1]

    @volts.setter
    def volts(self, volts: float) -> None:
        self._steps.append(self._now(), volts, self.amperes)

    @property
    def amperes(self) -> float:
        """The current now; settable."""
        return self._steps.amperes[-1]

    @amperes.setter
    def amperes(self, amperes: float) -> None:
        self._steps.append(self._now(), self.volts, amperes)

    def segments(self, start_seconds: float, end_seconds: float) -> Iterator[Segment]:
        """See `Rail.segments`."""
        return self._steps.segments(start_seconds, end_seconds)


class LoadRail:
    """A small computer on 5 V: 0.3 A idle, bursts of up to 2.5 A for 5 to 500 ms, during which the supply sags.

    Each second is computed from the name and its number alone: any moment costs the same, and runs are reproducible.
    """

    IDLE_AMPERES = 0.3
    BUSIEST_AMPERES = 2.5
    OPEN_VOLTS = 5.12
    SUPPLY_OHMS = 0.09
    SHORTEST_STEP_SECONDS = 0.005
    LONGEST_STEP_SECONDS = 0.5
    _CACHED_SECONDS = 64  # more than the longest conversion of a chip: 1024 x 2 x 8.244 ms x 3 inputs = 51 s

    def __init__(self, name: str, highest_amperes: float = BUSIEST_AMPERES) -> None:
        """Create a load.

        Args:
            name: seeds the load; another name gives another load.
            highest_amperes: scales the load down, idle current included, for a shunt that measures less.
        """
        self._name = name
        self._scale = min(highest_amperes / self.BUSIEST_AMPERES, 1.0)
        self._made: dict[int, tuple[Segment, ...]] = {}

    def segments(self, start_seconds: float, end_seconds: float) -> Iterator[Segment]:
        """See `Rail.segments`."""
        begin = start_seconds
        for second in range(math.floor(start_seconds), max(math.ceil(end_seconds), math.floor(start_seconds) + 1)):
            for step in self._steps_of(second):
                if step.end <= begin:
                    continue
                yield Segment(begin, min(step.end, end_seconds), step.volts, step.amperes)
                if step.end >= end_seconds:
                    return
                begin = step.end

    def _steps_of(self, second: int) -> tuple[Segment, ...]:
        steps = self._made.get(second)
        if steps is None:
            while len(self._made) >= self._CACHED_SECONDS:
                del self._made[next(iter(self._made))]
            steps = self._made[second] = tuple(self._make(second))
        return steps

    def _make(self, second: int) -> Iterator[Segment]:
        chance = random.Random(f"{self._name}/{second}")  # noqa: S311 - a reproducible load, not a secret
        busy = chance.random() ** 2  # most seconds are quiet
        begin = float(second)
        while begin < second + 1:
            spread = self.LONGEST_STEP_SECONDS / self.SHORTEST_STEP_SECONDS
            end = begin + self.SHORTEST_STEP_SECONDS * spread ** chance.random()
            if second + 1 - end < self.SHORTEST_STEP_SECONDS:
                end = second + 1.0
            work = 0.3 + 0.7 * chance.random() if chance.random() < busy else 0.1 * chance.random()
            amperes = (self.IDLE_AMPERES + (self.BUSIEST_AMPERES - self.IDLE_AMPERES) * work) * self._scale
            yield Segment(begin, end, self.OPEN_VOLTS - self.SUPPLY_OHMS * amperes, amperes)
            begin = end
