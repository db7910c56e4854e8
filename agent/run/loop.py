"""The run: ticks on the monotonic clock, sampling and pushing each at its own interval, until a signal ends it."""

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
    from agent.run.agent import Node
    from agent.run.publisher import PushReport
    from agent.run.systemd import Notifier

log = logging.getLogger(__name__)

LAST_PUSH_SECONDS = 0.6
"""What a push under way, and then the last one, may take each: SIGTERM ends the process within 2 s."""

STOP_SECONDS = 0.3
"""What a push may take to notice that it was stopped."""

CONVERSION_WAIT_SECONDS = 120.0
"""The longest conversion is 51 s (an INA3221 with 1024 averages of 8.2 ms + 8.2 ms at three inputs)."""

_SHORTEST_WAIT_SECONDS = 0.01


class Waiting(Protocol):
    """Where the loop waits, and why it stops."""

    stop_requested: bool
    reload_requested: bool

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or sooner for a signal or a push that has ended."""


class Ticker:
    """Ticks at fixed moments: a late one does not move those after it."""

    def __init__(self, first_seconds: float, period_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._period_seconds = period_seconds
        self._count = 0

    @property
    def next_seconds(self) -> float:
        """When the next tick is due. Counted from the first, so that no rounding adds up."""
        return self._first_seconds + self._count * self._period_seconds

    def advance(self, now_seconds: float) -> int:
        """Take the tick that is due; return how many whole ones have gone by since it."""
        missed = max(0, math.floor((now_seconds - self.next_seconds) / self._period_seconds))
        self._count += 1 + missed
        return missed


class Loop:
    """Drives one node, and tells the service manager how it gets on."""

    def __init__(self, node: Node, clock: Clock, waiting: Waiting, notifier: Notifier) -> None:
        self._node = node
        self._clock = clock
        self._waiting = waiting
        self._notifier = notifier
        settings = node.settings
        now = clock.monotonic()
        self._sample = Ticker(now, settings.sample_interval_seconds)
        self._push = Ticker(now + settings.interval_seconds, settings.interval_seconds)
        self._is_first_push_due = True
        self._publish_at_seconds = 0.0

    def run(self) -> None:
        """Sample and push until a stop or a reload is requested; may be called again after a reload came to nothing.

        Raises:
            PermissionDeniedError: nothing at all can be read, because this user may not.
        """
        node, waiting, notifier = self._node, self._waiting, self._notifier
        while not (waiting.stop_requested or waiting.reload_requested):
            now = self._clock.monotonic()
            if now >= self._sample.next_seconds:
                node.missed(self._sample.advance(now))
                is_first = node.swept_at_seconds is None
                outcomes = node.take_sweep()
                if is_first:
                    refuse_to_run_without_permission(outcomes)
                    notifier.ready()
                if self._is_first_push_due and not _converting(outcomes):
                    # Everything that can be read has been read: there is something to say.
                    self._push = Ticker(self._clock.monotonic(), node.settings.interval_seconds)
                    self._is_first_push_due = False
            self._take_report()
            if self._clock.monotonic() >= self._push.next_seconds:
                self._push_or_publish()
            next_seconds = self._sample.next_seconds
            if not node.parts.publisher.is_busy:
                next_seconds = min(next_seconds, self._push.next_seconds)
            notifier.status(node.status())
            notifier.alive()
            wait_seconds = next_seconds - self._clock.monotonic()
            if notifier.watchdog_seconds is not None:
                wait_seconds = min(wait_seconds, notifier.watchdog_seconds / 2)
            waiting.wait(wait_seconds)

    def _push_or_publish(self) -> None:
        """Push; while the push before it takes longer than an interval, scrapes see the interval all the same."""
        node, now = self._node, self._clock.monotonic()
        if not node.parts.publisher.is_busy:
            self._push.advance(now)
            self._is_first_push_due = False
            node.begin_push()
            self._take_report()
        elif node.settings.serve is not None and now >= self._publish_at_seconds:
            node.publish()
        else:
            return
        self._publish_at_seconds = now + node.settings.interval_seconds

    def _take_report(self) -> None:
        report = self._node.parts.publisher.take_report()
        if report is not None:
            self._node.end_push(report)

    def finish(self) -> None:
        """End in good order, within moments: push what is there, or delete the groups; save the counters."""
        node = self._node
        self._notifier.stopping()
        pushgateway = node.settings.pushgateway
        if self._end_push() and node.parts.sink is not None:
            if pushgateway is not None and pushgateway.delete_on_exit:
                node.begin_delete(LAST_PUSH_SECONDS)
            elif node.account.has_unpushed_readings:  # else the last word on every device would be that it is down
                node.begin_push(budget_seconds=LAST_PUSH_SECONDS)
            self._end_push()
        node.save(ended_well=True)

    def hand_over(self) -> None:
        """Let another node take the place of this one."""
        self._end_push()
        self._node.save(ended_well=False)

    def _end_push(self) -> bool:
        """Let the push under way end, or end it after a moment; return whether it ended by itself."""
        if self._await_push(LAST_PUSH_SECONDS):
            return True
        self._node.stop_push()
        if not self._await_push(STOP_SECONDS):
            self._node.parts.publisher.abandon()  # its interval stays open and goes with the next push
        return False

    def _await_push(self, seconds: float) -> bool:
        """Wait for the end of the push under way; return whether none is any more."""
        give_up_at = self._clock.monotonic() + seconds
        publisher = self._node.parts.publisher
        self._take_report()
        while publisher.is_busy and self._clock.monotonic() < give_up_at:
            self._waiting.wait(give_up_at - self._clock.monotonic())
            self._take_report()
        return not publisher.is_busy


def run_once(node: Node, clock: Clock, waiting: Waiting) -> ExitCode:
    """One reading of every device, one push; return what the process is to exit with."""
    errors: list[AgentError] = []
    for outcome in _sweep_until_converted(node, clock, waiting):
        match outcome:
            case Failure(error=error):
                errors.append(error)
            case Settling(device=device) if not waiting.stop_requested:
                error = SensorError(f"{device}: no conversion ends; does its chip keep losing its power?")
                log.error("%s", error)
                errors.append(error)
    if waiting.stop_requested:
        node.save(ended_well=True)
        return ExitCode.OK
    node.begin_push(is_last=True)
    report = _report_unless_stopped(node, clock, waiting)
    if report is None:
        log.warning("stopped before the push had ended; what was read is counted, and goes with the next push")
        return ExitCode.OK
    push_errors = node.end_push(report)
    if push_errors:
        node.save(ended_well=True)  # once more, as the failure has been counted since
    return exit_code(errors + push_errors)


def _report_unless_stopped(node: Node, clock: Clock, waiting: Waiting) -> PushReport | None:
    """Wait for the end of the push; None if the process is to stop before, and then the push is stopped as well."""
    publisher = node.parts.publisher
    while (report := publisher.take_report()) is None and not waiting.stop_requested:
        waiting.wait(60.0)
    if report is None:
        node.stop_push()
        give_up_at = clock.monotonic() + STOP_SECONDS
        while publisher.take_report() is None and clock.monotonic() < give_up_at:
            waiting.wait(give_up_at - clock.monotonic())
    return report


def _sweep_until_converted(node: Node, clock: Clock, waiting: Waiting) -> list[Outcome]:
    """Sweep, and look again at the chips that are still converting until none is; return the last of every device."""
    give_up_at = clock.monotonic() + CONVERSION_WAIT_SECONDS
    last = {outcome.device: outcome for outcome in node.take_sweep()}
    while (converting := _converting(last.values())) and not waiting.stop_requested:
        if clock.monotonic() >= give_up_at:
            break
        ready_seconds = min(outcome.ready_at_seconds for outcome in converting)
        next_seconds = max(ready_seconds, clock.monotonic() + _SHORTEST_WAIT_SECONDS)
        while clock.monotonic() < next_seconds and not waiting.stop_requested:
            waiting.wait(next_seconds - clock.monotonic())
        if not waiting.stop_requested:
            again = node.take_sweep({outcome.device for outcome in converting})
            last.update({outcome.device: outcome for outcome in again})
    return list(last.values())


def _converting(outcomes: Iterable[Outcome]) -> list[Settling]:
    """The devices whose chips are still converting."""
    return [outcome for outcome in outcomes if isinstance(outcome, Settling)]


def refuse_to_run_without_permission(outcomes: Sequence[Outcome]) -> None:
    """Raise the PermissionDeniedError of a first sweep that could read nothing for no other reason."""
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failure)]
    if errors and len(errors) == len(outcomes) and all(isinstance(error, PermissionDeniedError) for error in errors):
        raise errors[0]
