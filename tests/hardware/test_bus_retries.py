"""Transfers that fail: a NACK is repeated at once, what takes long is a time-out, and failures are bounded."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest

from agent.measure.readings import Failure, Reading
from tests.bench import Bench, failure, ina260, ina3221, mux
from tests.noise import random_nacks

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulate.wire import Transaction

EIGHT = mux("m0", 0x70) + "".join(ina260(f"c{n}", f'mux = "m0", channel = {n}') for n in range(8))
EIGHT_INA3221 = mux("m0", 0x70) + "".join(ina3221(f"c{n}", f'mux = "m0", channel = {n}', 1) for n in range(8))
TWO_MUXES = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + "".join(ina260(f"c{m}{n}", f'mux = "m{m}", channel = {n}') for m in range(2) for n in range(4))
)
# A repeated read of the status finds the flag of a new result cleared, so there must be a next one in time.
OFTEN = 'sample_interval = "200ms"\n'
NODES = {"8 INA260": EIGHT, "8 INA3221": EIGHT_INA3221, "2 x 4 INA260": TWO_MUXES}


@pytest.mark.reliability(
    1.1,
    "a NACK at any transfer, also four in a row, before or after it took effect",
    "the transfer is repeated at once: every device is read in the same sweep, and `retries` counts",
)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before effect", "after effect"])
@pytest.mark.parametrize("node", NODES)
def test_nacks_in_a_row_cost_no_reading(node: str, measured: Callable[[str], None], *, after_effect: bool) -> None:
    bench = Bench.of(NODES[node], OFTEN)
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
    measured(f"{node}: all {positions} positions of a sweep")


@pytest.mark.reliability(
    1.2,
    "NACKs at random, a third of them after they took effect",
    "no transfer fails for good before one in five fails",
)
@pytest.mark.parametrize(("share", "least"), [(0.02, 0.9999), (0.05, 0.9995), (0.1, 0.999), (0.2, 0.95)])
@pytest.mark.parametrize("node", NODES)
def test_random_nacks_hardly_cost_a_reading(
    node: str, share: float, least: float, measured: Callable[[str], None]
) -> None:
    bench = Bench.of(NODES[node], OFTEN)
    random_nacks(bench.wire, share, random.Random(f"{node} {share}"))
    bench.run_until_read()
    outcomes = [outcome for _ in range(120) for outcome in bench.run_next().values()]
    good = sum(isinstance(outcome, Reading) for outcome in outcomes)
    measured(f"{node}, {share:.0%}: {good} of {len(outcomes)} readings")
    assert good >= least * len(outcomes)


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
    1.3,
    "an adapter that hangs: each transfer takes 0.6 to 3 s, then fails as a NACK or a time-out",
    "what takes over 0.5 s is a time-out and is not repeated; a sweep of 64 chips ends after one to three of them",
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
    assert "time-out" in failure(outcomes["d000"])
    assert "stuck" in failure(outcomes["d173"])
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
