"""What was taken away comes back: muxes, chips, their power and whole buses; and what a failure says meanwhile."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from agent.errors import BusError
from agent.measure.readings import Converting, Failure, Reading
from agent.simulate.chips import CONFIG, Register, RegisterChip
from agent.simulate.rails import ConstantRail
from tests.bench import FAST, SHORTEST, Bench, failure, ina260, ina3221, mux, power_losses, with_shunt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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


def set_up(text: str) -> Bench:
    bench = Bench.of(text)
    bench.run_until_read()
    return bench


def before_transaction(wire: Wire, index: int, act: Callable[[], None]) -> None:
    """Let something happen to the node right before a transaction."""
    transact = type(wire).transfer

    def transfer(messages: list[Message]) -> None:
        if wire.transactions == index:
            del wire.transfer
            act()
        transact(wire, messages)

    wire.transfer = transfer  # type: ignore[method-assign, assignment] # the world goes on between transactions


def configuration_of(chip: RegisterChip) -> int:
    return chip._words[CONFIG]


def transactions_of_a_sweep(bench: Bench) -> int:
    before = bench.wire.transactions
    bench.run_next()
    return bench.wire.transactions - before


def test_a_mux_that_does_not_answer_costs_its_own_devices_only_and_is_named() -> None:
    bench = set_up(NODE)
    bench.world.muxes["m0"].unplug()
    outcomes = bench.run_next()
    assert failure(outcomes["cpu"]) == (
        "mux m0 (0x70 on /dev/i2c-1) does not answer: NACK; "
        "check its power, its wiring and its address straps: 0x70 is A2 low, A1 low, A0 low"
    )
    assert isinstance(outcomes["gpu"], Reading)
    assert isinstance(outcomes["radio"], Reading)


def test_a_mux_absent_from_the_start_costs_its_own_devices_only() -> None:
    bench = Bench.of(NODE)
    bench.world.muxes["m1"].unplug()
    bench.run()
    outcomes = bench.run_next()
    assert bench.kinds(outcomes) == {"cpu": Reading, "gpu": Failure, "radio": Failure}


@pytest.mark.reliability(
    2,
    "a mux or a chip unplugged for seconds or minutes",
    "the others are read on; it is read again at most 10 s after it is back",
)
@pytest.mark.parametrize("away_seconds", [0.5, 7, 60, 600])
@pytest.mark.parametrize("part", ["m0", "cpu"])
def test_what_was_unplugged_is_read_again_at_most_ten_seconds_after_it_is_back(part: str, away_seconds: float) -> None:
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


def test_the_first_failure_costs_one_sweep_and_a_lasting_one_leaves_the_bus_in_peace() -> None:
    bench = set_up(NODE)
    bench.chip("cpu").unplug()
    assert isinstance(bench.run_next()["cpu"], Failure)
    bench.chip("cpu").plug()
    assert isinstance(bench.run_next()["cpu"], Converting)
    assert isinstance(bench.run_next()["cpu"], Reading)
    bench.chip("cpu").unplug()
    outcomes = [bench.run_next()["cpu"] for _ in range(60)]
    tried = [isinstance(outcome, Failure) and outcome.tried for outcome in outcomes]
    assert tried[:8] == [True, True, False, True, False, False, False, True]
    assert 8 <= sum(tried) <= 10


@pytest.mark.reliability(
    2,
    "a mux that loses its power at any transaction",
    "no wrong reading; the sweeps after it are right",
)
def test_a_mux_that_loses_its_power_at_any_transaction_makes_no_wrong_reading_and_heals() -> None:
    bench = set_up(NODE)
    for name in ("m0", "m1"):
        for position in range(transactions_of_a_sweep(bench)):
            before_transaction(bench.wire, bench.wire.transactions + position, bench.world.muxes[name].power_loss)
            bench.run_next()
            bench.run_until_read(3)
            assert bench.all_muxes_are_closed()


@pytest.mark.reliability(
    2,
    "the device file of the bus goes (an adapter unplugged) and comes back",
    "it is tried ever more rarely, up to every 10 s, and opened again",
)
@pytest.mark.parametrize("code", [errno.ENODEV, errno.EBADF, errno.ESHUTDOWN])
def test_a_bus_whose_device_file_goes_and_comes_back_is_opened_again(code: int) -> None:
    bench = set_up(NODE)
    bench.wire.faults.fail_when(lambda _: code)
    assert "the adapter is gone" in failure(bench.run_next()["cpu"])
    bench.refusal = BusError("/dev/i2c-1: No such file or directory")
    opened, attempts = len(bench.opened), bench.attempts
    for _ in range(30):
        assert all(isinstance(outcome, Failure) for outcome in bench.run_next().values())
    assert len(bench.opened) == opened
    assert 3 <= bench.attempts - attempts <= 8  # a bus rests like a chip
    bench.refusal = None
    bench.wire.faults.clear()
    back_at = bench.clock.seconds
    while not bench.all_read(bench.run_next()):
        assert bench.clock.seconds - back_at <= 10.0 + 2.0
    assert len(bench.opened) == opened + 1


def test_an_adapter_that_never_says_that_it_is_gone_is_opened_again_as_nothing_answers() -> None:
    bench = set_up(NODE)
    stale = bench.opened[-1]
    bench.wire.faults.fail_when(lambda _: errno.EIO)
    bench.run_next()
    bench.wire.faults.clear()
    stale.deinit()  # plugged in again: the old handle stays dead for ever
    bench.run_until_read(3)
    assert bench.opened[-1] is not stale


@pytest.mark.parametrize(
    "refusal", [RuntimeError("I2C Bus #1 not found"), FileNotFoundError(2, "No such file"), ValueError("no pins")]
)
def test_whatever_opening_a_bus_raises_is_a_failure_that_names_the_bus_and_heals(refusal: Exception) -> None:
    bench = Bench.of(NODE)
    bench.refusal = refusal
    said = failure(bench.run()["cpu"])
    assert said.startswith("/dev/i2c-1: cannot be opened (")
    assert str(refusal) in said
    bench.refusal = None
    bench.clock.sleep(1.0)
    bench.run_until_read(2)


def test_a_lock_held_by_something_else_in_this_process_is_a_failure_and_no_hang() -> None:
    bench = set_up(NODE)
    held = bench.opened[-1]
    assert held.try_lock()
    bench.clock.sleep(1.0)
    outcomes = {outcome.device: outcome for outcome in bench.sweep.run()}
    assert "held by something else" in failure(outcomes["cpu"])
    held.unlock()
    bench.run_next()
    bench.run_until_read(2)


# Power loss


@pytest.mark.reliability(
    3,
    "a chip that loses its power at any transaction",
    "noticed, counted once, configured again; not one zero is a reading",
)
@pytest.mark.parametrize("averaging", [FAST, DEFAULT, 'averaging = "auto"'], ids=["fast", "as at power-on", "auto"])
@pytest.mark.parametrize("chip", ["ina260", "ina3221", *SHORTEST])
def test_power_lost_at_any_transaction_reports_no_zero_is_told_once_and_is_configured_again(
    chip: str, averaging: str
) -> None:
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
    "the same again while it is configured again",
    "not one zero is a reading",
)
@pytest.mark.parametrize("averaging", [FAST, DEFAULT], ids=["fast", "as at power-on"])
@pytest.mark.parametrize("chip", ["ina260", "ina3221", *SHORTEST])
def test_power_lost_again_at_any_transaction_while_it_is_configured_again_reports_no_zero(
    chip: str, averaging: str
) -> None:
    """The sweeps follow each other within the first conversion, in which results still read zero."""
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
def test_power_lost_while_the_chip_was_silent_is_told_once(averaging: str) -> None:
    bench = set_up(ina260("cpu", "bus = 1", more=averaging))
    bench.chip("cpu").unplug()
    sweeps = [bench.run_next() for _ in range(3)]
    bench.chip("cpu").plug()
    sweeps += [bench.run_next() for _ in range(15)]
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[-1]["cpu"], Reading)


def test_power_lost_is_told_once_even_if_every_single_transaction_after_it_fails_in_turn() -> None:
    bench = set_up(NODE)
    for position in range(40):
        bench.chip("cpu").power_loss()
        bench.wire.faults.fail_at(bench.wire.transactions + position, errno.ETIMEDOUT, after_effect=True)
        sweeps = [bench.run_next() for _ in range(5)]
        bench.wire.faults.clear()
        assert power_losses(sweeps, "cpu") == 1, position
        assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("sweeps_before", [0, 3])
def test_a_chip_that_does_not_keep_its_configuration_is_a_failure_and_not_a_wait_without_end(
    sweeps_before: int,
) -> None:
    bench = Bench.of(ina260("cpu", "bus = 1"))
    for _ in range(sweeps_before):
        bench.run_next()
    chip = bench.chip("cpu")
    keeps = chip._write_register
    chip._write_register = lambda pointer, word: keeps(pointer, word & 0 | 0x6127)  # type: ignore[method-assign] # a faulty chip
    chip.power_loss()
    sweeps = [bench.run_next() for _ in range(20)]
    assert isinstance(sweeps[0]["cpu"], Converting)
    assert "configuration register reads 0x6127 instead of" in failure(sweeps[1]["cpu"])
    assert power_losses(sweeps, "cpu") == (1 if sweeps_before else 0)
    assert not any(isinstance(outcomes["cpu"], Reading) for outcomes in sweeps)


# Waiting for conversions


def test_a_chip_that_an_earlier_run_set_up_and_read_is_read_at_once_and_nothing_is_written_to_it() -> None:
    for text in (NODE, NODE.replace(FAST, 'averaging = "auto"')):
        bench = set_up(text)
        for _ in range(3):  # one after the other: the flag of the conversion is read and cleared by the first
            bench.sweep = bench.new_sweep(were_read=True)
            bench.wire.log = []
            assert bench.all_read(bench.run())
            written = [t for t in bench.wire.log if t.messages[0].address < 0x70 and len(t.messages[0].data) > 1]
            assert written == []


def test_what_a_chip_holds_from_before_is_not_read_when_the_run_that_configured_it_was_killed_at_once() -> None:
    text = ina260("cpu", "bus = 1", more='averaging = "auto"')
    bench = set_up(text)
    bench.chip("cpu").write(b"\x00\x60\x27")  # another program, whose results are in the registers
    bench.clock.sleep(1.0)
    bench.sweep = bench.new_sweep()
    assert isinstance(bench.run()["cpu"], Converting)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.amperes = 1.0
    bench.clock.sleep(0.2)
    bench.sweep = bench.new_sweep()
    assert isinstance(bench.run()["cpu"], Converting)
    assert isinstance(bench.run_next()["cpu"], Reading)


def test_zeros_after_a_power_loss_that_a_guest_saw_first_are_not_read() -> None:
    bench = set_up(ina260("cpu", "bus = 1", more='averaging = "auto"'))
    run = bench.sweep
    bench.run_next()
    guest = bench.new_sweep(is_guest=True)
    bench.chip("cpu").power_loss()
    guest.run()
    bench.clock.sleep(0.01)
    bench.sweep = run
    sweeps = [bench.run()] + [bench.run_next() for _ in range(4)]  # each checks what is reported
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[-1]["cpu"], Reading)


def test_a_guest_leaves_a_power_loss_of_a_chip_that_cannot_be_marked_to_the_run() -> None:
    text = '[[device]]\nname = "cpu"\nchip = "ina219"\nbus = 1\naddress = 64\nshunt_ohms = 0.1\n'
    bench = set_up(text)
    run, bench.sweep = bench.sweep, bench.new_sweep(is_guest=True)
    bench.run_until_read()
    bench.chip("cpu").power_loss()
    assert "left to the run" in failure(bench.run_next()["cpu"])
    bench.sweep = run
    sweeps = [bench.run_next() for _ in range(3)]
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[-1]["cpu"], Reading)


def test_an_input_that_an_earlier_run_switched_on_a_moment_ago_is_waited_for_while_the_others_have_old_results() -> (
    None
):
    text = "".join(ina3221(f"in{n}", "bus = 1", n, more='averaging = "auto"') for n in (1, 3))
    bench = set_up(text)
    chip = bench.chip("in1")
    ours = configuration_of(chip)
    chip.power_loss()
    chip.write(b"\x00" + ((ours & ~(1 << 12)) & 0xFFFF).to_bytes(2, "big"))  # without input 3
    bench.clock.sleep(2.0)
    chip.write(b"\x00" + ours.to_bytes(2, "big"))
    bench.sweep = bench.new_sweep()
    assert bench.kinds(bench.run()) == {"in1": Converting, "in3": Converting}
    bench.run_until_read(2)


@pytest.mark.parametrize("interval", ["10ms", "1s", "10s"])
def test_a_chip_just_configured_is_waited_for_no_longer_than_its_conversion_and_half_a_second(interval: str) -> None:
    bench = Bench.of(NODE.replace(FAST, 'averaging = "auto"'), f'sample_interval = "{interval}"\n')
    began = bench.clock.seconds
    outcomes = bench.run()
    while not bench.all_read(outcomes):  # as `--once` does
        ready = [outcome.ready_at_seconds for outcome in outcomes.values() if isinstance(outcome, Converting)]
        bench.clock.seconds = max(bench.clock.seconds, min(ready))
        outcomes = bench.run()
    longest = max(outcome.window_seconds for outcome in outcomes.values() if isinstance(outcome, Reading))
    assert bench.clock.seconds - began <= longest * 1.1 + 0.5


def test_a_chip_whose_conversion_never_ends_is_a_failure_with_a_clear_message_and_stays_one() -> None:
    bench = set_up(ina260("cpu", "bus = 1"))
    bench.sweep = bench.new_sweep()
    chip = bench.chip("cpu")
    RegisterChip._write_register(chip, CONFIG, 0x6127)
    chip._settle = lambda: None  # type: ignore[method-assign] # the converter is dead, old results stay
    began = bench.clock.seconds
    outcome = bench.run()["cpu"]
    while isinstance(outcome, Converting):
        bench.clock.seconds = max(bench.clock.seconds, outcome.ready_at_seconds)
        outcome = bench.run()["cpu"]
    assert bench.clock.seconds - began <= 0.6
    assert "INA260 at 0x40 on /dev/i2c-1: no conversion finished in time (0.00112 s)" in failure(outcome)
    later = [bench.run_next()["cpu"] for _ in range(30)]
    assert not any(isinstance(outcome, Reading) for outcome in later)


# Wrong chips and wrong words


def swapped(text: str, other: str) -> Bench:
    """A node wired as one file says and configured as another says."""
    bench = Bench.of(text)
    bench.world = Bench(bench.settings, bench.clock).world
    wired = Bench.of(other)
    bench.world.wires[1] = wired.world.wires[1]
    return bench


@pytest.mark.reliability(
    7,
    "another chip, or none, where one is configured",
    "refused with its whole place; never written to",
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
            "not an INA3221 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: its IDs read 0x5449 0x2270 ",
        ),
        (
            ina260("cpu", 'mux = "m0", channel = 3'),
            ina260("cpu", 'mux = "m0", channel = 3', 0x44),
            "no INA260 at 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 3: NACK; is it powered?",
        ),
        (
            ina3221("cpu", 'mux = "m0", channel = 3', 1),
            ina260("cpu", 'mux = "m0", channel = 3', 0x44),
            "no INA3221 at 0x41 behind mux m0 (0x70 on /dev/i2c-1) channel 3: NACK; is it powered?",
        ),
    ],
)
def test_another_chip_or_none_is_refused_with_its_whole_place_and_never_written_to(
    configured: str, wired: str, message: str
) -> None:
    bench = swapped(mux("m0", 0x70) + configured, mux("m0", 0x70) + wired)
    bench.wire.log = []
    for _ in range(3):
        assert failure(bench.run_next()["cpu"]).startswith(message)
    assert not any(len(m.data) > 1 for t in bench.wire.log for m in t.messages if not m.is_read)


@pytest.mark.reliability(
    7,
    "a chip stuck at 0x0000 or 0xFFFF",
    "failed, not reported",
)
@pytest.mark.parametrize("stuck_at", [0x0000, 0xFFFF])
@pytest.mark.parametrize("text", ON_ONE_BUS)
def test_a_bus_line_stuck_at_a_level_is_never_a_reading(text: str, stuck_at: int) -> None:
    for sweeps_before in (0, 3):
        bench = Bench.of(text)
        for _ in range(sweeps_before):
            bench.run_next()
        stuck_chip = bench.chip("cpu")
        stuck_chip.read = lambda length: bytes([stuck_at & 0xFF] * length)  # type: ignore[method-assign] # for good
        for _ in range(5):
            outcome = bench.run_next()["cpu"]
            if "ina219" in text and stuck_at == 0 and isinstance(outcome, Converting):
                continue  # without an ID, it may be one whose converter was switched off; no result will come
            said = failure(outcome)
            assert f"0x{stuck_at:04x}" in said or str(stuck_at) in said or "no conversion finished" in said


@pytest.mark.reliability(
    7,
    "a current beyond what the chip can measure",
    "failed; the end of the range is not reported",
)
@pytest.mark.parametrize("amperes", [60.0, -60.0])
@pytest.mark.parametrize("text", ON_ONE_BUS)
def test_a_current_beyond_the_range_is_a_failure_and_not_the_end_of_the_range(text: str, amperes: float) -> None:
    bench = set_up(text)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.amperes = amperes
    assert "the end of its range" in failure(bench.run_next()["cpu"])
    rail.amperes = 0.5
    bench.run_next()
    bench.run_until_read(3)


@pytest.mark.reliability(
    7,
    "one input of several beyond what the chip can measure",
    "that device fails, and its error names that input; the others are read",
)
@pytest.mark.parametrize("beyond", [("amperes", 60.0), ("volts", 30.0)])
def test_an_input_beyond_its_range_costs_the_others_of_its_chip_nothing(beyond: tuple[str, float]) -> None:
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
def test_a_voltage_that_the_chip_cannot_have_measured_is_a_failure(text: str) -> None:
    bench = set_up(text)
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.volts = 39.0
    assert "bus voltage register reads 0x" in failure(bench.run_next()["cpu"])


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_configuration_that_somebody_else_wrote_is_a_failure_within_a_minute_and_then_ours_again(text: str) -> None:
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
    assert isinstance(bench.run_next()["cpu"], Converting)
    assert isinstance(bench.run_next()["cpu"], Reading)
    assert configuration_of(bench.chip("cpu")) == ours
    assert power_losses([bench.run_next()], "cpu") == 0


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_chip_that_keeps_no_mark_is_asked_for_its_configuration_in_every_sweep(text: str) -> None:
    bench = Bench.of(text)
    chip = bench.chip("cpu")
    keeps = chip._write_register
    chip._write_register = lambda pointer, word: keeps(pointer, word if pointer == CONFIG else 0)  # type: ignore[method-assign] # a clone
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
def test_a_process_that_is_held_up_between_a_reading_and_the_clock_does_not_take_its_chip_for_dead(text: str) -> None:
    bench = set_up(text)
    transact = type(bench.wire).transfer

    def read_and_be_held_up_after_the_last(messages: Sequence[Message]) -> None:
        transact(bench.wire, messages)
        if bench.wire.transactions == last:
            bench.clock.sleep(60.0)

    before = bench.wire.transactions
    (outcome,) = bench.sweep.run()  # nothing new: no conversion has ended since the last one
    assert isinstance(outcome, Reading)
    assert not outcome.is_new
    last = bench.wire.transactions + (bench.wire.transactions - before)
    bench.wire.transfer = read_and_be_held_up_after_the_last  # type: ignore[method-assign] # the real one, then a pause
    (outcome,) = bench.sweep.run()
    assert isinstance(outcome, Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_chip_that_stops_converting_is_not_read_for_ever_but_configured_anew(text: str) -> None:
    bench = set_up(text)
    chip = bench.chip("cpu")
    chip._finished = 10**9
    sweeps = [bench.run_next() for _ in range(4)]
    kinds = [type(outcomes["cpu"]) for outcomes in sweeps]
    assert kinds == [Failure, Converting, Reading, Reading]
    assert "has stopped converting" in failure(sweeps[0]["cpu"])


def test_another_program_that_reads_the_flags_away_costs_no_reading() -> None:
    bench = set_up(ina260("cpu", "bus = 1"))
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    for step in range(60):
        rail.volts = 5.0 + step % 5 / 10
        bench.clock.sleep(0.9)
        bench.clock.sleep(0.0999)  # by when the next result is there, and the flag is not
        bench.chip("cpu").write(b"\x06")
        bench.chip("cpu").read(2)
        bench.clock.sleep(0.0001)
        outcome = bench.run()["cpu"]
        assert isinstance(outcome, Reading)
        assert outcome.is_new


def test_a_result_that_was_read_before_is_said_not_to_be_new() -> None:
    text = ina260("cpu", "bus = 1", more='averaging = { count = 256, voltage = "4.156ms", current = "8.244ms" }')
    bench = Bench.of(text)  # 3.17 s a result
    bench.run_until_read()
    readings = [bench.run_next()["cpu"] for _ in range(19)]
    assert sum(isinstance(reading, Reading) and reading.is_new for reading in readings) == 6
    assert all(isinstance(reading, Reading) for reading in readings)


def test_a_guest_leaves_the_flags_to_the_run_beside_it() -> None:
    bench = Bench.of(ina260("cpu", "bus = 1") + ina3221("radio", "bus = 1", 2, 0x41))
    bench.run_until_read()
    run, bench.sweep = bench.sweep, bench.new_sweep(is_guest=True)
    bench.run_until_read()
    for _ in range(5):
        bench.wire.log = []
        assert bench.all_read(bench.run_next())
        assert not {t.messages[0].data for t in bench.wire.log} & {b"\x06", b"\x0f"}
    bench.sweep = run
    assert all(isinstance(outcome, Reading) and outcome.is_new for outcome in bench.run().values())


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_power_loss_that_a_guest_saw_first_is_noticed_by_the_run_all_the_same(text: str) -> None:
    bench = set_up(text)
    run = bench.sweep
    bench.run_next()
    bench.chip("cpu").power_loss()
    bench.sweep = bench.new_sweep(is_guest=True)
    bench.run_until_read()
    bench.sweep = run
    sweeps = [bench.run_next() for _ in range(4)]
    assert power_losses(sweeps, "cpu") == 1
    assert isinstance(sweeps[1]["cpu"], Reading)
    bench.chip("cpu").power_loss()
    assert power_losses([bench.run_next() for _ in range(4)], "cpu") == 1


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_power_loss_between_two_runs_that_a_guest_saw_first_is_noticed_by_the_second(text: str) -> None:
    bench = set_up(text)
    bench.chip("cpu").power_loss()
    bench.sweep = bench.new_sweep(is_guest=True)
    bench.run_until_read()
    for expected in (1, 0):
        bench.sweep = bench.new_sweep(were_read=True)
        sweeps = [bench.run(), bench.run_next(), bench.run_next()]
        assert power_losses(sweeps, "cpu") == expected
        assert isinstance(sweeps[-1]["cpu"], Reading)


@pytest.mark.parametrize("text", [ina260("cpu", "bus = 1"), ina3221("cpu", "bus = 1", 2, 0x40)])
def test_a_chip_that_keeps_no_mark_has_lost_no_power_between_two_runs(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
def test_a_run_marks_a_chip_that_a_guest_configured(text: str) -> None:
    bench = Bench.of(text)
    bench.sweep = bench.new_sweep(is_guest=True)
    bench.run_until_read()
    bench.sweep = bench.new_sweep()
    bench.run_until_read()
    bench.run_next()
    bench.wire.log = []
    bench.run_next()
    assert bench.wire.log[-1].messages[0].data in (b"\x06", b"\x0f")
    bench.chip("cpu").power_loss()
    assert power_losses([bench.run_next() for _ in range(4)], "cpu") == 1


def test_a_driver_that_cannot_be_imported_is_a_failure_of_its_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.chips import ina3221 as module

    def stumble(*_: object) -> object:
        raise ImportError("No module named 'gpiod'")

    monkeypatch.setattr(module.Chip, "open_device", stumble)
    bench = Bench.of(NODE)
    bench.run()
    outcomes = bench.run_next()
    assert bench.kinds(outcomes) == {"cpu": Reading, "gpu": Reading, "radio": Failure}
    assert "its driver failed (ImportError: No module named 'gpiod')" in failure(outcomes["radio"])


def test_the_clean_up_of_an_interrupted_sweep_closes_the_muxes_and_gives_the_lock_back() -> None:
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
