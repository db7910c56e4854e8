"""Reads the devices again and again, in a thread, into a timeline for each."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent.command_energy.timeline import Timeline
from agent.measure.readings import Failure, Reading
from agent.run.sweeper import Sweeper
from agent.threads import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.sweeper import Sweeps
    from agent.settings import Settings

LONGEST_GAP_SECONDS = 2.0
"""Over a longer time without readings no energy is counted, even if `max_gap` is longer: the load of a command is not
steady."""

_LONGEST_INTERVAL_SECONDS = 0.1
_SHORTEST_INTERVAL_SECONDS = 0.01
_READINGS_PER_CONVERSION = 4
"""At least, of a chip that is configured for the sample interval, so that no conversion is missed or counted twice."""

_HANGS_SECONDS = 1.0
"""A sweep that takes longer is not waited for."""


def reading_interval_seconds(sample_interval_seconds: float) -> float:
    """The time between two readings; more often than a run reads, to find when the command's conversions began."""
    interval_seconds = sample_interval_seconds / _READINGS_PER_CONVERSION
    return min(max(interval_seconds, _SHORTEST_INTERVAL_SECONDS), _LONGEST_INTERVAL_SECONDS)


class Sampler(Sweeper):
    """Sweeps again and again, and keeps what the sweeps have read.

    Between two sweeps, the bus is free for at least as long as a sweep takes: a run beside this one has its turn.

    Attributes:
        interval_seconds: the intended time between two sweeps.
        timelines: by device.
        outcomes: of the last sweep, by device; empty before the first.
    """

    def __init__(self, settings: Settings, sweep: Sweeps, clock: Clock, wake: Callable[[], None]) -> None:
        super().__init__(sweep, wake)
        self._clock = clock
        self.interval_seconds = reading_interval_seconds(settings.sample_interval_seconds)
        longest_gap_seconds = min(settings.max_gap_seconds, LONGEST_GAP_SECONDS)
        self.timelines = {device.name: Timeline(longest_gap_seconds) for device in settings.devices}
        self.outcomes: dict[str, Outcome] = {}
        self._began_seconds = self._next_seconds = clock.monotonic()

    def poll(self) -> float:
        """Take the sweep that has ended, and start the next if it is due; return how long to wait for either."""
        outcomes = None
        with suppress(NoThreadError):  # the next sweep may have one
            outcomes = self.take_result()
        now = self._clock.monotonic()
        if outcomes is not None:
            self._next_seconds = max(self._began_seconds + self.interval_seconds, 2 * now - self._began_seconds)
            for outcome in outcomes:
                self.outcomes[outcome.device] = outcome
                if isinstance(outcome, Reading):
                    self.timelines[outcome.device].add(outcome)
        if not self.is_busy and now >= self._next_seconds:
            self._began_seconds, self._next_seconds = now, now + self.interval_seconds
            self.sweep()
        return _HANGS_SECONDS if self.is_busy else self._next_seconds - now

    @property
    def hangs(self) -> bool:
        """Whether the sweep under way takes longer than one should."""
        return self.is_busy and self._clock.monotonic() - self._began_seconds >= _HANGS_SECONDS

    def error(self, device: str) -> str | None:
        """Why a device cannot be read; None if it can be, or if that is not known yet."""
        outcome = self.outcomes.get(device)
        return str(outcome.error) if isinstance(outcome, Failure) else None
