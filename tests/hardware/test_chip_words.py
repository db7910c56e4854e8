"""Registers decoded against the datasheets: every word, every sign, and what is written to the chips."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import adafruit_ina260
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.chips import Measurement
from agent.chips import ina260 as ina260_file
from agent.chips import ina3221 as ina3221_file
from agent.errors import SensorError
from agent.i2c.muxes import MUX_KINDS
from agent.i2c.place import Mux, Place
from agent.measure.readings import Reading
from agent.settings import Device
from agent.simulate.chips import AVERAGING_COUNTS, CONFIG, CONVERSION_MICROSECONDS, RESET
from agent.simulate.rails import ConstantRail
from agent.simulate.recordings import Recording
from agent.simulate.world import build_world
from tests.bench import Bench, failure, ina260, ina3221, mux, settings_of

if TYPE_CHECKING:
    from agent import chips
    from agent.simulate.wire import Transaction

PLACE = Place(1, Mux("m0", MUX_KINDS["tca9548a"], Place(1, None, None, 0x70)), 3, 0x40)


def of_two_complement(word: int, bits: int) -> int:
    """The number in a register, computed as the datasheets explain it: complement, plus one, negative."""
    if word >> (bits - 1) == 0:
        return word
    return -((word ^ ((1 << bits) - 1)) + 1)


def ina260_chip() -> ina260_file.Chip:
    return ina260_file.Chip((Device("cpu", "ina260", PLACE),), 1.0)


def ina3221_chip(shunt_ohms: float) -> ina3221_file.Chip:
    return ina3221_file.Chip((Device("cpu", "ina3221", PLACE, input=1, shunt_ohms=shunt_ohms),), 1.0)


def decoded(chip: chips.I2CChip, words: tuple[int, ...]) -> Measurement | SensorError:
    """What one device gets. Quicker than pytest.raises, 30,000 times."""
    try:
        (result,) = chip.decode(words)
    except SensorError as error:
        return error
    return result


def refusal_of(chip: chips.I2CChip, words: tuple[int, ...]) -> str:
    """What `decode` refuses the words with; empty if it takes them."""
    result = decoded(chip, words)
    return str(result) if isinstance(result, SensorError) else ""


def measured_of(chip: chips.I2CChip, words: tuple[int, ...]) -> Measurement:
    result = decoded(chip, words)
    assert isinstance(result, Measurement), result
    return result


def test_every_ina260_voltage_word_decodes_or_is_refused() -> None:
    chip = ina260_chip()
    for word in range(0x10000):
        microvolts = word * 1250
        if microvolts > 36_000_000:
            assert f"0x{word:04x}, more than 36 V" in refusal_of(chip, (word, 0))
        else:
            measured = measured_of(chip, (word, 0))
            assert math.isclose(measured.volts, microvolts / 1e6, rel_tol=1e-12)


def test_every_ina260_current_word_decodes_or_is_refused() -> None:
    chip = ina260_chip()
    for word in range(0x10000):
        if word in (0x7FFF, 0x8000):
            assert f"0x{word:04x}, the end of its range" in refusal_of(chip, (4000, word))
        elif abs(of_two_complement(word, 16)) > 12_000:
            assert f"0x{word:04x}, " in refusal_of(chip, (4000, word))
            assert "beyond 15 A" in refusal_of(chip, (4000, word))
        else:
            measured = measured_of(chip, (4000, word))
            assert math.isclose(measured.amperes, of_two_complement(word, 16) * 1250 / 1e6, rel_tol=1e-12)
            assert measured.volts == 5.0


def test_every_ina3221_voltage_word_decodes_or_is_refused() -> None:
    chip = ina3221_chip(0.1)
    for word in range(0x10000):
        millivolts = of_two_complement(word >> 3, 13) * 8
        if not -100 <= millivolts <= 26_000:
            assert f"0x{word:04x}, outside 0 to 26 V" in refusal_of(chip, (word, 0))
        else:
            measured = measured_of(chip, (word, 0))
            assert math.isclose(measured.volts, millivolts / 1e3, rel_tol=1e-12)


@pytest.mark.parametrize("shunt_ohms", [0.1, 0.05, 0.005])
def test_every_ina3221_shunt_word_decodes_or_is_refused(
    shunt_ohms: float,
) -> None:
    chip = ina3221_chip(shunt_ohms)
    for word in range(0x10000):
        steps = of_two_complement(word >> 3, 13)
        if steps in (4095, -4096):
            assert f"0x{word:04x}, the end of its range" in refusal_of(chip, (0, word))
        else:
            measured = measured_of(chip, (0, word))
            assert math.isclose(measured.amperes, steps * 40 / 1e6 / shunt_ohms, rel_tol=1e-12)


@pytest.mark.parametrize("amperes", [-1.6, -0.4, -0.0004, 0.0, 0.0004, 1.6])
def test_an_ina3221_reads_signed_currents_through_each_shunt(amperes: float) -> None:
    text = (
        ina3221("in1", "bus = 1", 1)
        + ina3221("in2", "bus = 1", 2).replace("0.1", "0.05")
        + ina3221("in3", "bus = 1", 3).replace("0.1", "0.005")
    )
    bench = Bench.of(text)
    for name, times in (("in1", 1), ("in2", 2), ("in3", 20)):
        rail = bench.rails[name]
        assert isinstance(rail, ConstantRail)
        rail.amperes = amperes * times
    bench.run()
    outcomes = bench.run_next()  # checks each value against its rail
    assert bench.all_read(outcomes)


def test_a_load_that_is_off_reads_zero_without_a_failure() -> None:
    for averaging in ('averaging = { count = 1, voltage = "1.1ms", current = "1.1ms" }', 'averaging = "auto"'):
        bench = Bench.of(ina260("cpu", "bus = 1", more=averaging) + ina3221("in1", "bus = 1", 1, more=averaging))
        for rail in bench.rails.values():
            assert isinstance(rail, ConstantRail)
            rail.volts = rail.amperes = 0.0
        bench.run_until_read()
        assert all(isinstance(o, Reading) and o.power_watts == 0 for o in bench.run_next().values())


def test_the_reset_bit_is_never_written_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    text = mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0')
    text += "".join(ina3221(f"in{n}", 'mux = "m0", channel = 1', n) for n in (1, 3))
    bench = Bench.of(text)
    log: list[Transaction] = []
    bench.wire.log = log
    for sweep in range(12):
        if sweep == 6:
            bench.chip("cpu").power_loss()
            bench.chip("in1").power_loss()
        bench.wire.faults.clear()
        if sweep % 2:
            bench.wire.faults.fail_at(bench.wire.transactions + sweep)
        bench.run_next()
    written = [m.data for t in log for m in t.messages if m.address < 0x70 and len(m.data) > 1 and not m.is_read]
    configurations = [int.from_bytes(data[1:], "big") for data in written if data[0] == CONFIG]
    assert {data for data in written if data[0] != CONFIG} == {b"\x06\x00\x01", b"\x0f\x40\x00"}
    assert len(configurations) >= 4
    assert not any(word & RESET for word in configurations)
    assert capfd.readouterr() == ("", "")


def test_adafruits_own_constructor_identifies_an_ina260(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adafruit_ina260.INA260, "INA260_ID", 0x123)
    bench = Bench.of(ina260("cpu", "bus = 1"))
    message = "not an INA260 at 0x40 on /dev/i2c-1: Failed to find INA260 ID, read 551 while expected 291"
    assert failure(bench.run()["cpu"]).startswith(message)


@pytest.mark.parametrize("numbers", [(1,), (2,), (3,), (1, 3), (1, 2, 3)])
def test_unused_inputs_are_off_and_used_inputs_on(numbers: tuple[int, ...]) -> None:
    bench = Bench.of("".join(ina3221(f"in{n}", "bus = 1", n) for n in numbers))
    assert bench.all_read(bench.run_until_read())
    configuration = bench.chip(f"in{numbers[0]}")._words[CONFIG]
    assert [n for n in (1, 2, 3) if configuration >> (15 - n) & 1] == list(numbers)
    assert configuration & 0b111 == 0b111


# What "auto" chooses


@cache
def auto(chip: str, inputs: int, sample_interval_seconds: float) -> chips.I2CChip:
    if chip == "ina260":
        return ina260_file.Chip((Device("d", "ina260", PLACE),), sample_interval_seconds)
    devices = [Device(f"d{n}", "ina3221", PLACE, input=n + 1, shunt_ohms=0.1) for n in range(inputs)]
    return ina3221_file.Chip(devices, sample_interval_seconds)


@given(
    chip=st.sampled_from([("ina260", 1), ("ina3221", 1), ("ina3221", 2), ("ina3221", 3)]),
    sample_interval_seconds=st.floats(0.01, 60.0),
)
@example(chip=("ina260", 1), sample_interval_seconds=1.0)
@example(chip=("ina260", 1), sample_interval_seconds=60.0)
def test_auto_covers_as_much_of_the_interval_as_possible(chip: tuple[str, int], sample_interval_seconds: float) -> None:
    chosen = auto(*chip, sample_interval_seconds)
    word = chosen.configuration[0].written
    count, voltage, current = AVERAGING_COUNTS[word >> 9 & 7], word >> 6 & 7, word >> 3 & 7
    conversion_seconds = count * (CONVERSION_MICROSECONDS[voltage] + CONVERSION_MICROSECONDS[current]) * 1e-6 * chip[1]
    assert math.isclose(chosen.conversion_seconds, conversion_seconds, rel_tol=1e-9)
    longest_seconds = 1024 * 2 * 8.244e-3 * chip[1]
    assert conversion_seconds >= min(sample_interval_seconds, longest_seconds) * (1 - 1e-9)
    assert conversion_seconds <= sample_interval_seconds * 1.6
    assert current >= voltage
    assert chosen.status is not None
    assert chosen.status.written != chosen.status.power_on


@pytest.mark.parametrize(
    ("sample_interval_seconds", "count", "voltage_seconds", "current_seconds"),
    [(1.0, 128, 140e-6, 8.244e-3), (10.0, 1024, 2.116e-3, 8.244e-3)],
)
def test_auto_measures_the_current_for_most_of_the_time(
    sample_interval_seconds: float, count: int, voltage_seconds: float, current_seconds: float
) -> None:
    word = auto("ina260", 1, sample_interval_seconds).configuration[0].written
    assert (AVERAGING_COUNTS[word >> 9 & 7], CONVERSION_MICROSECONDS[word >> 6 & 7] * 1e-6) == (count, voltage_seconds)
    assert CONVERSION_MICROSECONDS[word >> 3 & 7] * 1e-6 == current_seconds


@pytest.mark.parametrize("start_seconds", [0.1, 0.5, 0.93])
def test_a_short_burst_between_two_reads_shows_in_the_mean(start_seconds: float) -> None:
    settings_ = settings_of(ina260("cpu", "bus = 1", more='averaging = "auto"'), 'sample_interval = "1s"\n')
    begin = 20.0 + start_seconds
    burst = Recording([(0.0, 5.0, 0.5), (begin, 5.0, 10.5), (begin + 0.05, 5.0, 0.5), (100.0, 5.0, 0.5)])
    bench = Bench(settings_, rails={"cpu": burst})
    readings = [outcome for outcome in (bench.run_next()["cpu"] for _ in range(40)) if isinstance(outcome, Reading)]
    extra_joules = sum((reading.power_watts - 2.5) * 1.0 for reading in readings)
    assert extra_joules == pytest.approx(2.5, rel=0.12)  # 10 A x 5 V x 50 ms; a snapshot has 0 J or 50 J


@pytest.mark.parametrize("shunt_ohms", [0.005, 0.1, 1.0])
def test_a_simulated_load_stays_within_its_shunts_range(shunt_ohms: float) -> None:
    text = ina3221("radio", "bus = 1", 2, more='averaging = "auto"').replace("0.1", str(shunt_ohms))
    bench = Bench.of(text)
    bench.world = build_world(bench.settings, bench.clock.monotonic)
    bench.sweep = bench.new_sweep()
    bench.rails = bench.world.rails
    bench.run_until_read()
    assert all(isinstance(bench.run_next()["radio"], Reading) for _ in range(120))
