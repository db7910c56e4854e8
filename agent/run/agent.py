"""One running agent: its sweep, energy meters, counters and destination, made by assembly.py and driven by loop.py."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.energy.counters import Saved
from agent.energy.meter import EnergyMeters
from agent.energy.state import RemoteCounters, State
from agent.measure.readings import Settling
from agent.metrics.catalogue import Snapshot
from agent.metrics.groups import grouping_keys, scrape_registry
from agent.run.for_scrapes import ForScrapes
from agent.run.health import stall, status_line
from agent.run.history import log_left_behind
from agent.run.push_job import PushJob
from agent.run.push_log import PushLog
from agent.run.saver import Save
from agent.run.sensor_log import SensorLog
from agent.run.stale_groups import PushedGroups, StaleGroups

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from prometheus_client import CollectorRegistry

    from agent.build_info import AgentInfo
    from agent.clock import Clock
    from agent.energy.meter import DeviceSnapshot
    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.measure.sweep import Sweep
    from agent.run.carried import Carried
    from agent.run.destination import Destination, GroupResult
    from agent.run.history import History
    from agent.run.live import Live
    from agent.run.publisher import Publisher, PushReport
    from agent.run.saver import Saver
    from agent.serve.live_view import View
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
        saver: saves the counters; None for a dry run, which changes nothing.
        history: keeps every interval; None without remote write.
    """

    settings: Settings
    info: AgentInfo
    clock: Clock
    sweep: Sweep
    destination: Destination | None
    publisher: Publisher
    saver: Saver | None
    history: History | None = None


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
        self.swept_at_seconds: float | None = None
        self._other_devices: dict[str, Saved] = dict(state.devices)
        self._unused_remote = state.remote  # for the next configuration with remote write
        self._sweep_seconds: float | None = None
        self._push_seconds: float | None = None
        self._push_errors: list[AgentError] | None = None
        self._was_push_stopped = False
        self._is_deletion = False
        self._for_scrapes = ForScrapes()
        self._live: Live | None = None
        if settings.serve is not None:
            from agent.run.live import Live

            self._live = Live(self)
        self._carried: Carried | None = None
        if state.is_unconfirmed and parts.destination is not None:
            from agent.run.carried import Carried

            self._carried = Carried.of(state)
        self._last_save: tuple[State, bool, Save] | None = None
        self._job: PushJob | None = None
        self._sensor_log = SensorLog(parts.clock.monotonic, self.settings.devices)
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
        if sweep.was_cut_short:
            self.missed(1)
        if conflicts := sweep.mux_conflicts - conflicts_before:
            self.counters = replace(self.counters, mux_conflicts=self.counters.mux_conflicts + conflicts)
        self.swept_at_seconds = self.parts.clock.monotonic()
        self._sweep_seconds = self.swept_at_seconds - started_seconds
        self.meters.add(outcomes)
        if self._live is not None:
            self._live.add_sweep(outcomes)
        if self.parts.history is not None:
            self.parts.history.add_sweep(outcomes, self.meters.devices)
        self._sensor_log.write(outcomes, sweep.last_mux_conflicts())
        if any(isinstance(outcome, Settling) and outcome.power_lost for outcome in outcomes):
            self.save(ended_well=False)  # otherwise the next run would count energy across it
        return outcomes

    def missed(self, samples: int) -> None:
        """Count samples that some or all devices lack because a sweep took too long."""
        self.counters = replace(self.counters, missed_samples=self.counters.missed_samples + samples)

    def begin_push(
        self,
        *,
        is_last: bool = False,
        is_late: bool = False,
        budget_seconds: float | None = None,
        needs_counters: bool = False,
    ) -> None:
        """Close the intervals, save the counters and start pushing; without a destination, only publish.

        The push waits for the save, in its own thread: counters are never pushed before the file holds them.

        Args:
            is_last: nothing is pushed afterwards that the saved counters do not hold.
            is_late: the intervals have been closed by `publish`: push those, and close no fragment of the next one.
            budget_seconds: how long the push may take.
            needs_counters: push nothing if the counters cannot be saved in time.
        """
        destination, clock = self.parts.destination, self.parts.clock
        if destination is not None:
            self.counters = replace(self.counters, pushes=self.counters.pushes + 1)
        if is_late:
            save = self.save(ended_well=is_last)
            snapshot = self._snapshot(self.meters.carry_pending())
        else:
            snapshot, save = self._close_intervals(is_last=is_last)
        budget = self.budget_seconds if budget_seconds is None else budget_seconds
        self._is_deletion = False
        if destination is None:
            self._acknowledge_all(pushed=True)
            if self._stale_groups:
                self.parts.publisher.send(lambda: self._delete_stale_groups(budget))
            return
        self._job = PushJob(
            self.settings,
            destination,
            self._stale_groups,
            clock,
            budget,
            snapshot,
            save,
            needs_counters,
            self._carried,
            # The state as it is then: an older one would undo what was saved while the gateway was asked.
            lambda: self._save(self.state(is_confirmed=True), ended_well=is_last),
        )
        self.parts.publisher.send(self._job)

    def _delete_stale_groups(self, budget_seconds: float) -> Sequence[GroupResult]:
        self._stale_groups.delete(budget_seconds)
        return ()

    def publish(self) -> None:
        """Close the intervals for scrapes and history only, while a push takes longer than an interval."""
        self._close_intervals(for_push=False)

    def _close_intervals(self, *, for_push: bool = True, is_last: bool = False) -> tuple[Snapshot, Save]:
        """Close the intervals, save the counters and hand all to scrapes and history; return the snapshot to push."""
        closed = self.meters.close_intervals(for_push=for_push)
        snapshot = self._snapshot(tuple(interval.pending for interval in closed))
        save = self.save(ended_well=is_last)  # after the snapshot: the counters of history go on meanwhile
        last_interval = replace(snapshot, devices=tuple(interval.last_interval for interval in closed))
        may_have_counters = self._carried is None or self._push_errors is not None
        self._for_scrapes.put(last_interval, save, may_have_counters=may_have_counters)
        if self.parts.history is not None:
            self.parts.history.add_interval(last_interval, save, may_have_counters=may_have_counters)
        return snapshot, save

    def _snapshot(self, devices: tuple[DeviceSnapshot, ...]) -> Snapshot:
        history = self.parts.history
        return Snapshot(
            devices,
            self.parts.info,
            self.counters,
            self._sweep_seconds,
            self._push_seconds,
            has_counters=False,
            remote=None if history is None else history.status,
        )

    @property
    def published(self) -> Snapshot | None:
        """What scrapes get; None before the first interval."""
        return self._for_scrapes.snapshot

    def begin_delete(self, budget_seconds: float) -> None:
        """Start deleting this agent's groups."""
        destination = self.parts.destination
        if destination is None:
            return

        self._is_deletion = True

        def delete() -> Sequence[GroupResult]:
            self._stale_groups.delete(budget_seconds / 2)
            return destination.delete(self.grouping_keys(), budget_seconds)

        self.parts.publisher.send(delete)

    def stop_push(self) -> None:
        """Abort the push or deletion under way."""
        self._was_push_stopped = True
        if self._job is not None:
            self._job.is_stopped = True
        self._stale_groups.stop()
        if self.parts.destination is not None:
            self.parts.destination.stop()

    def abandon_push(self) -> None:
        """Leave behind a push that was stopped and does not end: its intervals stay pending."""
        self.stop_push()  # again: it may have sent its first request since
        self.parts.publisher.abandon()
        self._settle_carried()

    def end_push(self, report: PushReport) -> list[AgentError]:
        """Acknowledge the groups that arrived, count and log failures; return the errors."""
        errors = report.errors()
        if self._is_deletion:
            self._push_log.write_deletion(errors)
            return errors
        self._push_seconds = report.seconds
        self._push_errors = errors
        if self._live is not None:
            self._live.add_push(errors)
        if errors:
            self.counters = replace(self.counters, push_failures=self.counters.push_failures + 1)
        for result in report.results:
            self._acknowledge(result.grouping_key, pushed=result.error is None)
        self._push_log.write(report)
        self._settle_carried()
        return errors

    def _settle_carried(self) -> None:
        """Keep the counters that were carried over a reboot, or start from zero, as the push has found."""
        carried, are_outdated = self._carried, None if self._job is None else self._job.are_outdated
        if carried is None or are_outdated is None:
            return
        self._carried = None
        if are_outdated:
            log.warning(
                "the gateway holds newer counters of %s than the state file, which was restored from a copy or shares "
                "its hostname with another machine; counters start from zero",
                self.settings.hostname,
            )
            for name, meter in self.meters.devices.items():
                counters = carried.counted_since(name, meter.saved.counters)
                meter.saved = meter.saved._replace(counters=counters)
            self.counters = carried.agent_counted_since(self.counters)
            self._other_devices = {}
            self._unused_remote = RemoteCounters()
            if self.parts.history is not None:
                self.parts.history.forget(carried.remote)
            self.save(ended_well=False)

    def _acknowledge(self, grouping_key: Mapping[str, str], *, pushed: bool) -> None:
        """Acknowledge the intervals in a group, depending on whether it arrived."""
        device = grouping_key.get("device")
        if device is not None:
            self.meters.devices[device].acknowledge(pushed=pushed)
        elif self.parts.destination is not None and self.parts.destination.group_by == "node":
            self._acknowledge_all(pushed=pushed)

    def _acknowledge_all(self, *, pushed: bool) -> None:
        self.meters.acknowledge_all(pushed=pushed)

    def save(self, *, ended_well: bool) -> Save:
        """Start to save the counters, also of devices of other configurations."""
        return self._save(self.state(), ended_well=ended_well)

    def log_gaps(self) -> None:
        """Say so if no energy was counted since the previous run, because that was longer ago than `max_gap`."""
        gaps = {}
        for name, meter in self.meters.devices.items():
            before, now = self._other_devices.get(name, Saved()), meter.saved
            if before.last is not None and now.last is not None:
                seconds = now.last.at_seconds - before.last.at_seconds
                is_counted = now.counters.measured_seconds > before.counters.measured_seconds
                if seconds > self.settings.max_gap_seconds and not is_counted:
                    gaps[name] = seconds
        if gaps:
            log.warning(
                "%s: no energy was counted since the previous run, %d s ago; "
                "set max_gap, now %d s, to more than the time between two runs",
                ", ".join(gaps),
                max(gaps.values()),
                self.settings.max_gap_seconds,
            )

    def _save(self, state: State, *, ended_well: bool) -> Save:
        saver = self.parts.saver
        save = Save.not_needed() if saver is None else saver.save(state, ended_well=ended_well)
        self._last_save = state, ended_well, save
        return save

    @property
    def has_saved(self) -> bool:
        """Whether the file, if there is one, holds what was saved last."""
        saver = self.parts.saver
        return saver is None or not (saver.is_busy or saver.file.is_failing)

    def save_last(self) -> None:
        """Start the last save of the run, unless the one before it was the same."""
        if self._last_save is not None:
            state, ended_well, save = self._last_save
            if ended_well and state == self.state() and (save.may_publish or not save.has_ended):
                return
        self.save(ended_well=True)

    def state(self, *, is_confirmed: bool = False) -> State:
        """What the next run continues from. Unconfirmed counters stay those of the run that they were carried from."""
        carried = None if is_confirmed else self._carried
        status = None if self.parts.history is None else self.parts.history.status
        return State(
            {**self._other_devices, **self.meters.saved()},
            self.counters,
            run_start_seconds=self.parts.info.started_at_seconds() if carried is None else carried.run_start_seconds,
            is_unconfirmed=carried is not None,
            adapters=self.parts.sweep.adapters(),
            hostname=self.settings.hostname,
            remote=self._unused_remote if status is None else status.counters,
        )

    def take_over_from(self, earlier: Agent) -> None:
        """Take over from the agent of an earlier configuration; groups that only that one had are deleted."""
        if earlier.settings.hostname == self.settings.hostname:
            self.meters.adopt(earlier.meters)
            self.counters = earlier.counters
            if self.parts.destination is not None:  # without a gateway nothing can confirm them, as at a start
                self._carried = earlier._carried
            self._other_devices |= earlier.meters.saved()
        self.swept_at_seconds = earlier.swept_at_seconds
        if self._live is not None and earlier._live is not None:
            self._live.take_over_from(earlier._live)
        log_left_behind(earlier.parts.history, self.parts.history)
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
        published = self.published
        return None if published is None else scrape_registry(published, self.settings)

    def live_view(self) -> View:
        """What the live page shows; only with `[serve]`."""
        if self._live is None:
            raise RuntimeError("nothing is served")
        return self._live.view()

    def status(self) -> str:
        """One line for `systemctl status`."""
        are_up = [meter.is_up for meter in self.meters.devices.values()]
        history = "" if self.parts.history is None else self.parts.history.words
        return status_line(are_up, self._push_errors, is_pushed=self.parts.destination is not None, history=history)

    def health(self) -> str | None:
        """Why the loop is unhealthy; None while it makes progress."""
        return stall(self.swept_at_seconds, self.parts.clock.monotonic(), self.settings.sample_interval_seconds)
