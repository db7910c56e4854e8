"""The measurement: read, run the command, read on until its last conversions are there; as often as asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent.command_energy.results import DeviceResult, RunResult
from agent.errors import AgentError, ExitCode
from agent.log import counted, print_error
from agent.measure.readings import Failure
from agent.run.permissions import refuse_to_run_without_permission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.clock import Clock
    from agent.command_energy.sampler import Sampler
    from agent.command_energy.span import Span
    from agent.settings import Settings

_LEAD_SECONDS = 3.0
"""The longest to wait for the first readings before the command starts."""

_TAIL_SECONDS = 2.5
"""The longest to wait for the last readings after the command has ended: two conversions of a chip that averages for
one second, and a reading."""

_TAIL_WITH_FAILURES_SECONDS = 1.5
"""The same while a device cannot be read; with the end of the sweep under way, it is less than 2 s."""


class Signals(Protocol):
    """See `process.CommandSignals`."""

    pending: list[int]
    suspension_requested: bool

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or sooner when a signal arrives or a sweep ends."""

    def suspend(self) -> None:
        """Stop until the shell continues this process."""


class Command(Protocol):
    """See `process.Command`."""

    def start(self) -> None:
        """Run it."""

    def exit_status(self) -> int | None:
        """Its exit status; None while it runs."""

    def pass_on(self, number: int) -> None:
        """Send it a signal that was sent to us."""


class StoppedError(Exception):
    """A signal arrived before the command was started; `number` is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Measuring:
    """Measures a command.

    Attributes:
        runs: those that are done.
        notes: what else to tell.
        failure: why a further run could not be started.
    """

    def __init__(self, settings: Settings, sampler: Sampler, command: Command, signals: Signals, clock: Clock) -> None:
        self._settings = settings
        self._sampler = sampler
        self._command = command
        self._signals = signals
        self._clock = clock
        self._idle_watts: dict[str, float | None] = {}
        self._was_interrupted = False
        self.runs: list[RunResult] = []
        self.notes: list[str] = []
        self.failure: AgentError | None = None

    def measure(self, runs: int, idle_seconds: float | None) -> None:
        """Run the command, several times if asked, and stop after a run that fails.

        Raises:
            StoppedError: a signal arrived before the first run.
            PermissionDeniedError: this user may not read any of the devices; the command has not run.
            CommandError: the command cannot be run.
        """
        self._await_first_readings()
        if idle_seconds is not None:
            self._measure_idle(idle_seconds)
        for number in range(1, runs + 1):
            try:
                self.runs.append(self._run())
            except AgentError as error:
                if not self.runs:
                    raise
                self.failure = error
                self.notes.append(f"run {number} of {runs}: {error}")
                return
            status = self.runs[-1].exit_status
            if number < runs and (status != ExitCode.OK or self._was_interrupted):
                ended = "was interrupted" if self._was_interrupted else f"ended with exit status {status}"
                self.notes.append(f"run {number} of {runs} {ended}; {counted(runs - number, 'run')} not done")
                return

    def _await_first_readings(self) -> None:
        sampler, give_up_at = self._sampler, self._clock.monotonic() + _LEAD_SECONDS
        while self._clock.monotonic() < give_up_at and not all(
            timeline.window_seconds is not None or sampler.error(device) is not None
            for device, timeline in sampler.timelines.items()
        ):
            self._wait_before_start(give_up_at)
        refuse_to_run_without_permission(list(sampler.outcomes.values()))
        unread: dict[str, list[str]] = {}  # by cause, which a bus or a mux has for all devices behind it
        for device, timeline in sampler.timelines.items():
            error = sampler.error(device)
            if error is not None:
                unread.setdefault(str(error), []).append(device)
            elif timeline.window_seconds is None:
                unread.setdefault("no reading yet", []).append(device)
        for why, devices in unread.items():
            print_error(f"warning: {', '.join(devices)}: {why}")

    def _measure_idle(self, idle_seconds: float) -> None:
        timelines, begin_seconds = self._sampler.timelines, self._clock.monotonic()
        spans = self._begin_spans(begin_seconds)
        for span in spans.values():
            span.end_seconds = begin_seconds + idle_seconds
        # What a chip has measured is known one conversion later.
        windows = [timeline.window_seconds or 0.0 for timeline in timelines.values()]
        until_seconds = begin_seconds + idle_seconds + min(max(windows), _TAIL_SECONDS)
        while self._clock.monotonic() < until_seconds:
            self._wait_before_start(until_seconds)
        for device, span in spans.items():
            total = timelines[device].end(span)
            self._idle_watts[device] = total.joules / total.seconds if total.seconds else None

    def _wait_before_start(self, until_seconds: float) -> None:
        self._turn(until_seconds)
        if self._signals.pending:
            raise StoppedError(self._signals.pending[0])

    def _run(self) -> RunResult:
        command = self._command
        began_seconds, began_unix_seconds = self._clock.monotonic(), self._clock.time()
        command.start()
        spans = self._begin_spans(began_seconds)
        while (status := command.exit_status()) is None:
            self._turn()
            while self._signals.pending:
                number = self._signals.pending.pop(0)
                self._was_interrupted = True
                command.pass_on(number)
        ended_seconds = self._clock.monotonic()
        for span in spans.values():
            span.end_seconds = ended_seconds
        self._await_last_readings(ended_seconds)
        return RunResult(
            began_unix_seconds,
            ended_seconds - began_seconds,
            status,
            tuple(self._result(device, span) for device, span in spans.items()),
        )

    def _await_last_readings(self, ended_seconds: float) -> None:
        """Wait until every conversion in which the command ran is there, and the next one. Any signal ends the wait."""
        sampler = self._sampler
        while not (self._signals.pending or sampler.hangs):
            are_failing = any(isinstance(outcome, Failure) for outcome in sampler.outcomes.values())
            give_up_at = ended_seconds + (_TAIL_WITH_FAILURES_SECONDS if are_failing else _TAIL_SECONDS)
            is_over = all(
                timeline.window_seconds is None
                or sampler.error(device) is not None
                or timeline.has_read_after(ended_seconds)
                for device, timeline in sampler.timelines.items()
            )
            if is_over or self._clock.monotonic() >= give_up_at:
                return
            self._turn(give_up_at)
        if self._signals.pending:
            self._was_interrupted = True
            self._signals.pending.clear()

    def _turn(self, until_seconds: float | None = None) -> None:
        """Read if that is due, and wait for what comes next."""
        wait_seconds = self._sampler.poll()
        if self._signals.suspension_requested and (not self._sampler.is_busy or self._sampler.hangs):
            self._signals.suspend()
            return
        if until_seconds is not None:
            wait_seconds = min(wait_seconds, until_seconds - self._clock.monotonic())
        if not self._signals.pending:
            self._signals.wait(wait_seconds)

    def _begin_spans(self, seconds: float) -> Mapping[str, Span]:
        return {device: timeline.begin(seconds) for device, timeline in self._sampler.timelines.items()}

    def _result(self, device: str, span: Span) -> DeviceResult:
        timeline = self._sampler.timelines[device]
        total = timeline.end(span)
        run_seconds = (span.end_seconds or span.begin_seconds) - span.begin_seconds
        peak_watts = total.peak_watts
        if total.seconds:
            mean_watts = total.joules / total.seconds
            peak_watts = mean_watts if peak_watts is None else max(peak_watts, mean_watts)
        error = self._sampler.error(device)
        if not total.seconds and error is None:
            error = "its bus hangs" if self._sampler.hangs else "no conversion was read in time"
        return DeviceResult(
            device,
            total.joules if total.seconds else None,
            total.seconds,
            min(1.0, total.seconds / run_seconds) if run_seconds else 0.0,
            peak_watts,
            self._idle_watts.get(device),
            timeline.window_seconds,
            device in self._settings.parts_of_sums(),
            error,
        )
