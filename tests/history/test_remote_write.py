"""Remote write behind an agent: what it keeps and sends of intervals and sweeps, to real servers, from its threads."""

from __future__ import annotations

import os
import threading
import time
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agent.clock import SystemClock
from agent.energy.meter import EnergyMeters
from agent.energy.state import AgentCounters, RemoteCounters
from agent.history import backlog, keeper
from agent.history import remote_write as module
from agent.history.dating import Dating, system_timebase
from agent.history.remote_write import RemoteWrite, open_remote_write
from agent.measure.readings import Reading
from agent.metrics.catalogue import Snapshot
from agent.run.saver import Save
from agent.settings import Averaging, MetricsSettings, RemoteWriteSettings
from tests.history.engines import Prometheus, VictoriaMetrics
from tests.history.fault_proxy import FaultProxy
from tests.run.running import CPU, DISK, INFO, agent_of, settings_for, until, world_for
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.run.agent import Agent
    from agent.simulate.clock import HandClock
    from tests.history.engines import Engine

FAST = Averaging(1, 140e-6, 140e-6)
SETTINGS = settings_for(
    replace(CPU, averaging=FAST),
    replace(DISK, averaging=FAST),
    pushgateway=None,
    metrics=MetricsSettings(charge=True),
)
WATTS = "wattpush_device_watts"
JOULES = "wattpush_device_joules_total"
COULOMBS = "wattpush_device_coulombs_total"


class Node:
    """An agent on a clock advanced by hand, with the history of a configuration on the real one."""

    def __init__(self, folder: Path, clock: HandClock, url: str, *, trusts_clock: bool = True, **remote: Any) -> None:
        self.clock = clock
        self.job = folder.name
        self.produced_before = 0
        self.settings = replace(
            SETTINGS,
            state_dir=folder / "state",
            remote_write=RemoteWriteSettings(
                url,
                job=folder.name,
                clock="system" if trusts_clock else "synchronised",
                catch_up=1000.0,
                **remote,
            ),
        )
        self.runtime = folder / "runtime"
        self.runtime.mkdir(mode=0o700, exist_ok=True)
        self.history = self.opened()
        self.world = world_for(self.settings, clock)
        self.agent: Agent = agent_of(self.settings, self.world, clock, None, history=self.history)

    def opened(self) -> RemoteWrite:
        assert self.settings.remote_write is not None
        return open_remote_write(
            self.settings,
            self.settings.remote_write,
            saved=RemoteCounters(),
            environ={"RUNTIME_DIRECTORY": str(self.runtime)},
            clock=SystemClock(),
            wake=lambda: None,
            is_simulated=False,
            is_once=False,
            live=None,
        )

    def interval(self) -> None:
        """Sweep and close the interval."""
        self.clock.sleep(1.0)
        self.agent.take_sweep()
        self.agent.begin_push()

    def produced(self) -> int:
        return self.history.status.counters.settled + self.history.status.backlog_samples

    def await_sent(self) -> None:
        """Wait until the interval that was closed last has been kept, and everything has been sent."""
        until(lambda: self.produced() > self.produced_before, "the interval to be kept")
        until(lambda: self.history.status.backlog_samples == 0, "everything to be sent")
        self.produced_before = self.produced()

    def of(self, name: str, device: str | None = None) -> str:
        """The selector of a series of this node; an empty name selects all."""
        return f'{name}{{job="{self.job}"' + ("}" if device is None else f',device="{device}"}}')

    def end(self, seconds: float = 1.0) -> None:
        """Stop cleanly."""
        self.history.end(time.monotonic() + seconds, ends_series=True)
        until(lambda: self.history.has_ended, "the end")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Shared by the tests: each writes under its own job."""
    with Prometheus(tmp_path_factory.mktemp("engine") / "prometheus") as running:
        yield running


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with VictoriaMetrics(tmp_path_factory.mktemp("engine") / "victoria") as running:
        yield running


@pytest.fixture
def away() -> str:
    """A URL where nobody listens."""
    return f"http://127.0.0.1:{free_port()}/api/v1/write"


def devices_with(engine: Engine, selector: str) -> set[str]:
    return {dict(labels)["device"] for labels in engine.instant(selector)}


@pytest.mark.reliability(
    12.13,
    "a device that no longer answers, or whose chip has lost power, with a real Prometheus and VictoriaMetrics",
    "an instant query of its gauges is empty at once; those of the others go on",
)
@pytest.mark.parametrize(
    ("server", "resolution", "fault"),
    [
        ("prometheus", "interval", "unplug"),
        ("prometheus", "sample", "power_loss"),
        ("victoria", "interval", "power_loss"),
        ("victoria", "sample", "unplug"),
    ],
)
def test_a_device_that_went_down_is_gone_at_once(  # noqa: PLR0917 - what varies
    request: pytest.FixtureRequest, tmp_path: Path, clock: HandClock, server: str, resolution: str, fault: str
) -> None:
    engine: Engine = request.getfixturevalue(server)
    node = Node(tmp_path, clock, engine.write_url, resolution=resolution)
    node.history.start()
    node.interval()  # the first conversion begins
    node.await_sent()
    node.interval()
    node.await_sent()
    assert devices_with(engine, node.of(WATTS)) == {"cpu", "disk"}
    getattr(node.world.chips["disk"], fault)()
    node.interval()
    node.await_sent()
    assert devices_with(engine, node.of(WATTS)) == {"cpu"}
    assert {dict(labels)["device"]: up for labels, up in engine.instant(node.of("wattpush_device_up")).items()} == {
        "cpu": 1.0,
        "disk": 0.0,
    }
    assert devices_with(engine, node.of(JOULES)) == devices_with(engine, node.of(COULOMBS)) == {"cpu", "disk"}
    node.end()
    assert engine.instant(node.of("")) == {}


def test_every_sweep_is_kept_with_its_own_values(victoria: Engine, tmp_path: Path, clock: HandClock) -> None:
    node = Node(tmp_path, clock, victoria.write_url, resolution="sample")
    node.history.start()
    node.interval()
    node.await_sent()
    expected = []
    for _ in range(5):
        clock.sleep(1.0)
        (cpu, _) = node.agent.take_sweep()
        expected.append(cpu.power_watts)  # type: ignore[union-attr] # a reading
    node.agent.begin_push()
    node.await_sent()
    stored = victoria.samples(node.of(WATTS, "cpu"))
    assert [value for series in stored.values() for _, value in series] == pytest.approx(expected)
    counters = node.agent.meters.devices["cpu"].saved.counters
    for name, last in ((JOULES, counters.joules), (COULOMBS, counters.coulombs)):
        (counted,) = victoria.samples(node.of(name, "cpu")).values()
        assert [value for _, value in counted] == sorted(value for _, value in counted)
        assert len(counted) == 6, "each sweep, and before them the interval without a reading"
        assert counted[-1][1] == pytest.approx(last)
    (readings,) = victoria.samples(node.of("wattpush_device_readings_total", "cpu")).values()
    assert len(readings) == 2, "the other series have a sample an interval"
    node.end()


@pytest.mark.parametrize("resolution", ["interval", "sample"])
def test_counters_that_could_not_be_saved_are_not_sent(
    victoria: Engine, tmp_path: Path, clock: HandClock, resolution: str
) -> None:
    node = Node(tmp_path, clock, victoria.write_url, resolution=resolution)
    node.history.start()
    node.agent.take_sweep()
    clock.sleep(1.0)
    node.agent.take_sweep()
    snapshot = node.agent._snapshot(tuple(closed.last_interval for closed in node.agent.meters.close_intervals()))
    failed = Save()
    node.history.add_interval(snapshot, failed, may_have_counters=True)
    threading.Event().wait(0.3)
    assert node.history.status.backlog_samples + node.history.status.counters.accepted == 0, "it waits for the save"
    failed.end(may_publish=False)
    node.await_sent()
    until(lambda: node.history.status.counters.accepted > 0, "accepted samples")
    names = {dict(labels)["__name__"] for labels in victoria.samples(node.of(""))}
    assert WATTS in names
    assert {name for name in names if name.endswith("_total")} == {"process_cpu_seconds_total"}
    node.end()


def test_intervals_whose_saves_hang_do_not_wait_for_each_other(
    victoria: Engine, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "SAVE_SECONDS", 1.0)
    node = Node(tmp_path, clock, victoria.write_url)
    node.history.start()
    began_at = time.monotonic()
    for _ in range(10):
        clock.sleep(1.0)
        node.agent.take_sweep()
        closed = node.agent.meters.close_intervals()
        snapshot = node.agent._snapshot(tuple(each.last_interval for each in closed))
        node.history.add_interval(snapshot, Save(), may_have_counters=True)
    until(lambda: not node.history._keeper.has_waiting, "all to be kept")
    seconds = time.monotonic() - began_at
    assert 1.0 <= seconds < 5.0, "not 1 s each"
    node.end()


@pytest.mark.reliability(
    12.09,
    "a disk that stalls in the save of the counters, at a stop, while the server is away",
    "the stop takes no longer, and the readings are kept without their counters",
)
def test_a_stop_does_not_wait_for_a_save_that_hangs(
    victoria: Engine, tmp_path: Path, clock: HandClock, measured: Callable[[str], None]
) -> None:
    with FaultProxy(victoria.write_url) as proxy:
        proxy.down()
        node = Node(tmp_path, clock, proxy.write_url)
        node.history.start()
        node.agent.take_sweep()
        clock.sleep(1.0)
        node.agent.take_sweep()
        snapshot = node.agent._snapshot(tuple(closed.last_interval for closed in node.agent.meters.close_intervals()))
        node.history.add_interval(snapshot, Save(), may_have_counters=True)
        began_at = time.monotonic()
        node.end(0.6)
        seconds = time.monotonic() - began_at
        assert seconds < 1.0
        kept = node.history.status.backlog_samples
        proxy.up()
        later = node.opened()
        assert later.status.backlog_samples == kept > 20
        later.start()
        until(lambda: later.status.counters.accepted == kept, "the backlog to be sent")
        later.close()
    assert f"{JOULES}" not in {dict(labels)["__name__"] for labels in victoria.samples(node.of(""))}
    measured(f"ended in {seconds:.2f} s")


def test_a_reload_keeps_the_counters_of_the_interval_that_it_closes(
    victoria: Engine, tmp_path: Path, clock: HandClock
) -> None:
    """It leaves no time to send anything; the save of the counters takes some milliseconds."""
    node = Node(tmp_path, clock, victoria.write_url)
    node.agent.take_sweep()
    clock.sleep(1.0)
    node.agent.take_sweep()
    snapshot = node.agent._snapshot(tuple(closed.last_interval for closed in node.agent.meters.close_intervals()))
    save = Save()
    node.history.start()
    node.history.add_interval(snapshot, save, may_have_counters=True)
    node.history.end(time.monotonic(), ends_series=False)
    threading.Event().wait(0.1)
    save.end(may_publish=True)
    until(lambda: node.history.has_ended, "the end")
    later = node.opened()
    later.start()
    until(lambda: later.status.backlog_samples == 0, "the backlog to be sent")
    later.close()
    assert JOULES in {dict(labels)["__name__"] for labels in victoria.samples(node.of(""))}


@pytest.mark.reliability(
    12.09,
    "the disk of the backlog stalls in a sync during an outage",
    "neither an interval nor a stop waits for it, and all samples are in the runtime folder",
)
def test_a_disk_that_stalls_delays_neither_intervals_nor_a_stop(
    away: str, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch, measured: Callable[[str], None]
) -> None:
    stalls, is_well = threading.Event(), threading.Event()

    def fsync(_: int) -> None:
        stalls.set()
        is_well.wait(60.0)

    node = Node(tmp_path, clock, away)
    node.history.start()
    node.interval()
    until(lambda: node.produced() > 0, "the interval to be kept")
    kept = node.produced()
    with monkeypatch.context() as patch:
        patch.setattr(backlog, "LONGEST_IN_MEMORY_SECONDS", 0.0)
        patch.setattr(os, "fsync", fsync)
        node.interval()
        until(stalls.is_set, "the disk to stall")
        began_at = time.monotonic()
        for _ in range(20):
            node.interval()
            assert node.history.status.backlog_samples >= kept
        seconds = time.monotonic() - began_at
        assert seconds < 1.0
        node.history.end(time.monotonic(), ends_series=True)
        assert not node.history.has_ended
        until(
            lambda: node.opened().status.backlog_samples > 20 * 40, "all of it in the runtime folder, for the next run"
        )
        is_well.set()
        until(lambda: node.history.has_ended, "the end")
    assert node.opened().status.backlog_samples > 20 * 40, "nothing was lost, as the disk works again in time"
    measured(f"20 intervals in {1000 * seconds:.0f} ms beside the stall")


class HandTimebase:
    """A machine whose clock is wrong until a time server sets it."""

    boot = "boot"

    def __init__(self) -> None:
        self.error_seconds = -1e9

    def since_boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def unix(self) -> float:
        return time.time() + self.error_seconds

    def is_synchronised(self) -> bool:
        return self.error_seconds == 0


def test_nothing_is_sent_before_the_clock_is_known(
    victoria: Engine,
    tmp_path: Path,
    clock: HandClock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    timebase = HandTimebase()
    monkeypatch.setattr(module, "system_timebase", lambda: timebase)
    node = Node(tmp_path, clock, victoria.write_url, trusts_clock=False)
    node.history.start()
    for _ in range(3):
        before = node.produced()
        node.interval()
        until(lambda before=before: node.produced() > before, "the interval to be kept")  # type: ignore[misc] # its value now
    until(lambda: "nothing is sent yet, every sample is kept" in caplog.text, "the warning")
    assert node.history.words.startswith("history is kept on this node: the clock has not been synchronised")
    assert node.history.is_kept
    assert node.history.status.counters.requests == 0
    timebase.error_seconds = 0.0
    node.interval()
    node.await_sent()
    assert caplog.text.count("nothing is sent yet") == 1
    until(lambda: "the clock is known now" in caplog.text, "the end of it in the log")
    (readings,) = victoria.samples(node.of("wattpush_device_up", "cpu")).values()
    assert len(readings) == 4
    assert all(abs(at / 1000 - time.time()) < 60 for at, _ in readings)
    node.end()


def test_a_long_interval_goes_in_several_requests(
    victoria: Engine, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "MOST_VALUES", 200)
    node = Node(tmp_path, clock, victoria.write_url, resolution="sample")
    node.history.start()
    node.interval()
    node.await_sent()
    before = node.history.status.counters.requests
    for _ in range(20):
        clock.sleep(1.0)
        node.agent.take_sweep()
    node.agent.begin_push()
    node.await_sent()
    assert node.history.status.counters.requests - before >= 5
    (watts,) = victoria.samples(node.of(WATTS, "cpu")).values()
    assert len(watts) == 20
    node.end()


def test_a_bug_in_a_thread_is_raised_in_the_main_one(
    away: str, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, clock, away)

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    monkeypatch.setattr(node.history._keeper._interval_rows, "row", broken)
    node.history.start()
    node.interval()
    until(lambda: node.history.has_ended, "the thread to end")
    with pytest.raises(ZeroDivisionError):
        node.interval()


def test_without_a_thread_everything_is_kept_until_there_is_one(
    away: str, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, clock, away)

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        node.history.start()
        node.interval()
        node.interval()
    assert node.history.status.backlog_samples == 0
    node.interval()
    until(lambda: node.history.status.backlog_samples > 100, "three intervals")
    node.end(0.1)


def test_without_any_thread_a_stop_keeps_everything(
    away: str, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, clock, away)

    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    node.history.start()
    node.interval()
    node.interval()
    node.end(0.1)
    assert node.opened().status.backlog_samples == node.history.status.backlog_samples > 100


def test_a_history_that_was_never_started_is_closed(away: str, tmp_path: Path, clock: HandClock) -> None:
    node = Node(tmp_path, clock, away)
    node.history.close()
    assert node.history.has_ended
    assert not (tmp_path / "state").exists()


def test_rows_of_one_process_never_have_the_same_time(victoria: Engine, tmp_path: Path, clock: HandClock) -> None:
    node = Node(tmp_path, clock, victoria.write_url, resolution="sample")
    node.history.start()
    for _ in range(50):  # faster than a millisecond each
        clock.sleep(1.0)
        node.agent.take_sweep()
    node.agent.begin_push()
    node.await_sent()
    (watts,) = victoria.samples(node.of(WATTS, "cpu")).values()
    times = [at for at, _ in watts]
    assert len(set(times)) == len(times) == 49
    assert times == sorted(times)
    node.end()


@pytest.mark.parametrize("end", ["interval", "stop"])
def test_an_hour_of_sweeps_is_not_made_whole_at_once(tmp_path: Path, end: str) -> None:
    remote = RemoteWriteSettings("http://vm.invalid/api/v1/write", resolution="sample", clock="system")
    settings = replace(SETTINGS, remote_write=remote)
    clock = SystemClock()
    dating = Dating(system_timebase(), trusts_clock=True)
    log = backlog.Backlog(tmp_path, None, dating, clock, max_bytes=10**8, max_age_seconds=1e6, saved=RemoteCounters())
    kept = keeper.Keeper(settings, remote, log, dating, clock, frozenset())
    meters = EnergyMeters(("cpu", "disk"), 600.0, {}, 1.0)
    outcomes = tuple(Reading(name, 12.0, 0.5, 6.0, 1.0, 1e9, 0.01) for name in ("cpu", "disk"))
    meters.add(outcomes)
    devices = tuple(closed.last_interval for closed in meters.close_intervals())
    snapshot = Snapshot(devices, INFO, AgentCounters(), 0.01, None, has_counters=True)
    kept.add_interval(snapshot, Save.not_needed(), may_have_counters=True)
    kept.keep_next()  # the table is as wide as it will be
    for _ in range(10_000):
        kept.add_sweep(outcomes, meters.devices)
    if end == "interval":
        kept.add_interval(snapshot, Save.not_needed(), may_have_counters=True)
    tracemalloc.start()
    try:
        if end == "interval":
            kept.keep_next()
        else:
            kept.keep_end(ends_series=True)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    log.close()
    assert log.status.backlog_samples > 10_000 * 2 * 4
    assert peak_bytes < 4_500_000, "whole rows take 6 MB"
