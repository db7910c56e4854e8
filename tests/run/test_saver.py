"""The thread that writes the state: what a disk that stalls costs, and which state is written."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest

from agent.clock import SystemClock
from agent.energy.counters import Counters, Saved
from agent.energy.state import State
from agent.run.agent import Agent, Parts
from agent.run.loop import Loop
from agent.run.publisher import Publisher
from agent.run.saver import Saver
from agent.run.signals import Signals
from agent.settings import Averaging, PushgatewaySettings
from tests.energy.disks import full, state_on_disk
from tests.run.running import (
    CPU,
    INFO,
    LONG_SECONDS,
    NO_MANAGER,
    HandPublisher,
    HandWaiting,
    InlineSaver,
    MemoryGateway,
    agent_of,
    settings_for,
    sweep_of,
    until,
    world_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from agent.measure.readings import Outcome
    from agent.simulate.clock import HandClock

QUICK_CPU = replace(CPU, averaging=Averaging(1, 140e-6, 140e-6))
JOULES = "wattpush_device_joules_total"


def joules(amount: float) -> State:
    return State({"cpu": Saved(Counters(joules=amount))})


class StalledDisk:
    """Lets no rename end before `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.is_stalling = threading.Event()
        self.renames = 0

    def rename(self, path: Path, target: Path) -> Path:
        assert threading.current_thread() is not threading.main_thread()
        self.is_stalling.set()
        assert self.go.wait(LONG_SECONDS)
        self.renames += 1
        return RENAME(path, target)


RENAME = Path.replace


@pytest.fixture
def stalled() -> Iterator[StalledDisk]:
    made = StalledDisk()

    def rename(path: Path, target: Path) -> Path:
        return made.rename(path, target)

    with patch.object(Path, "replace", rename):
        yield made
        made.go.set()


def test_of_the_states_that_wait_only_the_newest_is_written(tmp_path: Path, stalled: StalledDisk) -> None:
    saver = Saver(state_on_disk(tmp_path, "a"), lambda: None)
    saves = [saver.save(joules(0), ended_well=False)]
    assert stalled.is_stalling.wait(LONG_SECONDS)
    saves += [saver.save(joules(amount), ended_well=False) for amount in (1, 2, 3)]
    assert not any(save.has_ended or save.may_publish for save in saves)
    stalled.go.set()
    assert all(save.wait(LONG_SECONDS) and save.may_publish for save in saves)
    until(lambda: not saver.is_busy, "the end of the writing")
    assert stalled.renames == 2
    assert state_on_disk(tmp_path, "a").load().devices["cpu"].counters.joules == 3


def test_the_file_stays_locked_until_the_writing_ends(tmp_path: Path, stalled: StalledDisk) -> None:
    saver = Saver(state_on_disk(tmp_path, "a"), lambda: None)
    saver.lock()
    saver.save(joules(1), ended_well=True)
    assert stalled.is_stalling.wait(LONG_SECONDS)
    saver.unlock()
    other = state_on_disk(tmp_path, "a")
    with pytest.raises(Exception, match="in use by another wattpush"):
        other.lock()
    stalled.go.set()
    until(lambda: not saver.is_busy, "the end of the writing")
    other.lock()
    assert other.load().devices["cpu"].counters.joules == 1
    other.unlock()


def test_a_thread_that_cannot_be_started_is_a_failed_save(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saver = Saver(state_on_disk(tmp_path, "a"), lambda: None)
    with patch.object(threading.Thread, "start", side_effect=RuntimeError("can't start new thread")):
        save = saver.save(joules(1), ended_well=False)
    assert save.has_ended
    assert not save.may_publish
    assert "can't start new thread; raise TasksMax=" in caplog.text
    assert saver.save(joules(2), ended_well=False).wait(LONG_SECONDS)
    until(lambda: not saver.is_busy, "the end of the writing")
    assert state_on_disk(tmp_path, "a").load().devices["cpu"].counters.joules == 2


def test_a_bug_in_the_saving_thread_is_raised(tmp_path: Path) -> None:
    saver = Saver(state_on_disk(tmp_path, "a"), lambda: None)
    impossible = State({"cpu": Saved(Counters(joules=object()))})  # type: ignore[arg-type]  # the bug
    save = saver.save(impossible, ended_well=False)
    assert save.wait(LONG_SECONDS)
    assert not save.may_publish
    with pytest.raises(TypeError):
        saver.save(joules(1), ended_well=False)


@pytest.fixture
def gateway() -> MemoryGateway:
    return MemoryGateway()


@pytest.fixture
def agent(clock: HandClock, tmp_path: Path, gateway: MemoryGateway) -> Agent:
    settings = settings_for(QUICK_CPU)
    return agent_of(settings, world_for(settings, clock), clock, gateway, state_file=state_on_disk(tmp_path, "a"))


def saver_of(agent: Agent) -> InlineSaver:
    assert isinstance(agent.parts.saver, InlineSaver)
    return agent.parts.saver


def test_a_push_without_saved_counters_has_none(agent: Agent, clock: HandClock, gateway: MemoryGateway) -> None:
    with full():
        Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
        assert JOULES in gateway.groups["device cpu"], "with no older file, none can come back"
    Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
    with full():
        Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
        assert JOULES not in gateway.groups["device cpu"]
        assert gateway.groups["device cpu"]["wattpush_device_watts"] == 6
    Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
    assert gateway.groups["device cpu"][JOULES] == pytest.approx(6 * (clock.seconds - 1000), rel=0.2)


def test_a_scrape_shows_only_saved_counters(agent: Agent, clock: HandClock) -> None:
    def scraped() -> tuple[int | None, float] | None:
        """The number of readings, if it is shown, and how long ago the device was last read."""
        snapshot = agent.published
        if snapshot is None:
            return None
        (device,) = snapshot.devices
        assert device.last_read_unix_seconds is not None
        age_seconds = clock.time() - device.last_read_unix_seconds
        return device.counters.readings if snapshot.has_counters else None, age_seconds

    def interval() -> None:
        agent.take_sweep()
        clock.sleep(1.0)
        agent.publish()

    agent.take_sweep()
    clock.sleep(1.0)
    interval()
    assert scraped() == (1, 1.0)
    saver_of(agent).hangs = True
    interval()
    assert scraped() == (1, 2.0), "not saved yet"
    interval()
    assert scraped() == (1, 2.0), "an interval whose save takes until the next one, with the counters saved last"
    interval()
    assert scraped() == (1, 2.0)
    saver_of(agent).release()
    assert scraped() == (4, 1.0)


@pytest.mark.reliability(
    15.04,
    "a disk that stalls in the last save of a stop",
    "the save is given up in time; within this boot the counters continue from the save before, later from zero",
)
def test_a_last_save_that_hangs_is_given_up(
    agent: Agent,
    clock: HandClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    measured: Callable[[str], None],
) -> None:
    Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
    saver_of(agent).hangs = True
    waiting = HandWaiting(clock)
    waiting.stop_requested_at_seconds = clock.seconds
    Loop(agent, clock, waiting, NO_MANAGER).finish()
    assert clock.seconds - waiting.stop_requested_at_seconds < 1.8
    assert "the last save is given up" in caplog.text
    saver_of(agent).file.unlock()
    saved = {boot: state_on_disk(tmp_path, boot).load().devices for boot in ("a", "b")}
    assert 0 < saved["a"]["cpu"].counters.readings < 20
    assert saved["b"] == {}
    measured("less than 1.8 s")


@pytest.mark.parametrize("late_seconds", [0.0, 0.5, 1.5, 5.0])
def test_a_stop_shares_one_budget_from_the_signal_on(
    agent: Agent, clock: HandClock, gateway: MemoryGateway, late_seconds: float
) -> None:
    """The loop notices a signal late, after a sweep over buses that others hold."""
    Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
    assert isinstance(agent.parts.publisher, HandPublisher)
    agent.parts.publisher.hangs = True
    saver_of(agent).hangs = True
    waiting = HandWaiting(clock)
    waiting.stop_requested_at_seconds = clock.seconds
    clock.sleep(late_seconds)
    Loop(agent, clock, waiting, NO_MANAGER).finish()
    assert clock.seconds - waiting.stop_requested_at_seconds < max(1.8, late_seconds + 0.7)


def test_a_push_of_a_stop_waits_for_its_counters_or_is_left_out(
    agent: Agent, clock: HandClock, gateway: MemoryGateway
) -> None:
    """Otherwise the gateway would keep groups without counters for as long as the node is off."""
    Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
    before = gateway.groups
    with full():
        Loop(agent, clock, HandWaiting(clock), NO_MANAGER).finish()
    assert JOULES in before["device cpu"]
    assert gateway.groups == before


def test_a_stop_saves_once_if_its_push_succeeds(agent: Agent, clock: HandClock, tmp_path: Path) -> None:
    Loop(agent, clock, HandWaiting(clock, clock.seconds + 20), NO_MANAGER).run()
    writes: list[bool] = []
    write = saver_of(agent).file.save

    def count(state: State, *, ended_well: bool) -> bool:
        writes.append(ended_well)
        return write(state, ended_well=ended_well)

    with patch.object(saver_of(agent).file, "save", count):
        Loop(agent, clock, HandWaiting(clock), NO_MANAGER).finish()
    assert writes == [True]
    assert state_on_disk(tmp_path, "another boot").load().agent == agent.counters


@pytest.mark.reliability(
    12,
    "a disk whose every write stalls",
    "sampling keeps its pace; pushes go on without counters until these are saved",
)
def test_sampling_keeps_its_pace_while_the_disk_stalls(
    tmp_path: Path, stalled: StalledDisk, measured: Callable[[str], None]
) -> None:
    """The disk answers only after 100 sweeps: a loop that waited for it would never get there."""
    clock = SystemClock()
    gateway = MemoryGateway(PushgatewaySettings("http://gateway.invalid", timeout_seconds=0.2))
    settings = settings_for(QUICK_CPU, sample_interval_seconds=0.02, interval_seconds=0.2)
    sweep = sweep_of(settings, world_for(settings, clock), clock)
    sweep.run()  # import the drivers and configure the chips first
    with Signals() as waiting:
        saver = Saver(state_on_disk(tmp_path, "a"), waiting.wake)
        parts = Parts(settings, INFO, clock, sweep, gateway, Publisher(clock, waiting.wake), saver)
        agent = Counting(parts, State())
        agent.at_sweep = lambda: setattr(waiting, "stop_requested", agent.sweeps >= 100 and len(gateway.history) >= 3)
        Loop(agent, clock, waiting, NO_MANAGER).run()
        assert stalled.is_stalling.is_set()
        readings = agent.meters.devices["cpu"].saved.counters.readings
        assert readings >= agent.sweeps - 1
        # On a busy machine a sweep may come late; one that waited for the disk would miss nearly all.
        assert agent.counters.missed_samples < agent.sweeps / 2
        assert gateway.groups["device cpu"]["wattpush_device_watts"] == pytest.approx(6)
        assert JOULES not in gateway.groups["device cpu"], "pushed before they were saved"
        stalled.go.set()
        until(lambda: not saver.is_busy, "the end of the writing")
        pushed = len(gateway.history)
        agent.at_sweep = lambda: setattr(waiting, "stop_requested", len(gateway.history) >= pushed + 3)
        waiting.stop_requested = False
        Loop(agent, clock, waiting, NO_MANAGER).run()
    assert JOULES in gateway.groups["device cpu"]
    measured("a stall of 100 sample intervals: every sweep reads, and no disk call is in the sampling thread")


class Counting(Agent):
    """Counts its sweeps."""

    sweeps = 0
    at_sweep: Callable[[], None]

    def take_sweep(self, only: Container[str] | None = None) -> list[Outcome]:
        outcomes = super().take_sweep(only)
        self.sweeps += 1
        self.at_sweep()
        return outcomes
