"""Transfers that fail: a NACK is repeated at once, what takes long is a time-out, and failures are bounded."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest

from agent.errors import BusyError
from agent.i2c.bus import Bus
from agent.locks import holder
from agent.measure.readings import Failure, Reading
from agent.scan import scan_bus
from tests.bench import HOLD_THE_BUS, Bench, LinuxBench, failure, ina260, ina3221, mux
from tests.noise import random_nacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.simulate.wire import Transaction

EIGHT = mux("m0", 0x70) + "".join(ina260(f"c{n}", f'mux = "m0", channel = {n}') for n in range(8))
EIGHT_INA3221 = mux("m0", 0x70) + "".join(ina3221(f"c{n}", f'mux = "m0", channel = {n}', 1) for n in range(8))
TWO_MUXES = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + "".join(ina260(f"c{m}{n}", f'mux = "m{m}", channel = {n}') for m in range(2) for n in range(4))
)
NODES = {"8 INA260": EIGHT, "8 INA3221": EIGHT_INA3221, "2 x 4 INA260": TWO_MUXES}


@pytest.mark.reliability(
    1.1,
    "one to four NACKs in a row at any transfer, before or after it took effect",
    "the transfer is repeated at once: every device is read in the same sweep, and `retries` counts",
)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before effect", "after effect"])
@pytest.mark.parametrize("node", NODES)
def test_nacks_in_a_row_cost_no_reading(node: str, measured: Callable[[str], None], *, after_effect: bool) -> None:
    bench = Bench.of(NODES[node])
    bench.run_until_read()
    before = bench.wire.transactions
    bench.run_next()
    positions = bench.wire.transactions - before
    for position in range(positions):
        for length in (1, 4):
            first = bench.wire.transactions + position
            retries = bench.buses[1].retries
            for index in range(first, first + length):
                bench.wire.faults.fail_at(index, after_effect=after_effect)
            assert bench.all_read(bench.run_next()), position
            assert bench.buses[1].retries - retries == length
            bench.wire.faults.clear()
            bench.run_next()  # a repeated read of the status found the flag of a new result cleared
    measured(f"{node}: all {positions} positions of a sweep")


def test_a_chip_that_is_absent_costs_few_transfers() -> None:
    bench = Bench.of(EIGHT)
    bench.run_until_read()
    bench.chip("c3").unplug()
    before, retries = bench.wire.bits, bench.buses[1].retries
    bench.run_next()
    assert bench.buses[1].retries - retries == 4
    in_full = bench.wire.bits - before
    assert in_full < 2400


HUNG = "".join(mux(f"m{n}", 0x70 + n) for n in range(2)) + "".join(
    ina260(f"d{m}{channel}{n}", f'mux = "m{m}", channel = {channel}', 0x40 + n)
    for m in range(2)
    for channel in range(8)
    for n in range(4)
)


@pytest.mark.reliability(
    1.31,
    "an adapter that hangs: each transfer takes 0.6 to 3 s, then fails as a NACK or a time-out",
    "a failure after more than 0.5 s is a time-out and is not repeated; a sweep of 64 chips ends after one "
    "to three of them",
)
@pytest.mark.parametrize("code", [errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT, errno.EAGAIN], ids=errno.errorcode.get)
@pytest.mark.parametrize("seconds", [0.6, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("started", [False, True], ids=["from the start", "while it runs"])
def test_an_adapter_that_hangs_ends_the_sweep(
    seconds: float, code: int, measured: Callable[[str], None], *, started: bool
) -> None:
    bench = Bench.of(HUNG, 'sample_interval = "5s"\n')
    if started:
        bench.run_until_read()

    def hangs(_: Transaction) -> int:
        bench.clock.sleep(seconds)
        return code

    bench.wire.faults.fail_when(hangs)
    outcomes = {}
    for _ in range(3):
        bench.clock.sleep(10.0)
        began, transactions = bench.clock.seconds, bench.wire.transactions
        outcomes = bench.run()
        assert bench.clock.seconds - began <= max(2.0, seconds)
        assert bench.wire.transactions - transactions <= 3
        assert all(isinstance(outcome, Failure) for outcome in outcomes.values())
    for device in ("d000", "d173"):
        assert "stuck, transactions time out" in failure(outcomes[device])
    measured("never longer than 2 s, or one transfer")
    bench.wire.faults.clear()
    bench.clock.sleep(10.0)
    bench.run_until_read()


def test_slow_failures_between_answers_are_bounded_too() -> None:
    bench = Bench.of(HUNG, 'sample_interval = "5s"\n')
    bench.run_until_read()

    def chips_hang(transaction: Transaction) -> int | None:
        if transaction.messages[0].address >= 0x70:
            return None
        bench.clock.sleep(1.0)
        return errno.EIO

    bench.wire.faults.fail_when(chips_hang)
    for _ in range(3):
        bench.clock.sleep(10.0)
        began = bench.clock.seconds
        bench.run()
        assert bench.clock.seconds - began <= 2.0


@pytest.mark.reliability(1.13, "`scan` at 2 % random NACKs", "everything is found")
def test_a_scan_on_a_disturbed_bus_finds_everything(measured: Callable[[str], None]) -> None:
    expected: list[object] = []
    for seed in range(30):
        bench = Bench.of(TWO_MUXES)
        if seed:
            random_nacks(bench.wire, 0.02, random.Random(seed))
        found = scan_bus(Bus(1, [], bench._open, bench.clock), (f"m{number}" for number in count()))
        assert found.errors == ()
        expected = expected or [*(mux.place for mux in found.muxes), *(chip.place for chip in found.chips)]
        assert [*(mux.place for mux in found.muxes), *(chip.place for chip in found.chips)] == expected
    assert len(expected) == 2 + 8
    measured("30 scans of 8 chips behind two muxes")


def test_other_failures_than_disturbances_are_not_repeated() -> None:
    bench = Bench.of(EIGHT)
    bench.run_until_read()
    for code in (errno.ETIMEDOUT, errno.EAGAIN, errno.ENODEV, errno.EBUSY, errno.EOPNOTSUPP):
        index = bench.wire.transactions + 1

        def fails(transaction: Transaction, code: int = code, index: int = index) -> int | None:
            if transaction.index != index:
                return None
            bench.clock.sleep(0.02)  # what a driver waits at least for a line that is held
            return code

        bench.wire.faults.fail_when(fails)
        assert isinstance(bench.run_next()["c0"], Failure)
        bench.run_until_read()
    assert bench.buses[1].retries == 0


@pytest.mark.reliability(
    1.39,
    "5 % of all transfers lose the arbitration to noise at once (EAGAIN or ETIMEDOUT), 8 INA260 behind a mux",
    "such a transfer is repeated like one that ends with a NACK",
)
@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ETIMEDOUT], ids=errno.errorcode.get)
def test_a_lost_arbitration_is_repeated_at_once(code: int, measured: Callable[[str], None]) -> None:
    bench = Bench.of(EIGHT)
    bench.run_until_read()
    random_nacks(bench.wire, 0.05, random.Random(1), code)
    sweeps = [bench.run_next() for _ in range(500)]
    read = sum(isinstance(outcome, Reading) for outcomes in sweeps for outcome in outcomes.values())
    due = sum(map(len, sweeps))
    assert read >= 0.995 * due
    assert bench.buses[1].retries > 1000
    measured(f"{100 * read / due:.1f} % of the readings that were due")


def test_a_lost_arbitration_hides_no_chip_beside_a_silent_mux() -> None:
    bench = Bench.of(TWO_MUXES)
    bench.run_until_read()
    bench.world.muxes["m1"].unplug()
    random_nacks(bench.wire, 0.05, random.Random(4), errno.EAGAIN)
    sweeps = [bench.run_next() for _ in range(200)]
    beside = [device.name for device in bench.settings.devices if "mux m1" not in str(device.place)]
    assert len(beside) == 4
    read = sum(isinstance(outcomes[name], Reading) for outcomes in sweeps for name in beside)
    assert read >= 0.99 * len(beside) * len(sweeps)


# A bus that another process holds


@pytest.mark.reliability(
    5.02,
    "another process holds the bus for longer than a sweep may wait",
    "the wait ends in time; the message names the program and its process",
)
def test_the_wait_for_a_held_bus_is_bounded_as_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    linux = LinuxBench(EIGHT, monkeypatch, tmp_path)
    bench, bus = linux.bench, linux.bench.buses[1]
    linux.dev.stand_in("/dev/i2c-1")
    command = [sys.executable, "-c", HOLD_THE_BUS, str(tmp_path / "i2c-1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        for wait_seconds in (0.0, 0.25, None):
            before = bench.clock.seconds
            with (
                pytest.raises(BusyError, match=r"another process (holds|has held) the bus") as caught,
                bus.session(wait_seconds),
            ):
                pass
            waited = bench.clock.seconds - before
            assert waited == pytest.approx(1.0 if wait_seconds is None else wait_seconds, abs=0.001)
            file = os.open(tmp_path / "i2c-1", os.O_RDONLY)
            shown = holder(file)
            os.close(file)
            assert shown is None or f"pid {process.pid}" in shown
            assert shown is None or f": {shown}; is a second agent running?" in str(caught.value)
        process.kill()
    bench.run_until_read()
    bench.sweep.close()
    measured("0, 0.25 and 1 s, as asked")


def test_the_holder_of_a_lock_is_found_among_waiters(tmp_path: Path) -> None:
    file = os.open(tmp_path / "i2c-1", os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_EX)
    status, locks = os.fstat(file), tmp_path / "locks"
    name = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    locks.write_text(
        f"1: POSIX  ADVISORY  WRITE 77 {name} 0 EOF\n"
        f"2: -> FLOCK  ADVISORY  WRITE 78 {name} 0 EOF\n"
        f"3: FLOCK  ADVISORY  WRITE {os.getpid()} {name} 0 EOF\n"
    )
    shown = holder(file, locks)
    assert shown is not None
    assert shown.endswith(f", pid {os.getpid()}")
    # The process of another container has no number here; without its name the number is still of use.
    locks.write_text(f"3: FLOCK  ADVISORY  WRITE 0 {name} 0 EOF\n")
    assert holder(file, locks) is None
    locks.write_text(f"3: FLOCK  ADVISORY  WRITE 999999999 {name} 0 EOF\n")
    assert holder(file, locks) == "pid 999999999"
    assert holder(file, tmp_path / "nothing") is None
    os.close(file)
