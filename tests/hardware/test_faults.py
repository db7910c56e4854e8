"""Errors at every position of a sweep: no wrong reading, no lock left behind, everything heals."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.measure.readings import Failure, Reading, Settling
from tests.bench import Bench, failure, ina260, ina3221, mux

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulate.wire import Transaction

TWO_MUXES = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + ina260("a0", 'mux = "m0", channel = 0')
    + ina260("a1", 'mux = "m0", channel = 1')
    + ina260("b0", 'mux = "m1", channel = 0')
    + ina260("b1", 'mux = "m1", channel = 5')
    + ina3221("r1", 'mux = "m1", channel = 5', 1)
    + ina3221("r3", 'mux = "m1", channel = 5', 3)
    + ina260("trunk", "bus = 1", 0x4F)
)
NESTED = (
    mux("m0", 0x70)
    + mux("inner", 0x71, 'mux = "m0", channel = 2')
    + mux("twin", 0x72, 'mux = "m0", channel = 2')
    + ina260("behind", 'mux = "inner", channel = 3')
    + ina260("other", 'mux = "inner", channel = 4')
    + ina260("twin", 'mux = "twin", channel = 3')
    + ina260("beside", 'mux = "m0", channel = 2', 0x41)
    + ina260("apart", 'mux = "m0", channel = 5')
)
WIRINGS = {"two muxes": TWO_MUXES, "nested": NESTED}
# A NACK as the Raspberry Pi and as others report it, a time-out, an unplugged adapter.
CODES = (errno.EREMOTEIO, errno.EIO, errno.ETIMEDOUT, errno.ENODEV)


def faulty(bench: Bench, position: int, code: int, *, after_effect: bool) -> int:
    """Make the sweep's transaction at `position` fail; return the index of the sweep's first transaction."""
    first = bench.wire.transactions
    bench.wire.faults.clear()
    bench.wire.faults.fail_at(first + position, code, after_effect=after_effect)
    return first


def set_up(text: str) -> Bench:
    bench = Bench.of(text)
    bench.run_until_read()
    return bench


def transactions_of_a_sweep(bench: Bench) -> int:
    before = bench.wire.transactions
    bench.run_next()
    return bench.wire.transactions - before


def devices_of_one_chip(bench: Bench, outcomes: list[str]) -> bool:
    return len({id(bench.chip(device)) for device in outcomes}) <= 1


@pytest.mark.reliability(
    1,
    "a NACK, a time-out or an I/O error at any single transaction of a sweep",
    "one chip loses one reading; the lock is free, every mux is closed, and the next sweep is right",
)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before effect", "after effect"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_any_error_in_a_sweep_costs_one_reading_of_one_chip(
    wiring: str, code: int, measured: Callable[[str], None], *, after_effect: bool
) -> None:
    bench = set_up(WIRINGS[wiring])
    positions = transactions_of_a_sweep(bench)
    measured(f"{wiring}: all {positions} positions, {len(CODES)} errors each, before and after their effect")
    for position in range(positions):
        first = faulty(bench, position, code, after_effect=after_effect)
        outcomes = bench.run_next()
        assert bench.wire.transactions > first + position
        lost = [device for device, outcome in outcomes.items() if not isinstance(outcome, Reading)]
        assert devices_of_one_chip(bench, lost), (position, lost)
        assert all(isinstance(outcomes[device], Failure) for device in lost)
        assert bench.all_muxes_are_closed(), position
        healed = bench.run_next()
        if not bench.all_read(healed):  # opened again just after the conversion flag was read
            assert all(type(o) in (Reading, Settling) for o in healed.values()), (position, healed)
            healed = bench.run_next()
        assert bench.all_read(healed), (position, healed)
        assert bench.all_muxes_are_closed()


@pytest.mark.reliability(
    1.01,
    "the same while chips are identified and configured",
    "no other chip is affected, and two sweeps later all are read",
)
@pytest.mark.parametrize("after_effect", [False, True], ids=["before effect", "after effect"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("wiring", WIRINGS)
def test_any_error_while_opening_chips_affects_only_one_chip(
    wiring: str, code: int, measured: Callable[[str], None], *, after_effect: bool
) -> None:
    opening = Bench.of(WIRINGS[wiring])
    opening.run()
    positions = opening.wire.transactions
    measured(f"{wiring}: all {positions} positions, {len(CODES)} errors each, before and after their effect")
    for position in range(opening.wire.transactions):
        bench = Bench.of(WIRINGS[wiring])
        faulty(bench, position, code, after_effect=after_effect)
        outcomes = bench.run()
        lost = [device for device, outcome in outcomes.items() if not isinstance(outcome, Settling)]
        assert devices_of_one_chip(bench, lost), (position, lost)
        assert bench.all_muxes_are_closed(), position
        outcomes = bench.run_next()
        assert all(type(o) is not Failure for o in outcomes.values()), (position, outcomes)
        assert bench.all_read(bench.run_next()), position


@pytest.mark.reliability(
    1.02,
    "exceptions of USB adapters other than OSError, at any transaction",
    "one chip fails, as after any other error",
)
@pytest.mark.parametrize("wiring", WIRINGS)
def test_any_exception_of_a_usb_adapter_fails_only_one_chip(wiring: str) -> None:
    bench = set_up(WIRINGS[wiring])
    transact = bench.wire.transfer
    for error in (RuntimeError("no answer from the adapter"), TypeError("NoneType"), OSError("hid: device lost")):
        for position in range(transactions_of_a_sweep(bench)):
            countdown = iter([None] * position)

            def transfer(messages: Any, countdown: Any = countdown, error: Exception = error) -> None:
                if next(countdown, error) is error:
                    bench.wire.transfer = transact
                    raise error
                transact(messages)

            bench.wire.transfer = transfer
            outcomes = bench.run_next()
            lost = [device for device, outcome in outcomes.items() if not isinstance(outcome, Reading)]
            assert devices_of_one_chip(bench, lost)
            assert all(str(error) in failure(outcomes[device]) for device in lost)
            assert bench.all_muxes_are_closed()
            bench.run_until_read(3)


fault = st.tuples(st.integers(0, 60), st.sampled_from(CODES), st.booleans(), st.integers(1, 12))
event = st.tuples(
    st.sampled_from(["power lost", "unplugged", "plugged", "left open", "reconfigured"]), st.integers(0, 9)
)


def happen(bench: Bench, what: str, number: int) -> None:
    parts = [*bench.world.muxes.values(), *bench.world.chips.values()]
    part = parts[number % len(parts)]
    if what == "power lost":
        part.power_loss()
    elif what == "unplugged":
        part.unplug()
    elif what == "plugged":
        part.plug()
    elif what == "left open":
        left_open = list(bench.world.muxes.values())[number % len(bench.world.muxes)]
        left_open.write(bytes([0xFF]))
        left_open.stop()
    else:
        chip = list(bench.world.chips.values())[number % len(bench.world.chips)]
        chip.write(b"\x00\x45\x1f")


@pytest.mark.reliability(
    1.03,
    "random sequences of errors, power losses and pulled plugs over several sweeps",
    "no reading is wrong, no lock stays taken, everything heals",
)
@settings(max_examples=60)
@given(
    wiring=st.sampled_from(sorted(WIRINGS)),
    sweeps=st.lists(st.tuples(st.lists(fault, max_size=3), st.lists(event, max_size=2)), min_size=1, max_size=6),
)
def test_no_sequence_of_errors_makes_a_wrong_reading(
    wiring: str, sweeps: list[tuple[list[tuple[int, int, bool, int]], list[tuple[str, int]]]]
) -> None:
    """Up to twelve errors in a row: no transfer is tried as often."""
    bench = Bench.of(WIRINGS[wiring])
    for faults, events in sweeps:
        bench.wire.faults.clear()
        for position, code, after_effect, run in faults:
            for index in range(position, position + run):
                bench.wire.faults.fail_at(bench.wire.transactions + index, code, after_effect=after_effect)
        for what, number in events:
            happen(bench, what, number)
        bench.run_next()  # checks every reading, and that every lock is free
    bench.wire.faults.clear()
    for part in (*bench.world.muxes.values(), *bench.world.chips.values()):
        part.plug()
    bench.clock.sleep(10.0)  # the longest back-off
    bench.run_until_read(15)  # one back-off more, if power was lost before the first result
    assert bench.all_muxes_are_closed()


@pytest.mark.reliability(
    1.3,
    "a bus held low, so that every transaction times out",
    "a sweep ends after two time-outs, and the next one is right",
)
def test_a_stuck_bus_costs_a_sweep_two_time_outs() -> None:
    text = "".join(mux(f"m{n}", 0x70 + n) for n in range(8)) + "".join(
        ina260(f"d{m}{n}", f'mux = "m{m}", channel = {n}') for m in range(8) for n in range(8)
    )
    bench = Bench.of(text, 'sample_interval = "5s"\n')
    bench.run_until_read()

    def times_out(_: Transaction) -> int:
        bench.clock.sleep(1.0)
        return errno.ETIMEDOUT

    bench.wire.faults.fail_when(times_out)
    bench.clock.sleep(5.0)
    before = bench.clock.seconds
    outcomes = bench.run()
    assert bench.clock.seconds - before == 2.0
    for device in ("d00", "d77"):
        assert failure(outcomes[device]).startswith("/dev/i2c-1: stuck, transactions time out")
    bench.wire.faults.clear()
    assert bench.all_read(bench.run_next())


def test_a_chip_holding_the_clock_costs_one_time_out_per_attempt() -> None:
    bench = set_up(TWO_MUXES)

    def times_out(transaction: Transaction) -> int | None:
        if transaction.messages[0].address != 0x41:
            return None
        bench.clock.sleep(1.0)
        return errno.ETIMEDOUT

    bench.wire.faults.fail_when(times_out)
    for _ in range(4):
        before = bench.clock.seconds
        outcomes = bench.run_next()
        assert bench.clock.seconds - before <= 1.0 + 1.0
        assert {device for device, o in outcomes.items() if isinstance(o, Failure)} == {"r1", "r3"}


def test_time_outs_with_answers_between_them_are_not_a_stuck_bus() -> None:
    bench = set_up(TWO_MUXES)

    def time_out(length: int) -> bytes:
        raise OSError(errno.ETIMEDOUT, f"{length} bytes did not come in time")

    for device in ("a0", "b0", "b1"):
        bench.chip(device).read = time_out
    outcomes = bench.run_next()
    assert {device for device, outcome in outcomes.items() if isinstance(outcome, Failure)} == {"a0", "b0", "b1"}
    assert "no INA260 at 0x40 behind mux m1 (0x71 on /dev/i2c-1) channel 5: time-out" in failure(outcomes["b1"])


def test_two_time_outs_around_a_nack_are_not_a_stuck_bus() -> None:
    bench = set_up("".join(ina260(f"d{n}", "bus = 1", 0x40 + n) for n in range(4)))
    bench.wire.faults.fail_when(
        lambda transaction: {0x40: errno.ETIMEDOUT, 0x41: errno.EREMOTEIO, 0x42: errno.ETIMEDOUT}.get(
            transaction.messages[0].address
        )
    )
    assert bench.kinds(bench.run_next()) == {"d0": Failure, "d1": Failure, "d2": Failure, "d3": Reading}


@pytest.mark.reliability(
    4,
    "channels left open on two muxes, also on nested ones",
    "they are closed before anything is read: never a wired AND",
)
@pytest.mark.parametrize(("text", "left_open"), [(TWO_MUXES, ["m0", "m1"]), (NESTED, ["m0", "inner", "twin"])])
def test_channels_left_open_never_make_a_wired_and(text: str, left_open: list[str]) -> None:
    bench = set_up(text)
    for mask in (0x01, 0x08, 0x20, 0xFF):
        for names in ([name] for name in left_open):
            for name in names:
                bench.world.muxes[name].write(bytes([mask]))
                bench.world.muxes[name].stop()
            assert bench.all_read(bench.run_next())
        for name in left_open:
            bench.world.muxes[name].write(bytes([mask]))
            bench.world.muxes[name].stop()
        assert bench.all_read(bench.run_next())
        assert bench.all_muxes_are_closed()


@pytest.mark.reliability(
    4,
    "a process that ends at any single transaction",
    "the next one reads right at once",
)
@pytest.mark.parametrize("text", [TWO_MUXES, NESTED])
def test_a_process_killed_at_any_transaction_does_not_affect_the_next(text: str) -> None:
    bench = set_up(text)

    class Killed(BaseException):
        pass

    def run_until_killed_at(position: int) -> None:
        """The transaction happens and no later one does: a killed process does not clean up."""
        transact, seen = bench.wire.transfer, iter(range(1000))

        def transfer(messages: Any) -> None:
            at = next(seen)
            if at > position:
                raise Killed
            transact(messages)

        bench.wire.transfer = transfer
        with pytest.raises(Killed):
            bench.sweep.run()
        bench.wire.transfer = transact

    for position in range(transactions_of_a_sweep(bench) - 1):
        bench.clock.sleep(1.0)
        run_until_killed_at(position)
        bench.opened.clear()
        bench.sweep = bench.new_sweep(were_read=True)
        assert bench.all_read(bench.run())
        # This run did not open `twin`, so it may stay open behind the closed `m0`, where it is harmless.
        assert bench.world.muxes["m0"].control == 0
