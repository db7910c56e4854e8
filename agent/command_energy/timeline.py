"""The power of one device over time, from its readings.

A reading is a mean over the last conversion of the chip that has ended, so it says something about the past. Readings
are taken several times per conversion, and show when the result changes::

    result     |    A    |    B    |    C    |   as it is read
    power   | A    |    B    |    C    |         one conversion earlier

The chip converts on its own clock and without a pause. How long a conversion takes is known, and each result ended
between two readings: together, they tell the time of all results more closely than the time between two readings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.command_energy.span import Span, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.measure.readings import Reading

_MOST_RESULTS = 256
_KEPT_RESULTS = 128
"""A command may run for weeks. What is older is in the sums of the spans."""


@dataclass(slots=True)
class _Result:
    """A result of one conversion, or of several in a row with the same result.

    Attributes:
        earliest_seconds: the first conversion did not end before this.
        latest_seconds: nor after this.
        last_seen_seconds: when it was read last.
    """

    volts: float
    amperes: float
    watts: float
    window_seconds: float
    earliest_seconds: float
    latest_seconds: float
    last_seen_seconds: float

    @property
    def middle_seconds(self) -> float:
        return (self.earliest_seconds + self.latest_seconds) / 2

    def nearest(self, seconds: float) -> float:
        return min(max(seconds, self.earliest_seconds), self.latest_seconds)

    def conversions_to(self, seconds: float) -> float:
        """The time of the whole conversions, at least one, that come closest to this time."""
        if not self.window_seconds:
            return seconds
        return max(1, round(seconds / self.window_seconds)) * self.window_seconds


class Timeline:
    """Takes the readings of a device, and adds up its energy in the spans that were begun.

    Attributes:
        longest_gap_seconds: the longest time without a conversion over which energy is still counted.
        window_seconds: how long the chip averages, by the last reading; None before the first.
    """

    def __init__(self, longest_gap_seconds: float) -> None:
        self.longest_gap_seconds = longest_gap_seconds
        self.window_seconds: float | None = None
        self._results: list[_Result] = []
        self._spans: list[Span] = []
        # Of what is in the sums already: the last power, and where the first result left begins.
        self._watts_before: float | None = None
        self._begin_seconds: float | None = None

    def add(self, reading: Reading) -> None:
        """Add a reading."""
        self.window_seconds = reading.window_seconds
        last = self._results[-1] if self._results else None
        if last is not None and self._is_same(last, reading):
            last.last_seen_seconds = reading.at_seconds
            return
        earliest_seconds = reading.at_seconds - reading.window_seconds
        if last is not None:
            earliest_seconds = max(earliest_seconds, last.last_seen_seconds)
        self._results.append(
            _Result(
                reading.volts,
                reading.amperes,
                reading.power_watts,
                reading.window_seconds,
                earliest_seconds,
                reading.at_seconds,
                reading.at_seconds,
            )
        )
        if len(self._results) > _MOST_RESULTS:
            self._fold(len(self._results) - _KEPT_RESULTS)

    def begin(self, seconds: float) -> Span:
        """Begin a span, now or a moment ago; set its `end_seconds` when it is over."""
        span = Span(seconds)
        self._spans.append(span)
        return span

    def has_read_after(self, seconds: float) -> bool:
        """Whether a conversion was read that began after this moment, so that what was before it is known."""
        if not self._results:
            return False
        last = self._results[-1]
        return max(last.middle_seconds, last.last_seen_seconds - last.window_seconds) - last.window_seconds >= seconds

    def total(self, span: Span) -> Span:
        """The sums of a span, as far as its time has been read."""
        total = Span(span.begin_seconds, span.end_seconds, span.joules, span.seconds, span.peak_watts)
        steps = self._steps()
        for number in range(len(steps)):
            self._add(total, steps, number)
        return total

    def end(self, span: Span) -> Span:
        """As `total`, and forget the span."""
        total = self.total(span)
        self._spans = [other for other in self._spans if other is not span]
        return total

    def _is_same(self, last: _Result, reading: Reading) -> bool:
        if reading.window_seconds != last.window_seconds:
            return False
        if reading.at_seconds - last.last_seen_seconds > self.longest_gap_seconds:
            return False
        return not reading.is_new or (reading.volts, reading.amperes) == (last.volts, last.amperes)

    def _fold(self, count: int) -> None:
        """Add the first results to the sums, and drop them."""
        steps = self._steps()
        for span in self._spans:
            for number in range(count):
                self._add(span, steps, number)
        self._watts_before = self._watts_beside(steps, count, -1)
        first, step = self._results[count], steps[count]
        self._begin_seconds = step.begin_seconds
        first.earliest_seconds = first.latest_seconds = step.converted_seconds
        del self._results[:count]

    def _add(self, span: Span, steps: Sequence[Step], number: int) -> None:
        before, after = self._watts_beside(steps, number, -1), self._watts_beside(steps, number, 1)
        span.add(steps[number], before, after)

    def _watts_beside(self, steps: Sequence[Step], number: int, offset: int) -> float | None:
        """The power of the step before or after one; None if there is a gap between them."""
        other = number + offset
        if other < 0:
            return self._watts_before
        if other >= len(steps):
            return None
        first, second = sorted((number, other))
        return steps[other].watts if steps[first].end_seconds == steps[second].begin_seconds else None

    def _converted(self) -> list[float]:
        """When the first conversion of each result ended."""
        results = self._results
        ends = [result.middle_seconds for result in results]
        for number in range(1, len(results)):
            result, before = results[number], ends[number - 1]
            ends[number] = result.nearest(before + result.conversions_to(ends[number] - before))
        for number in range(len(results) - 2, -1, -1):
            result, after = results[number], ends[number + 1]
            ends[number] = result.nearest(after - result.conversions_to(after - ends[number]))
        return ends

    def _steps(self) -> list[Step]:
        """The power over time; a gap is where a step begins after the end of the one before."""
        results, converted = self._results, self._converted()
        begins = [end - result.window_seconds for result, end in zip(results, converted, strict=True)]
        if begins and self._begin_seconds is not None:
            begins[0] = self._begin_seconds
        ends = [
            max(end, result.last_seen_seconds - result.window_seconds)
            for result, end in zip(results, converted, strict=True)
        ]
        for number in range(len(results) - 1):
            gap_seconds = begins[number + 1] - ends[number]
            if gap_seconds > self.longest_gap_seconds:
                continue
            boundary = begins[number + 1]
            if gap_seconds >= results[number + 1].window_seconds:  # conversions went unread
                boundary = self._edge_between(ends[number], boundary)
            begins[number + 1] = ends[number] = max(boundary, begins[number])
        return [
            Step(begin, end, at, result.window_seconds, result.watts)
            for begin, end, at, result in zip(begins, ends, converted, results, strict=True)
        ]

    def _edge_between(self, begin_seconds: float, end_seconds: float) -> float:
        """Where the power changed, between two conversions of which none in between was read.

        In the middle; or where a span begins or ends, as a command changes the power.
        """
        edges = [edge for span in self._spans for edge in (span.begin_seconds, span.end_seconds) if edge is not None]
        inside = [edge for edge in edges if begin_seconds <= edge <= end_seconds]
        return inside[0] if len(inside) == 1 else (begin_seconds + end_seconds) / 2
