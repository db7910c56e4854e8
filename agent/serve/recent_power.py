"""The memory behind the plots of the live page: the power of each device in the last 15 minutes, in slots.

A slot holds the lowest, the mean and the highest of its readings. The sweeping thread adds to the memory, and the
serving thread copies it, under a lock that neither holds for long.
"""

from __future__ import annotations

import math
import threading
from array import array
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from agent.measure.readings import Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.measure.readings import Outcome

T = TypeVar("T", int, float)

SPAN_SECONDS = 900.0

_SHORTEST_SLOT_SECONDS = 5.0
_SWEEPS_PER_SLOT = 2
"""At least so many, so that a sweep that is a little late leaves no slot without a reading."""


class Run(NamedTuple):
    """Slots in a row with readings: for each its lowest, mean and highest power, in watts.

    Attributes:
        first: the place of its first slot in the trace.
    """

    first: int
    lowest: Sequence[float]
    means: Sequence[float]
    highest: Sequence[float]


class Trace(NamedTuple):
    """The slots of a device, the oldest first. Those that are in none of the runs have no reading."""

    slots: int
    runs: tuple[Run, ...]


class Recent(NamedTuple):
    """What the memory holds.

    Attributes:
        last_slot: its number. The slot after it is still being filled, and is not shown.
        traces: for each device the slots of 15 minutes.
    """

    last_slot: int
    slot_seconds: float
    traces: Mapping[str, Trace]


class _Ring:
    """The slots of one device in arrays of a fixed size: 24 bytes for each slot."""

    def __init__(self, slots: int) -> None:
        self.newest = -1
        self.lowest = array("f", bytes(4 * slots))
        self.highest = array("f", bytes(4 * slots))
        self.sums = array("d", bytes(8 * slots))
        self.counts = array("q", bytes(8 * slots))

    def add(self, slot: int, watts: float) -> None:
        slots = len(self.counts)
        place = slot % slots
        if slot != self.newest:
            for skipped in range(max(self.newest + 1, slot - slots + 1), slot):
                self.counts[skipped % slots] = 0
            self.newest = slot
            self.lowest[place] = self.highest[place] = self.sums[place] = watts
            self.counts[place] = 1
            return
        if watts < self.lowest[place]:
            self.lowest[place] = watts
        elif watts > self.highest[place]:
            self.highest[place] = watts
        self.sums[place] += watts
        self.counts[place] += 1

    def copy(self) -> _Ring:
        """A copy that does not change; much faster than the trace of it."""
        copied = _Ring(0)
        copied.newest = self.newest
        copied.lowest, copied.highest = self.lowest[:], self.highest[:]
        copied.sums, copied.counts = self.sums[:], self.counts[:]
        return copied

    def trace(self, last_slot: int) -> Trace:
        slots = len(self.counts)
        oldest_slot = last_slot - slots + 2
        # Of the slots in the ring, those in the trace.
        begin, end = max(oldest_slot, self.newest - slots + 1), min(last_slot, self.newest) + 1
        place, size = begin % slots, max(0, end - begin)

        def in_order(values: array[T]) -> array[T]:
            return (values[place:] + values[:place])[:size]

        counts, sums = in_order(self.counts), in_order(self.sums)
        lowest, highest = in_order(self.lowest), in_order(self.highest)
        runs, first = [], 0
        for has_reading, run in groupby(counts, bool):
            after = first + sum(1 for _ in run)
            if has_reading:
                means = [total / count for total, count in zip(sums[first:after], counts[first:after], strict=True)]
                runs.append(Run(begin - oldest_slot + first, lowest[first:after], means, highest[first:after]))
            first = after
        return Trace(slots - 1, tuple(runs))


class RecentPower:
    """Keeps the power of the last 15 minutes.

    Args:
        sources: what measures each device, by its name.
        sample_interval_seconds: the time between two sweeps.
    """

    def __init__(self, sources: Mapping[str, str], sample_interval_seconds: float) -> None:
        self.slot_seconds = max(_SHORTEST_SLOT_SECONDS, _SWEEPS_PER_SLOT * sample_interval_seconds)
        self._sources = dict(sources)
        slots = math.ceil(SPAN_SECONDS / self.slot_seconds) + 1  # the last is being filled
        self._rings = {device: _Ring(slots) for device in sources}
        self._lock = threading.Lock()
        self._recent: Recent | None = None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Add a sweep."""
        with self._lock:
            for outcome in outcomes:
                if isinstance(outcome, Reading):
                    slot = int(outcome.at_seconds // self.slot_seconds)
                    self._rings[outcome.device].add(slot, outcome.power_watts)

    def adopt(self, earlier: RecentPower) -> None:
        """Take over the slots of the devices that `earlier` had and that are measured as they were."""
        if earlier.slot_seconds != self.slot_seconds:
            return
        for device, source in self._sources.items():
            if earlier._sources.get(device) == source:
                self._rings[device] = earlier._rings[device]
        self._recent = None

    def recent(self, now_seconds: float) -> Recent:
        """The slots that ended before `now_seconds`: the same value until the next one has ended."""
        last_slot = int(now_seconds // self.slot_seconds) - 1
        if self._recent is None or self._recent.last_slot != last_slot:
            with self._lock:
                rings = {device: ring.copy() for device, ring in self._rings.items()}
            traces = {device: ring.trace(last_slot) for device, ring in rings.items()}
            self._recent = Recent(last_slot, self.slot_seconds, traces)
        return self._recent
