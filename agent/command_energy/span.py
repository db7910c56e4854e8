"""The energy of one device in a span of time, such as that in which a command ran."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Step(NamedTuple):
    """A time with one power: one conversion of the chip, or several with the same result.

    Attributes:
        converted_seconds: when the first of the conversions ended.
        window_seconds: how long one conversion takes.
    """

    begin_seconds: float
    end_seconds: float
    converted_seconds: float
    window_seconds: float
    watts: float


@dataclass(slots=True)
class Span:
    """Adds up the steps of a device between two moments; each step is added once, in the order of time.

    Attributes:
        begin_seconds: on the monotonic clock.
        end_seconds: None while it is not over.
        joules: positive towards the load.
        seconds: the time that the energy covers.
        peak_watts: the highest result of a conversion; None if none lies in the span.
    """

    begin_seconds: float
    end_seconds: float | None = None
    joules: float = 0.0
    seconds: float = 0.0
    peak_watts: float | None = None

    def add(self, step: Step, watts_before: float | None, watts_after: float | None) -> None:
        """Add what the span has of a step.

        A conversion that was under way at an edge of the span is a mean over both sides of it::

                       edge
                 ---|---+-----------|---
                    a       b           watts x (a + b) = watts_before x a + (what the span has of it)

        The other side is assumed to be like the conversion next to it, which lies outside of the span as a whole. The
        error of that is small beside a span that is longer than a conversion. Of a shorter span nothing is known but
        the mean.

        Args:
            step: the next one.
            watts_before: the power of the step before it; None if there is none, or a gap between them.
            watts_after: the same for the step after it.
        """
        ends_seconds = step.end_seconds if self.end_seconds is None else min(step.end_seconds, self.end_seconds)
        seconds = ends_seconds - max(step.begin_seconds, self.begin_seconds)
        if seconds <= 0.0:
            return
        self.joules += step.watts * seconds
        self.seconds += seconds
        if 2 * seconds >= min(step.window_seconds, step.end_seconds - step.begin_seconds):
            self.peak_watts = step.watts if self.peak_watts is None else max(self.peak_watts, step.watts)
        if self.end_seconds is not None and self.end_seconds - self.begin_seconds < step.window_seconds:
            return
        conversion = (max(step.begin_seconds, step.converted_seconds - step.window_seconds), step.converted_seconds)
        if watts_before is not None and conversion[0] < self.begin_seconds < conversion[1]:
            self.joules += (step.watts - watts_before) * (self.begin_seconds - conversion[0])
        if (
            watts_after is not None
            and self.end_seconds is not None
            and conversion[0] < self.end_seconds < conversion[1]
        ):
            self.joules += (step.watts - watts_after) * (conversion[1] - self.end_seconds)
