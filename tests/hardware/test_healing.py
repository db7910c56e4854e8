"""Muxes, chips, their power and whole buses vanish and return: the reports, and the recovery."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from agent.errors import BusError
from agent.measure.readings import Failure, Reading, Settling
from agent.simulate.chips import CONFIG, Register, RegisterChip
from agent.simulate.rails import ConstantRail
from tests.bench import FAST, SHORTEST, Bench, failure, ina260, ina3221, mux, power_losses, with_shunt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.simulate.wire import Message, Wire

NODE = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + ina260("cpu", 'mux = "m0", channel = 3')
    + ina260("gpu", 'mux = "m1", channel = 3')
    + ina3221("radio", 'mux = "m1", channel = 4', 2)
)
ON_ONE_BUS = [
    ina260("cpu", "bus = 1"),
    ina3221("cpu", "bus = 1", 2, 0x40),
    *(with_shunt(chip, "cpu", "bus = 1") for chip in SHORTEST),
]
DEFAULT = 'averaging = { count = 1, voltage = "1.1ms", current = "1.1ms" }'
"""With it an INA260, or an INA3221 with all its inputs in use, is configured as it is at power-on."""

SLOW = 'averaging = { count = 256, voltage = "4.156ms", current = "8.244ms" }'
"""A conversion of an INA260 then takes 3.17 s, several sweeps."""


def set_up(text: str) -> Bench:
    bench = Bench.of(text)
    bench.run_until_read()
    return bench


def before_transaction(wire: Wire, index: int, act: Callable[[], None]) -> None:
    """Do something to the node right before a transaction."""
    transact = type(wire).transfer

    def transfer(messages: Sequence[Message]) -> None:
        if wire.transactions == index:
            del wire.transfer
            act()
        transact(wire, messages)

    wire.transfer = transfer


def configuration_of(chip: RegisterChip) -> int:
    return chip._words[CONFIG]


def transactions_of_a_sweep(bench: Bench) -> int:
    before = bench.wire.transactions
    bench.run_next()
    return bench.wire.transactions - before


def test_a_silent_mux_costs_only_its_own_devices_and_is_named() -> None:
    bench = set_up(NODE)
    bench.world.muxes["m0"].unplug()
    outcomes = bench.run_next()
    assert failure(outcomes["cpu"]) == (
        "mux m0 (0x70 on /dev/i2c-1) does not answer: NACK; "
        "check its power, its wiring and its address straps: 0x70 is A2 low, A1 low, A0 low"
    )
    assert isinstance(outcomes["gpu"], Reading)
    assert isinstance(outcomes["radio"], Reading)


def test_a_mux_absent_from_the_start_costs_only_its_own_devices() -> None:
    bench = Bench.of(NODE)
    bench.world.muxes["m1"].unplug()
    bench.run()
    outcomes = bench.run_next()
    assert bench.kinds(outcomes) == {"cpu": Reading, "gpu": Failure, "radio": Failure}


@pytest.mark.reliability(
    2,
    "a mux or a chip unplugged for seconds or minutes",
    "the other chips are still read; the missing ones are read within 10 s of their return",
)
@pytest.mark.parametrize("away_seconds", [0.5, 7, 60, 600])
@pytest.mark.parametrize("part", ["m0", "cpu"])
def test_an_unplugged_part_is_read_within_ten_seconds_of_its_return(part: str, away_seconds: float) -> None:
    bench = set_up(NODE)
    plugged = bench.world.muxes.get(part) or bench.chip(part)
    plugged.unplug()
    gone_at = bench.clock.seconds
    while bench.clock.seconds < gone_at + away_seconds:
        assert isinstance(bench.run_next()["cpu"], Failure)
    plugged.plug()
    back_at = bench.clock.seconds
    while not isinstance(bench.run_next()["cpu"], Reading):
        assert bench.clock.seconds - back_at <= 10.0 + 2.0
    assert bench.all_read(bench.run_next())


def test_one_failure_costs_one_sweep_and_repeated_ones_back_off() -> None:
    bench = set_up(NODE)
    bench.chip("cpu").unplug()
    assert isinstance(bench.run_next()["cpu"], Failure)
    bench.chip("cpu").plug()
    assert isinstance(bench.run_next()["cpu"], Settling)
    assert isinstance(bench.run_next()["cpu"], Reading)
    bench.chip("cpu").unplug()
    outcomes = [bench.run_next()["cpu"] for _ in range(60)]
    tried = [isinstance(outcome, Failure) and outcome.tried for outcome in outcomes]
    assert tried[:8] == [True, True, False, True, False, False, False, True]
    assert 8 <= sum(tried) <= 10


@pytest.mark.reliability(
    2.01, "a mux that loses its power at any transaction", "no wrong reading; the sweeps after it are right"
)
def test_a_mux_losing_power_at_any_transaction_heals() -> None:
    bench = set_up(NODE)
    for name in ("m0", "m1"):
        for position in range(transactions_of_a_sweep(bench)):
            before_transaction(bench.wire, bench.wire.transactions + position, bench.world.muxes[name].power_loss)
            bench.run_next()
            bench.run_until_read(3)
            assert bench.all_muxes_are_closed()


@pytest.mark.reliability(
    2.02,
    "the device file of the bus vanishes (an adapter is unplugged) and returns",
    "probes back off to every 10 s; then the device file is opened again",
)
@pytest.mark.parametrize("code", [errno.ENODEV, errno.EBADF, errno.ESHUTDOWN])
def test_a_bus_is_reopened_when_its_device_file_returns(code: int) -> None:
    bench = set_up(NODE)
    bench.wire.faults.fail_when(lambda _: code)
    assert "the adapter is gone" in failure(bench.run_next()["cpu"])
    bench.refusal = BusError("/dev/i2c-1: No such file or directory")
    opened, attempts = len(bench.opened), bench.attempts
    for _ in range(30):
        assert all(isinstance(outcome, Failure) for outcome in bench.run_next().values())
    assert len(bench.opened) == opened
    assert 3 <= bench.attempts - attempts <= 8  # a bus backs off like a chip
    bench.refusal = None
    bench.wire.faults.clear()
    back_at = bench.clock.seconds
    while not bench.all_read(bench.run_next()):
        assert bench.clock.seconds - back_at <= 10.0 + 2.0
    assert len(bench.opened) == opened + 1


def test_a_bus_on_which_nothing_answers_is_reopened() -> None:
    bench = set_up(NODE)
    stale = bench.opened[-1]
    bench.wire.faults.fail_when(lambda _: errno.EIO)
    bench.run_next()
    bench.wire.faults.clear()
    stale.deinit()  # plugged in again: the old handle never works again
    bench.run_until_read(3)
    assert bench.opened[-1] is not stale


@pytest.mark.parametrize(
    "refusal", [RuntimeError("I2C Bus #1 not found"), FileNotFoundError(2, "No such file"), ValueError("no pins")]
)
def test_any_exception_from_opening_a_bus_is_a_failure_naming_it(refusal: Exception) -> None:
    bench = Bench.of(NODE)
    bench.refusal = refusal
    output = failure(bench.run()["cpu"])
    assert output.startswith("/dev/i2c-1: cannot be opened (")
    assert str(refusal) in output
    bench.refusal = None
    bench.clock.sleep(1.0)
    bench.run_until_read(2)


def test_a_bus_locked_elsewhere_in_this_process_is_opened_again() -> None:
    bench = set_up(NODE)
    held = bench.opened[-1]
    assert held.try_lock()
    bench.clock.sleep(1.0)
    outcomes = {outcome.device: outcome for outcome in bench.sweep.run()}
    assert bench.all_read(outcomes)
    assert bench.opened[-1] is not held
    held.unlock()
    bench.run_next()
    bench.run_until_read(2)


# Power loss


@pytest.mark.reliability(
    3,
    "a chip that loses its power at any transaction",
    "the loss is counted once and the chip configured again; no zero becomes a reading",
)
@pytest.mark.parametrize("averaging", [FAST, DEFAULT, 'averaging = "auto"'], ids=["fast", "as at power-on", "auto"])
@pytest.mark.parametrize("chip", ["ina260", "ina3221", *SHORTEST])
def test_power_loss_at_any_transaction_is_reported_once_without_zeros(chip: str, averaging: str) -> None:
    if chip == "ina260":
        text = mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 3', more=averaging)
    elif chip != "ina3221":
        more = averaging if "auto" in averaging else SHORTEST[chip]
        text = mux("m0", 0x70) + with_shunt(chip, "cpu", 'mux = "m0", channel = 3', more=more)
    else:
        inputs = (("cpu", 1), ("in2", 2), ("in3", 3))
        text = mux("m0", 0x70) + "".join(
            ina3221(name, 'mux = "m0", channel = 3', number, more=averaging) for name, number in inputs
        )
    bench = set_up(text)
    configuration = configuration_of(bench.chip("cpu"))
    # Once more than there are: after the last transaction, when the sweep is over.
    for position in range(transactions_of_a_sweep(bench) + 1):
        before_transaction(bench.wire, bench.wire.transactions + position, bench.chip("cpu").power_loss)
        sweeps = [bench.run_next()]
        while len(sweeps) < 5:
            sweeps.append(bench.run_next())
        assert power_losses(sweeps, "cpu") == 1, position
        assert not any(isinstance(outcome, Failure) for outcomes in sweeps for outcome in outcomes.values())
        assert bench.all_read(sweeps[-1])
        assert configuration_of(bench.chip("cpu")) == configuration


@pytest.mark.reliability(
    3,
    "a chip that loses its power again while it settles",
    "no zero becomes a reading",
)
@pytest.mark.parametrize("averaging", [FAST, DEFAULT], ids=["fast", "as at power-on"])
@pytest.mark.parametrize("chip", ["ina260", "ina3221", *SHORTEST])
def test_a_second_power_loss_while_settling_is_never_reported_as_zeros(chip: str, averaging: str) -> None:
    """Several sweeps fall into the first conversion, during which results read zero."""
    place = 'mux = "m0", channel = 3'
    text = ina260("in1", place, more=averaging)
    if chip in SHORTEST:
        text = with_shunt(chip, "in1", place)
    if chip == "ina3221":
        text = "".join(ina3221(f"in{number}", place, number, more=averaging) for number in (1, 2, 3))
    bench = set_up(mux("m0", 0x70) + text)
    for position in range(40):
        bench.chip("in1").power_loss()
        before_transaction(bench.wire, bench.wire.transactions + position, bench.chip("in1").power_loss)
        for _ in range(12):
            bench.run()  # checks what is reported
            bench.clock.sleep(0.0004)
        bench.clock.sleep(10.0)
        bench.run_until_read(15)


@pytest.mark.parametrize("averaging", [FAST, DEFAULT], ids=["fast", "as at power-on"])
def test_power_loss_while_a_chip_is_unplugged_is_reported_once(averaging: str) -> None:
    bench = set_up(ina260("cpu", "bus = 1", more=averaging))
    bench.chip("cpu").unplug()
    sweeps = [bench.run_next() for _ in range(3)]
    bench.chip("cpu").plug()
    sweeps += [bench.run_next() for _ in range(15)]
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[-1]["cpu"], Reading)


def test_power_loss_is_reported_once_whichever_later_transaction_fails() -> None:
    bench = set_up(NODE)
    for position in range(40):
        bench.chip("cpu").power_loss()
        bench.wire.faults.fail_at(bench.wire.transactions + position, errno.ETIMEDOUT, after_effect=True)
        sweeps = [bench.run_next() for _ in range(5)]
        bench.wire.faults.clear()
        assert power_losses(sweeps, "cpu") == 1, position
        assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("sweeps_before", [0, 3])
def test_a_chip_that_does_not_keep_its_configuration_fails(
    sweeps_before: int,
) -> None:
    bench = Bench.of(ina260("cpu", "bus = 1"))
    for _ in range(sweeps_before):
        bench.run_next()
    chip = bench.chip("cpu")
    keeps = chip._write_register
    chip._write_register = lambda pointer, word: keeps(pointer, word & 0 | 0x6127)
    chip.power_loss()
    sweeps = [bench.run_next() for _ in range(20)]
    assert isinstance(sweeps[0]["cpu"], Settling)
    assert "is back at its power-on configuration" in failure(sweeps[1]["cpu"])
    assert power_losses(sweeps, "cpu") == (1 if sweeps_before else 0)
    assert not any(isinstance(outcomes["cpu"], Reading) for outcomes in sweeps)


@pytest.mark.parametrize("sweeps_before", [0, 3])
def test_a_chip_that_keeps_only_its_canary_bit_fails(sweeps_before: int) -> None:
    bench = Bench.of(ina260("cpu", "bus = 1"))
    for _ in range(sweeps_before):
        bench.run_next()
    chip = bench.chip("cpu")
    keeps = chip._write_register
    chip._write_register = lambda pointer, word: keeps(pointer, 0x6127 if pointer == CONFIG else word)
    chip.power_loss()
    sweeps = [bench.run_next() for _ in range(20)]
    assert "is back at its power-on configuration" in failure(sweeps[1]["cpu"])
    assert not any(isinstance(outcomes["cpu"], Reading) for outcomes in sweeps)


# Waiting for conversions


def test_a_chip_that_an_earlier_run_read_is_read_without_writing() -> None:
    for text in (NODE, NODE.replace(FAST, 'averaging = "auto"')):
        bench = set_up(text)
        for _ in range(3):  # one after the other: the flag of the conversion is read and cleared by the first
            bench.sweep = bench.new_sweep(were_read=True)
            bench.wire.log = []
            assert bench.all_read(bench.run())
            written = [t for t in bench.wire.log if t.messages[0].address < 0x70 and len(t.messages[0].data) > 1]
            assert written == []


def test_results_from_before_its_configuration_are_not_read_after_a_kill() -> None:
    text = ina260("cpu", "bus = 1", more='averaging = "auto"')
    bench = set_up(text)
    bench.chip("cpu").write(b"\x00\x60\x27")  # another program, whose results are in the registers
    bench.clock.sleep(1.0)
    bench.sweep = bench.new_sweep()
    assert isinstance(bench.run()["cpu"], Settling)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.amperes = 1.0
    bench.clock.sleep(0.2)
    bench.sweep = bench.new_sweep()
    assert isinstance(bench.run()["cpu"], Settling)
    assert isinstance(bench.run_next()["cpu"], Reading)


def test_results_from_before_its_configuration_are_not_read_after_a_failure() -> None:
    bench = set_up(mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 3', more=SLOW))
    bench.chip("cpu").write(b"\x00\x60\x27")  # another program
    kinds = [type(bench.run_next()["cpu"])]
    while kinds[-1] is not Failure and len(kinds) < 61:
        kinds.append(type(bench.run_next()["cpu"]))
    assert kinds[-1] is Failure
    assert isinstance(bench.run_next()["cpu"], Settling)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.amperes = 1.0
    bench.wire.faults.fail_when(lambda _: errno.EIO)
    assert isinstance(bench.run_next()["cpu"], Failure)
    bench.wire.faults.clear()
    bench.run_until_read(8)  # checks what is reported


def test_zeros_are_not_read_beside_an_observer() -> None:
    bench = set_up(ina260("cpu", "bus = 1", more='averaging = "auto"'))
    run = bench.sweep
    bench.run_next()
    observer = bench.new_sweep(is_observer=True)
    bench.chip("cpu").power_loss()
    observer.run()
    bench.clock.sleep(0.01)
    bench.sweep = run
    sweeps = [bench.run()] + [bench.run_next() for _ in range(4)]  # each checks what is reported
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[-1]["cpu"], Reading)


def test_an_observer_leaves_a_chip_that_lost_its_power_to_the_run() -> None:
    for text in ON_ONE_BUS:
        bench = set_up(text)
        run = bench.sweep
        bench.chip("cpu").power_loss()
        bench.sweep = bench.new_sweep(is_observer=True)
        bench.run_until_read()
        bench.sweep = run
        sweeps = [bench.run_next() for _ in range(3)]
        assert power_losses(sweeps, "cpu") == 1
        assert isinstance(sweeps[-1]["cpu"], Reading)


def test_a_newly_enabled_input_settles_first() -> None:
    text = "".join(ina3221(f"in{n}", "bus = 1", n, more='averaging = "auto"') for n in (1, 3))
    bench = set_up(text)
    chip = bench.chip("in1")
    ours = configuration_of(chip)
    chip.power_loss()
    chip.write(b"\x00" + ((ours & ~(1 << 12)) & 0xFFFF).to_bytes(2, "big"))  # without input 3
    bench.clock.sleep(2.0)
    chip.write(b"\x00" + ours.to_bytes(2, "big"))
    bench.sweep = bench.new_sweep()
    assert bench.kinds(bench.run()) == {"in1": Settling, "in3": Settling}
    bench.run_until_read(4)


@pytest.mark.parametrize("interval", ["10ms", "1s", "10s"])
def test_settling_takes_at_most_a_conversion_and_half_a_second(interval: str) -> None:
    bench = Bench.of(NODE.replace(FAST, 'averaging = "auto"'), f'sample_interval = "{interval}"\n')
    began = bench.clock.seconds
    outcomes = bench.run()
    while not bench.all_read(outcomes):  # as `--once` does
        ready = [outcome.ready_at_seconds for outcome in outcomes.values() if isinstance(outcome, Settling)]
        bench.clock.seconds = max(bench.clock.seconds, min(ready))
        outcomes = bench.run()
    longest = max(outcome.window_seconds for outcome in outcomes.values() if isinstance(outcome, Reading))
    assert bench.clock.seconds - began <= longest * 1.1 + 0.5


def test_a_chip_that_never_finishes_a_conversion_keeps_failing() -> None:
    bench = set_up(ina260("cpu", "bus = 1"))
    bench.sweep = bench.new_sweep()
    chip = bench.chip("cpu")
    RegisterChip._write_register(chip, CONFIG, 0x6127)
    chip._update_results = lambda: None
    began = bench.clock.seconds
    outcome = bench.run()["cpu"]
    while isinstance(outcome, Settling):
        bench.clock.seconds = max(bench.clock.seconds, outcome.ready_at_seconds)
        assert bench.clock.seconds - began <= 0.6
        outcome = bench.run()["cpu"]
    assert "INA260 at 0x40 on /dev/i2c-1: no conversion finished in time (0.00112 s)" in failure(outcome)
    later = [bench.run_next()["cpu"] for _ in range(30)]
    assert not any(isinstance(outcome, Reading) for outcome in later)


def test_a_stopped_chip_that_is_found_configured_is_configured_again() -> None:
    bench = set_up(ina260("cpu", "bus = 1"))
    bench.sweep = bench.new_sweep()
    RegisterChip._write_register(bench.chip("cpu"), CONFIG, configuration_of(bench.chip("cpu")))  # clears its flag
    bench.chip("cpu")._finished = 10**9
    sweeps = [bench.run()] + [bench.run_next() for _ in range(4)]
    kinds = [type(outcomes["cpu"]) for outcomes in sweeps]
    assert kinds == [Settling, Failure, Settling, Reading, Reading]
    assert "no conversion finished in time" in failure(sweeps[1]["cpu"])


def test_an_observer_needs_no_flag_that_the_run_cleared() -> None:
    bench = set_up(ina260("cpu", "bus = 1", more=SLOW))
    bench.sweep = bench.new_sweep(is_observer=True)
    assert bench.all_read(bench.run())


def test_a_run_awaits_a_second_result_beside_an_observer() -> None:
    bench = set_up(ina260("cpu", "bus = 1", more=SLOW))
    run, observer = bench.sweep, bench.new_sweep(is_observer=True)
    bench.chip("cpu").power_loss()
    sweeps = []
    for _ in range(12):
        bench.sweep = observer
        bench.run_next()
        bench.sweep = run
        sweeps.append(bench.run())
    assert power_losses(sweeps, "cpu") == 1
    assert not any(isinstance(outcomes["cpu"], Failure) for outcomes in sweeps)
    assert isinstance(sweeps[-1]["cpu"], Reading)


# Wrong chips and wrong words


def swapped(text: str, other: str) -> Bench:
    """A node that is wired as in one text and configured as in another."""
    bench = Bench.of(text)
    bench.world = Bench(bench.settings, bench.clock).world
    wired = Bench.of(other)
    bench.world.wires[1] = wired.world.wires[1]
    return bench


@pytest.mark.reliability(
    7,
    "another chip, or none, where one is configured",
    "the chip is refused and never written to; the error names its full place",
)
@pytest.mark.parametrize(
    ("configured", "wired", "message"),
    [
        (
            ina260("cpu", 'mux = "m0", channel = 3'),
            ina3221("cpu", 'mux = "m0", channel = 3', 1, 0x40),
            "not an INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: ",
        ),
        (
            ina3221("cpu", 'mux = "m0", channel = 3', 1, 0x40),
            ina260("cpu", 'mux = "m0", channel = 3'),
            (
                "not an INA3221 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: its IDs read 0x5449 0x2270 "
                "instead of 0x5449 0x3220; wattpush scan says what is there"
            ),
        ),
        (
            ina260("cpu", 'mux = "m0", channel = 3'),
            ina260("cpu", 'mux = "m0", channel = 3', 0x44),
            (
                "no INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: NACK; "
                "is it powered? Are the channel and the address right?"
            ),
        ),
        (
            ina3221("cpu", 'mux = "m0", channel = 3', 1),
            ina260("cpu", 'mux = "m0", channel = 3', 0x44),
            (
                "no INA3221 at 0x41 behind mux m0 (0x70 on /dev/i2c-1) channel 3: NACK; "
                "is it powered? Are the channel and the address right?"
            ),
        ),
    ],
)
def test_a_wrong_or_missing_chip_is_refused_and_never_written_to(configured: str, wired: str, message: str) -> None:
    bench = swapped(mux("m0", 0x70) + configured, mux("m0", 0x70) + wired)
    bench.wire.log = []
    for _ in range(3):
        assert failure(bench.run_next()["cpu"]).startswith(message)
    assert not any(len(m.data) > 1 for t in bench.wire.log for m in t.messages if not m.is_read)


@pytest.mark.reliability(7.1, "a chip stuck at 0x0000 or 0xFFFF", "a failure, not a reading")
@pytest.mark.parametrize("stuck_at", [0x0000, 0xFFFF])
@pytest.mark.parametrize("text", ON_ONE_BUS)
def test_a_line_stuck_at_one_level_is_never_a_reading(text: str, stuck_at: int) -> None:
    for sweeps_before in (0, 3):
        bench = Bench.of(text)
        for _ in range(sweeps_before):
            bench.run_next()
        stuck_chip = bench.chip("cpu")
        stuck_chip.read = lambda length: bytes([stuck_at & 0xFF] * length)
        for _ in range(5):
            outcome = bench.run_next()["cpu"]
            if "ina219" in text and stuck_at == 0 and isinstance(outcome, Settling):
                continue  # without an ID, it may be one whose converter was switched off; no result will come
            output = failure(outcome)
            assert f"0x{stuck_at:04x}" in output or str(stuck_at) in output or "no conversion finished" in output


@pytest.mark.reliability(
    7.2, "a current out of the range of the chip", "a failure; the limit of the range is not reported as a reading"
)
@pytest.mark.parametrize("amperes", [60.0, -60.0])
@pytest.mark.parametrize("text", ON_ONE_BUS)
def test_a_current_out_of_range_is_a_failure(text: str, amperes: float) -> None:
    bench = set_up(text)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.amperes = amperes
    assert "the end of its range" in failure(bench.run_next()["cpu"])
    rail.amperes = 0.5
    bench.run_next()
    bench.run_until_read(3)


@pytest.mark.reliability(
    7.21, "one of several inputs out of range", "its device fails, and the error names the input; the others are read"
)
@pytest.mark.parametrize("beyond", [("amperes", 60.0), ("volts", 30.0)])
def test_an_input_out_of_range_does_not_affect_the_others(beyond: tuple[str, float]) -> None:
    bench = set_up("".join(ina3221(f"in{number}", "bus = 1", number, 0x40) for number in (1, 2, 3)))
    quantity, value = beyond
    setattr(bench.rails["in2"], quantity, value)
    for _ in range(4):
        outcomes = bench.run_next()
        assert "input 2 of INA3221" in failure(outcomes["in2"])
        assert isinstance(outcomes["in1"], Reading)
        assert isinstance(outcomes["in3"], Reading)
    for name in ("in1", "in3"):
        setattr(bench.rails[name], quantity, value)
    outcomes = bench.run_next()
    for number in (1, 2, 3):
        assert f"input {number} of INA3221" in failure(outcomes[f"in{number}"])


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_an_impossible_voltage_is_a_failure(text: str) -> None:
    bench = set_up(text)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.volts = 39.0
    assert "bus voltage register reads 0x" in failure(bench.run_next()["cpu"])


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_foreign_configuration_is_found_within_a_minute_and_replaced(text: str) -> None:
    bench = set_up(text)
    ours = configuration_of(bench.chip("cpu"))
    bench.chip("cpu").write(b"\x00\x45\x1f")
    sweeps = [bench.run_next() for _ in range(61)]
    failures = [outcomes["cpu"] for outcomes in sweeps if isinstance(outcomes["cpu"], Failure)]
    assert ["does another program use this chip" in failure(outcome) for outcome in failures] == [True]
    bench = set_up(text)
    bench.chip("cpu").write(b"\x00\x45\x18")  # powered down
    sweeps = []
    while not sweeps or not isinstance(sweeps[-1]["cpu"], Failure):
        sweeps.append(bench.run_next())
    assert len(sweeps) <= 3
    assert "does another program use this chip" in failure(sweeps[-1]["cpu"])
    assert isinstance(bench.run_next()["cpu"], Settling)
    assert isinstance(bench.run_next()["cpu"], Reading)
    assert configuration_of(bench.chip("cpu")) == ours
    assert power_losses([bench.run_next()], "cpu") == 0


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_chip_that_keeps_no_canary_bit_has_its_configuration_read(text: str) -> None:
    bench = Bench.of(text)
    chip = bench.chip("cpu")
    keeps = chip._write_register
    chip._write_register = lambda pointer, word: keeps(pointer, word if pointer == CONFIG else 0)
    bench.run_until_read()
    for _ in range(3):
        bench.wire.log = []
        assert isinstance(bench.run_next()["cpu"], Reading)
        assert bench.wire.log[-1].messages[0].data == b"\x00"
    chip.power_loss()
    sweeps = [bench.run_next() for _ in range(4)]
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_process_paused_after_a_read_does_not_fail_its_chip(text: str) -> None:
    bench = set_up(text)
    transact = type(bench.wire).transfer

    def read_and_pause_after_the_last(messages: Sequence[Message]) -> None:
        transact(bench.wire, messages)
        if bench.wire.transactions == last:
            bench.clock.sleep(60.0)

    before = bench.wire.transactions
    (outcome,) = bench.sweep.run()  # nothing new: no conversion has ended since the last one
    assert isinstance(outcome, Reading)
    assert not outcome.is_new
    last = bench.wire.transactions + (bench.wire.transactions - before)
    bench.wire.transfer = read_and_pause_after_the_last
    (outcome,) = bench.sweep.run()
    assert isinstance(outcome, Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_chip_that_stops_converting_is_configured_again(text: str) -> None:
    bench = set_up(text)
    chip = bench.chip("cpu")
    chip._finished = 10**9
    sweeps = [bench.run_next() for _ in range(5)]
    kinds = [type(outcomes["cpu"]) for outcomes in sweeps]
    assert kinds == [Reading, Failure, Settling, Reading, Reading]  # the flag of a new result may be flipped once
    assert "has stopped converting" in failure(sweeps[1]["cpu"])


def test_another_program_that_clears_the_flags_costs_no_reading() -> None:
    bench = set_up(ina260("cpu", "bus = 1"))
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    for step in range(60):
        rail.volts = 5.0 + step % 5 / 10
        bench.clock.sleep(0.9)
        bench.clock.sleep(0.0999)  # now the next result is there, but its flag is not
        bench.chip("cpu").write(b"\x06")
        bench.chip("cpu").read(2)
        bench.clock.sleep(0.0001)
        outcome = bench.run()["cpu"]
        assert isinstance(outcome, Reading)
        assert outcome.is_new


def test_a_result_read_twice_is_not_new() -> None:
    bench = Bench.of(ina260("cpu", "bus = 1", more=SLOW))
    bench.run_until_read()
    readings = [bench.run_next()["cpu"] for _ in range(19)]
    assert sum(isinstance(reading, Reading) and reading.is_new for reading in readings) == 6
    assert all(isinstance(reading, Reading) for reading in readings)


def test_an_observer_does_not_clear_the_flags_of_the_run() -> None:
    bench = Bench.of(ina260("cpu", "bus = 1") + ina3221("radio", "bus = 1", 2, 0x41))
    bench.run_until_read()
    run, bench.sweep = bench.sweep, bench.new_sweep(is_observer=True)
    bench.run_until_read()
    for _ in range(5):
        bench.wire.log = []
        assert bench.all_read(bench.run_next())
        assert not {t.messages[0].data for t in bench.wire.log} & {b"\x06", b"\x0f"}
    bench.sweep = run
    assert all(isinstance(outcome, Reading) and outcome.is_new for outcome in bench.run().values())


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_run_counts_a_power_loss_that_an_observer_saw_first(text: str) -> None:
    bench = set_up(text)
    run = bench.sweep
    bench.run_next()
    bench.chip("cpu").power_loss()
    bench.sweep = bench.new_sweep(is_observer=True)
    bench.run_until_read()
    bench.sweep = run
    sweeps = [bench.run_next() for _ in range(4)]
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[1]["cpu"], Reading)
    bench.chip("cpu").power_loss()
    assert power_losses([bench.run_next() for _ in range(4)], "cpu") == 1


def test_no_error_hides_a_power_loss_that_an_observer_saw() -> None:
    text = ina260("cpu", "bus = 1")
    for position in range(15):
        bench = set_up(text)
        bench.run_next()
        run, bench.sweep = bench.sweep, bench.new_sweep(is_observer=True)
        bench.chip("cpu").power_loss()
        bench.run_until_read()
        bench.sweep = run
        bench.wire.faults.fail_at(bench.wire.transactions + position, errno.EREMOTEIO, after_effect=True)
        sweeps = [bench.run_next() for _ in range(6)]
        assert power_losses(sweeps, "cpu") == 1, position
        assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_the_next_run_counts_a_power_loss_that_an_observer_saw(text: str) -> None:
    bench = set_up(text)
    bench.chip("cpu").power_loss()
    bench.sweep = bench.new_sweep(is_observer=True)
    bench.run_until_read()
    for expected in (1, 0):
        bench.sweep = bench.new_sweep(were_read=True)
        sweeps = [bench.run(), bench.run_next(), bench.run_next()]
        assert power_losses(sweeps, "cpu") == expected
        assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_missing_canary_bit_alone_is_not_a_power_loss(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench.of(text)
    chip = type(bench.chip("cpu"))
    registers = {**chip.REGISTERS, chip.MASK_ENABLE: Register(chip.REGISTERS[chip.MASK_ENABLE].default)}
    monkeypatch.setattr(chip, "REGISTERS", registers)
    bench.run_until_read()
    for _ in range(2):
        bench.sweep = bench.new_sweep(were_read=True)
        sweeps = [bench.run(), bench.run_next(), bench.run_next()]
        assert power_losses(sweeps, "cpu") == 0
        assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_run_sets_the_canary_bit_of_a_chip_configured_without_it(text: str) -> None:
    bench = Bench.of(text)
    bench.run_until_read()
    configuration = configuration_of(bench.chip("cpu"))
    bench.chip("cpu").power_loss()
    bench.chip("cpu").write(bytes((CONFIG, *configuration.to_bytes(2, "big"))))
    bench.sweep = bench.new_sweep()
    bench.run_until_read()
    bench.run_next()
    bench.wire.log = []
    bench.run_next()
    assert bench.wire.log[-1].messages[0].data in (b"\x06", b"\x0f")
    bench.chip("cpu").power_loss()
    assert power_losses([bench.run_next() for _ in range(4)], "cpu") == 1


def test_a_driver_that_cannot_be_imported_fails_only_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.chips import ina3221 as module

    def stumble(*_: object) -> object:
        raise ImportError("No module named 'gpiod'")

    monkeypatch.setattr(module.Chip, "open_device", stumble)
    bench = Bench.of(NODE)
    bench.run()
    outcomes = bench.run_next()
    assert bench.kinds(outcomes) == {"cpu": Reading, "gpu": Reading, "radio": Failure}
    assert "its driver failed (ImportError: No module named 'gpiod')" in failure(outcomes["radio"])


def test_an_interrupted_sweep_closes_its_muxes_and_releases_the_lock() -> None:
    bench = set_up(NODE)

    def interrupt() -> None:
        raise KeyboardInterrupt

    bench.clock.sleep(1.0)
    before_transaction(bench.wire, bench.wire.transactions + 3, interrupt)
    with pytest.raises(KeyboardInterrupt):
        bench.sweep.run()
    assert bench.all_muxes_are_closed()
    assert bench.opened[-1].try_lock()
    bench.opened[-1].unlock()
    bench.run_until_read(2)


def test_a_kernel_owned_chip_backs_off_only_while_it_fails(tmp_path: Path) -> None:
    text = '[[device]]\nname = "module"\nchip = "hwmon"\nsensor = "ina3221"\ninput = 1\n'
    bench = Bench(Bench.of(text).settings, hwmon_folder=tmp_path)
    (tmp_path / "hwmon0").mkdir()

    def show(*, plugged: bool) -> None:
        for file, content in {"name": "ina3221", "in1_input": "2000", "curr1_input": "60"}.items():
            (tmp_path / "hwmon0" / file).write_text(content if plugged else "")

    for _ in range(3):
        show(plugged=False)
        assert isinstance(bench.run_next()["module"], Failure)
        show(plugged=True)
        assert isinstance(bench.run_next()["module"], Reading)
    show(plugged=False)
    outcomes = [bench.run_next()["module"] for _ in range(3)]
    assert [isinstance(outcome, Failure) and outcome.tried for outcome in outcomes] == [True, True, False]
