"""What the loop hands to history, and when, on a clock advanced by hand: every interval, whatever the gateway does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.energy.counters import Counters, Saved
from agent.energy.state import RemoteCounters, State
from agent.metrics.catalogue import RemoteStatus
from agent.run.for_scrapes import ForScrapes
from agent.run.loop import Loop
from agent.run.saver import Save
from agent.settings import Averaging, ServeSettings
from tests.energy.disks import state_on_disk
from tests.run.running import (
    CPU,
    DISK,
    NO_MANAGER,
    HandPublisher,
    HandWaiting,
    MemoryGateway,
    agent_of,
    settings_for,
    world_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from agent.energy.meter import EnergyMeter
    from agent.errors import AgentError
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import Snapshot
    from agent.run.saver import Save as RunSave
    from agent.settings import Settings
    from agent.simulate.clock import HandClock

QUICK_CPU = replace(CPU, averaging=Averaging(1, 140e-6, 140e-6))
QUICK_DISK = replace(DISK, averaging=Averaging(1, 140e-6, 140e-6))
RESTORED = RemoteCounters(accepted=700, requests=7)


class RecordedHistory:
    """Takes intervals and notes when they came."""

    folder: Path | None = None
    words = "history goes to vm.invalid:8428"
    is_kept = False
    failure: AgentError | None = None
    live: frozenset[Labels] = frozenset()
    timeout_seconds = 5.0

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock
        self.counters = RemoteCounters()
        self.intervals: list[tuple[float, Snapshot, bool]] = []
        self.sweeps = 0
        self.ended: list[tuple[float, bool]] = []
        self.forgotten: list[RemoteCounters] = []
        self.has_ended = False
        self.hangs = False

    @property
    def status(self) -> RemoteStatus:
        return RemoteStatus(self.counters, 0, 0, 64_000_000, None, None)

    @property
    def readings(self) -> list[int]:
        """The readings counter of the first device after each interval."""
        return [snapshot.devices[0].counters.readings for _, snapshot, _ in self.intervals]

    def start(self) -> None:
        pass

    def add_sweep(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> None:
        assert {outcome.device for outcome in outcomes} <= meters.keys()
        self.sweeps += 1

    def add_interval(self, snapshot: Snapshot, save: RunSave, *, may_have_counters: bool) -> None:
        assert save.has_ended
        self.intervals.append((self._clock.seconds, snapshot, may_have_counters))

    def forget(self, carried: RemoteCounters) -> None:
        self.forgotten.append(carried)

    def end(self, send_until_seconds: float, *, ends_series: bool) -> None:
        assert send_until_seconds >= self._clock.seconds
        self.ended.append((self._clock.seconds, ends_series))
        self.has_ended = not self.hangs

    def close(self) -> None:
        pass


class Run:
    """A loop with history, and with a gateway unless the settings have none."""

    def __init__(self, settings: Settings, clock: HandClock) -> None:
        self.clock = clock
        self.gateway = MemoryGateway()
        self.publisher = HandPublisher(clock)
        self.history = RecordedHistory(clock)
        destination = None if settings.pushgateway is None else self.gateway
        self.agent = agent_of(
            settings, world_for(settings, clock), clock, destination, self.publisher, history=self.history
        )
        self.waiting = HandWaiting(clock)
        self.loop = Loop(self.agent, clock, self.waiting, NO_MANAGER)

    def until(self, seconds: float) -> None:
        self.waiting.stop_requested = False
        self.waiting.stop_at_seconds = seconds
        self.loop.run()


@pytest.mark.reliability(
    12.09,
    "the Pushgateway hangs for an hour while remote write works",
    "every interval is closed at its tick and handed to history; the late push carries them all",
)
def test_a_gateway_that_hangs_makes_no_hole_in_the_history(clock: HandClock, measured: Callable[[str], None]) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1001.5)
    run.publisher.hangs = True
    run.until(1000.0 + 3600.0 + 7.5)
    moments = [at for at, _, _ in run.history.intervals]
    assert moments == pytest.approx([1001.0 + 15.0 * number for number in range(241)])
    assert run.history.readings == [1 + 15 * number for number in range(241)]
    assert run.agent.counters.pushes == 2
    # The push ends in the middle of an interval: the late one closes no fragment of it.
    run.publisher.hangs = False
    run.publisher.release()
    run.until(clock.seconds + 2.0)
    assert run.agent.counters.pushes == 3
    assert len(run.history.intervals) == 241
    pushed = run.gateway.groups["device cpu"]
    assert pushed["wattpush_device_up"] == 1
    assert pushed["wattpush_device_readings_total"] > 3600
    run.until(1001.0 + 241 * 15.0 + 0.5)
    assert run.history.readings[-1] == 1 + 15 * 241
    measured("241 intervals of 15 s, each with its 15 readings")


def test_a_late_push_covers_what_was_closed_meanwhile(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1015.5)
    run.publisher.hangs = True
    run.until(1037.5)  # the push of 1016 hangs, and the interval until 1031 is closed meanwhile
    meter = run.agent.meters.devices["cpu"]
    run.publisher.hangs = False
    run.publisher.release()
    run.until(1038.5)
    assert run.agent.counters.pushes == 3
    assert meter.has_open_readings, "those since 1031 wait for their own interval"
    run.until(1045.5)
    assert run.agent.counters.pushes == 3
    run.until(1046.5)
    assert run.agent.counters.pushes == 4
    assert run.history.readings == [1, 16, 31, 46]


def test_scrapes_see_no_fragment_after_a_late_push(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, serve=ServeSettings("127.0.0.1", 0)), clock)
    run.until(1001.5)
    run.publisher.hangs = True
    run.until(1046.1)
    run.publisher.hangs = False
    run.publisher.release()
    published = run.agent.published
    assert published is not None
    assert published.devices[0].is_up
    run.until(1046.9)  # pushed late, before the next reading
    assert run.agent.counters.pushes == 3
    assert run.agent.published == published


def test_history_alone_takes_every_interval(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, pushgateway=None), clock)
    run.until(1061.5)
    assert run.history.readings == [1, 16, 31, 46, 61]
    assert run.history.sweeps == 62, "the first one began the first conversion"
    assert run.agent.counters.pushes == 0
    assert run.agent.status() == "1 of 1 device up; history goes to vm.invalid:8428"


def test_published_counters_of_history_are_saved_ones(clock: HandClock, tmp_path: Path) -> None:
    settings = settings_for(QUICK_CPU)
    history = RecordedHistory(clock)
    state_file = state_on_disk(tmp_path, "a")
    agent = agent_of(
        settings, world_for(settings, clock), clock, MemoryGateway(), state_file=state_file, history=history
    )
    agent.take_sweep()
    history.counters = RemoteCounters(accepted=100, requests=2)
    agent.begin_push()
    history.counters = RemoteCounters(accepted=120, requests=3)
    assert agent.published is not None
    assert agent.published.remote is not None
    assert agent.published.remote.counters.accepted == 100
    assert state_on_disk(tmp_path, "a").load().remote.accepted >= 100


def test_scrapes_get_the_counters_of_history_that_were_saved_last(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1001.5)
    (_, snapshot, _) = run.history.intervals[0]
    assert snapshot.remote is not None
    saved, stalled = Save.not_needed(), Save()
    scrapes = ForScrapes()
    for accepted, save in ((1, saved), (2, stalled), (3, Save()), (4, Save())):
        remote = replace(snapshot.remote, counters=RemoteCounters(accepted=accepted), backlog_samples=accepted)
        scrapes.put(replace(snapshot, remote=remote), save, may_have_counters=True)
    shown = scrapes.snapshot
    assert shown is not None
    assert shown.remote is not None
    assert (shown.remote.counters.accepted, shown.remote.backlog_samples) == (1, 3)


def test_a_run_without_history_keeps_its_counters(clock: HandClock, tmp_path: Path) -> None:
    state_on_disk(tmp_path, "a").save(State(remote=RESTORED), ended_well=True)
    settings = settings_for(QUICK_CPU)
    agent = agent_of(
        settings, world_for(settings, clock), clock, MemoryGateway(), state_file=state_on_disk(tmp_path, "a")
    )
    agent.save(ended_well=True)
    assert state_on_disk(tmp_path, "a").load().remote == RESTORED


def test_counters_of_a_restored_state_are_forgotten(clock: HandClock, tmp_path: Path) -> None:
    devices = {"cpu": Saved(Counters(readings=7), source=QUICK_CPU.source)}
    state = State(devices, run_start_seconds=1.0, hostname="node-17", remote=RESTORED)
    state_on_disk(tmp_path, "a").save(state, ended_well=True)
    settings = settings_for(QUICK_CPU)
    gateway, history = MemoryGateway(), RecordedHistory(clock)
    gateway.groups["node"] = {"wattpush_agent_start_time_seconds": 1e9}  # of a run that the file does not know
    agent = agent_of(
        settings,
        world_for(settings, clock),
        clock,
        gateway,
        state_file=state_on_disk(tmp_path, "b"),
        history=history,
    )
    agent.take_sweep()
    agent.begin_push()
    assert [may_have_counters for _, _, may_have_counters in history.intervals] == [False]
    report = agent.parts.publisher.take_report()
    assert report is not None
    agent.end_push(report)
    assert history.forgotten == [RESTORED]


@pytest.mark.parametrize("is_pushed", [True, False])
def test_a_stop_hands_over_the_last_readings_at_once(clock: HandClock, *, is_pushed: bool) -> None:
    changes = {} if is_pushed else {"pushgateway": None}
    run = Run(settings_for(QUICK_CPU, **changes), clock)
    run.until(1005.5)
    run.publisher.hangs = True
    run.until(1019.5)
    began_at = clock.seconds
    run.loop.finish()
    assert run.history.readings[-1] == 19
    assert run.history.ended == [(began_at, True)], "beside the push that hangs, not after it"
    assert clock.seconds - began_at < 1.6


def test_a_stop_gives_up_a_disk_that_does_not_take_the_backlog(
    clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1019.5)
    run.history.hangs = True
    run.waiting.stop_requested_at_seconds = began_at = clock.seconds
    run.loop.finish()
    assert clock.seconds - began_at < 1.7
    assert run.gateway.groups["device cpu"]["wattpush_device_readings_total"] == 19
    assert "history: the disk does not answer" in caplog.text


def test_the_last_push_of_a_stop_carries_what_history_took(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1019.5)
    run.loop.finish()
    assert run.history.readings == [1, 16, 19]
    pushed = run.gateway.groups["device cpu"]
    assert (pushed["wattpush_device_readings_total"], pushed["wattpush_device_up"]) == (19, 1)
    assert pushed["wattpush_device_watts"] == 6


def test_a_reload_hands_over_the_open_interval(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU), clock)
    run.until(1019.5)
    run.loop.hand_over()
    assert run.history.readings[-1] == 19
    assert run.history.ended == [(clock.seconds, False)]


def test_intervals_are_closed_on_time_between_two_sweeps(clock: HandClock) -> None:
    run = Run(settings_for(QUICK_CPU, sample_interval_seconds=10.0), clock)
    run.until(1010.5)
    run.publisher.hangs = True
    run.until(1075.0)
    moments = [at for at, _, _ in run.history.intervals]
    assert moments == pytest.approx([1010.0, 1025.0, 1040.0, 1055.0, 1070.0])
