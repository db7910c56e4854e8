"""A command that takes power from simulated rails, beside a run that reads them, with a clock advanced by hand."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent.command_energy.measuring import Measuring
from agent.command_energy.sampler import Sampler
from tests.bench import Bench, constant

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.command_energy.results import DeviceResult
    from agent.simulate.rails import ConstantRail

IDLE_AMPERES = 0.4
BUSY_AMPERES = 2.0


class HandSampler(Sampler):
    """Sweeps inside `start`, or not at all while `hangs_now` says so."""

    hangs_now: Callable[[], bool] = staticmethod(lambda: False)

    def _begin(self, job: Any) -> None:
        if not self.hangs_now():
            self._run(job)


class Scene:
    """It is the command, and the signals: a wait ends early when the command does.

    Attributes:
        observes: whether a run configures and reads the chips beside the measurement.
        noise: how much the currents vary, relative to themselves.
        statuses: the exit status of each run of the command.
        passed_on: the signals that reached the command.
        on_wait: called with every wait.
    """

    def __init__(
        self, bench: Bench, command_seconds: float = 3.0, *, observes: bool = True, noise: float = 0.02
    ) -> None:
        self.bench = bench
        self.clock = bench.clock
        self.command_seconds = command_seconds
        self.noise = noise
        self.statuses = [0] * 10
        self.pending: list[int] = []
        self.suspension_requested = False
        self.suspended = 0
        self.passed_on: list[int] = []
        self.spans: list[tuple[float, float]] = []
        self.on_wait: Callable[[], None] = lambda: None
        self._random = random.Random(1)
        self._ends_seconds: float | None = None
        self._amperes = IDLE_AMPERES
        self._is_woken = False
        self._run = bench.sweep if observes else None
        self._next_run_seconds = self.clock.seconds
        for rail in self.rails.values():
            rail.volts = 5.0
        self._vary()
        if observes:
            self.wait_for(3 * bench.settings.sample_interval_seconds)
        sweep = bench.new_sweep(is_observer=observes)
        self.sampler = HandSampler(bench.settings, sweep, self.clock, self.wake)
        self.measuring = Measuring(bench.settings, self.sampler, self, self, self.clock)

    @property
    def rails(self) -> dict[str, ConstantRail]:
        return {device: constant(rail) for device, rail in self.bench.rails.items()}

    def start(self) -> None:
        self._amperes = BUSY_AMPERES
        self._vary()
        self.spans.append((self.clock.seconds, self.clock.seconds + self.command_seconds))
        self._ends_seconds = self.spans[-1][1]

    def exit_status(self) -> int | None:
        if self._ends_seconds is not None and self.clock.seconds >= self._ends_seconds:
            self._ends_seconds = None
        return self.statuses[len(self.spans) - 1] if self._ends_seconds is None else None

    def pass_on(self, number: int) -> None:
        self.passed_on.append(number)
        self.end_now()

    def end_now(self) -> None:
        """End the command."""
        self._ends_seconds = self.clock.seconds
        self._idle()

    def suspend(self) -> None:
        self.suspended += 1
        self.suspension_requested = False

    def wake(self) -> None:
        self._is_woken = True

    def wait(self, seconds: float) -> None:
        if self._is_woken:
            self._is_woken = False
            return
        self.on_wait()
        ends_seconds = self.clock.seconds + max(0.0, seconds)
        if self._ends_seconds is not None and self._ends_seconds <= ends_seconds:
            ends_seconds = max(self._ends_seconds, self.clock.seconds)
            self._advance(ends_seconds)
            self._idle()
        else:
            self._advance(ends_seconds)
            self._vary()

    def wait_for(self, seconds: float) -> None:
        """Let time pass without a measurement."""
        until_seconds = self.clock.seconds + seconds
        while self.clock.seconds < until_seconds:
            self._advance(min(self.clock.seconds + 0.05, until_seconds))
            self._vary()

    def true_joules(self, device: str, run: int = 0) -> float:
        """What the command really took."""
        segments = self.rails[device].segments(*self.spans[run])
        return sum(part.volts * part.amperes * (part.end - part.start) for part in segments)

    def result(self, device: str, run: int = 0) -> DeviceResult:
        (found,) = [result for result in self.measuring.runs[run].devices if result.device == device]
        return found

    def _idle(self) -> None:
        self._amperes = IDLE_AMPERES
        self._vary()

    def _vary(self) -> None:
        for rail in self.rails.values():
            rail.amperes = self._amperes * (1 + self._random.gauss(0.0, self.noise))

    def _advance(self, to_seconds: float) -> None:
        while self._run is not None and self._next_run_seconds <= to_seconds:
            self.clock.seconds = max(self.clock.seconds, self._next_run_seconds)
            with suppress(AssertionError):
                self._run.run()
            self._next_run_seconds += self.bench.settings.sample_interval_seconds
        self.clock.seconds = max(self.clock.seconds, to_seconds)
