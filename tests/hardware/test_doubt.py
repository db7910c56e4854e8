"""Reading in doubt: after a mux was found switched, the path to a chip is checked after every register."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from agent.i2c.switches import DOUBT_SECONDS
from agent.measure.readings import Reading
from agent.simulate.ina260 import POWER, SimulatedINA260
from tests.bench import Bench, ina260, mux
from tests.noise import HERTZ, before_each_transfer
from tests.reliability.noisy import TWICE_FOUR_INA260

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.simulate.wire import Message, Transaction

M1 = 0x71
OPEN, CLOSE = [(M1, False, b"\x04")], [(M1, False, b"\x00")]
STATUS_NUMBER = 0x06
NODE = mux("m0", 0x70) + mux("m1", M1) + ina260("cpu", 'mux = "m0", channel = 0')


def acting(bench: Bench) -> list[Callable[[], None]]:
    """What is done before the next transfers of the agent, one each, by a program that does not lock the bus."""
    planned: list[Callable[[], None]] = []
    before_each_transfer(bench.wire, lambda: planned.pop(0)() if planned else None)
    return planned


def writes(bench: Bench, messages: Sequence[Message]) -> Callable[[], None]:
    return lambda: type(bench.wire).transfer(bench.wire, messages)


def nothing() -> None:
    """Before most transfers."""


def bits_of_a_sweep(bench: Bench) -> int:
    before = bench.wire.bits
    assert all(isinstance(outcome, Reading) for outcome in bench.run_next().values())
    return bench.wire.bits - before


def in_doubt(text: str) -> Bench:
    """A node that found a mux switched."""
    bench = Bench.of(text)
    bench.run_until_read()
    bench.run_next()
    planned = acting(bench)
    planned += [nothing, nothing, writes(bench, OPEN)]
    bench.run_next()
    assert bench.sweep.mux_conflicts == 1
    return bench


def test_a_switched_mux_puts_a_minute_in_doubt() -> None:
    bench = Bench.of(TWICE_FOUR_INA260)
    bench.run_until_read()
    bench.run_next()
    usual_bits = bits_of_a_sweep(bench)
    acting(bench).extend([nothing, nothing, writes(bench, OPEN)])
    bench.run_next()
    bench.run_next()
    bits = [bits_of_a_sweep(bench) for _ in range(int(DOUBT_SECONDS) - 3)]
    assert min(bits) > 1.5 * usual_bits
    bench.clock.sleep(3.0)
    bench.run_next()
    assert bits_of_a_sweep(bench) == usual_bits


def test_eight_chips_in_doubt_keep_a_pace_of_100_ms() -> None:
    bench = in_doubt(TWICE_FOUR_INA260)
    bench.run_next()
    assert bits_of_a_sweep(bench) / HERTZ < 0.06


@pytest.mark.parametrize(
    ("transfers", "pause"),
    [(2, 2), (2, 1), (5, 0), (9, 0)],
    ids=["both voltages", "each register", "all registers", "all registers and a mux"],
)
def test_a_channel_opened_between_two_checks_spoils_nothing(transfers: int, pause: int) -> None:
    """It is open for some transfers, twice, with a pause between: also while the first of two muxes is read back."""
    bench = in_doubt(TWICE_FOUR_INA260)
    planned, total = acting(bench), 0
    for position in range(60):
        visit = [writes(bench, OPEN), *[nothing] * (transfers - 1), writes(bench, CLOSE), *[nothing] * (pause - 1)]
        planned += [nothing] * position + visit + visit * (pause > 0)
        total += sum(isinstance(outcome, Reading) for outcome in bench.run_next().values())
        planned.clear()
    assert total > 400


def test_a_status_that_is_read_twice_stops_no_chip() -> None:
    bench = Bench.of(NODE)
    bench.run_until_read()
    fails = [False]

    def every_other_status(transaction: Transaction) -> int | None:
        message = transaction.messages[0]
        if message.address != 0x40 or message.data[:1] != bytes((STATUS_NUMBER,)):
            return None
        fails[0] = not fails[0]
        return errno.EREMOTEIO if fails[0] else None

    bench.wire.faults.fail_when(every_other_status, after_effect=True)
    for _ in range(30):
        assert isinstance(bench.run_next()["cpu"], Reading)


def test_a_check_in_doubt_never_turns_itself_off(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench.of(NODE)
    chip = bench.chip("cpu")
    assert isinstance(chip, SimulatedINA260)
    store = chip._store_derived

    def store_zero() -> None:
        chip._words[POWER] = 0

    chip._store_derived = store_zero  # as a second chip behind another mux would make it read
    planned = acting(bench)
    for _ in range(200):
        planned += [nothing, nothing, writes(bench, OPEN)]
        bench.run_next()
        planned.clear()
    assert "is not used" not in caplog.text
    chip._store_derived = store


def test_after_a_conflict_every_configuration_is_read_again() -> None:
    # Long conversions: without a look at the configuration, a chip seems to have stopped only after many of them.
    bench = Bench.of(
        mux("m0", 0x70)
        + ina260("cpu", 'mux = "m0", channel = 0', more="")
        + ina260("disk", 'mux = "m0", channel = 1', more="")
    )
    bench.run_until_read()
    bench.run_next()
    # A write that was meant for another chip reaches the disk's while its channel is open.
    switch_to_disk, write_configuration = [(0x70, False, b"\x02")], [(0x40, False, b"\x00\x63\x27")]
    acting(bench).extend([nothing, nothing, writes(bench, switch_to_disk), writes(bench, write_configuration)])
    outcomes = [outcome for _ in range(2) for outcome in bench.run_next().values() if outcome.device == "disk"]
    assert not all(isinstance(outcome, Reading) for outcome in outcomes)
