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
    from agent.run.saver import Saver
    from agent.run.systemd import Notifier

log = logging.getLogger(__name__)

STOP_BUDGET_SECONDS = 1.6
"""From the signal on, the sweep and the push under way, the last push and the last save share this much. The rest of
the 2 s in which SIGTERM ends the process is for the end of the interpreter."""

LAST_PUSH_SECONDS = 0.6
"""The longest that the push under way, and then the last one, may take each."""

STOP_SECONDS = 0.2
"""The longest that a push may take to end once it is aborted."""

_LEAST_SECONDS = 0.1
"""What the last save gets at least, even if a sweep has used up the budget."""

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
    stop_requested_at_seconds: float | None  # on the monotonic clock

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
        self._was_abandoned = False

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
        """Shut down: push the last readings, or delete the groups; save the counters.

        All of it shares one budget from the signal on. Whatever hangs is left behind: a save that does not end leaves
        the file marked as not ended, and the next start treats it so.
        """
        agent, clock = self._agent, self._clock
        ends_at_seconds = stop_deadline(clock, self._waiting)
        self._notifier.stopping()
        destination = agent.parts.destination
        has_ended = self._end_push(ends_at_seconds)
        if destination is not None and destination.delete_on_exit:
            if has_ended:
                agent.begin_delete(self._last_push_seconds(ends_at_seconds))
                self._end_push(ends_at_seconds)
            if self._was_abandoned or not has_ended:
                log.error(
                    "not deleted at the stop: no answer in time; the gateway keeps the groups until wattpush delete"
                )
        elif destination is not None and has_ended and agent.meters.has_unpushed_readings:
            # Without new readings, the last push would show every device as down.
            agent.begin_push(is_last=True, budget_seconds=self._last_push_seconds(ends_at_seconds), needs_counters=True)
            self._end_push(ends_at_seconds)
        agent.save_last()
        await_last_save(agent, clock, self._waiting, ends_at_seconds)

    def _last_push_seconds(self, ends_at_seconds: float) -> float:
        left_seconds = ends_at_seconds - STOP_SECONDS - self._clock.monotonic()
        return max(_LEAST_SECONDS, min(LAST_PUSH_SECONDS, left_seconds))

    def hand_over(self) -> None:
        """End the push under way, so that the agent of a new configuration can take over."""
        self._end_push(math.inf)
        self._agent.save(ended_well=False)
        saver = self._agent.parts.saver
        if (
            saver is not None
        ):  # else the next agent could find the file locked, if it uses another one and then this again
            await_save(saver, self._clock, self._waiting, self._clock.monotonic() + STOP_SECONDS)

    def _end_push(self, ends_at_seconds: float) -> bool:
        """Let the push under way finish, or abort it after a moment; return whether it finished by itself."""
        if self._await_push(self._last_push_seconds(ends_at_seconds)):
            return True
        self._agent.stop_push()
        if not self._await_push(STOP_SECONDS):
            self._was_abandoned = True
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
        agent.save_last()
        await_last_save(agent, clock, waiting, stop_deadline(clock, waiting))
        return ExitCode.OK
    agent.log_gaps()
    agent.begin_push(is_last=True)
    report = _report_unless_stopped(agent, clock, waiting)
    if report is None:
        log.warning("stopped before the push had ended; the readings are counted, and the next push covers them")
        await_last_save(agent, clock, waiting, stop_deadline(clock, waiting))
        return ExitCode.OK
    push_errors = agent.end_push(report)
    agent.save_last()  # again, if the failed push has been counted since
    await_last_save(agent, clock, waiting, clock.monotonic() + agent.budget_seconds)
    return exit_code(errors + push_errors)


def stop_deadline(clock: Clock, waiting: Waiting) -> float:
    """When a stop has to be over, on the monotonic clock."""
    now = clock.monotonic()
    asked_at = waiting.stop_requested_at_seconds
    return max(now + _LEAST_SECONDS, (now if asked_at is None else asked_at) + STOP_BUDGET_SECONDS)


def await_last_save(agent: Agent, clock: Clock, waiting: Waiting, give_up_at_seconds: float) -> None:
    """Wait for the last save to end; say so if it does not."""
    saver = agent.parts.saver
    if saver is not None and not await_save(saver, clock, waiting, give_up_at_seconds):
        log.warning(
            "%s: the disk does not answer, so the last save is given up; after a reboot the counters start from zero",
            saver.file.path,
        )


def await_save(saver: Saver, clock: Clock, waiting: Waiting, give_up_at_seconds: float) -> bool:
    """Wait until nothing is being saved, less long after a stop; return whether that is so."""
    while saver.is_busy:
        if waiting.stop_requested:
            give_up_at_seconds = min(give_up_at_seconds, stop_deadline(clock, waiting))
        left_seconds = give_up_at_seconds - clock.monotonic()
        if left_seconds <= 0:
            return False
        waiting.wait(left_seconds)
    return True


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
