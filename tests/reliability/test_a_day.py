"""A day of faults everywhere, at accelerated time, and what it leaves behind."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import random
import resource
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.energy.state_file import StateFile
from agent.errors import RejectedError, UnreachableError
from agent.measure.readings import Reading, Settling
from agent.run.loop import Loop
from agent.run.publisher import Publisher
from agent.simulate.clock import HandClock
from agent.simulate.rails import values_at
from agent.simulate.recordings import Recording
from agent.simulate.world import build_world
from tests.bench import ina260, ina3221, mux, settings_of
from tests.energy.disks import full
from tests.run.running import NO_MANAGER, HandWaiting, MemoryGateway, agent_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.metrics.groups import Group
    from agent.run.destination import GroupResult
    from agent.simulate.part import Part
    from agent.simulate.wire import Transaction
    from agent.simulate.world import World

HOUR = 3600
SWEEPS = 24 * HOUR
MAX_GAP_SECONDS = 60.0
TOP = 'sample_interval = "1s"\ninterval = "15s"\nmax_gap = "60s"\n'
NODE = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + ina260("cpu", 'mux = "m0", channel = 0')
    + ina260("disk", 'mux = "m1", channel = 0')
    + ina3221("radio", 'mux = "m1", channel = 3', 2)
)
MOST_GROWTH_BYTES = 1 << 20
MOST_GROWTH_BLOCKS = 2_000
"""A Python object takes one block or more: a leak of one at every tenth push would exceed this."""


def rail(chance: random.Random, *, volts_lsb: float, amperes_lsb: float) -> Recording:
    """A load that steps half-way between two sweeps, to values that INA260 and INA3221 read exactly."""
    rows, seconds = [], 0.0
    while seconds < SWEEPS + 100:
        volts = round(12 / volts_lsb + chance.gauss(0, 20)) * volts_lsb
        rows.append((seconds, volts, round(chance.uniform(0.1, 1.5) / amperes_lsb) * amperes_lsb))
        seconds = (0.5 if not rows[1:] else seconds) + 1 + int(chance.expovariate(1 / 5))
    return Recording(rows)


class PatientPublisher(Publisher):
    """Pushes in a thread, as the real one does, and waits for its end; the simulated clock stands still meanwhile."""

    def __init__(self, clock: HandClock) -> None:
        self._ended = threading.Event()
        super().__init__(clock, self._ended.set)

    def send(self, push: Callable[[], Sequence[GroupResult]]) -> None:
        self._ended.clear()
        super().send(push)
        assert self._ended.wait(60)


@dataclass
class Truth:
    """What really flowed while it was measured: between good readings, and across no power loss."""

    rails: dict[str, Recording]
    joules: dict[str, float] = field(default_factory=dict)
    coulombs: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    wrong: list[Reading] = field(default_factory=list)

    def add(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            kind = type(outcome).__name__
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            match outcome:
                case Reading():
                    self._add_reading(outcome)
                case Settling(device=device, power_lost=True):
                    self.last.pop(device, None)

    def _add_reading(self, reading: Reading) -> None:
        device, at_seconds = reading.device, reading.at_seconds
        volts, amperes = values_at(self.rails[device], at_seconds)
        if abs(reading.volts - volts) > 1e-6 or abs(reading.amperes - amperes) > 1e-6:
            self.wrong.append(reading)
        gap = at_seconds - self.last.get(device, at_seconds)
        if 0 < gap <= MAX_GAP_SECONDS:
            flowed = self.rails[device].integral(at_seconds - gap, at_seconds)
            self.joules[device] = self.joules.get(device, 0.0) + flowed
            parts = self.rails[device].segments(at_seconds - gap, at_seconds)
            charge = sum(part.amperes * (part.end - part.start) for part in parts)
            self.coulombs[device] = self.coulombs.get(device, 0.0) + charge
            self.seconds[device] = self.seconds.get(device, 0.0) + gap
        self.last[device] = at_seconds


class Misfortune:
    """Injects the faults: brief ones at single transactions, and now and then one that lasts."""

    def __init__(self, chance: random.Random, clock: HandClock, world: World, gateway: MemoryGateway) -> None:
        self._chance = chance
        self._clock = clock
        self._parts: list[Part] = [*world.muxes.values(), *dict.fromkeys(world.chips.values())]
        self._until: dict[str, float] = {}
        self._unplugged: Part | None = None
        self._rejected = ""
        self.happened = dict.fromkeys(
            ("transaction", "time-out", "unplugged", "power", "gateway", "rejected", "disk"), 0
        )
        self._wire = world.wires[1]
        gateway.fail = self._push
        self._disk = ExitStack()

    def _plan_transactions(self) -> None:
        """Fail any transaction of about one sweep in thirty."""
        chance, faults = self._chance, self._wire.faults
        faults.clear()
        lot = chance.random()
        if lot > 1 / 30:
            return
        position = self._wire.transactions + chance.randrange(20)
        after_effect = chance.random() < 0.5
        if lot > 1 / 300:
            self.happened["transaction"] += 1
            code = chance.choice([errno.EREMOTEIO, errno.EIO, errno.ENXIO, errno.ENODEV])
            faults.fail_at(position, code, after_effect=after_effect)
            return

        def times_out(transaction: Transaction) -> int | None:
            if transaction.index != position:
                return None
            self._clock.sleep(0.2)
            return errno.ETIMEDOUT

        self.happened["time-out"] += 1
        faults.fail_when(times_out, after_effect=after_effect)

    def _push(self, group: Group) -> AgentError | None:
        if "gateway" in self._until:
            return UnreachableError("gateway.invalid: no answer")
        return RejectedError("400 Bad Request") if group.name == self._rejected else None

    def strike(self) -> None:
        """Once a sweep: begin faults, and end those that are due."""
        chance, now = self._chance, self._clock.seconds
        self._plan_transactions()
        for what in [what for what, until in self._until.items() if now >= until]:
            del self._until[what]
            if what == "unplugged" and self._unplugged is not None:
                self._unplugged.plug()
            elif what == "rejected":
                self._rejected = ""
            elif what == "disk":
                self._disk.close()
        if chance.random() < 1 / 400:
            self.happened["power"] += 1
            chance.choice(self._parts).power_loss()
        for what, every_seconds, mean_seconds in (
            ("unplugged", 900, 30),
            ("gateway", 5000, 1200),
            ("rejected", 2000, 100),
            ("disk", 3000, 200),
        ):
            if what not in self._until and chance.random() < 1 / every_seconds:
                self._until[what] = now + chance.expovariate(1 / mean_seconds)
                self.happened[what] += 1
                self._begin(what)

    def _begin(self, what: str) -> None:
        if what == "unplugged":
            self._unplugged = self._chance.choice(self._parts)
            self._unplugged.unplug()
        elif what == "rejected":
            self._rejected = self._chance.choice(["device cpu", "device disk", "node"])
        elif what == "disk":
            self._disk.enter_context(full())

    def close(self) -> None:
        self._disk.close()


class Counting(logging.Handler):
    """Counts log lines; pytest would keep them all, and its memory would grow."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        assert record.getMessage()
        self.lines += 1


@contextlib.contextmanager
def log_lines() -> Iterator[Counting]:
    """Count log lines. A fixture would not do: pytest also listens to loggers that do not propagate."""
    logger, counting = logging.getLogger("agent"), Counting()
    logger.addHandler(counting)
    logger.propagate = False
    try:
        yield counting
    finally:
        logger.propagate = True
        logger.removeHandler(counting)


class LastOnly(list[Any]):
    """Keeps the last item only: the pushes of a day take too much memory."""

    def append(self, item: object) -> None:
        self[:] = [item]


@dataclass(frozen=True)
class Kept:
    """The resources that the process holds."""

    memory_bytes: int
    memory_blocks: int
    files: int
    threads: int


def kept_by_the_process() -> Kept:
    for thread in threading.enumerate():
        if thread.name == "push":  # it has reported its push and is about to end
            thread.join()
    gc.collect()
    resident_pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Kept(
        resident_pages * resource.getpagesize(),
        sys.getallocatedblocks(),
        sum(1 for _ in Path("/proc/self/fd").iterdir()),
        threading.active_count(),
    )


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.reliability(
    16,
    "a day of faults everywhere: bus, muxes, power, gateway, disk (at accelerated time)",
    "no reading is wrong, nothing grows, and the energy of the measured time is right",
)
def test_a_day_of_faults_leaks_nothing_and_loses_no_energy(tmp_path: Path, measured: Callable[[str], None]) -> None:
    chance = random.Random(16)
    clock = HandClock()
    settings = settings_of(NODE, TOP)
    begun_seconds = clock.seconds
    rails = {
        device.name: rail(
            chance,
            volts_lsb=8e-3 if device.chip == "ina3221" else 1.25e-3,
            amperes_lsb=0.4e-3 if device.chip == "ina3221" else 1.25e-3,
        ).beginning_at(begun_seconds)
        for device in settings.devices
    }
    world = build_world(settings, clock.monotonic, {name: _AsItIs(rail) for name, rail in rails.items()})
    gateway = MemoryGateway()
    gateway.history = LastOnly()
    state_file = StateFile(tmp_path, "counters", "boot")
    agent = agent_of(settings, world, clock, gateway, PatientPublisher(clock), state_file=state_file)
    misfortune = Misfortune(chance, clock, world, gateway)
    truth = Truth(rails)
    real = agent.parts.sweep.run

    def run(only: Container[str] | None = None) -> list[Outcome]:
        misfortune.strike()
        outcomes = real(only)
        truth.add(outcomes)
        return outcomes

    agent.parts.sweep.run = run
    waiting = HandWaiting(clock, begun_seconds + 2 * HOUR)
    loop = Loop(agent, clock, waiting, NO_MANAGER)
    with log_lines() as log, contextlib.closing(misfortune):
        loop.run()
        before = kept_by_the_process()
        waiting.stop_at_seconds, waiting.stop_requested = begun_seconds + SWEEPS, False
        loop.run()
        after = kept_by_the_process()
    assert truth.wrong[:5] == []
    assert min(misfortune.happened.values()) >= 10, misfortune.happened
    assert truth.kinds["Reading"] > 0.85 * 3 * SWEEPS
    assert after.memory_bytes - before.memory_bytes < MOST_GROWTH_BYTES
    assert after.memory_blocks - before.memory_blocks < MOST_GROWTH_BLOCKS
    assert (after.files, after.threads) == (before.files, before.threads)
    for name, meter in agent.meters.devices.items():
        counters = meter.saved.counters
        assert counters.measured_seconds == pytest.approx(truth.seconds[name])
        assert counters.measured_seconds > 0.85 * SWEEPS
        assert counters.joules == pytest.approx(truth.joules[name], rel=0.005)
        assert counters.coulombs == pytest.approx(truth.coulombs[name], rel=0.005)
    faults = sum(misfortune.happened.values())
    assert log.lines < 3 * faults
    measured(
        f"{SWEEPS:,} sweeps, {faults:,} faults: 0 wrong readings; energy within 0.5 %; "
        "memory grows by less than 1 MiB, file descriptors and threads not at all"
    )


class _AsItIs:
    """A rail that keeps its start time; the world would restart a recording."""

    def __init__(self, recording: Recording) -> None:
        self.segments = recording.segments
