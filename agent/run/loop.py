"""The main loop: samples and pushes, each at its own interval on the monotonic clock, until a signal ends it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Protocol

from agent.errors import ExitCode, PermissionDeniedError, SensorError, exit_code
from agent.measure.readings import Failure, Settling

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.run.agent import Agent
    from agent.run.publisher import PushReport
    from agent.run.systemd import Notifier

log = logging.getLogger(__name__)

LAST_PUSH_SECONDS = 0.6
"""The longest that the push under way, and then the last one, may take each: SIGTERM ends the process within 2 s."""

STOP_SECONDS = 0.3
"""The longest that a push may take to end once it is aborted."""

CONVERSION_WAIT_SECONDS = 120.0
"""The longest conversion takes 51 s (INA3221: 1024 averages of 8.2 ms + 8.2 ms for three inputs)."""

ONCE_PATIENCE_SECONDS = 1.0
"""How long `--once` waits for all the buses that other processes hold: it has no other sweep."""

_SHORTEST_WAIT_SECONDS = 0.01

# How long every device must be denied, once the run has started, before it ends.
_DENIED_SWEEPS = 3
_DENIED_SECONDS = 5.0


class Waiting(Protocol):
    """Lets the loop wait, and holds requests to stop or reload."""

    stop_requested: bool
    reload_requested: bool

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or sooner when a signal arrives or a push ends."""


class Ticker:
    """Ticks at fixed times: a late tick does not shift the next ones."""

    def __init__(self, first_seconds: float, period_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._period_seconds = period_seconds
        self._count = 0

    @property
    def next_seconds(self) -> float:
        """When the next tick is due; counted from the first, so that rounding errors do not add up."""
        return self._first_seconds + self._count * self._period_seconds

    def advance(self, now_seconds: float) -> int:
        """Take the tick that is due; return how many further ones have been missed since."""
        missed = max(0, math.floor((now_seconds - self.next_seconds) / self._period_seconds))
        self._count += 1 + missed
        return missed


class Loop:
    """Drives one agent, and reports its progress to the service manager."""

    def __init__(self, agent: Agent, clock: Clock, waiting: Waiting, notifier: Notifier) -> None:
        self._agent = agent
        self._clock = clock
        self._waiting = waiting
        self._notifier = notifier
        settings = agent.settings
        now = clock.monotonic()
        self._sample = Ticker(now, settings.sample_interval_seconds)
        self._push = Ticker(now + settings.interval_seconds, settings.interval_seconds)
        self._is_first_push_due = True
        self._publish_at_seconds = 0.0
        self._denied_sweeps = 0
        self._denied_since_seconds = now

    def run(self) -> None:
        """Sample and push until a stop or a reload is requested; may be called again when a reload failed.

        Raises:
            PermissionDeniedError: this user may not read any device, or not any longer; then the run has shut down.
        """
        agent, waiting, notifier = self._agent, self._waiting, self._notifier
        while not (waiting.stop_requested or waiting.reload_requested):
            now = self._clock.monotonic()
            if now >= self._sample.next_seconds:
                agent.missed(self._sample.advance(now))
                is_first = agent.swept_at_seconds is None
                outcomes = agent.take_sweep()
                if is_first:
                    refuse_to_run_without_permission(outcomes)
                    notifier.ready()
                self._leave_if_denied(outcomes)
                if self._is_first_push_due and not _settling(outcomes):
                    # Every device that can be read has been read.
                    self._push = Ticker(self._clock.monotonic(), agent.settings.interval_seconds)
                    self._is_first_push_due = False
            self._take_report()
            if self._clock.monotonic() >= self._push.next_seconds:
                self._push_or_publish()
            next_seconds = self._sample.next_seconds
            if not agent.parts.publisher.is_busy:
                next_seconds = min(next_seconds, self._push.next_seconds)
            notifier.status(agent.status())
            notifier.ping_watchdog()
            wait_seconds = next_seconds - self._clock.monotonic()
            if notifier.watchdog_seconds is not None:
                wait_seconds = min(wait_seconds, notifier.watchdog_seconds / 2)
            waiting.wait(wait_seconds)

    def _leave_if_denied(self, outcomes: Sequence[Outcome]) -> None:
        """Shut down once every device has been denied for a while.

        systemd resolves DeviceAllow= when it starts a service: one that was started before the module i2c-dev was
        loaded may never open a bus, until it is restarted.
        """
        denial, now = permission_denial(outcomes), self._clock.monotonic()
        if denial is None:
            self._denied_sweeps = 0
            return
        if self._denied_sweeps == 0:
            self._denied_since_seconds = now
        self._denied_sweeps += 1
        # Not at once: a device file that has just appeared gets its group a moment later, from udev.
        is_lasting = self._denied_sweeps >= _DENIED_SWEEPS and now - self._denied_since_seconds >= _DENIED_SECONDS
        if is_lasting and any(isinstance(outcome, Failure) and outcome.tried for outcome in outcomes):
            self.finish()
            raise denial

    def _push_or_publish(self) -> None:
        """Push; if the previous push takes longer than an interval, scrapes still get this interval."""
        agent, now = self._agent, self._clock.monotonic()
        if not agent.parts.publisher.is_busy:
            self._push.advance(now)
            self._is_first_push_due = False
            agent.begin_push()
            self._take_report()
        elif agent.settings.serve is not None and now >= self._publish_at_seconds:
            agent.publish()
        else:
            return
        self._publish_at_seconds = now + agent.settings.interval_seconds

    def _take_report(self) -> None:
        report = self._agent.parts.publisher.take_report()
        if report is not None:
            self._agent.end_push(report)

    def finish(self) -> None:
        """Shut down within about a second: push the last readings, or delete the groups; save the counters."""
        agent = self._agent
        self._notifier.stopping()
        destination = agent.parts.destination
        if self._end_push() and destination is not None:
            if destination.delete_on_exit:
                agent.begin_delete(LAST_PUSH_SECONDS)
            elif agent.meters.has_unpushed_readings:  # else the last push would show every device as down
                agent.begin_push(budget_seconds=LAST_PUSH_SECONDS)
            self._end_push()
        agent.save(ended_well=True)

    def hand_over(self) -> None:
        """End the push under way, so that the agent of a new configuration can take over."""
        self._end_push()
        self._agent.save(ended_well=False)

    def _end_push(self) -> bool:
        """Let the push under way finish, or abort it after a moment; return whether it finished by itself."""
        if self._await_push(LAST_PUSH_SECONDS):
            return True
        self._agent.stop_push()
        if not self._await_push(STOP_SECONDS):
            self._agent.parts.publisher.abandon()  # its intervals are not acknowledged, and stay pending
        return False

    def _await_push(self, seconds: float) -> bool:
        """Wait for the push under way to end; return whether it has."""
        give_up_at = self._clock.monotonic() + seconds
        publisher = self._agent.parts.publisher
        self._take_report()
        while publisher.is_busy and self._clock.monotonic() < give_up_at:
            self._waiting.wait(give_up_at - self._clock.monotonic())
            self._take_report()
        return not publisher.is_busy


def run_once(agent: Agent, clock: Clock, waiting: Waiting) -> ExitCode:
    """Read every device once and push once; return the exit code."""
    errors: list[AgentError] = []
    for outcome in _sweep_until_settled(agent, clock, waiting):
        match outcome:
            case Failure(error=error):
                errors.append(error)
            case Settling(device=device) if not waiting.stop_requested:
                error = SensorError(f"{device}: no conversion finishes; does its chip keep losing power?")
                log.error("%s", error)
                errors.append(error)
    if waiting.stop_requested:
        agent.save(ended_well=True)
        return ExitCode.OK
    agent.begin_push(is_last=True)
    report = _report_unless_stopped(agent, clock, waiting)
    if report is None:
        log.warning("stopped before the push had ended; the readings are counted, and the next push covers them")
        return ExitCode.OK
    push_errors = agent.end_push(report)
    if push_errors:
        agent.save(ended_well=True)  # again, because the failed push has been counted since
    return exit_code(errors + push_errors)


def _report_unless_stopped(agent: Agent, clock: Clock, waiting: Waiting) -> PushReport | None:
    """Wait for the push to end; on a stop, abort it and return None."""
    publisher = agent.parts.publisher
    while (report := publisher.take_report()) is None and not waiting.stop_requested:
        waiting.wait(60.0)
    if report is None:
        agent.stop_push()
        give_up_at = clock.monotonic() + STOP_SECONDS
        while publisher.take_report() is None and clock.monotonic() < give_up_at:
            waiting.wait(give_up_at - clock.monotonic())
    return report


def _sweep_until_settled(agent: Agent, clock: Clock, waiting: Waiting) -> list[Outcome]:
    """Sweep, then read the chips that are still settling until none is; return the last outcome of each device."""
    give_up_at = clock.monotonic() + CONVERSION_WAIT_SECONDS
    agent.parts.sweep.patience_seconds = ONCE_PATIENCE_SECONDS
    last = {outcome.device: outcome for outcome in agent.take_sweep()}
    while (settling := _settling(last.values())) and not waiting.stop_requested:
        if clock.monotonic() >= give_up_at:
            break
        ready_seconds = min(outcome.ready_at_seconds for outcome in settling)
        next_seconds = max(ready_seconds, clock.monotonic() + _SHORTEST_WAIT_SECONDS)
        while clock.monotonic() < next_seconds and not waiting.stop_requested:
            waiting.wait(next_seconds - clock.monotonic())
        if not waiting.stop_requested:
            again = agent.take_sweep({outcome.device for outcome in settling})
            last.update({outcome.device: outcome for outcome in again})
    return list(last.values())


def _settling(outcomes: Iterable[Outcome]) -> list[Settling]:
    """The outcomes of devices whose chips are still settling."""
    return [outcome for outcome in outcomes if isinstance(outcome, Settling)]


def refuse_to_run_without_permission(outcomes: Sequence[Outcome]) -> None:
    """Raise the PermissionDeniedError of a first sweep if it is why every single device failed."""
    denial = permission_denial(outcomes)
    if denial is not None:
        raise denial


def permission_denial(outcomes: Sequence[Outcome]) -> PermissionDeniedError | None:
    """The first error of a sweep in which every single device was denied."""
    denials = [
        outcome.error
        for outcome in outcomes
        if isinstance(outcome, Failure) and isinstance(outcome.error, PermissionDeniedError)
    ]
    return denials[0] if denials and len(denials) == len(outcomes) else None
