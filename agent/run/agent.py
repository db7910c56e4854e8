"""One running agent: its sensors, account, state and sinks, wired together by cli.py and driven by loop.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.energy.meter import EnergyMeters
from agent.energy.state import State
from agent.errors import GatewayUnreachableError
from agent.log import TroubleLog
from agent.measure.readings import Failure, Reading, Settling
from agent.metrics.catalogue import Snapshot
from agent.metrics.groups import grouping_keys, make_groups, name_of, scrape_registry
from agent.run.stale_groups import StaleGroups, gateway_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from agent.build_info import AgentInfo
    from agent.clock import Clock
    from agent.energy.counters import Saved
    from agent.energy.state import StateFile
    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.measure.sweep import Sweep
    from agent.run.publisher import GroupResult, Publisher, PushReport, Sink
    from agent.settings import Settings

log = logging.getLogger(__name__)

_BUDGET_SHARE = 0.9


def group_by_of(settings: Settings) -> str:
    """How pushes are grouped; by device if nothing is pushed."""
    return "device" if settings.pushgateway is None else settings.pushgateway.group_by


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of.

    Attributes:
        sink: where pushes go; None if nothing is pushed.
        state_file: where counters are kept; None under `--dry-run`, which changes nothing.
    """

    settings: Settings
    agent: AgentInfo
    clock: Clock
    sweep: Sweep
    sink: Sink | None
    publisher: Publisher
    state_file: StateFile | None


class Node:
    """Takes readings, closes intervals, publishes them and keeps the counters."""

    def __init__(self, parts: Parts, state: State) -> None:
        settings = parts.settings
        self.settings = settings
        self.parts = parts
        self.account = EnergyMeters(
            (device.name for device in settings.devices),
            settings.max_gap_seconds,
            state.devices,
            settings.sample_interval_seconds,
        )
        self.counters = state.node
        self.published: Snapshot | None = None
        self.swept_at_seconds: float | None = None
        self._other_devices: dict[str, Saved] = dict(state.devices)
        self._sweep_seconds: float | None = None
        self._push_seconds: float | None = None
        self._last_push_errors: list[AgentError] | None = None
        self._sensor_trouble = TroubleLog(log)
        self._push_trouble = TroubleLog(log)
        self._departed: list[StaleGroups] = []
        self._was_push_stopped = False

    @property
    def budget_seconds(self) -> float:
        """How long one push may take, retries included: it ends before the next is due."""
        timeout_seconds = self.settings.pushgateway.timeout_seconds if self.settings.pushgateway else 0.0
        return max(timeout_seconds, self.settings.interval_seconds * _BUDGET_SHARE)

    def take_sweep(self, only: Container[str] | None = None) -> list[Outcome]:
        """Read every device once, or those of the chips that `only` names, and enter it into the account."""
        begun_seconds = self.parts.clock.monotonic()
        outcomes = self.parts.sweep.run() if only is None else self.parts.sweep.run(only)
        self.swept_at_seconds = self.parts.clock.monotonic()
        self._sweep_seconds = self.swept_at_seconds - begun_seconds
        self.account.add(outcomes)
        for outcome in outcomes:
            match outcome:
                case Reading(device=device):
                    self._sensor_trouble.worked(device)
                case Failure(device=device, error=error, tried=True):
                    self._sensor_trouble.failed(device, f"{device}: {error}")
                case Settling(device=device, power_lost=True):
                    log.warning("%s: its chip lost its power and was configured again", device)
                    self.save(ended_well=False)  # the next run would not see it, nor know that nothing may be counted
        return outcomes

    def missed(self, samples: int) -> None:
        """Count readings that were left out because a sweep took too long."""
        self.counters = replace(self.counters, missed_samples=self.counters.missed_samples + samples)

    def begin_push(self, *, is_last: bool = False, budget_seconds: float | None = None) -> None:
        """Close the intervals, save the counters and start pushing; without a sink, only publish.

        With `is_last` nothing will be pushed after this that the saved counters do not hold.
        """
        if self.parts.sink is not None:
            self.counters = replace(self.counters, pushes=self.counters.pushes + 1)
        snapshot = self._close_intervals(is_last=is_last)
        sink = self.parts.sink
        if sink is None:
            self.settle_all(pushed=True)
            if self._departed:
                self.parts.publisher.start(lambda: self._delete_departed(self.budget_seconds))
            return
        budget = self.budget_seconds if budget_seconds is None else budget_seconds
        clock = self.parts.clock

        def push() -> Sequence[GroupResult]:
            ends_at_seconds = clock.monotonic() + budget
            self._delete_departed(budget / 2)
            return sink.push(
                make_groups(snapshot, self.settings, group_by_of(self.settings)), ends_at_seconds - clock.monotonic()
            )

        self.parts.publisher.start(push)

    def publish(self) -> None:
        """Close the intervals for scrapes alone, while a push that is under way takes longer than an interval."""
        self._close_intervals(for_push=False)

    def _close_intervals(self, *, for_push: bool = True, is_last: bool = False) -> Snapshot:
        """Close the intervals, save the counters and let scrapes see them; return what to push."""
        closed = self.account.close_intervals(for_push=for_push)
        has_counters = self.save(ended_well=is_last)
        snapshot = Snapshot(
            tuple(interval.pending for interval in closed),
            self.parts.agent,
            self.counters,
            self._sweep_seconds,
            self._push_seconds,
            has_counters,
        )
        self.published = replace(snapshot, devices=tuple(interval.last_interval for interval in closed))
        return snapshot

    def begin_delete(self, budget_seconds: float) -> None:
        """Start removing the groups from the gateway."""
        sink = self.parts.sink
        if sink is None:
            return

        def delete() -> Sequence[GroupResult]:
            self._delete_departed(budget_seconds / 2)
            return sink.delete(grouping_keys(self.settings, group_by_of(self.settings)), budget_seconds)

        self.parts.publisher.start(delete)

    def stop_push(self) -> None:
        """End what is being pushed or deleted, now."""
        self._was_push_stopped = True
        sinks = [departed.sink for departed in self._departed]
        for sink in (*sinks, *(() if self.parts.sink is None else (self.parts.sink,))):
            sink.stop()

    def _delete_departed(self, budget_seconds: float) -> Sequence[GroupResult]:
        """In the thread that pushes. The list is replaced at the end only, so that a push given up loses nothing."""
        own = gateway_of(self.settings)
        due = sum(not departed.pushes_to_wait for departed in self._departed)
        left: list[StaleGroups | None] = []
        for departed in self._departed:
            if departed.pushes_to_wait:
                left.append(replace(departed, pushes_to_wait=departed.pushes_to_wait - 1))
            else:
                is_pushed_to = own is not None and departed.gateway is not None and own[0] == departed.gateway[0]
                left.append(departed.delete(budget_seconds / due, is_pushed_to=is_pushed_to))
        self._departed = [departed for departed in left if departed is not None]
        return ()

    def end_push(self, report: PushReport) -> list[AgentError]:
        """Settle what was pushed and what was not; return the errors."""
        if report.crash is not None:
            raise report.crash
        self._push_seconds = report.seconds
        errors = [result.error for result in report.results if result.error is not None]
        self._last_push_errors = errors
        if errors:
            self.counters = replace(self.counters, push_failures=self.counters.push_failures + 1)
        # Nothing was pushed, and nothing is settled, where the report has no results at all.
        for key, result in zip(
            grouping_keys(self.settings, group_by_of(self.settings)), report.results, strict=bool(report.results)
        ):
            self._settle(key, pushed=result.error is None)
        self._log_push(report.results)
        return errors

    def _log_push(self, results: Sequence[GroupResult]) -> None:
        """One line for a gateway that is away, however many groups wait for it, and one for each group it refuses."""
        away = [result.error for result in results if isinstance(result.error, GatewayUnreachableError)]
        if away:
            more = f" (and {len(away) - 1} more groups)" if len(away) > 1 else ""
            self._push_trouble.failed("push", f"{away[0]}{more}; what was not pushed goes with the next push")
        elif results:
            self._push_trouble.worked("push")
        for result in results:
            if result.error is None:
                self._push_trouble.worked(result.name)
            elif result.error not in away:
                self._push_trouble.failed(result.name, str(result.error))

    def _settle(self, key: Mapping[str, str], *, pushed: bool) -> None:
        device = key.get("device")
        if device is not None:
            self.account.devices[device].acknowledge(pushed=pushed)
        elif group_by_of(self.settings) == "node":
            self.settle_all(pushed=pushed)

    def settle_all(self, *, pushed: bool) -> None:
        """Say of every device whether its closed interval has arrived."""
        self.account.acknowledge_all(pushed=pushed)

    def save(self, *, ended_well: bool) -> bool:
        """Save the counters; return whether they may be published. Devices of other configurations are kept."""
        if self.parts.state_file is None:
            return True
        state = State({**self._other_devices, **self.account.saved()}, self.counters)
        return self.parts.state_file.save(state, ended_well=ended_well)

    def carry_on_from(self, earlier: Node) -> None:
        """Take over from a node with another configuration; groups that this one does not have are deleted."""
        self.account.adopt(earlier.account)
        self.counters = earlier.counters
        self.swept_at_seconds = earlier.swept_at_seconds
        self._other_devices |= earlier.account.saved()
        departing = list(earlier._departed)
        if earlier.parts.sink is not None:
            keys = tuple(grouping_keys(earlier.settings, group_by_of(earlier.settings)))
            gateway, may_come_back = gateway_of(earlier.settings), earlier._was_push_stopped
            departing.append(StaleGroups(earlier.parts.sink, gateway, keys, may_come_back))
        own_keys = grouping_keys(self.settings, group_by_of(self.settings))
        for departed in departing:
            kept = own_keys if departed.gateway == gateway_of(self.settings) else []
            gone = tuple(key for key in departed.keys if key not in kept)
            if gone:
                log.info("deleting what is not measured any more: %s", ", ".join(name_of(key) for key in gone))
                self._departed.append(replace(departed, keys=gone, pushes_to_wait=0))

    def scrape_registry(self) -> CollectorRegistry | None:
        """What `/metrics` says: what was published last; its counters are saved, so they never go back."""
        return None if self.published is None else scrape_registry(self.published, self.settings)

    def status(self) -> str:
        """One line for a person who asks how it goes."""
        accounts = self.account.devices.values()
        up = sum(account.is_up for account in accounts)
        if self.parts.sink is None:
            push = "nothing is pushed"
        elif self._last_push_errors is None:
            push = "not pushed yet"
        else:
            push = f"last push failed: {self._last_push_errors[0]}" if self._last_push_errors else "last push accepted"
        return f"{up} of {len(accounts)} devices up; {push}"

    def health(self) -> str | None:
        """None while the loop gets on; else what is wrong."""
        if self.swept_at_seconds is None:
            return "no sweep is finished yet"
        age_seconds = self.parts.clock.monotonic() - self.swept_at_seconds
        if age_seconds > 3 * self.settings.sample_interval_seconds + 10:
            return f"the last sweep ended {age_seconds:.0f} s ago"
        return None
