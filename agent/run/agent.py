"""One running agent: its sweep, energy meters, counters and destination, made by assembly.py and driven by loop.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.energy.meter import EnergyMeters
from agent.energy.state import State
from agent.log import FailureLog
from agent.measure.readings import Failure, Reading, Settling
from agent.metrics.catalogue import Snapshot
from agent.metrics.groups import grouping_keys, make_groups, scrape_registry
from agent.run.health import stall, status_line
from agent.run.push_log import PushLog
from agent.run.stale_groups import PushedGroups, StaleGroups

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
    from agent.run.destination import Destination, GroupResult
    from agent.run.publisher import Publisher, PushReport
    from agent.settings import Settings

log = logging.getLogger(__name__)

_BUDGET_SHARE = 0.9
"""The share of the push interval that one push may take."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of an agent.

    Attributes:
        info: facts about the agent and its machine.
        destination: where groups are pushed; None if nowhere.
        publisher: the thread that pushes.
        state_file: where the counters are saved; None for a dry run, which changes nothing.
    """

    settings: Settings
    info: AgentInfo
    clock: Clock
    sweep: Sweep
    destination: Destination | None
    publisher: Publisher
    state_file: StateFile | None


class Agent:
    """Takes readings, closes intervals, pushes them and saves the counters."""

    def __init__(self, parts: Parts, state: State) -> None:
        settings = parts.settings
        self.settings = settings
        self.parts = parts
        self.meters = EnergyMeters(
            (device.name for device in settings.devices),
            settings.max_gap_seconds,
            state.devices,
            settings.sample_interval_seconds,
        )
        self.counters = state.agent
        self.published: Snapshot | None = None
        self.swept_at_seconds: float | None = None
        self._other_devices: dict[str, Saved] = dict(state.devices)
        self._sweep_seconds: float | None = None
        self._push_seconds: float | None = None
        self._push_errors: list[AgentError] | None = None
        self._was_push_stopped = False
        self._sensor_log = FailureLog(log)
        self._push_log = PushLog()
        self._stale_groups = StaleGroups(parts.destination)

    @property
    def budget_seconds(self) -> float:
        """How long one push may take, retries included: it ends before the next is due."""
        destination = self.parts.destination
        timeout_seconds = 0.0 if destination is None else destination.timeout_seconds
        return max(timeout_seconds, self.settings.interval_seconds * _BUDGET_SHARE)

    def take_sweep(self, only: Container[str] | None = None) -> list[Outcome]:
        """Read every device once, or those on the chips of `only`, and add the outcomes to the energy meters."""
        started_seconds = self.parts.clock.monotonic()
        sweep, conflicts_before = self.parts.sweep, self.parts.sweep.mux_conflicts
        outcomes = sweep.run() if only is None else sweep.run(only)
        if conflicts := sweep.mux_conflicts - conflicts_before:
            self.counters = replace(self.counters, mux_conflicts=self.counters.mux_conflicts + conflicts)
        self.swept_at_seconds = self.parts.clock.monotonic()
        self._sweep_seconds = self.swept_at_seconds - started_seconds
        self.meters.add(outcomes)
        for outcome in outcomes:
            match outcome:
                case Reading(device=device):
                    self._sensor_log.worked(device)
                case Failure(device=device, error=error, tried=True):
                    self._sensor_log.failed(device, f"{device}: {error}")
                case Settling(device=device, power_lost=True):
                    log.warning("%s: its chip lost its power and was configured again", device)
                    self.save(ended_well=False)  # otherwise the next run would count energy across it
        return outcomes

    def missed(self, samples: int) -> None:
        """Count samples that were skipped because a sweep took too long."""
        self.counters = replace(self.counters, missed_samples=self.counters.missed_samples + samples)

    def begin_push(self, *, is_last: bool = False, budget_seconds: float | None = None) -> None:
        """Close the intervals, save the counters and start pushing; without a destination, only publish.

        With `is_last`, nothing is pushed afterwards that the saved counters do not hold.
        """
        destination, clock = self.parts.destination, self.parts.clock
        if destination is not None:
            self.counters = replace(self.counters, pushes=self.counters.pushes + 1)
        snapshot = self._close_intervals(is_last=is_last)
        budget = self.budget_seconds if budget_seconds is None else budget_seconds

        def push() -> Sequence[GroupResult]:
            ends_at_seconds = clock.monotonic() + budget
            if destination is None:
                self._stale_groups.delete(budget)
                return ()
            self._stale_groups.delete(budget / 2)
            groups = make_groups(snapshot, self.settings, destination.group_by)
            return destination.push(groups, ends_at_seconds - clock.monotonic())

        if destination is None:
            self._acknowledge_all(pushed=True)
        if destination is not None or self._stale_groups:
            self.parts.publisher.start(push)

    def publish(self) -> None:
        """Close the intervals for scrapes only, while a push takes longer than an interval."""
        self._close_intervals(for_push=False)

    def _close_intervals(self, *, for_push: bool = True, is_last: bool = False) -> Snapshot:
        """Close the intervals, save the counters and publish them to scrapes; return the snapshot to push."""
        closed = self.meters.close_intervals(for_push=for_push)
        has_counters = self.save(ended_well=is_last)
        snapshot = Snapshot(
            tuple(interval.pending for interval in closed),
            self.parts.info,
            self.counters,
            self._sweep_seconds,
            self._push_seconds,
            has_counters,
        )
        self.published = replace(snapshot, devices=tuple(interval.last_interval for interval in closed))
        return snapshot

    def begin_delete(self, budget_seconds: float) -> None:
        """Start deleting this agent's groups."""
        destination = self.parts.destination
        if destination is None:
            return

        def delete() -> Sequence[GroupResult]:
            self._stale_groups.delete(budget_seconds / 2)
            return destination.delete(self.grouping_keys(), budget_seconds)

        self.parts.publisher.start(delete)

    def stop_push(self) -> None:
        """Abort the push or deletion under way."""
        self._was_push_stopped = True
        self._stale_groups.stop()
        if self.parts.destination is not None:
            self.parts.destination.stop()

    def end_push(self, report: PushReport) -> list[AgentError]:
        """Acknowledge the groups that arrived, count and log failures; return the errors."""
        if report.crash is not None:
            raise report.crash
        self._push_seconds = report.seconds
        errors = [result.error for result in report.results if result.error is not None]
        self._push_errors = errors
        if errors:
            self.counters = replace(self.counters, push_failures=self.counters.push_failures + 1)
        for result in report.results:
            self._acknowledge(result.grouping_key, pushed=result.error is None)
        self._push_log.write(report.results)
        return errors

    def _acknowledge(self, grouping_key: Mapping[str, str], *, pushed: bool) -> None:
        """Acknowledge the intervals in a group, depending on whether it arrived."""
        device = grouping_key.get("device")
        if device is not None:
            self.meters.devices[device].acknowledge(pushed=pushed)
        elif self.parts.destination is not None and self.parts.destination.group_by == "node":
            self._acknowledge_all(pushed=pushed)

    def _acknowledge_all(self, *, pushed: bool) -> None:
        self.meters.acknowledge_all(pushed=pushed)

    def save(self, *, ended_well: bool) -> bool:
        """Save the counters, also of devices of other configurations; return whether they may be published."""
        if self.parts.state_file is None:
            return True
        devices = {**self._other_devices, **self.meters.saved()}
        state = State(devices, self.counters, adapters=self.parts.sweep.adapters())
        return self.parts.state_file.save(state, ended_well=ended_well)

    def take_over_from(self, earlier: Agent) -> None:
        """Take over from the agent of an earlier configuration; groups that only that one had are deleted."""
        self.meters.adopt(earlier.meters)
        self.counters = earlier.counters
        self.swept_at_seconds = earlier.swept_at_seconds
        self._other_devices |= earlier.meters.saved()
        pushed = [*earlier._stale_groups.remaining()]
        if earlier.parts.destination is not None:
            keys = tuple(earlier.grouping_keys())
            pushed.append(PushedGroups(earlier.parts.destination, keys, may_reappear=earlier._was_push_stopped))
        self._stale_groups.add(pushed, self.grouping_keys())

    def grouping_keys(self) -> list[dict[str, str]]:
        """The keys of all groups that this agent pushes."""
        destination = self.parts.destination
        return [] if destination is None else grouping_keys(self.settings, destination.group_by)

    def scrape_registry(self) -> CollectorRegistry | None:
        """The metrics published last, for a scrape; its counters are saved ones, so that none goes back."""
        return None if self.published is None else scrape_registry(self.published, self.settings)

    def status(self) -> str:
        """One line for `systemctl status`."""
        are_up = [meter.is_up for meter in self.meters.devices.values()]
        return status_line(are_up, self._push_errors, is_pushed=self.parts.destination is not None)

    def health(self) -> str | None:
        """Why the loop is unhealthy; None while it makes progress."""
        return stall(self.swept_at_seconds, self.parts.clock.monotonic(), self.settings.sample_interval_seconds)
