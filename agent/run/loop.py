"""The main loop: samples and pushes, each at its own interval on the monotonic clock, until a signal ends it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from agent.measure.readings import Settling
from agent.run.history import await_end, await_hand_over, end_within
from agent.run.permissions import Denials, refuse_to_run_without_permission
from agent.run.stopping import LEAST_SECONDS, STOP_SECONDS, Waiting, await_last_save, await_save, stop_deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.clock import Clock
    from agent.run.agent import Agent
    from agent.run.systemd import Notifier

log = logging.getLogger(__name__)

LAST_PUSH_SECONDS = 0.6
"""The longest that the push under way, and then the last one, may take each."""


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
        self._is_push_late = False
        self._denials = Denials()
        self._was_abandoned = False

    def run(self) -> None:
        """Sample and push until a stop or a reload is requested; may be called again when a reload failed.

        Raises:
            PermissionDeniedError: this user may not read any device, or not any longer; then the run has shut down.
        """
        self.run_while(lambda: not self._waiting.reload_requested)

    def run_while(self, goes_on: Callable[[], bool]) -> None:
        """Sample and push until a stop is requested, or until `goes_on` is false. Raises as `run`."""
        agent, waiting, notifier = self._agent, self._waiting, self._notifier
        while goes_on() and not waiting.stop_requested:
            now = self._clock.monotonic()
            if now >= self._sample.next_seconds:
                agent.missed(self._sample.advance(now))
                is_first = agent.swept_at_seconds is None
                outcomes = agent.take_sweep()
                if is_first:
                    refuse_to_run_without_permission(outcomes)
                    notifier.ready()
                if (denial := self._denials.lasting(outcomes, self._clock.monotonic())) is not None:
                    self.finish()
                    raise denial
                if self._is_first_push_due and not any(isinstance(outcome, Settling) for outcome in outcomes):
                    # Every device that can be read has been read.
                    self._push = Ticker(self._clock.monotonic(), agent.settings.interval_seconds)
                    self._is_first_push_due = False
            self._take_report()
            self._push_or_publish()
            next_seconds = self._sample.next_seconds
            if self._closes_every_interval or not agent.parts.publisher.is_busy:
                next_seconds = min(next_seconds, self._push.next_seconds)
            notifier.status(agent.status())
            notifier.ping_watchdog()
            wait_seconds = next_seconds - self._clock.monotonic()
            if notifier.watchdog_seconds is not None:
                wait_seconds = min(wait_seconds, notifier.watchdog_seconds / 2)
            waiting.wait(wait_seconds)

    @property
    def _closes_every_interval(self) -> bool:
        """Whether scrapes or history take every interval, also while a push takes longer than that."""
        return self._agent.settings.serve is not None or self._agent.parts.history is not None

    def _push_or_publish(self) -> None:
        """Push if that is due. While the previous push takes longer than an interval, only close the interval.

        What is closed in this way is pushed late, as soon as that push has ended.
        """
        agent, now = self._agent, self._clock.monotonic()
        is_busy = agent.parts.publisher.is_busy
        if now >= self._push.next_seconds and (self._closes_every_interval or not is_busy):
            self._push.advance(now)
            self._is_first_push_due = False
            self._is_push_late = is_busy
            if is_busy:
                agent.publish()
            else:
                agent.begin_push()
        elif self._is_push_late and not is_busy:
            self._is_push_late = False
            agent.begin_push(is_late=True)
        self._take_report()

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
        destination, history = agent.parts.destination, agent.parts.history
        if history is not None:
            self._close_open_interval()
            end_within(history, clock, ends_at_seconds, ends_series=True)
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
            agent.begin_push(
                is_last=True,
                is_late=history is not None,
                budget_seconds=self._last_push_seconds(ends_at_seconds),
                needs_counters=True,
            )
            self._end_push(ends_at_seconds)
        agent.save_last()
        if history is not None and await_end(history, clock, self._waiting, ends_at_seconds):
            agent.save_last()  # again, if history has counted something since
        await_last_save(agent, clock, self._waiting, ends_at_seconds)

    def _last_push_seconds(self, ends_at_seconds: float) -> float:
        left_seconds = ends_at_seconds - STOP_SECONDS - self._clock.monotonic()
        return max(LEAST_SECONDS, min(LAST_PUSH_SECONDS, left_seconds))

    def _close_open_interval(self) -> None:
        """History takes the readings since the last interval, whatever becomes of the push."""
        if self._agent.meters.has_open_readings:
            self._agent.publish()

    def hand_over(self, *, ends_series: bool = False) -> None:
        """End the push under way, so that the agent of a new configuration can take over.

        Args:
            ends_series: that configuration sends no history to this server, so that its series end here.
        """
        history = self._agent.parts.history
        if history is not None:
            self._close_open_interval()
            history.end(self._clock.monotonic() + (STOP_SECONDS if ends_series else 0.0), ends_series=ends_series)
        self._end_push(math.inf)
        if history is not None:
            await_hand_over(history, self._waiting)
        self._agent.save(ended_well=False)
        saver = self._agent.parts.saver
        if saver is not None:
            # Otherwise a reload that leaves this file and a later one that returns to it could find it locked.
            await_save(saver, self._clock, self._waiting, self._clock.monotonic() + STOP_SECONDS)

    def _end_push(self, ends_at_seconds: float) -> bool:
        """Let the push under way finish, or abort it after a moment; return whether it finished by itself."""
        if self._await_push(self._last_push_seconds(ends_at_seconds)):
            return True
        self._agent.stop_push()
        if not self._await_push(STOP_SECONDS):
            self._was_abandoned = True
            self._agent.abandon_push()
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
