"""Several processes on one bus, and processes that are killed in the middle of a sweep."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import threading
from multiprocessing.connection import wait
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.i2c.transfers import OpenBus
from agent.measure.readings import Failure, Reading, Settling
from agent.measure.sweep import Sweep
from agent.simulate.rails import ConstantRail
from agent.simulate.world import build_world
from tests.bench import buses_of, ina260, mux, settings_of
from tests.reliability.remote_wire import WireServer, read_in_a_tight_loop
from tests.run.running import LONG_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from agent.simulate.wire import Message

CHANNELS = range(4)
CONFIG = mux("m0", 0x70) + mux("m1", 0x71)
CONFIG += "".join(ina260(f"a{n}", f'mux = "m0", channel = {n}') for n in CHANNELS)
CONFIG += "".join(ina260(f"b{n}", f'mux = "m1", channel = {n}') for n in CHANNELS)

# Fork from a clean process that has everything imported: fast, and without the threads of this one.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["tests.reliability.remote_wire", "adafruit_ina260", "adafruit_tca9548a"])


class SharedBus:
    """A simulated node with eight chips at the same address behind two muxes, open to other processes."""

    def __init__(self, folder: Path) -> None:
        self.clock = SystemClock()
        self.settings = settings_of(CONFIG)
        self.truth = {device.name: 2.0 + 0.25 * number for number, device in enumerate(self.settings.devices)}
        rails = {name: ConstantRail(volts, 0.5, self.clock.monotonic) for name, volts in self.truth.items()}
        self.world = build_world(self.settings, self.clock.monotonic, rails)
        self.server = WireServer(self.world.wires[1], folder)
        self.device_file = folder / "i2c-1"
        self.device_file.touch()
        self.open_files: list[int] = []

    def start(self, readings: int, *, with_lock: bool = True) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        """Start another process that reads in a tight loop."""
        ours, theirs = processes.Pipe(duplex=False)
        arguments = (CONFIG, self.server.address, self.device_file if with_lock else None)
        process = processes.Process(
            target=read_in_a_tight_loop,
            args=arguments,
            kwargs={"truth": self.truth, "results": theirs, "readings": readings},
            daemon=True,
        )
        process.start()
        theirs.close()
        return process, ours

    def sweep(self) -> Sweep:
        """A sweep in this process."""
        self.open_files.append(os.open(self.device_file, os.O_RDWR))
        opened = OpenBus(self.world.open(1), self.open_files[-1], lambda: None)
        buses = buses_of(self.settings, self.world, self.clock, lambda _: opened)
        return Sweep(self.settings, list(buses.values()), self.clock)

    def kill_after(self, transfers: int, process: multiprocessing.process.BaseProcess) -> None:
        """Kill the process after this many more transfers; no other may use the bus."""
        wire, left = self.world.wires[1], iter(range(transfers))
        transfer, is_killed = wire.transfer, threading.Event()

        def kill_at_the_last(messages: Sequence[Message]) -> None:
            transfer(messages)
            if next(left, None) is None and not is_killed.is_set():
                process.kill()
                is_killed.set()

        wire.transfer = kill_at_the_last
        assert is_killed.wait(LONG_SECONDS)
        wire.transfer = transfer

    def first_readings(self) -> dict[str, float]:
        """The first voltage of every device in a run that starts now.

        Reading the conversion-ready flag clears it: if the killed process read it last, the chip converts once more.
        """
        sweep = self.sweep()
        readings: dict[str, float] = {}
        while True:
            outcomes = sweep.run()
            for outcome in outcomes:
                if isinstance(outcome, Failure):
                    raise outcome.error
                if isinstance(outcome, Reading):
                    readings.setdefault(outcome.device, round(outcome.volts, 6))
            if not any(isinstance(outcome, Settling) for outcome in outcomes):
                return readings

    def close(self) -> None:
        self.server.close()
        for file in self.open_files:
            os.close(file)


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[SharedBus]:
    shared = SharedBus(tmp_path)
    yield shared
    shared.close()


@pytest.mark.reliability(5, "two agents on one bus, in tight loops", "each locks the device file for a whole sweep")
def test_two_processes_on_one_bus_never_read_each_others_rails(bus: SharedBus, measured: Callable[[str], None]) -> None:
    running = [bus.start(10_000) for _ in range(2)]
    for process, results in running:
        right = wrong = failed = 0
        with results, contextlib.suppress(EOFError):
            while True:
                assert results.poll(LONG_SECONDS)
                right, wrong, failed, _ = results.recv()
        process.join(LONG_SECONDS)
        assert process.exitcode == 0
        assert wrong == 0
        assert right + failed >= 10_000
        # On a busy machine a process may time out waiting for the lock: a missing reading, not a wrong one.
        assert right > failed
    measured("0 wrong of 20,000 readings")


def test_without_the_lock_processes_switch_each_others_muxes(bus: SharedBus) -> None:
    running = [bus.start(1_000_000, with_lock=False) for _ in range(2)]
    connections = [results for _, results in running]
    has_collided = False
    while not has_collided:
        received = wait(connections, LONG_SECONDS)
        assert received, "two processes without the lock never collide, so the test with the lock proves nothing"
        has_collided = any(results.recv()[3] for results in connections if results in received)
    for process, results in running:
        process.kill()
        process.join(LONG_SECONDS)
        results.close()


@pytest.mark.reliability(
    4, "`kill -9` in the middle of a sweep leaves a channel open", "every mux is closed before the next read"
)
def test_after_every_kill_the_next_reading_is_right(bus: SharedBus, measured: Callable[[str], None]) -> None:
    chance = random.Random(20_260)
    left_open = 0
    kills = 200
    for _ in range(kills):
        process, results = bus.start(1_000_000)
        assert results.poll(LONG_SECONDS)
        results.recv()
        bus.kill_after(chance.randrange(100), process)
        process.join(LONG_SECONDS)
        results.close()
        bus.server.wait_for_clients()
        left_open += any(simulated.control for simulated in bus.world.muxes.values())
        assert bus.first_readings() == bus.truth
        assert not any(simulated.control for simulated in bus.world.muxes.values())
    assert left_open > kills / 4, "too few kills hit an open channel, so this test proves nothing"
    measured(f"{kills} kills, each followed by a sweep of 8 chips at the same address: all readings right")
