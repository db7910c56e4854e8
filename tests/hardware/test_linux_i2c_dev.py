"""The code path of a real run: agent.i2c.bus, Blinka's Linux I2C and PureIO; only the system calls are emulated."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent import access
from agent.energy.counters import LastReading, Saved
from agent.energy.state import State
from agent.errors import BusError, BusyError, PermissionDeniedError
from agent.i2c.adapters import open_bus
from agent.measure.readings import Failure, Reading, Settling
from agent.measure.sweep import PATIENCE_SECONDS
from agent.run.assembly import RunOptions, make_sweep
from tests.bench import HOLD_THE_BUS, Bench, LinuxBench, failure, ina260, ina3221, mux
from tests.emulated_i2c_dev import EmulatedI2CDev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.simulate.wire import Transaction

NODE = (
    mux("m0", 0x70)
    + mux("inner", 0x71, 'mux = "m0", channel = 6')
    + ina260("cpu", 'mux = "m0", channel = 3')
    + ina260("gpu", 'mux = "inner", channel = 3')
    + ina3221("radio", 'mux = "m0", channel = 4', 2)
    + ina3221("modem", 'mux = "m0", channel = 4', 3)
    + ina260("trunk", "bus = 1", 0x4F)
)


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LinuxBench]:
    linux = LinuxBench(NODE, monkeypatch, tmp_path)
    yield linux
    linux.bench.sweep.close()


def test_the_device_file_reads_the_same_as_the_bus_object(linux: LinuxBench) -> None:
    simulated = Bench.of(NODE)
    for _ in range(4):
        assert linux.bench.run_next() == simulated.run_next()
    assert linux.bench.all_read(linux.bench.run_next())
    simulated.run_next()
    assert linux.bench.wire.bits == simulated.wire.bits
    assert linux.dev.system_calls > linux.bench.wire.transactions > 50


@pytest.mark.reliability(
    1.06,
    "adapters that refuse empty writes, or allow only one read per transfer",
    "chips are read as through any other adapter",
)
@pytest.mark.parametrize("quirk", ["no zero-length writes", "one read, and last", "both"])
def test_limited_adapters_read_as_well(linux: LinuxBench, quirk: str) -> None:
    linux.bench.wire.refuses_zero_length = quirk in ("no zero-length writes", "both")
    linux.dev.reads_once_and_last = quirk in ("one read, and last", "both")
    assert linux.bench.all_read(linux.bench.run_until_read(2))
    assert linux.bench.all_muxes_are_closed()


@pytest.mark.reliability(
    1.04,
    "an error at every system call of Blinka's own `/dev/i2c-N` code",
    "the reading fails, and a later sweep succeeds; never a wrong reading",
)
def test_a_fault_at_any_transaction_of_a_run_heals(linux: LinuxBench, measured: Callable[[str], None]) -> None:
    bench = linux.bench
    bench.run_until_read()
    before = bench.wire.transactions
    bench.run_next()
    positions = bench.wire.transactions - before
    measured(f"all {positions} positions of a sweep")
    for position in range(positions):
        bench.wire.faults.fail_at(bench.wire.transactions + position, errno.EREMOTEIO)
        bench.run_next()
        bench.wire.faults.clear()
        bench.run_until_read(3)
        assert bench.all_muxes_are_closed()


def test_an_adapter_plugged_in_again_is_opened_again(linux: LinuxBench) -> None:
    bench = linux.bench
    bench.run_until_read()
    linux.dev.unplug()
    assert "the adapter is gone" in failure(bench.run_next()["cpu"])
    bench.clock.sleep(10.0)
    output = failure(bench.run()["cpu"])
    assert output.startswith("/dev/i2c-1: No such file or directory; is I2C enabled?")
    linux.dev.plug()
    bench.clock.sleep(10.0)
    bench.run_until_read(2)


def test_an_adapter_replugged_during_a_sweep_costs_one_sweep(
    linux: LinuxBench,
) -> None:
    bench = linux.bench
    bench.run_until_read()
    half_way = bench.wire.transactions + 8
    transfer = linux.dev.transfer

    def unplug_half_way(file: Any, messages: Any) -> None:
        if bench.wire.transactions == half_way and not file.is_dead:
            linux.dev.unplug()
            linux.dev.plug()
        transfer(file, messages)

    linux.dev.transfer = unplug_half_way
    assert {type(outcome) for outcome in bench.run_next().values()} == {Reading, Failure}
    linux.dev.transfer = transfer
    assert bench.all_read(bench.run_next())


@pytest.mark.reliability(
    6,
    "a kernel driver owns the mux",
    "the error names the driver, and what to configure instead",
)
def test_a_mux_owned_by_the_kernel_is_reported(linux: LinuxBench) -> None:
    linux.dev.owned.add(0x70)
    output = failure(linux.bench.run()["cpu"])
    assert (
        "mux m0 (0x70 on /dev/i2c-1) does not answer: a kernel driver owns the address; each channel is a separate bus"
        in output
    )


def test_without_sysfs_a_kernel_chip_is_reported_and_not_written_to(
    linux: LinuxBench,
) -> None:
    linux.dev.owned.add(0x41)
    log: list[Transaction] = []
    linux.bench.wire.log = log
    output = failure(linux.bench.run()["radio"])
    assert output == (
        "no INA3221 at 0x41 behind mux m0 (0x70 on /dev/i2c-1) channel 4: "
        'a kernel driver owns the address; read it with chip = "hwmon" instead, or unbind the driver'
    )
    messages = [message for transaction in log for message in transaction.messages if message.address == 0x41]
    assert messages
    assert not any(len(message.data) > 1 for message in messages if not message.is_read)


@pytest.mark.reliability(
    6,
    "a kernel driver owns the address of a chip",
    "the error names the driver; no transaction goes to the address",
)
@pytest.mark.parametrize("number", [1, 22])
def test_a_chip_owned_by_the_kernel_is_reported_and_not_accessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    driver = tmp_path / "bus/i2c/drivers/ina3221"
    driver.mkdir(parents=True)
    client = tmp_path / f"bus/i2c/devices/{number}-0041"
    client.mkdir(parents=True)
    (client / "driver").symlink_to(driver)
    text = NODE.replace("bus = 1", f"bus = {number}")
    template = Bench.of(text)
    bench = Bench(template.settings, sysfs=tmp_path)
    dev = EmulatedI2CDev(bench.world.wires, tmp_path)
    dev.install(monkeypatch)
    wire = bench.world.wires[number]
    wire.log = []
    for opener in (None, open_bus):  # the number of the bus is known in both cases
        bench.sweep = bench.new_sweep(opener)
        outcomes = [bench.run_next() for _ in range(3)]
        assert failure(outcomes[0]["radio"]) == (
            f"0x41 on /dev/i2c-{number} belongs to the kernel driver ina3221; "
            'read it with chip = "hwmon" instead, or unbind the driver'
        )
        assert {type(outcomes[-1][device]) for device in ("cpu", "gpu", "trunk")} == {Reading}
        bench.sweep.close()
    assert len(wire.log) > 20
    assert not any(message.address == 0x41 for transaction in wire.log for message in transaction.messages)


class Board:
    """The `board` module of a board that Blinka knows: its `I2C()` is Blinka's own, on the header's bus."""

    @staticmethod
    def I2C() -> Any:  # noqa: N802 - as Blinka has it
        from adafruit_blinka import Lockable
        from adafruit_blinka.microcontroller.generic_linux.i2c import I2C as LinuxI2C  # noqa: N811 - its name in Blinka is that of a class

        class BoardI2C(Lockable):  # type: ignore[misc] # Blinka publishes no types
            def __init__(self) -> None:
                self._i2c = LinuxI2C(1)
                self.writeto = self._i2c.writeto
                self.readfrom_into = self._i2c.readfrom_into
                self.writeto_then_readfrom = self._i2c.writeto_then_readfrom

        return BoardI2C()


def test_the_board_bus_is_locked_and_spares_kernel_chips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = Bench(Bench.of(NODE.replace("bus = 1", 'bus = "board"')).settings, sysfs=tmp_path)
    dev = EmulatedI2CDev({1: bench.world.wires["board"]}, tmp_path)
    dev.install(monkeypatch)
    monkeypatch.setitem(sys.modules, "board", Board)
    bench.sweep = bench.new_sweep(open_bus)
    bench.run_until_read(2)
    with (tmp_path / "i2c-1").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "the board's default bus: another process holds the bus" in failure(bench.run_next()["cpu"])
    bench.sweep.close()
    (tmp_path / "bus/i2c/devices/1-004f/driver").mkdir(parents=True)
    bench.sweep = bench.new_sweep(open_bus)
    assert "0x4f on the board's default bus belongs to the kernel driver" in failure(bench.run_next()["trunk"])
    bench.sweep.close()


def test_a_missing_bus_is_reported_with_its_fixes(linux: LinuxBench) -> None:
    with pytest.raises(BusError, match=r"^/dev/i2c-9: No such file or directory; is I2C enabled\? ") as caught:
        open_bus(9)
    for hint in ("sudo raspi-config nonint do_i2c 0", "/etc/modules-load.d/"):
        assert hint in str(caught.value)
    assert linux.dev.system_calls == 0


def test_a_denied_device_file_is_reported_with_its_group(linux: LinuxBench) -> None:
    linux.dev.refusal = errno.EACCES
    outcomes = linux.bench.run()
    assert all(isinstance(o, Failure) and isinstance(o.error, PermissionDeniedError) for o in outcomes.values())
    assert f"sudo usermod -aG i2c {access.this_user()}" in failure(outcomes["cpu"])


@pytest.mark.reliability(
    5.01,
    "another process holds the bus, then dies",
    "a sweep waits a moment for it; the death of the process frees the bus",
)
def test_a_process_on_the_bus_delays_a_sweep_until_it_dies(linux: LinuxBench, tmp_path: Path) -> None:
    bench = linux.bench
    bench.run_until_read()
    command = [sys.executable, "-c", HOLD_THE_BUS, str(tmp_path / "i2c-1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        bench.clock.sleep(1.0)
        transactions, before = bench.wire.transactions, bench.clock.seconds
        outcomes = bench.run()
        assert PATIENCE_SECONDS <= bench.clock.seconds - before < PATIENCE_SECONDS + 0.01
        assert bench.wire.transactions == transactions
        error = outcomes["cpu"]
        assert isinstance(error, Failure)
        assert isinstance(error.error, BusyError)
        assert "/dev/i2c-1: another process holds the bus: python" in failure(error)
        assert f", pid {holder.pid}; is a second agent running?" in failure(error)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    bench.clock.sleep(1.0)
    bench.run_until_read(2)


def test_between_two_sweeps_the_bus_is_free_for_other_processes(linux: LinuxBench, tmp_path: Path) -> None:
    linux.bench.run_until_read()
    take = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    subprocess.run([sys.executable, "-c", take, str(tmp_path / "i2c-1")], check=True)


def test_a_closed_sweep_closes_its_device_files(linux: LinuxBench, tmp_path: Path) -> None:
    def open_files() -> list[str]:
        files = []
        for link in list(Path("/proc/self/fd").iterdir()):
            with suppress(FileNotFoundError):  # its own is closed by now
                files.append(str(link.readlink()))
        return files

    linux.bench.run_until_read()
    assert str(tmp_path / "i2c-1") in open_files()
    linux.bench.sweep.close()
    assert str(tmp_path / "i2c-1") not in open_files()


@pytest.mark.parametrize("was_read_before", [True, False])
def test_power_losses_between_runs_show_by_the_state(linux: LinuxBench, *, was_read_before: bool) -> None:
    bench = linux.bench
    last = LastReading(bench.clock.monotonic(), 5.0) if was_read_before else None
    state = State({device.name: Saved(last=last) for device in bench.settings.devices})
    with ExitStack() as stack:
        outcomes = make_sweep(bench.settings, RunOptions(), bench.clock, stack, state).run()
    assert [outcome.power_lost for outcome in outcomes if isinstance(outcome, Settling)] == [was_read_before] * 5
