"""Clock steps, and suspend and resume."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.clock import ClockSteps
from agent.energy.state import AgentCounters
from agent.metrics.catalogue import Snapshot
from agent.metrics.groups import make_groups
from agent.run.loop import Loop
from agent.settings import Averaging, MetricsSettings
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from agent.simulate.world import build_world
from tests.bench import world_for
from tests.run.running import CPU, INFO, NO_MANAGER, HandPublisher, HandWaiting, MemoryGateway, agent_of, settings_for

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from agent.measure.readings import Outcome
    from agent.settings import Settings

HOUR = 3600.0
STEPS = (5 * HOUR, -5 * HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR, -1.5, 0.7)
QUICK_CPU = replace(CPU, averaging=Averaging(1, 140e-6, 140e-6))
WATTS, AMPERES = 6.0, 0.5
WITH_CHARGE = MetricsSettings(charge=True)


class SteppedClock(HandClock):
    """A clock whose Unix time can be stepped and whose monotonic time cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.stepped_seconds = 0.0

    def time(self) -> float:
        return super().time() + self.stepped_seconds


def whole_run(clock: SteppedClock, settings: Settings, steps: tuple[float, ...]) -> tuple[MemoryGateway, list[float]]:
    """Ten minutes with a wall-clock step every 77.3 s: the gateway, and the time of each sweep."""
    gateway = MemoryGateway()
    agent = agent_of(settings, world_for(settings, clock), clock, gateway, HandPublisher(clock))
    swept: list[float] = []
    take_sweep = agent.take_sweep

    def noted(only: Container[str] | None = None) -> list[Outcome]:
        swept.append(clock.seconds)
        return take_sweep(only)

    agent.take_sweep = noted
    waiting = HandWaiting(clock, clock.seconds)
    loop = Loop(agent, clock, waiting, NO_MANAGER)
    for step in (*steps, 0.0):
        waiting.stop_at_seconds, waiting.stop_requested = waiting.stop_at_seconds + 77.3, False
        loop.run()
        clock.stepped_seconds += step
    loop.finish()
    assert agent.counters.missed_samples == 0
    return gateway, swept


@pytest.mark.reliability(
    13, "the wall clock is stepped by seconds, hours and a year, both ways", "energy, ticks and intervals do not change"
)
def test_a_wall_clock_step_changes_only_time_stamps(measured: Callable[[str], None]) -> None:
    settings = settings_for(QUICK_CPU, metrics=WITH_CHARGE)
    steady, swept_steadily = whole_run(SteppedClock(), settings, (0.0,) * len(STEPS))
    stepped, swept = whole_run(SteppedClock(), settings, STEPS)
    assert swept == swept_steadily
    assert len(swept) > 500
    assert len(stepped.history) == len(steady.history) > 30
    moved = set()
    for groups, unmoved in zip(stepped.history, steady.history, strict=True):
        for name, value in unmoved["device cpu"].items():
            if groups["device cpu"][name] != value:
                moved.add(name)
    assert moved == {"wattpush_device_last_read_timestamp_seconds"}
    pushed = stepped.groups["device cpu"]
    assert pushed["wattpush_device_joules_total"] == pytest.approx(
        WATTS * pushed["wattpush_device_measured_seconds_total"]
    )
    assert pushed["wattpush_device_coulombs_total"] == pytest.approx(
        AMPERES * pushed["wattpush_device_measured_seconds_total"]
    )
    measured(f"{len(STEPS)} steps from 0.7 s to a year: {len(swept)} sweeps at the same times, the same counters")


@pytest.mark.reliability(13, "suspend and resume", "suspended time does not count as measured; readings resume")
@pytest.mark.parametrize("asleep_seconds", [30.0, 8 * HOUR])
def test_a_suspended_machine_counts_no_energy_for_that_time(asleep_seconds: float) -> None:
    """The load continues and draws less; the machine's monotonic clock stands still."""
    clock = SteppedClock()

    def world_seconds() -> float:
        return clock.seconds + clock.stepped_seconds

    settings = settings_for(QUICK_CPU, metrics=WITH_CHARGE)
    rail = ConstantRail(12.0, WATTS / 12.0, world_seconds)
    world = build_world(settings, world_seconds, {"cpu": rail})
    gateway = MemoryGateway()
    agent = agent_of(settings, world, clock, gateway, HandPublisher(clock))
    waiting = HandWaiting(clock, clock.seconds + 60.5)
    loop = Loop(agent, clock, waiting, NO_MANAGER)
    loop.run()
    rail.amperes = 0.02
    clock.stepped_seconds += asleep_seconds
    rail.amperes = WATTS / 12.0
    clock.stepped_seconds += 0.3  # from the resume to the next reading
    waiting.stop_at_seconds, waiting.stop_requested = clock.seconds + 60.0, False
    loop.run()
    loop.finish()
    pushed = gateway.groups["device cpu"]
    assert pushed["wattpush_device_measured_seconds_total"] == pytest.approx(119.0)
    assert pushed["wattpush_device_joules_total"] == pytest.approx(WATTS * 119.0)
    assert pushed["wattpush_device_coulombs_total"] == pytest.approx(AMPERES * 119.0)
    assert pushed["wattpush_device_readings_total"] == 120
    assert {groups["device cpu"]["wattpush_device_max_watts"] for groups in gateway.history} == {WATTS}
    assert {groups["device cpu"]["wattpush_device_min_watts"] for groups in gateway.history} == {WATTS}
    assert agent.counters.missed_samples == 0


@pytest.mark.reliability(
    13.1,
    "a machine that boots in 1970 and gets the time from the network later",
    "`wattpush_agent_start_time_seconds` is the true start from then on, and does not change again",
)
def test_the_start_time_is_right_after_the_clock_was_set(measured: Callable[[str], None]) -> None:
    boot, set_by = [100.0], [0.0]
    drift = 1e-5
    steps = ClockSteps(lambda: boot[0] * (1 + drift) + set_by[0], lambda: boot[0])
    info = replace(INFO, start_time_seconds=100.0, clock_steps=steps)

    def start_time() -> float:
        settings = settings_for(QUICK_CPU)
        snapshot = Snapshot((), info, AgentCounters(), None, None, has_counters=True)
        registry = make_groups(snapshot, settings, "device")[-1].registry
        value = registry.get_sample_value("wattpush_agent_start_time_seconds")
        assert value is not None
        return value

    assert start_time() == 100.0
    boot[0] += 30
    set_by[0] = 1.7e9
    true_start = start_time()
    assert true_start == pytest.approx(1.7e9 + 100, abs=0.1)
    for _ in range(1000):  # days in which the machine is suspended, and NTP slews the clock
        boot[0] += 300
        assert start_time() == true_start
    measured("from the first push after the clock was set")
