"""`--once`: read every device once, push once."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

from agent.errors import BusError, ExitCode, SensorError, exit_code, worst
from agent.i2c.attempts import is_stuck_error
from agent.log import counted
from agent.measure.readings import Failure, Settling
from agent.run.history import await_end, await_once, end_within
from agent.run.stopping import STOP_SECONDS, await_last_save, stop_deadline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.run.agent import Agent
    from agent.run.history import History
    from agent.run.publisher import PushReport
    from agent.run.stopping import Waiting

log = logging.getLogger(__name__)

CONVERSION_WAIT_SECONDS = 120.0
"""The longest conversion takes 51 s (INA3221: 1024 averages of 8.2 ms + 8.2 ms for three inputs)."""

ONCE_PATIENCE_SECONDS = 1.0
"""How long `--once` waits for all the buses that other processes hold: it has no other sweep."""

HISTORY_TO_DISK_SECONDS = 30.0
"""How long `--once` waits for the disk after its last request."""

_SHORTEST_WAIT_SECONDS = 0.01

# A time-out ends the sweep of a bus, so that chips which are well are not read: a run reads them a moment later.
_TRIES_AFTER_TIME_OUTS = 8
# A disturbance of some milliseconds lasts longer than a transfer is repeated. One more try shows whether it is over.
_TRIES_OF_FAILED = 1
_LONGEST_PAUSE_SECONDS = 2.0


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
        _stop(agent, clock, waiting)
        return ExitCode.OK
    agent.log_gaps()
    agent.begin_push(is_last=True)
    history = agent.parts.history
    sends_until_seconds = clock.monotonic() + agent.budget_seconds
    if history is not None:
        sends_until_seconds = max(sends_until_seconds, clock.monotonic() + history.timeout_seconds)
        history.end(sends_until_seconds, ends_series=False)
    if agent.parts.destination is not None:
        report = _report_unless_stopped(agent, clock, waiting)
        if report is None:
            log.warning("stopped before the push had ended; the readings are counted, and the next push covers them")
            _stop(agent, clock, waiting)
            return ExitCode.OK
        errors += agent.end_push(report)
    if history is not None:
        if not await_once(history, clock, waiting, sends_until_seconds + HISTORY_TO_DISK_SECONDS):
            _stop(agent, clock, waiting)
            return ExitCode.OK
        errors += _history_errors(history)
    agent.save_last()  # again, if a failed push, or what was sent, has been counted since
    await_last_save(agent, clock, waiting, clock.monotonic() + agent.budget_seconds)
    return worst((exit_code(errors), ExitCode.OK if agent.has_saved else ExitCode.IOERR))


def _history_errors(history: History) -> list[AgentError]:
    """Why the newest samples were not accepted; then says how many wait for the next run."""
    failure, status = history.failure, history.status
    if failure is not None and status is not None:
        log.warning("history: %s kept for the next run: %s", counted(status.backlog_samples, "sample"), failure)
    return [] if failure is None else [failure]


def _stop(agent: Agent, clock: Clock, waiting: Waiting) -> None:
    """End within the budget of a stop."""
    ends_at_seconds = stop_deadline(clock, waiting)
    if agent.parts.history is not None:
        end_within(agent.parts.history, clock, ends_at_seconds, ends_series=False)
        await_end(agent.parts.history, clock, waiting, ends_at_seconds)
    await_last_save(agent, clock, waiting, ends_at_seconds)


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
    """Sweep, then read the chips that are still settling until none is; return the last outcome of each device.

    Those that failed are tried once more, and those that a time-out on their bus kept from being read a few times.
    """
    give_up_at = clock.monotonic() + CONVERSION_WAIT_SECONDS
    pause_seconds = min(agent.settings.sample_interval_seconds, _LONGEST_PAUSE_SECONDS)
    tries_after_time_outs = _TRIES_AFTER_TIME_OUTS
    # A chip that failed is due again after half an interval; `--once` does not wait for a long one.
    tries_of_failed = _TRIES_OF_FAILED if agent.settings.sample_interval_seconds <= _LONGEST_PAUSE_SECONDS else 0
    agent.parts.sweep.patience_seconds = ONCE_PATIENCE_SECONDS
    agent.parts.sweep.limit_seconds = math.inf
    last = {outcome.device: outcome for outcome in agent.take_sweep()}
    while not waiting.stop_requested and clock.monotonic() < give_up_at:
        if settling := _settling(last.values()):
            again = {outcome.device for outcome in settling}
            ready_seconds = min(outcome.ready_at_seconds for outcome in settling)
        # Tries of one kind only: each may wait for time-outs again.
        elif tries_after_time_outs and (again := _interrupted(last.values())):
            tries_after_time_outs, tries_of_failed = tries_after_time_outs - 1, 0
            ready_seconds = clock.monotonic() + pause_seconds
        elif tries_of_failed and (again := _failed(last.values())):
            tries_after_time_outs, tries_of_failed = 0, tries_of_failed - 1
            ready_seconds = clock.monotonic() + pause_seconds
        else:
            break
        next_seconds = max(ready_seconds, clock.monotonic() + _SHORTEST_WAIT_SECONDS)
        while clock.monotonic() < next_seconds and not waiting.stop_requested:
            waiting.wait(next_seconds - clock.monotonic())
        if not waiting.stop_requested:
            last.update({outcome.device: outcome for outcome in agent.take_sweep(again)})
    return list(last.values())


def _settling(outcomes: Iterable[Outcome]) -> list[Settling]:
    return [outcome for outcome in outcomes if isinstance(outcome, Settling)]


def _interrupted(outcomes: Iterable[Outcome]) -> set[str]:
    """The devices that were not read because something else on their bus timed out."""
    return {
        outcome.device
        for outcome in outcomes
        if isinstance(outcome, Failure) and (not outcome.tried or is_stuck_error(outcome.error))
    }


def _failed(outcomes: Iterable[Outcome]) -> set[str]:
    """The devices that could not be read, and that may be read a moment later; a held bus has been waited for."""
    return {
        outcome.device
        for outcome in outcomes
        if isinstance(outcome, Failure) and isinstance(outcome.error, (SensorError, BusError))
    }
