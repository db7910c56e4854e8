"""One sweep over several buses: those that another process holds, or that hang, leave the others their pace."""

from __future__ import annotations

import contextlib
import errno
import random
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agent.chips import Measurement
from agent.energy.state import State
from agent.errors import BusError, BusyError, SensorError
from agent.i2c.adapters import open_bus
from agent.measure.readings import Failure, Reading
from agent.measure.sweep import PATIENCE_SECONDS, Sweep
from agent.run.agent import Agent, Parts
from agent.run.loop import Loop
from agent.run.once import ONCE_PATIENCE_SECONDS
from agent.run.stopping import is_sweep_overdue
from agent.run.systemd import Notifier
from agent.simulate.clock import HandClock
from tests.bench import HOLD_THE_BUS, Bench, buses_of, failure, ina260, mux, settings_of, world_for
from tests.emulated_i2c_dev import EmulatedI2CDev
from tests.noise import before_each_transfer
from tests.run.running import INFO, HandPublisher, HandWaiting, MemoryGateway

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence
    from pathlib import Path

    from agent.clock import Clock
    from agent.i2c.place import BusName
    from agent.i2c.transfers import OpenBus
    from agent.measure.readings import Outcome
    from agent.settings import Device
    from agent.simulate.wire import Message, Transaction


class Machine:
    """A bench over emulated device files, some of which other processes hold."""

    def __init__(self, text: str, top: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.bench = Bench.of(text, top)
        EmulatedI2CDev(self.bench.world.wires, folder).install(monkeypatch)
        self.bench.sweep = self.bench.new_sweep(open_bus)
        self._interval_seconds = self.bench.settings.sample_interval_seconds
        self._due_seconds = self.bench.clock.seconds

    @contextlib.contextmanager
    def held(self, *numbers: int) -> Iterator[list[int]]:
        """Let a process hold each of these buses; yields their pids."""
        with contextlib.ExitStack() as stack:
            pids = []
            for number in numbers:
                file = self.folder / f"i2c-{number}"
                file.touch()
                command = [sys.executable, "-c", HOLD_THE_BUS, str(file)]
                process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
                assert process.stdout is not None
                assert process.stdout.readline() == b"held\n"
                pids.append(process.pid)
            yield pids

    def sweeps(self, seconds: float) -> list[dict[str, Outcome]]:
        """Sweep whenever it is due, as the loop does: a sweep that takes too long misses the next."""
        clock, found = self.bench.clock, []
        ends_seconds = self._due_seconds + seconds
        while self._due_seconds < ends_seconds:
            clock.seconds = max(clock.seconds, self._due_seconds)
            found.append(self.bench.run())
            self._due_seconds += self._interval_seconds
            while self._due_seconds < clock.seconds:
                self._due_seconds += self._interval_seconds
        return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Machine]]:
    with contextlib.ExitStack() as stack:

        def build(text: str, top: str) -> Machine:
            built = Machine(text, top, tmp_path, monkeypatch)
            stack.callback(built.bench.sweep.close)
            return built

        yield build


def a_bus_each(count: int) -> str:
    return "".join(ina260(f"d{number}", f"bus = {number}") for number in range(1, count + 1))


@pytest.mark.reliability(
    5.03,
    "two of three buses held by other processes for 30 s, at 500 ms",
    "free buses are read first; the held ones share a wait of half a sample interval, at most 0.3 s",
)
def test_held_buses_leave_the_others_every_sample(
    machine: Callable[..., Machine], measured: Callable[[str], None]
) -> None:
    node = machine(a_bus_each(3), 'sample_interval = "500ms"\n')
    node.sweeps(1.0)
    with node.held(1, 2) as pids:
        sweeps = node.sweeps(30.0)
    assert [isinstance(outcomes["d3"], Reading) for outcomes in sweeps] == [True] * 60
    for device, pid in (("d1", pids[0]), ("d2", pids[1])):
        for outcomes in sweeps:
            outcome = outcomes[device]
            assert isinstance(outcome, Failure)
            assert isinstance(outcome.error, BusyError)
            assert outcome.tried
            assert f"pid {pid}" in str(outcome.error)
            assert "python" in str(outcome.error)
    first, second = node.sweeps(1.0)
    assert node.bench.all_read(first)
    assert node.bench.all_read(second)
    measured("60 of 60 samples of the third; the first sweep after they are free reads all")


def test_sixteen_held_buses_share_one_patience(machine: Callable[..., Machine]) -> None:
    node = machine(a_bus_each(17), 'sample_interval = "1s"\n')
    node.sweeps(1.0)
    with node.held(*range(1, 17)):
        begun_seconds = node.bench.clock.seconds
        outcomes = node.bench.run_next()
        took_seconds = node.bench.clock.seconds - begun_seconds - 1.0
        assert [name for name, outcome in outcomes.items() if isinstance(outcome, Reading)] == ["d17"]
        assert took_seconds == pytest.approx(PATIENCE_SECONDS, abs=0.01)


def test_a_bus_that_becomes_free_within_the_patience_is_read(
    machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = machine(a_bus_each(3), 'sample_interval = "1s"\n')
    node.sweeps(1.0)
    clock = node.bench.clock
    with node.held(2), contextlib.ExitStack() as first:
        first.enter_context(node.held(1))
        frees_at = clock.seconds + 1.2
        sleep = clock.sleep

        def free_then(seconds: float) -> None:
            sleep(seconds)
            if clock.seconds >= frees_at:
                first.close()

        monkeypatch.setattr(clock, "sleep", free_then)
        (outcomes,) = node.sweeps(1.0)
    assert isinstance(outcomes["d1"], Reading)
    assert isinstance(outcomes["d2"], Failure)


MANY = "".join(mux(f"m{n}", 0x70 + n) for n in range(2)) + "".join(
    ina260(f"d{m}{n}{a}", f'mux = "m{m}", channel = {n}', 0x40 + a)
    for m in range(2)
    for n in range(8)
    for a in range(4)
)


def hang(machine: Machine, seconds: float, code: int, bus: int = 1) -> None:
    """Let every transfer on this bus take this long and fail."""

    def times_out(_: Transaction) -> int:
        machine.bench.clock.sleep(seconds)
        return code

    machine.bench.world.wires[bus].faults.fail_when(times_out)


def test_a_hung_bus_is_tried_with_one_chip_until_one_answers(machine: Callable[..., Machine]) -> None:
    node = machine(MANY + ina260("other", "bus = 2"), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    hang(node, 1.0, errno.ETIMEDOUT)
    began = node.bench.clock.seconds
    costs = []
    while node.bench.clock.seconds < began + 60:
        before = node.bench.wire.transactions
        (outcomes,) = node.sweeps(1.0)
        assert isinstance(outcomes["other"], Reading)
        costs.append(node.bench.wire.transactions - before)
    assert max(costs) <= 2
    assert sum(map(bool, costs)) <= 9  # at once, and after 1, 1, 2, 4, 8, 10, 10 ... seconds
    node.bench.wire.faults.clear()
    sweeps = node.sweeps(12.0)
    # All 64 return in the same sweep, though not one has been tried on its own.
    assert len({next(n for n, found in enumerate(sweeps) if isinstance(found[d], Reading)) for d in sweeps[0]}) == 2
    assert node.bench.all_read(sweeps[-1])


@pytest.mark.reliability(
    1.33,
    "three adapters that hang for 2 s at each transfer, beside a bus that is well",
    "one of them is tried in a sweep; each has its turn",
)
def test_a_sweep_tries_one_of_several_hung_adapters(
    machine: Callable[..., Machine], measured: Callable[[str], None]
) -> None:
    node = machine(a_bus_each(4), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    for bus in (1, 2, 3):
        hang(node, 2.0, errno.EIO, bus)
    node.sweeps(1.0)  # finds out
    wires = [node.bench.world.wires[bus] for bus in (1, 2, 3)]
    before, longest_seconds = [wire.transactions for wire in wires], 0.0
    for _ in range(60):
        node.bench.clock.sleep(1.0)
        began_seconds = node.bench.clock.seconds
        outcomes = node.bench.run()
        longest_seconds = max(longest_seconds, node.bench.clock.seconds - began_seconds)
        assert [isinstance(outcomes[f"d{bus}"], Reading) for bus in (1, 2, 3, 4)] == [False, False, False, True]
    assert longest_seconds < 2.1
    tries = [wire.transactions - count for wire, count in zip(wires, before, strict=True)]
    assert min(tries) >= 4
    for wire in wires:
        wire.faults.clear()
    for _ in range(10):
        node.bench.clock.sleep(1.0)
        node.bench.run()
    node.bench.clock.sleep(1.0)
    assert node.bench.all_read(node.bench.run())
    measured(f"a sweep takes {longest_seconds:.1f} s at most; all are back within 11 s of the end")


def test_a_chip_that_hangs_alone_keeps_no_other_from_being_read(machine: Callable[..., Machine]) -> None:
    node = machine(MANY + ina260("odd", 'mux = "m0", channel = 0', 0x4F), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    is_all = True

    def times_out(transaction: Transaction) -> int | None:
        if not is_all and transaction.messages[0].address != 0x4F:
            return None
        node.bench.clock.sleep(1.0)
        return errno.ETIMEDOUT

    node.bench.wire.faults.fail_when(times_out)
    node.sweeps(5.0)
    is_all = False
    found = node.sweeps(30.0)[-1]
    assert [name for name, outcome in found.items() if not isinstance(outcome, Reading)] == ["odd"]


def test_chips_that_hang_cost_the_others_no_back_off(machine: Callable[..., Machine]) -> None:
    odd = "".join(ina260(f"odd{n}", f'mux = "m0", channel = {n}', 0x4F) for n in range(4))
    node = machine(MANY + odd, 'sample_interval = "5s"\n')
    node.sweeps(10.0)

    def times_out(transaction: Transaction) -> int | None:
        if transaction.messages[0].address != 0x4F:
            return None
        node.bench.clock.sleep(1.0)
        return errno.ETIMEDOUT

    node.bench.wire.faults.fail_when(times_out)
    # Two of them spend the time that a sweep has for time-outs; the first sweeps find out which they are.
    for found in node.sweeps(60.0)[2:]:
        assert node.bench.all_read({name: outcome for name, outcome in found.items() if "odd" not in name})


@pytest.mark.parametrize("sample_interval", ["1s", "15s"])
def test_a_chip_that_hangs_lets_another_one_return(machine: Callable[..., Machine], sample_interval: str) -> None:
    chips = "".join(ina260(name, "bus = 1", 0x40 + n) for n, name in enumerate(("well", "odd", "odder", "back")))
    node = machine(chips, f'interval = "15s"\nsample_interval = "{sample_interval}"\n')
    node.sweeps(30.0)
    absent = {0x43}

    def fails(transaction: Transaction) -> int | None:
        address = transaction.messages[0].address
        if address in absent:
            return errno.ENXIO
        if address in {0x41, 0x42}:
            node.bench.clock.sleep(2.0)
            return errno.EIO
        return None

    node.bench.wire.faults.fail_when(fails)
    node.sweeps(120.0)
    absent.clear()
    node.sweeps(60.0)
    found = node.sweeps(60.0)
    assert all(isinstance(outcomes["back"], Reading) for outcomes in found)
    assert all(isinstance(outcomes["well"], Reading) for outcomes in found)


class Watchdog(Notifier):
    """The service manager: notes the longest time between two pings."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__({})
        self.watchdog_seconds = 60.0
        self._now = now
        self._last_seconds = now()
        self.longest_seconds = 0.0

    def ping_watchdog(self) -> None:
        now = self._now()
        self.longest_seconds = max(self.longest_seconds, now - self._last_seconds)
        self._last_seconds = now


@pytest.mark.reliability(
    1.32,
    "an adapter that hangs for 3 s at each transfer, 64 chips behind two muxes",
    "the bus backs off as a whole: each attempt reads one chip until one answers",
)
def test_a_hung_adapter_is_pushed_as_down_in_time(
    machine: Callable[..., Machine], measured: Callable[[str], None]
) -> None:
    node = machine(MANY, 'interval = "15s"\nsample_interval = "1s"\n')
    clock, gateway = node.bench.clock, MemoryGateway()
    settings = node.bench.settings
    agent = Agent(Parts(settings, INFO, clock, node.bench.sweep, gateway, HandPublisher(clock), None), State())
    waiting, watchdog = HandWaiting(clock, clock.seconds + 20), Watchdog(clock.monotonic)
    Loop(agent, clock, waiting, watchdog).run()
    assert {values["wattpush_device_up"] for values in devices_in(gateway.groups)} == {1.0}
    hang(node, 3.0, errno.EIO)  # as the kernel's i2c-tiny-usb reports it
    waiting.stop_requested, waiting.stop_at_seconds = False, clock.seconds + 600
    pushes, began_seconds = len(gateway.history), clock.seconds
    down_after: list[float] = []

    def note() -> None:
        if not down_after and {values["wattpush_device_up"] for values in devices_in(gateway.groups)} == {0.0}:
            down_after.append(clock.seconds - began_seconds)

    waiting.on_wait = note
    Loop(agent, clock, waiting, watchdog).run()
    assert down_after[0] <= 2 * 15
    assert len(gateway.history) - pushes >= 600 / 15 - 2
    assert watchdog.longest_seconds < 60 / 4
    measured("up 0 within two push intervals, no push missed, 15 s between two pings of the watchdog at most")


def devices_in(groups: dict[str, dict[str, float]]) -> Iterator[dict[str, float]]:
    return (values for values in groups.values() if "wattpush_device_up" in values)


def test_once_waits_for_a_held_bus_up_to_a_second(machine: Callable[..., Machine]) -> None:
    node = machine(a_bus_each(2), 'sample_interval = "1s"\n')
    with node.held(1, 2):
        begun_seconds = node.bench.clock.seconds
        node.bench.sweep.patience_seconds = ONCE_PATIENCE_SECONDS
        outcomes = node.bench.sweep.run()
        assert node.bench.clock.seconds - begun_seconds == pytest.approx(1.0, abs=0.01)
    assert all(isinstance(outcome, Failure) for outcome in outcomes)


class KernelChip:
    """A chip that the kernel reads: while its bus hangs, each reading takes a second and fails."""

    def __init__(self, devices: Sequence[Device], clock: Clock, hanging: Container[str]) -> None:
        (self._device,) = devices
        self._clock = clock
        self._hanging = hanging

    def read(self) -> tuple[Measurement]:
        if self._device.name in self._hanging:
            self._clock.sleep(1.0)
            raise SensorError(f"{self._device.name}: Connection timed out")
        return (Measurement(5.0, 0.1),)

    def where(self) -> tuple[str]:
        return ("in1_input",)


@pytest.mark.reliability(
    1.34,
    "12 chips of the kernel on a bus that hangs for a second at each reading, beside chips that are well",
    "those that hung are set aside as a group; one of them is tried at a time",
)
def test_chips_of_the_kernel_that_hang_leave_others_their_pace(measured: Callable[[str], None]) -> None:
    names = [f"k{number}" for number in range(12)]
    text = "".join(
        f'[[device]]\nname = "{name}"\nchip = "hwmon"\nsensor = "{name}"\ninput = 1\n' for name in (*names, "well")
    )
    settings = settings_of(text + ina260("other", "bus = 1"), 'sample_interval = "1s"\n')
    clock, hanging = HandClock(), set[str]()
    world = world_for(settings, clock)
    buses = list(buses_of(settings, world, clock).values())
    sweep = Sweep(settings, buses, clock, lambda devices: KernelChip(devices, clock, hanging))

    def read_in(seconds: int) -> Iterator[tuple[float, set[str]]]:
        """The time that each sweep takes, and the devices that it reads."""
        ends_seconds = clock.seconds + seconds
        while clock.seconds < ends_seconds:
            began_seconds = clock.seconds
            outcomes = sweep.run()
            took_seconds = clock.seconds - began_seconds
            assert [outcome.device for outcome in outcomes] == ["other", *names, "well"]
            clock.sleep(-took_seconds % 1.0 or 1.0)
            yield took_seconds, {outcome.device for outcome in outcomes if isinstance(outcome, Reading)}

    assert [found for _, found in read_in(3)][-1] == {"other", "well", *names}
    hanging.update(names)
    found_out, steady = list(read_in(20)), list(read_in(60))
    assert max(took_seconds for took_seconds, _ in found_out) <= 2.0
    assert all({"other"} <= found for _, found in found_out)
    assert all(found == {"other", "well"} for _, found in steady)
    assert sum(took_seconds for took_seconds, _ in steady) <= 7.0
    hanging.clear()
    after = [found for _, found in read_in(13)]
    assert after[-1] == {"other", "well", *names}
    assert after.index({"other", "well", *names}) <= 11
    measured("a sweep takes 2 s at most, and then 1 s one time in ten; all are back within 11 s of the end")


def test_a_hung_adapter_that_is_unplugged_leaves_others_their_turn(machine: Callable[..., Machine]) -> None:
    node = machine(a_bus_each(3), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    hang(node, 2.0, errno.EIO, 1)
    hang(node, 2.0, errno.EIO, 2)
    node.sweeps(20.0)
    unplugged: list[BusName] = [1]

    def opener(name: BusName) -> OpenBus:
        if name in unplugged:
            raise BusError(f"/dev/i2c-{name}: No such file or directory")
        return open_bus(name)

    node.bench.sweep.close()
    node.bench.sweep = node.bench.new_sweep(opener)
    unplugged.clear()
    node.sweeps(20.0)
    unplugged.append(1)
    node.sweeps(30.0)
    node.bench.world.wires[2].faults.clear()
    assert isinstance(node.sweeps(12.0)[-1]["d2"], Reading)


def slow_down(machine: Machine, seconds: float, bus: int = 1) -> None:
    """Let every transfer on this bus take this long, and then work."""
    wire = machine.bench.world.wires[bus]
    inner = wire.transfer

    def transfer(messages: Sequence[Message]) -> None:
        machine.bench.clock.sleep(seconds)
        inner(messages)

    wire.transfer = transfer


@pytest.mark.reliability(
    1.36,
    "an adapter that takes 20 ms for each transfer, 64 chips behind two muxes, at 1 s",
    "a sweep ends within the interval: the chips it has no time for are read first in the next one",
)
def test_a_slow_bus_leaves_the_others_their_samples(
    machine: Callable[..., Machine], measured: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    node = machine(MANY + ina260("other", "bus = 2"), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    slow_down(node, 0.02)
    sweeps = node.sweeps(120.0)
    others = [isinstance(outcomes["other"], Reading) for outcomes in sweeps]
    assert len(others) >= 119
    assert all(others)
    readings = [
        sum(isinstance(outcomes[name], Reading) for outcomes in sweeps) for name in sweeps[0] if name != "other"
    ]
    assert min(readings) >= 8
    assert max(readings) - min(readings) <= 2
    assert [record.message[:22] for record in caplog.records] == ["/dev/i2c-1: too slow t"]
    measured(f"{len(others)} of 120 samples of another bus; each of the 64 is read {min(readings)} times, in turns")


@pytest.mark.reliability(
    15.28,
    "SIGTERM during a sweep of 64 chips on an adapter that takes 20 ms for each transfer, and of three slower ones",
    "chips that are not read within half a second are left out",
)
def test_a_stop_does_not_wait_for_a_slow_bus(machine: Callable[..., Machine], measured: Callable[[str], None]) -> None:
    others = "".join(ina260(f"other{bus}", f"bus = {bus}") for bus in (2, 3, 4))
    node = machine(MANY + others, 'interval = "60s"\nsample_interval = "60s"\n')
    node.bench.run_until_read()
    clock = node.bench.clock
    slow_down(node, 0.02)
    for bus in (2, 3, 4):
        slow_down(node, 0.1, bus)
    waiting = HandWaiting(clock)
    waiting.stop_requested_at_seconds = clock.seconds + 60.0 + 2.0
    node.bench.sweep.end_if(partial(is_sweep_overdue, clock, waiting))
    outcomes = node.bench.run_next()
    assert any(isinstance(outcome, Reading) for outcome in outcomes.values())
    stop_seconds = clock.seconds - waiting.stop_requested_at_seconds
    assert 0.5 < stop_seconds < 1.0
    measured(f"the sweep ends {stop_seconds:.2f} s after the signal")


def test_a_slow_bus_that_becomes_free_is_read(machine: Callable[..., Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    node = machine(MANY + ina260("other", "bus = 2"), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    slow_down(node, 0.003)
    node.sweeps(3.0)
    clock = node.bench.clock
    sleep, due_seconds = clock.sleep, clock.seconds + 1.0
    with contextlib.ExitStack() as holder:
        holder.enter_context(node.held(1))

        def free_then(seconds: float) -> None:
            sleep(seconds)
            if clock.seconds >= due_seconds + 0.1:
                holder.close()

        monkeypatch.setattr(clock, "sleep", free_then)
        outcomes = node.bench.run_next()
    assert sum(isinstance(outcome, Reading) for outcome in outcomes.values()) > 30
    assert not any(isinstance(outcome, Failure) and outcome.tried for outcome in outcomes.values())
    assert clock.seconds - due_seconds <= 1.0


def test_chips_that_a_sweep_leaves_out_are_counted(machine: Callable[..., Machine]) -> None:
    node = machine(MANY + ina260("other", "bus = 2"), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    clock, settings = node.bench.clock, node.bench.settings
    agent = Agent(Parts(settings, INFO, clock, node.bench.sweep, None, HandPublisher(clock), None), State())
    agent.take_sweep()
    assert agent.counters.missed_samples == 0
    slow_down(node, 0.02)
    for _ in range(3):
        clock.sleep(1.0)
        agent.take_sweep()
    assert agent.counters.missed_samples == 3
    with node.held(1):
        for _ in range(3):
            clock.sleep(1.0)
            agent.take_sweep()
    assert agent.counters.missed_samples == 3  # held, not slow


@pytest.mark.parametrize("seconds", [0.1, 0.3, 0.5])
def test_a_slow_bus_never_makes_a_sweep_long(machine: Callable[..., Machine], seconds: float) -> None:
    node = machine(MANY, 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    slow_down(node, seconds)
    for chips in (2, *[1] * 19):  # the first long reading might be a pause of the process
        node.bench.clock.sleep(1.0)
        began_seconds = node.bench.clock.seconds
        node.bench.run()
        assert node.bench.clock.seconds - began_seconds <= 16 * seconds * chips


@pytest.mark.reliability(
    1.45,
    "the process is paused for 0.3 to 3 s at any transfer of a sweep (SIGSTOP, a busy machine), at 100 ms to 5 s",
    "a single long reading shows no slow bus: the chips after it are read",
)
@pytest.mark.parametrize("sample_interval", ["100ms", "1s", "5s"])
def test_a_pause_of_the_process_costs_no_reading(
    machine: Callable[..., Machine], sample_interval: str, measured: Callable[[str], None]
) -> None:
    text = mux("m0", 0x70) + "".join(ina260(f"d{n}", f'mux = "m0", channel = {n}') for n in range(8))
    node = machine(text, f'sample_interval = "{sample_interval}"\n')
    node.bench.run_until_read()
    left = -1

    def pause() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            node.bench.clock.sleep(seconds)

    before_each_transfer(node.bench.wire, pause)
    pauses = 0
    for seconds in (0.3, 1.0, 3.0):
        left = 0
        node.bench.run_next()
        transfers = -left
        for number in range(1, transfers + 1):
            left = number
            assert node.bench.all_read(node.bench.run_next()), (seconds, number)
            node.bench.run_next()
            pauses += 1
    measured(f"{pauses} pauses, 8 chips behind a mux at {sample_interval}: no reading is lost")


@pytest.mark.reliability(
    1.37,
    "three adapters with eight chips each, on which one transfer in 50 takes a second and fails",
    "one of them is read in a sweep, and rests if that lasts",
)
def test_adapters_that_time_out_now_and_then_take_turns(
    machine: Callable[..., Machine], measured: Callable[[str], None]
) -> None:
    text = "".join(
        mux(f"m{bus}", 0x70, f"bus = {bus}")
        + "".join(ina260(f"d{bus}{n}", f'mux = "m{bus}", channel = {n}') for n in range(8))
        for bus in (1, 2, 3)
    )
    node = machine(text + ina260("other", "bus = 4"), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    draws = random.Random(1)

    def times_out(_: Transaction) -> int | None:
        if draws.random() > 0.02:
            return None
        node.bench.clock.sleep(1.0)
        return errno.ETIMEDOUT

    for bus in (1, 2, 3):
        node.bench.world.wires[bus].faults.fail_when(times_out)
    sweeps = node.sweeps(120.0)
    others = sum(isinstance(outcomes["other"], Reading) for outcomes in sweeps)
    assert others >= 80
    read = sum(isinstance(outcome, Reading) for outcomes in sweeps for outcome in outcomes.values()) - others
    assert read >= 300
    measured(f"{others} of 120 samples of another bus, {read} readings of the 24 chips")


@pytest.mark.parametrize(("sample_interval", "seconds", "share"), [("10ms", 30, 0.6), ("100ms", 60, 0.75)])
def test_a_hung_bus_leaves_short_intervals_most_samples(
    machine: Callable[..., Machine], sample_interval: str, seconds: float, share: float
) -> None:
    node = machine(a_bus_each(2), f'sample_interval = "{sample_interval}"\n')
    node.sweeps(1.0)
    hang(node, 2.0, errno.EIO)
    read = sum(isinstance(outcomes["d2"], Reading) for outcomes in node.sweeps(seconds))
    assert read >= share * seconds / node.bench.settings.sample_interval_seconds


def test_a_mux_that_others_switch_is_no_hung_bus(machine: Callable[..., Machine]) -> None:
    node = machine(mux("m0", 0x70) + ina260("d", 'mux = "m0", channel = 0'), 'sample_interval = "1s"\n')
    node.sweeps(2.0)
    wire = node.bench.wire
    inner = wire.transfer

    def transfer(messages: Sequence[Message]) -> None:
        node.bench.clock.sleep(0.0003)
        inner(messages)
        if messages[0][0] == 0x40:
            node.bench.world.muxes["m0"].control = 0x02

    wire.transfer = transfer
    for outcomes in node.sweeps(20.0):
        assert "was switched while a chip was read" in failure(outcomes["d"])


def test_a_slow_nack_is_no_time_out(machine: Callable[..., Machine]) -> None:
    node = machine(a_bus_each(1), 'sample_interval = "1s"\n')
    hang(node, 0.13, errno.ENXIO)
    for outcomes in node.sweeps(5.0):
        assert failure(outcomes["d1"]) == "no INA260 at 0x40 on /dev/i2c-1: NACK; is it powered? Is the address right?"
