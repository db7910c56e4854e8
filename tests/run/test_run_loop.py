"""The loop on a clock advanced by hand: what it reads, counts and pushes when, and what a failed push costs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.energy.state_file import StateFile
from agent.errors import ExitCode, PermissionDeniedError, RejectedError, UnreachableError
from agent.measure.readings import Failure
from agent.push.dry_run import DryRun
from agent.run.loop import Loop, Ticker
from agent.run.once import run_once
from agent.run.publisher import Publisher
from agent.run.stale_groups import PushedGroups, StaleGroups
from agent.settings import Averaging, MetricsSettings, PushgatewaySettings, ServeSettings
from agent.simulate.rails import ConstantRail
from tests.energy.disks import state_on_disk
from tests.run.running import (
    CPU,
    DISK,
    LONG_SECONDS,
    NO_MANAGER,
    RADIO,
    HandPublisher,
    HandWaiting,
    MemoryGateway,
    agent_of,
    settings_for,
    world_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
    from pathlib import Path

    from agent.measure.readings import Outcome
    from agent.metrics.groups import Group
    from agent.push.delivery import PushResult
    from agent.run.agent import Agent
    from agent.settings import Device, Settings
    from agent.simulate.clock import HandClock
    from agent.simulate.world import World

AWAY = UnreachableError("gateway.invalid: no answer")
FAST = Averaging(1, 140e-6, 140e-6)
QUICK_CPU = replace(CPU, averaging=FAST)
QUICK_DISK = replace(DISK, averaging=FAST)
SLOW_DISK = replace(DISK, averaging=Averaging(1024, 8.244e-3, 8.244e-3))  # a result every 16.9 s


class Run:
    """A loop and everything around it."""

    def __init__(self, settings: Settings, clock: HandClock, world: World | None = None) -> None:
        self.clock = clock
        self.settings = settings
        self.world = world or world_for(settings, clock)
        self.gateway = MemoryGateway(settings.pushgateway)
        self.publisher = HandPublisher(clock)
        self.agent: Agent = agent_of(settings, self.world, clock, self.gateway, self.publisher)
        self.waiting = HandWaiting(clock)
        self.loop = Loop(self.agent, clock, self.waiting, NO_MANAGER)

    def until(self, seconds: float) -> None:
        self.waiting.stop_requested = False
        self.waiting.stop_at_seconds = seconds
        self.loop.run()

    def for_seconds(self, seconds: float) -> None:
        self.until(self.clock.seconds + seconds)

    def rail(self, device: str) -> ConstantRail:
        rail = self.world.rails[device]
        assert isinstance(rail, ConstantRail)
        return rail

    def of(self, device: str, name: str) -> float:
        return self.gateway.groups[f"device {device}"][f"wattpush_device_{name}"]


def test_ticks_do_not_drift_in_100_000_periods() -> None:
    ticker = Ticker(0.1, 0.1)
    for number in range(1, 100_001):
        assert ticker.next_seconds == pytest.approx(0.1 * number, abs=1e-9)
        assert ticker.advance(ticker.next_seconds + 0.03) == 0


@pytest.mark.reliability(
    13,
    "100,000 sweeps that each take 13 ms",
    "ticks do not drift",
)
def test_the_loop_does_not_drift_in_100_000_sweeps(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(settings_for(QUICK_CPU, sample_interval_seconds=0.1, interval_seconds=1000.0), clock)
    swept: list[float] = []

    def take_sweep(only: Container[str] | None = None) -> list[Outcome]:
        swept.append(clock.seconds)
        clock.sleep(0.013)  # as long as a sweep takes
        return []

    monkeypatch.setattr(run.agent.parts.sweep, "run", take_sweep)
    run.until(1000.0 + 10_000.0 - 0.05)
    assert len(swept) == 100_000
    assert swept[-1] == pytest.approx(1000.0 + 99_999 * 0.1, abs=1e-6)
    assert run.agent.counters.missed_samples == 0


def test_a_slightly_late_reading_leaves_no_gap(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, sample_interval_seconds=0.1, interval_seconds=1.0, max_gap_seconds=0.05), clock)
    run.until(1010.05)
    run.loop.finish()
    assert run.of("cpu", "measured_seconds_total") == pytest.approx(0.1 * (run.of("cpu", "readings_total") - 1))


def test_a_slow_sweep_is_counted_and_does_not_shift_the_ticks(
    clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    swept: list[float] = []
    real = run.agent.parts.sweep.run

    def slow_third_sweep(only: Container[str] | None = None) -> list[Outcome]:
        swept.append(clock.seconds)
        if len(swept) == 3:
            clock.sleep(3.5)
        return real()

    monkeypatch.setattr(run.agent.parts.sweep, "run", slow_third_sweep)
    run.until(1008.0)
    # The third sweep takes from 2 to 5.5: those of 3 and 4 are skipped, that of 5 is late, that of 6 is on time.
    assert swept == [1000, 1001, 1002, 1005.5, 1006, 1007]
    assert run.agent.counters.missed_samples == 2


def test_the_first_push_follows_the_first_complete_sweep(clock: HandClock) -> None:
    run = Run(settings_for(CPU, RADIO), clock)
    run.until(1000.9)
    assert not run.gateway.history  # the chips are still converting
    run.until(1003.0)
    assert len(run.gateway.history) == 1
    assert run.of("cpu", "watts") == 6
    assert run.of("radio", "watts") == pytest.approx(6)
    run.until(1016.9)
    assert len(run.gateway.history) == 1
    run.until(1017.1)
    assert len(run.gateway.history) == 2


def test_the_first_push_waits_at_most_one_interval_for_slow_chips(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, SLOW_DISK), clock)
    run.until(1015.1)
    assert run.of("cpu", "up") == 1
    assert run.of("disk", "up") == 0
    run.until(1030.1)
    assert run.of("disk", "up") == 1


def test_a_failed_device_does_not_delay_the_first_push(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, QUICK_DISK), clock)
    run.world.chips["disk"].unplug()
    run.until(1001.1)
    assert run.of("cpu", "up") == 1
    assert run.of("disk", "up") == 0
    assert "wattpush_device_watts" not in run.gateway.groups["device disk"]


def test_sampling_keeps_its_pace_and_loses_nothing_while_a_push_hangs(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, metrics=MetricsSettings(charge=True)), clock)
    run.until(1001.5)
    assert run.of("cpu", "readings_total") == 1
    run.publisher.hangs = True
    run.until(1076.5)
    assert run.of("cpu", "readings_total") == 1
    assert run.agent.counters.pushes == 2  # four intervals passed without a second push
    assert run.agent.meters.devices["cpu"].saved.counters.readings == 76
    run.gateway.fail = lambda _group: AWAY
    run.publisher.hangs = False
    run.publisher.release()
    run.gateway.fail = lambda _group: None
    run.until(1077.5)
    assert run.agent.counters.push_failures == 1
    assert run.of("cpu", "readings_total") == 76
    assert run.of("cpu", "joules_total") == pytest.approx(6 * 75)
    assert run.of("cpu", "coulombs_total") == pytest.approx(0.5 * 75)


def test_means_and_extremes_cover_failed_pushes(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, interval_seconds=5.0), clock)
    rail = run.rail("cpu")
    run.until(1001.5)
    run.gateway.fail = lambda _group: AWAY
    rail.amperes = 2.0
    run.until(1008.5)
    rail.amperes = 1.0
    run.gateway.fail = lambda _group: None
    run.until(1011.5)
    assert run.of("cpu", "max_amperes") == 2.0
    assert run.of("cpu", "min_amperes") == 1.0
    assert run.of("cpu", "amperes") == pytest.approx((7 * 2 + 3 * 1) / 10)
    run.until(1016.5)
    assert run.of("cpu", "max_amperes") == 1.0


def test_results_are_acknowledged_by_grouping_key(clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    push = MemoryGateway.push
    monkeypatch.setattr(MemoryGateway, "push", lambda *arguments: push(*arguments)[::-1])
    run = Run(settings_for(QUICK_CPU, QUICK_DISK, interval_seconds=5.0), clock)
    run.gateway.fail = lambda group: AWAY if group.name == "device cpu" else None
    run.until(1001.5)
    for name in ("cpu", "disk"):
        run.rail(name).amperes = 2.0
    run.gateway.fail = lambda _group: None
    run.until(1006.5)
    assert run.of("cpu", "min_amperes") == 0.5
    assert run.of("disk", "min_amperes") == 2.0


@pytest.mark.reliability(9.13, "one group that is always rejected", "the others are pushed, and lose nothing")
def test_a_rejected_group_costs_the_others_nothing(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, QUICK_DISK, interval_seconds=5.0), clock)
    run.gateway.fail = lambda group: RejectedError("no") if group.name == "device disk" else None
    run.until(1001.5)
    for name in ("cpu", "disk"):
        run.rail(name).amperes = 2.0
    run.gateway.fail = lambda _group: None
    run.until(1006.5)
    assert run.of("cpu", "min_amperes") == 2.0
    assert run.of("disk", "min_amperes") == 0.5


def test_the_group_of_a_node_acknowledges_every_device(clock: HandClock) -> None:
    gateway = PushgatewaySettings("http://gateway.invalid", group_by="node")
    run = Run(settings_for(QUICK_CPU, pushgateway=gateway, interval_seconds=5.0), clock)
    run.gateway.fail = lambda _group: AWAY
    run.until(1001.5)
    assert run.agent.meters.devices["cpu"].close_interval().pending.means is not None
    run.gateway.fail = lambda _group: None
    run.until(1006.5)
    run.agent.meters.devices["cpu"].acknowledge(pushed=True)
    assert run.agent.meters.devices["cpu"].close_interval().pending.means is None


def test_a_push_is_counted_when_it_begins(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1001.5)
    assert run.gateway.groups["node"]["wattpush_agent_pushes_total"] == 1


def test_a_loop_neither_spins_nor_reads_early(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1100.0)
    assert run.waiting.waits <= 2 * 100 + 20


def test_a_stop_pushes_what_is_pending_and_saves(clock: HandClock, tmp_path: Path) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    state_file = StateFile(tmp_path, "counters", "a")
    run.agent = agent_of(run.settings, run.world, clock, run.gateway, run.publisher, state_file=state_file)
    run.loop = Loop(run.agent, clock, run.waiting, NO_MANAGER)
    run.until(1010.5)
    run.loop.finish()
    assert run.of("cpu", "readings_total") == 10
    saved = state_on_disk(tmp_path, "after a reboot").load()
    assert saved.devices["cpu"].counters.readings == 10
    assert saved.agent.pushes == 2


def test_a_stop_right_after_a_push_changes_nothing(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1001.5)
    run.loop.finish()
    assert run.of("cpu", "up") == 1
    assert run.of("cpu", "watts") == 6


def test_a_stop_before_the_first_reading_pushes_nothing(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.loop.finish()
    assert not run.gateway.history


@pytest.mark.reliability(15.01, "SIGTERM or SIGINT while a push hangs", "a clean exit within 2 s, state saved")
@pytest.mark.parametrize("hangs_before", [True, False])
def test_a_stop_takes_less_than_2_s_while_the_gateway_hangs(clock: HandClock, *, hangs_before: bool) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.publisher.hangs = hangs_before
    run.until(1010.5)
    run.publisher.hangs = True
    run.waiting.stop_at_seconds = float("inf")
    run.loop.finish()
    assert clock.seconds - 1010.5 < 1.6
    assert run.gateway.stopped


def test_delete_on_exit_deletes_the_groups(clock: HandClock) -> None:
    gateway = PushgatewaySettings("http://gateway.invalid", delete_on_exit=True)
    run = Run(settings_for(QUICK_CPU, pushgateway=gateway), clock)
    run.until(1010.5)
    run.loop.finish()
    assert run.gateway.groups == {}
    assert sorted(run.gateway.deleted) == ["device cpu", "node"]


@pytest.mark.reliability(
    15.11,
    "`delete_on_exit` at a gateway that refuses or hangs",
    "one line says what was not deleted, and how to delete it; no push counts as failed",
)
@pytest.mark.parametrize("fault", ["refused", "hangs", "hangs before"])
def test_a_failed_deletion_at_the_stop_is_told_as_one(
    clock: HandClock, caplog: pytest.LogCaptureFixture, fault: str, measured: Callable[[str], None]
) -> None:
    gateway = PushgatewaySettings("http://gateway.invalid", delete_on_exit=True)
    run = Run(settings_for(QUICK_CPU, pushgateway=gateway), clock)
    run.until(1010.5)
    run.publisher.hangs = fault != "refused"
    if fault == "hangs before":
        run.agent.begin_push()
    run.gateway.delete_error = AWAY
    failures = run.agent.counters.push_failures
    caplog.clear()
    run.waiting.stop_at_seconds = float("inf")
    run.loop.finish()
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("not deleted at the stop: ")
    assert line.endswith("wattpush delete")
    assert ("gateway.invalid: no answer (and 1 more group)" in line) == (fault == "refused")
    assert run.agent.counters.push_failures == failures
    measured("one line each")


def test_a_dry_run_with_delete_on_exit_prints_the_deletions(clock: HandClock) -> None:
    gateway = PushgatewaySettings("http://gateway.invalid/prefix", delete_on_exit=True)
    run = Run(settings_for(QUICK_CPU, pushgateway=gateway), clock)
    written: list[str] = []
    run.agent.parts = replace(run.agent.parts, destination=DryRun(gateway, written.append))
    run.until(1001.5)
    run.loop.finish()
    assert written[-2:] == [
        "# DELETE /prefix/metrics/job/power/device/cpu/hostname/node-17\n",
        "# DELETE /prefix/metrics/job/power/hostname/node-17\n",
    ]


def reloaded(run: Run, settings: Settings) -> Run:
    run.loop.hand_over()
    later = Run(settings, run.clock)
    later.gateway = run.gateway
    later.agent = agent_of(settings, later.world, run.clock, run.gateway, later.publisher)
    later.agent.take_over_from(run.agent)
    later.loop = Loop(later.agent, run.clock, later.waiting, NO_MANAGER)
    return later


def test_a_reload_keeps_counters_and_deletes_stale_groups(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, QUICK_DISK), clock)
    run.until(1005.5)
    run = reloaded(run, settings_for(QUICK_CPU))
    run.for_seconds(3.0)
    assert set(run.gateway.groups) == {"device cpu", "node"}
    assert run.gateway.deleted == ["device disk"]
    assert run.of("cpu", "readings_total") == 6
    assert run.of("cpu", "watts") == 6


@pytest.mark.reliability(
    15.23,
    "a reload while a push waits for a disk or a gateway that stalls",
    "the push left behind pushes, deletes and saves nothing once it is answered",
)
def test_a_push_left_behind_pushes_nothing_later(clock: HandClock, measured: Callable[[str], None]) -> None:
    run = Run(settings_for(QUICK_CPU, QUICK_DISK), clock)
    run.until(1005.5)
    run = reloaded(run, settings_for(QUICK_CPU))
    run.publisher.hangs = True
    run.for_seconds(3.0)
    later = reloaded(run, settings_for(QUICK_CPU, QUICK_DISK))
    later.for_seconds(3.0)
    groups, pushes = dict(later.gateway.groups), len(later.gateway.history)
    run.publisher.release()
    assert (later.gateway.groups, later.gateway.deleted) == (groups, [])
    assert len(later.gateway.history) == pushes
    measured("no counter goes back, and no group that is pushed again is deleted")


class LateGateway(MemoryGateway):
    """A push to it begins after a stop, knows nothing of that stop, and ends at the next one."""

    def __init__(self) -> None:
        super().__init__()
        self.first_stop, self.begun, self.second_stop = (threading.Event() for _ in range(3))

    def push(self, groups: Sequence[Group], budget_seconds: float) -> Sequence[PushResult]:
        self.first_stop.wait(LONG_SECONDS)
        self.begun.set()
        self.second_stop.wait(LONG_SECONDS)
        return super().push(groups, budget_seconds)

    def stop(self) -> None:
        (self.second_stop if self.begun.is_set() else self.first_stop).set()


def test_a_push_that_begins_after_its_stop_ends_too(clock: HandClock) -> None:
    gateway, settings = LateGateway(), settings_for(QUICK_CPU)
    agent = agent_of(settings, world_for(settings, clock), clock, gateway, Publisher(clock, lambda: None))
    agent.begin_push()
    agent.stop_push()
    assert gateway.begun.wait(LONG_SECONDS)
    agent.abandon_push()
    ended = gateway.second_stop.is_set()
    gateway.second_stop.set()
    assert ended


def test_a_stop_ends_deletions_at_further_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = StaleGroups(None)
    first, second = MemoryGateway(), MemoryGateway()
    delete = first.delete

    def stop_meanwhile(*arguments: Any) -> Sequence[PushResult]:
        groups.stop()
        return delete(*arguments)

    monkeypatch.setattr(first, "delete", stop_meanwhile)
    groups.add([PushedGroups(gateway, ({"hostname": "node"},)) for gateway in (first, second)], [])
    groups.delete(1.0)
    assert (first.deleted, second.deleted) == (["node"], [])
    assert [left.destination for left in groups.remaining()] == [second]


@pytest.mark.parametrize(("later_cpu", "seconds"), [(QUICK_CPU, 5.5), (replace(QUICK_CPU, place=DISK.place), 4.0)])
def test_a_reload_counts_no_energy_across_two_chips(clock: HandClock, later_cpu: Device, seconds: float) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1005.5)
    run = reloaded(run, settings_for(later_cpu))
    run.for_seconds(1.1)
    assert run.of("cpu", "readings_total") == 6
    assert run.of("cpu", "measured_seconds_total") == pytest.approx(seconds, abs=0.01)


def test_a_failed_deletion_is_retried_after_another_reload(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, QUICK_DISK), clock)
    run.until(1005.5)
    run.gateway.delete_error = AWAY
    run = reloaded(run, settings_for(QUICK_CPU))
    run.for_seconds(3.0)
    run = reloaded(run, settings_for(QUICK_CPU))
    run.for_seconds(3.0)
    assert "device disk" in run.gateway.groups
    run.gateway.delete_error = None
    run.for_seconds(20.0)
    assert set(run.gateway.groups) == {"device cpu", "node"}
    assert run.gateway.deleted == ["device disk"]


def test_deletions_at_an_abandoned_gateway_back_off(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1005.5)
    dead = run.gateway
    dead.delete_error = AWAY
    run.loop.hand_over()
    later = Run(settings_for(QUICK_CPU, pushgateway=PushgatewaySettings("http://other.invalid")), clock)
    later.agent.take_over_from(run.agent)
    later.for_seconds(100 * 15.0)
    assert len(later.gateway.history) == 100
    assert 5 <= dead.deletions <= 8
    assert caplog.text.count("cannot be deleted yet") == 1
    dead.delete_error = None
    later.for_seconds(300 * 15.0)
    assert dead.groups == {}
    assert set(later.gateway.groups) == {"device cpu", "node"}


def test_a_device_that_returns_is_not_deleted(clock: HandClock) -> None:
    both = settings_for(QUICK_CPU, QUICK_DISK)
    run = Run(both, clock)
    run.until(1005.5)
    run.gateway.delete_error = AWAY
    run = reloaded(run, settings_for(QUICK_CPU))
    run.for_seconds(3.0)
    run = reloaded(run, both)
    run.gateway.delete_error = None
    run.for_seconds(20.0)
    assert run.gateway.deleted == []


def test_a_reload_aborts_a_hung_push_and_keeps_its_interval(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.publisher.hangs = True
    run.until(1010.5)
    run.waiting.stop_at_seconds = float("inf")
    run = reloaded(run, settings_for(QUICK_CPU))
    assert run.gateway.stopped
    run.for_seconds(3.0)
    assert run.of("cpu", "readings_total") >= 11
    assert run.gateway.history[-1]["device cpu"]["wattpush_device_watts"] == 6


def test_a_group_that_reappears_is_deleted_again(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, QUICK_DISK), clock)
    run.publisher.hangs = True
    run.until(1010.5)
    run.waiting.stop_at_seconds = float("inf")
    run = reloaded(run, settings_for(QUICK_CPU))
    run.for_seconds(3.0)
    assert run.gateway.deleted == ["device disk"]
    run.gateway.groups["device disk"] = {"wattpush_device_watts": 6.0}  # received before the deletion
    run.for_seconds(3 * 15.0)
    assert set(run.gateway.groups) == {"device cpu", "node"}
    assert run.gateway.deleted == ["device disk"] * 2


def test_scrapes_see_every_interval_during_a_long_push(clock: HandClock) -> None:
    serve = ServeSettings("127.0.0.1", 0)
    run = Run(settings_for(QUICK_CPU, interval_seconds=5.0, serve=serve), clock)
    run.until(1004.5)
    run.publisher.hangs = True
    readings: set[float] = set()
    amperes: set[float] = set()

    def scrape() -> None:
        registry = run.agent.scrape_registry()
        assert registry is not None
        values = {sample.name: sample.value for family in registry.collect() for sample in family.samples}
        readings.add(values["wattpush_device_readings_total"])
        amperes.add(values["wattpush_device_amperes"])

    run.waiting.on_wait = scrape
    run.for_seconds(15.0)
    run.rail("cpu").amperes = 1.0
    run.for_seconds(15.0)
    assert len(readings) >= 6
    assert {0.5, 1.0} <= amperes
    # The next push covers intervals closed meanwhile; the hung one does not acknowledge them.
    run.publisher.hangs = False
    run.publisher.release()
    run.for_seconds(1.0)
    assert 0.5 < run.of("cpu", "amperes") < 1.0
    assert run.of("cpu", "min_amperes") == 0.5


def test_a_configuration_without_a_gateway_deletes_stale_groups(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1005.5)
    gateway = run.gateway
    run.loop.hand_over()
    settings = settings_for(QUICK_CPU, pushgateway=None)
    agent = agent_of(settings, world_for(settings, clock), clock, None)
    agent.take_over_from(run.agent)
    waiting = HandWaiting(clock, clock.seconds + 3)
    Loop(agent, clock, waiting, NO_MANAGER).run()
    assert gateway.groups == {}


def test_a_run_that_may_read_nothing_ends_with_permission_denied(
    clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    denied = [Failure("cpu", PermissionDeniedError("/dev/i2c-1: permission denied"))]
    monkeypatch.setattr(run.agent.parts.sweep, "run", lambda: denied)
    with pytest.raises(PermissionDeniedError, match="/dev/i2c-1"):
        run.until(1010.0)


def test_a_stalled_loop_is_unhealthy(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    assert run.agent.health() == "no sweep has finished yet"
    run.until(1005.5)
    assert run.agent.health() is None
    clock.sleep(14)
    assert run.agent.health() == "the last sweep ended 14 s ago"


def once(settings: Settings, world: World, clock: HandClock, gateway: MemoryGateway) -> ExitCode:
    return run_once(agent_of(settings, world, clock, gateway), clock, HandWaiting(clock))


def test_once_waits_only_for_the_first_conversion(clock: HandClock) -> None:
    settings = settings_for(CPU, RADIO)
    world, gateway = world_for(settings, clock), MemoryGateway()
    assert once(settings, world, clock, gateway) is ExitCode.OK
    assert 1.0 < clock.seconds - 1000.0 < 1.5
    clock.sleep(60)
    begun_seconds = clock.seconds
    assert once(settings, world, clock, gateway) is ExitCode.OK
    assert clock.seconds == begun_seconds
    assert gateway.groups["device cpu"]["wattpush_device_watts"] == 6


def test_once_reads_every_device_exactly_once(clock: HandClock) -> None:
    settings = settings_for(QUICK_CPU, DISK)
    world, gateway = world_for(settings, clock), MemoryGateway()
    assert once(settings, world, clock, gateway) is ExitCode.OK
    for device in ("cpu", "disk"):
        assert gateway.groups[f"device {device}"]["wattpush_device_readings_total"] == 1


def test_a_stop_during_a_conversion_blames_no_chip(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_for(DISK)
    world, gateway = world_for(settings, clock), MemoryGateway()
    agent = agent_of(settings, world, clock, gateway)
    assert run_once(agent, clock, HandWaiting(clock, clock.seconds + 0.1)) is ExitCode.OK
    assert not caplog.messages
    assert not gateway.history


def test_once_counts_the_energy_since_the_previous_run(clock: HandClock, tmp_path: Path) -> None:
    settings = settings_for(QUICK_CPU, max_gap_seconds=100.0, metrics=MetricsSettings(charge=True))
    world, gateway = world_for(settings, clock), MemoryGateway()

    def counted() -> tuple[float, float]:
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        run_once(agent, clock, HandWaiting(clock))
        cpu = gateway.groups["device cpu"]
        return cpu["wattpush_device_joules_total"], cpu["wattpush_device_coulombs_total"]

    assert counted() == (0, 0)
    clock.sleep(60)
    assert counted() == pytest.approx((360, 30), abs=0.1)
    clock.sleep(101)
    assert counted() == pytest.approx((360, 30), abs=0.1)
    clock.sleep(60)
    assert counted() == pytest.approx((720, 60), abs=0.1)


def test_charge_is_counted_before_its_key_is_set(clock: HandClock, tmp_path: Path) -> None:
    world, gateway = world_for(settings_for(QUICK_CPU), clock), MemoryGateway()
    for charge, coulombs in ((False, None), (False, None), (True, 60), (False, None), (True, 120)):
        settings = settings_for(QUICK_CPU, metrics=MetricsSettings(charge=charge))
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        run_once(agent, clock, HandWaiting(clock))
        found = gateway.groups["device cpu"].get("wattpush_device_coulombs_total")
        assert found == (coulombs if coulombs is None else pytest.approx(coulombs, abs=0.1))
        clock.sleep(60)


@pytest.mark.reliability(
    14.1,
    "`--once` from an hourly timer, later than `max_gap`",
    "one line says that no energy was counted, and which key to set",
)
def test_once_says_that_max_gap_has_passed(
    clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    settings = settings_for(QUICK_CPU, QUICK_DISK)
    world, gateway = world_for(settings, clock), MemoryGateway()
    told: list[list[str]] = []
    for pause_seconds in (60.0, 3600.0, 60.0, 0.0):
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.OK
        told.append([record.message for record in caplog.records])
        caplog.clear()
        clock.sleep(pause_seconds)
    (line,) = told[2]
    assert line.startswith(
        "cpu, disk: no energy was counted since the previous run, 3600 s ago; set max_gap, now 600 s"
    )
    assert told[0] == told[1] == told[3] == []
    measured("one line in four runs")


def test_once_counts_nothing_across_a_gap_longer_than_max_gap(clock: HandClock, tmp_path: Path) -> None:
    settings = settings_for(QUICK_CPU, sample_interval_seconds=10.0, max_gap_seconds=5.0)
    world, gateway = world_for(settings, clock), MemoryGateway()
    for _ in range(2):
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.OK
        clock.sleep(6.0)
    assert gateway.groups["device cpu"]["wattpush_device_measured_seconds_total"] == 0


@pytest.mark.reliability(
    3, "a chip that loses its power between two `--once` runs", "the loss is counted; no energy is counted across it"
)
def test_once_notices_a_power_loss_since_the_previous_run(clock: HandClock, tmp_path: Path) -> None:
    settings = settings_for(QUICK_CPU, max_gap_seconds=100.0, metrics=MetricsSettings(charge=True))
    world, gateway = world_for(settings, clock), MemoryGateway()

    def once() -> dict[str, float]:
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.OK
        return gateway.groups["device cpu"]

    assert once()["wattpush_device_resets_total"] == 0, "a chip that is configured for the first time has lost no power"
    clock.sleep(60)
    world.chips["cpu"].power_loss()
    clock.sleep(10)
    after = once()
    assert after["wattpush_device_resets_total"] == 1
    assert (after["wattpush_device_joules_total"], after["wattpush_device_coulombs_total"]) == (0, 0)
    clock.sleep(60)
    later = once()
    assert later["wattpush_device_resets_total"] == 1
    assert later["wattpush_device_joules_total"] == pytest.approx(360, abs=0.1)
    assert later["wattpush_device_coulombs_total"] == pytest.approx(30, abs=0.1)


@pytest.mark.parametrize("chip", ["ina260", "ina228"])
def test_once_counts_no_energy_across_two_chips(clock: HandClock, tmp_path: Path, chip: str) -> None:
    """Two devices swap names: an INA228 does not continue from what the other one has added up."""
    shunt_ohms = None if chip == "ina260" else 0.015
    left, right = (replace(device, chip=chip, shunt_ohms=shunt_ohms) for device in (CPU, DISK))
    rails = {"cpu": ConstantRail(12.0, 0.5, clock.monotonic), "disk": ConstantRail(12.0, 3.0, clock.monotonic)}
    world, gateway = world_for(settings_for(left, right), clock, rails), MemoryGateway()

    def once(*devices: Device) -> list[tuple[float, ...]]:
        settings = settings_for(*devices, metrics=MetricsSettings(charge=True))
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.OK
        clock.sleep(60)
        names = ("joules_total", "coulombs_total", "measured_seconds_total", "resets_total")
        groups = [gateway.groups[f"device {name}"] for name in ("cpu", "disk")]
        return [tuple(round(group[f"wattpush_device_{name}"], -1) for name in names) for group in groups]

    once(left, right)
    assert once(left, right) == [(360, 30, 60, 0), (2160, 180, 60, 0)]
    swapped = replace(left, place=right.place), replace(right, place=left.place)
    assert once(*swapped) == [(360, 30, 60, 0), (2160, 180, 60, 0)]
    assert once(*swapped) == [(2520, 210, 120, 0), (2520, 210, 120, 0)]


def test_a_device_that_moved_to_another_chip_lost_no_power(clock: HandClock, tmp_path: Path) -> None:
    world, gateway = world_for(settings_for(CPU, DISK), clock), MemoryGateway()
    for cpu in (CPU, replace(CPU, place=DISK.place)):
        agent = agent_of(settings_for(cpu), world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.OK
        assert gateway.groups["device cpu"]["wattpush_device_resets_total"] == 0
        clock.sleep(60)


def test_once_counts_failed_pushes_across_runs(clock: HandClock, tmp_path: Path) -> None:
    settings = settings_for(QUICK_CPU)
    world, gateway = world_for(settings, clock), MemoryGateway()
    gateway.fail = lambda _group: AWAY
    for _ in range(3):
        agent = agent_of(settings, world, clock, gateway, state_file=StateFile(tmp_path, "counters", "a"))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.UNAVAILABLE
    assert StateFile(tmp_path, "counters", "a").load().agent.push_failures == 3


def test_once_gives_up_on_a_chip_that_keeps_losing_power(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_for(QUICK_CPU, DISK)
    world, gateway = world_for(settings, clock), MemoryGateway()
    agent, waiting = agent_of(settings, world, clock, gateway), HandWaiting(clock)
    waiting.on_wait = world.chips["disk"].power_loss
    assert run_once(agent, clock, waiting) is ExitCode.IOERR
    assert clock.seconds - 1000 < 130
    assert "disk: " in caplog.text
    assert gateway.groups["device cpu"]["wattpush_device_up"] == 1
    assert gateway.groups["device disk"]["wattpush_device_up"] == 0


def test_a_stop_ends_the_wait_for_a_conversion(clock: HandClock) -> None:
    settings = settings_for(CPU)
    gateway = MemoryGateway()
    agent = agent_of(settings, world_for(settings, clock), clock, gateway)
    assert run_once(agent, clock, HandWaiting(clock, 1000.2)) is ExitCode.OK
    assert clock.seconds == 1000.2
    assert not gateway.history


def test_a_stop_of_once_aborts_its_push(clock: HandClock) -> None:
    settings = settings_for(QUICK_CPU)
    gateway, publisher = MemoryGateway(), HandPublisher(clock)
    publisher.hangs = True
    agent = agent_of(settings, world_for(settings, clock), clock, gateway, publisher)
    assert run_once(agent, clock, HandWaiting(clock, 1005.0)) is ExitCode.OK
    assert gateway.stopped == 1
    assert clock.seconds <= 1005.3


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ({"device cpu": RejectedError("no"), "device disk": AWAY}, ExitCode.PROTOCOL),
        ({"device disk": AWAY}, ExitCode.UNAVAILABLE),
        ({}, ExitCode.IOERR),
    ],
)
def test_rejections_outrank_outages_and_outages_sensor_failures(
    clock: HandClock, errors: dict[str, RejectedError | UnreachableError], code: ExitCode
) -> None:
    settings = settings_for(QUICK_CPU, QUICK_DISK, RADIO)
    world, gateway = world_for(settings, clock), MemoryGateway()
    world.chips["radio"].unplug()
    gateway.fail = lambda group: errors.get(group.name)
    assert once(settings, world, clock, gateway) is code


def test_an_outage_is_logged_once_and_its_end_once(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run = Run(settings_for(QUICK_CPU, QUICK_DISK), clock)
    run.gateway.fail = lambda _group: AWAY
    run.until(1100.0)
    assert [record.message for record in caplog.records] == [
        "gateway.invalid: no answer (and 2 more groups); the next push covers this interval too"
    ]
    run.gateway.fail = lambda _group: None
    run.until(1120.0)
    assert [record.message for record in caplog.records][1:] == ["push: works again after 7 failures"]


def test_a_crash_in_the_push_thread_is_raised(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)

    def broken(group: object) -> None:
        raise ZeroDivisionError(str(group))

    run.gateway.fail = broken
    with pytest.raises(ZeroDivisionError):
        run.until(1005.0)
