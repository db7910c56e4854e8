"""An observer (`watch`, `--once --dry-run`) writes nothing to a chip, and decodes by what it finds there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.measure.readings import Reading, Settling
from agent.simulate import ina226_family, ina228_family
from agent.simulate.chips import CONFIG
from agent.simulate.ina219 import SimulatedINA219
from tests.bench import SHORTEST, Bench, constant, failure, ina260, ina3221, mux, with_shunt

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.simulate.chips import RegisterChip

PLACE = 'mux = "m0", channel = 3'
CHIPS = {
    "ina260": ina260("d", PLACE),
    "ina3221": "".join(ina3221(f"in{n}", PLACE, n, 0x40) for n in (1, 2, 3)),
    **{chip: with_shunt(chip, "d", PLACE) for chip in SHORTEST},
}


def observed(text: str, top: str = 'sample_interval = "1s"\n') -> Bench:
    """A node with an observer, which no run has configured."""
    bench = Bench.of(mux("m0", 0x70) + text, top)
    bench.clock.sleep(1.0)
    bench.sweep = bench.new_sweep(is_observer=True)
    bench.wire.log = []
    return bench


def written_to_chips(bench: Bench) -> list[bytes]:
    assert bench.wire.log is not None
    messages = [message for transaction in bench.wire.log for message in transaction.messages]
    return [message.data for message in messages if message.address < 0x70 and not message.is_read and message.data]


def assert_that_only_registers_were_read(bench: Bench) -> None:
    written = written_to_chips(bench)
    assert written
    assert all(len(data) == 1 for data in written)
    (session,) = bench.sweep._buses[0]._sessions
    status = session._chip.status  # reading it would clear the flag of a new result
    assert status is None or bytes((status.register.number,)) not in written


@pytest.mark.reliability(
    5.1,
    "an observer with another file, interval and averaging beside the service",
    "it writes nothing to a chip, and reads what is there",
)
@pytest.mark.parametrize("chip", CHIPS)
def test_an_observer_writes_nothing_to_a_chip(chip: str, measured: Callable[[str], None]) -> None:
    for by_a_run in (False, True):
        bench = observed(CHIPS[chip])
        if by_a_run:
            observer, bench.sweep = bench.sweep, bench.new_sweep()
            bench.run_until_read()
            bench.sweep, bench.wire.log = observer, []
        for sweep in range(30):
            if sweep == 20:
                next(iter(bench.world.chips.values())).power_loss()
            outcomes = bench.run_next()
            assert bench.all_read(outcomes) or (by_a_run and sweep == 20), outcomes  # settles after a change
        assert_that_only_registers_were_read(bench)
    measured("every kind of chip, configured by the service or as at power-on, and after a power loss: 0 writes")


def test_zeros_of_a_chip_just_powered_settle_first() -> None:
    for text in CHIPS.values():
        bench = observed(text)
        bench.run_until_read()
        chip = next(iter(bench.world.chips.values()))
        assert hasattr(chip, "power_loss")
        chip.power_loss()
        assert all(isinstance(outcome, Settling) for outcome in bench.run().values())
        bench.run_next()
        assert bench.all_read(bench.run_next())


def test_a_rail_that_is_off_is_read_as_zero_by_an_observer() -> None:
    bench = observed(CHIPS["ina260"])
    rail = constant(bench.rails["d"])
    rail.volts = rail.amperes = 0.0
    bench.clock.sleep(1.0)
    bench.run()
    assert isinstance(bench.run_next()["d"], Reading)


def write(chip: RegisterChip, register: int, word: int) -> None:
    chip.write(bytes((register, *word.to_bytes(2, "big"))))


@pytest.mark.parametrize(
    ("chip", "register", "word"),
    [
        ("ina260", CONFIG, 0x6120),
        ("ina260", CONFIG, 0x6125),
        ("ina3221", CONFIG, 0x7120),
        ("ina219", CONFIG, 0x3998),
        ("ina219", CONFIG, 0x399D),
        ("ina226", CONFIG, 0x4120),
        ("ina231", CONFIG, 0x4125),
        ("ina234", CONFIG, 0x5126),
        ("ina228", ina228_family.ADC_CONFIG, 0x0B68),
        ("ina237", ina228_family.ADC_CONFIG, 0xAB68),
    ],
)
def test_a_chip_that_does_not_measure_is_refused_by_an_observer(chip: str, register: int, word: int) -> None:
    bench = observed(CHIPS[chip])
    simulated = bench.chip(bench.settings.devices[0].name)
    write(simulated, register, word)
    for outcome in bench.run_next().values():
        assert "does not measure voltage and current continuously" in failure(outcome)
        assert "a run of the service configures it" in failure(outcome)
    assert_that_only_registers_were_read(bench)


NARROW = {
    **dict.fromkeys(("ina232", "ina234", "ina236"), (0x4127 | ina226_family.ADC_RANGE, 0.08, "20.48 mV")),
    **dict.fromkeys(("ina228", "ina237", "ina238"), (ina228_family.ADC_RANGE, 0.3, "40.96 mV")),
}
"""The configuration with the narrow range, a current within it, and its end; 0.5 A are beyond it."""


@pytest.mark.parametrize("chip", NARROW)
def test_the_narrow_range_is_decoded_as_it_is_found(chip: str) -> None:
    configuration, amperes, end = NARROW[chip]
    bench = observed(CHIPS[chip])
    rail = constant(bench.rails["d"])
    rail.amperes = amperes
    bench.clock.sleep(1.0)
    assert isinstance(bench.run_next()["d"], Reading)
    write(bench.chip("d"), CONFIG, configuration)  # while it is observed
    bench.clock.sleep(1.0)
    bench.run_next()
    assert isinstance(bench.run_next()["d"], Reading)  # compared with the rail
    rail.amperes = 0.5  # 50 mV
    assert f"the end of its range ({end})" in failure(bench.run_next()["d"])


@pytest.mark.parametrize("is_powered_down", [False, True], ids=["running", "powered down"])
@pytest.mark.parametrize("chip", ["ina228", "ina237", "ina238"])
def test_a_result_of_an_earlier_range_is_never_decoded(chip: str, *, is_powered_down: bool) -> None:
    averaging = 'averaging = { count = 1024, voltage = "540us", current = "540us" }'  # 1.1 s
    bench = observed(with_shunt(chip, "d", PLACE, more=averaging))
    rail = constant(bench.rails["d"])
    rail.amperes = 0.3
    write(bench.chip("d"), CONFIG, ina228_family.ADC_RANGE)  # of another program
    bench.clock.sleep(2.0)
    bench.run_until_read()
    if is_powered_down:
        write(bench.chip("d"), ina228_family.ADC_CONFIG, 0x0B68)
        failure(bench.run_next()["d"])
    observer, run = bench.sweep, bench.new_sweep()
    run.run()  # configures the wide range; the result of the narrow one stays until a conversion ends
    bench.sweep = observer
    outcomes = [bench.run_next()["d"] for _ in range(5)]  # readings are compared with the rail
    assert isinstance(outcomes[-1], Reading)


def test_an_input_switched_on_again_is_read_after_a_conversion() -> None:
    bench = observed(CHIPS["ina3221"])
    bench.run_until_read()
    write(bench.chip("in1"), CONFIG, 0x5127)  # input 2 off
    bench.run_next()
    failure(bench.run_next()["in2"])
    constant(bench.rails["in2"]).volts = 7.2
    bench.clock.sleep(5.0)
    write(bench.chip("in1"), CONFIG, 0x7727)  # on
    assert isinstance(bench.run()["in2"], Settling)  # its registers hold the voltage of before
    assert bench.all_read(bench.run_next())


def test_an_ina219_in_a_narrow_range_is_never_read_beyond_it() -> None:
    bench = observed(CHIPS["ina219"])
    assert isinstance(bench.chip("d"), SimulatedINA219)
    write(bench.chip("d"), CONFIG, 0x019F)  # 16 V and 40 mV
    rail = constant(bench.rails["d"])
    rail.amperes = 0.3
    bench.clock.sleep(1.0)
    assert isinstance(bench.run_next()["d"], Reading)
    rail.amperes = 0.5
    assert "the end of its range (40 mV)" in failure(bench.run_next()["d"])
    rail.amperes, rail.volts = 0.3, 20.0
    assert "more than 15.996 V" in failure(bench.run_next()["d"])


def test_an_input_that_is_off_fails_alone() -> None:
    bench = observed(CHIPS["ina3221"])
    write(bench.chip("in1"), CONFIG, 0x5127)  # inputs 1 and 3
    bench.clock.sleep(1.0)
    outcomes = bench.run_next()
    assert "input 2 of INA3221" in failure(outcomes["in2"])
    assert "is switched off" in failure(outcomes["in2"])
    assert isinstance(outcomes["in1"], Reading)
    assert isinstance(outcomes["in3"], Reading)


def test_the_time_that_a_found_result_covers_is_known() -> None:
    expected = {
        "ina260": 2.2e-3,
        "ina3221": 6.6e-3,
        "ina219": 1.064e-3,
        "ina226": 2.2e-3,
        "ina234": 2.2e-3,
        "ina228": 3.156e-3,
        "ina237": 3.156e-3,
        "ina238": 3.156e-3,
    }
    for chip, seconds in expected.items():
        for outcome in observed(CHIPS[chip]).run_next().values():
            assert isinstance(outcome, Reading)
            assert outcome.window_seconds == pytest.approx(seconds)
