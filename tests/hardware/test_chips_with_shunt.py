"""Chips with a shunt on the board: every word, every sign, what is written to them, and what they are taken for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import chips
from agent.chips import ina219, ina228, ina234, ina237, ina238
from agent.errors import ConfigError
from agent.i2c.place import Place
from agent.measure.readings import Reading, Settling
from agent.settings import Device
from agent.simulate import ina228_family
from agent.simulate.chips import AVERAGING_COUNTS, CONFIG, CONVERSION_MICROSECONDS
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from agent.simulate.world import build_world
from tests.bench import SHORTEST, Bench, failure, ina260, ina3221, power_losses, settings_of, with_shunt
from tests.hardware.test_chip_words import measured_of, of_two_complement, refusal_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.chips import I2CChip
    from agent.simulate.chips import RegisterChip
    from agent.simulate.wire import Transaction

FAMILY = ("ina228", "ina237", "ina238")
SHUNTS_OHMS = (0.1, 0.015, 0.0005)
WITHOUT_OWN_ID = ("ina226", "ina230", "ina231")
"""Only the word in the configuration decides between these: clones of the INA226 hold any ID."""
WITH_TWO_RANGES = ("ina232", "ina234", "ina236")
LIKE_INA226 = (*WITHOUT_OWN_ID, *WITH_TWO_RANGES)
OURS = {
    "ina219": 0x3C47,
    **dict.fromkeys(LIKE_INA226, 0x4207),
    "ina228": 0xB269,
    "ina237": 0xB261,
    "ina238": 0xB261,
}
"""What is configured with the averaging of `SHORTEST`, worked out by hand from the datasheets."""
CALIBRATIONS = {
    **dict.fromkeys(WITHOUT_OWN_ID, 0x0700),
    **dict.fromkeys(("ina232", "ina236"), 0x0680),
    "ina234": 0x0580,
}


def chip_of(name: str, shunt_ohms: float = 0.1, sample_interval_seconds: float = 1.0) -> I2CChip:
    device = Device("cpu", name, Place(1, None, None, 0x40), shunt_ohms=shunt_ohms)
    return chips.i2c_chip(name)((device,), sample_interval_seconds)


def words_of_20_bits() -> Iterator[int]:
    """Of 24-bit words: every value of the upper 16 bits, and every step at the ends and around zero."""
    yield from (word << 8 for word in range(0x10000))
    for edge in (0, 0x7FFFF0, 0x800000, 0xFFFFF0, int(85 / 195.3125e-6) << 4):
        yield from ((edge + (step << 4)) & 0xFFFFF0 for step in range(-300, 300))


# Words


def test_every_ina219_voltage_word_decodes_or_exceeds_26_volts() -> None:
    chip = chip_of("ina219")
    for word in range(0x10000):
        millivolts = (word >> 3) * 4
        if millivolts > 26_000:
            assert f"0x{word:04x}, more than 26 V" in refusal_of(chip, (word, 0))
        else:
            measured = measured_of(chip, (word, 0))
            assert math.isclose(measured.volts, millivolts / 1e3, rel_tol=1e-12)


@pytest.mark.parametrize("shunt_ohms", SHUNTS_OHMS)
def test_every_ina219_shunt_word_decodes_or_ends_the_range(
    shunt_ohms: float,
) -> None:
    chip = chip_of("ina219", shunt_ohms)
    for word in range(0x10000):
        steps = of_two_complement(word, 16)
        if abs(steps) >= 32_000:
            assert f"0x{word:04x}, the end of its range (320 mV)" in refusal_of(chip, (0, word))
        else:
            measured = measured_of(chip, (0, word))
            assert math.isclose(measured.amperes, steps * 10 / 1e6 / shunt_ohms, rel_tol=1e-12)


RANGES = {
    "ina226": (16, 1250, 36, 2500),
    "ina230": (16, 1250, 36, 2500),
    "ina231": (16, 1250, 28, 2500),
    "ina232": (16, 1600, 48, 2500),
    "ina234": (12, 25_600, 28, 40_000),
    "ina236": (16, 1600, 48, 2500),
}
"""By hand from the datasheets: bits, LSB of the bus voltage in microvolts, highest volts, LSB of the shunt voltage in
nanovolts at the power-on range."""


@pytest.mark.parametrize("name", LIKE_INA226)
def test_every_voltage_word_of_the_ina226_family_decodes_or_is_too_high(name: str) -> None:
    bits, lsb_microvolts, highest_volts, _ = RANGES[name]
    chip = chip_of(name)
    assert chip.highest_volts == highest_volts
    for word in range(0x10000):
        microvolts = (word >> (16 - bits)) * lsb_microvolts
        if microvolts > highest_volts * 1_000_000:
            assert f"0x{word:04x}, more than {highest_volts} V" in refusal_of(chip, (word, 0))
        else:
            measured = measured_of(chip, (word, 0))
            assert math.isclose(measured.volts, microvolts / 1e6, rel_tol=1e-12)


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", LIKE_INA226)
def test_every_shunt_word_of_the_ina226_family_decodes_or_ends_the_range(name: str, *, narrow: bool) -> None:
    bits, _, _, lsb_nanovolts = RANGES[name]
    chip = chip_of(name, 0.015)
    if narrow:
        chip.adopt((0x0700, 0x5127))
        lsb_nanovolts //= 4 if name in WITH_TWO_RANGES else 1
    full_scale = 1 << (bits - 1)
    shown = "(20.48 mV)" if narrow and name in WITH_TWO_RANGES else "(81.92 mV)"
    for word in range(0x10000):
        steps = of_two_complement(word >> (16 - bits), bits)
        if steps in (full_scale - 1, -full_scale):
            assert f"0x{word:04x}, the end of its range {shown}" in refusal_of(chip, (0, word))
        else:
            measured = measured_of(chip, (0, word))
            assert math.isclose(measured.amperes, steps * lsb_nanovolts / 1e9 / 0.015, rel_tol=1e-12)


@pytest.mark.parametrize("shunt_ohms", SHUNTS_OHMS)
@pytest.mark.parametrize("name", LIKE_INA226)
def test_the_calibration_of_the_ina226_family_fits_any_shunt(name: str, shunt_ohms: float) -> None:
    """Section 6.5.2.1 of the INA226's datasheet, the other way round than the program does it."""
    chip = chip_of(name, shunt_ohms)
    calibration = chip.configuration[0]
    assert calibration.register.number == 0x05
    current_lsb = 0.00512 / (calibration.written * shunt_ohms)
    assert current_lsb == pytest.approx(2.5e-6 / shunt_ohms * 0x0800 / CALIBRATIONS[name])
    assert calibration.power_on == 0


@pytest.mark.parametrize("name", ["ina237", "ina238"])
def test_every_ina237_voltage_word_decodes_or_exceeds_85_volts(name: str) -> None:
    chip = chip_of(name)
    for word in range(0x10000):
        microvolts = word * 3125
        if microvolts > 85_000_000:
            assert f"0x{word:04x}, more than 85 V" in refusal_of(chip, (word, 0))
        else:
            measured = measured_of(chip, (word, 0))
            assert math.isclose(measured.volts, microvolts / 1e6, rel_tol=1e-12)


@pytest.mark.parametrize("name", ["ina237", "ina238"])
@pytest.mark.parametrize("shunt_ohms", SHUNTS_OHMS)
def test_every_ina237_shunt_word_decodes_or_ends_the_range(name: str, shunt_ohms: float) -> None:
    chip = chip_of(name, shunt_ohms)
    for word in range(0x10000):
        if word in (0x7FFF, 0x8000):
            assert f"0x{word:04x}, the end of its range" in refusal_of(chip, (0, word))
        else:
            measured = measured_of(chip, (0, word))
            assert math.isclose(measured.amperes, of_two_complement(word, 16) * 5 / 1e6 / shunt_ohms, rel_tol=1e-12)


def test_every_ina228_voltage_word_decodes_or_exceeds_85_volts() -> None:
    chip = chip_of("ina228")
    for word in words_of_20_bits():
        nanovolts = (word >> 4) * 1953125 / 10
        if nanovolts > 85e9:
            assert f"0x{word:06x}, more than 85 V" in refusal_of(chip, (word, 0))
        else:
            measured = measured_of(chip, (word, 0))
            assert math.isclose(measured.volts, nanovolts / 1e9, rel_tol=1e-12)


@pytest.mark.parametrize("shunt_ohms", SHUNTS_OHMS)
def test_every_ina228_shunt_word_decodes_or_ends_the_range(
    shunt_ohms: float,
) -> None:
    chip = chip_of("ina228", shunt_ohms)
    for word in words_of_20_bits():
        if word in (0x7FFFF0, 0x800000):
            assert f"0x{word:06x}, the end of its range" in refusal_of(chip, (0, word))
        else:
            measured = measured_of(chip, (0, word))
            assert math.isclose(
                measured.amperes, of_two_complement(word >> 4, 20) * 312.5e-9 / shunt_ohms, rel_tol=1e-12
            )


@given(st.integers(0, 0xFFFFFF), st.integers(0, 0xFFFFFF))
def test_padding_bits_of_an_ina228_change_nothing(voltage_word: int, shunt_word: int) -> None:
    chip = chip_of("ina228")
    clean = (voltage_word & 0xFFFFF0, shunt_word & 0xFFFFF0)
    refused = refusal_of(chip, (voltage_word, shunt_word))
    assert bool(refused) == bool(refusal_of(chip, clean))
    if not refused:
        assert chip.decode((voltage_word, shunt_word)) == chip.decode(clean)


@pytest.mark.parametrize("shunt_ohms", SHUNTS_OHMS)
def test_the_power_on_calibration_fits_any_shunt(shunt_ohms: float) -> None:
    """Section 8.1.2 of the INA228's datasheet, the other way round than the program does it."""
    chip = chip_of("ina228", shunt_ohms)
    shunt_calibration = chip.configuration[1].written
    current_lsb = shunt_calibration / (13107.2e6 * shunt_ohms)
    measured = measured_of(chip, (0x100000, 0x100000, 1, 1))
    assert measured.hardware_counters is not None
    assert measured.hardware_counters.coulombs_per_lsb == pytest.approx(current_lsb)
    assert measured.hardware_counters.joules_per_lsb == pytest.approx(16 * 3.2 * current_lsb)
    assert measured.hardware_counters.most_watts == pytest.approx(85 * 0.16384 / shunt_ohms)


# On a wire, through the drivers


@pytest.mark.parametrize("name", SHORTEST)
@pytest.mark.parametrize("amperes", [-1.5, -0.02, 0.0, 0.02, 1.5])
def test_a_rail_is_read_signed_and_exact(name: str, amperes: float) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.amperes = amperes / 2 if name in LIKE_INA226 else amperes
    for volts in (0.0, 5.0, 20.0):
        rail.volts = volts
        bench.run_next()
        assert bench.all_read(bench.run_until_read())  # checks each value against its rail


@pytest.mark.parametrize("name", FAMILY)
def test_80_volts_are_read(name: str) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.volts = 80.0
    assert bench.all_read(bench.run_until_read())
    rail.volts = 85.5
    assert "more than 85 V" in failure(bench.run_next()["cpu"])


@pytest.mark.parametrize("name", SHORTEST)
def test_only_configuration_and_canary_bit_are_written(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    log: list[Transaction] = []
    bench.wire.log = log
    for sweep in range(8):
        if sweep == 4:
            bench.chip("cpu").power_loss()
        bench.run_next()
    written = {m.data for t in log for m in t.messages if len(m.data) > 1 and not m.is_read}
    ours = OURS[name].to_bytes(2, "big")
    if name == "ina219":
        expected = {b"\x05\x0e\x00", b"\x00" + ours}
    elif name in LIKE_INA226:
        expected = {b"\x06\x00\x00", b"\x05" + CALIBRATIONS[name].to_bytes(2, "big"), b"\x00" + ours}
    else:
        expected = {b"\x0b\x80\x01", b"\x00\0\0", b"\x02\x10\x00", b"\x01" + ours}
    assert written == expected
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", SHORTEST)
def test_a_chip_configured_by_an_earlier_run_is_read_without_writing(name: str) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    bench.run_until_read()
    bench.sweep = bench.new_sweep()
    bench.clock.sleep(1.0)
    bench.wire.log = []
    assert isinstance(bench.run()["cpu"], Reading)
    assert not any(len(m.data) > 1 for t in bench.wire.log for m in t.messages if not m.is_read)


@pytest.mark.reliability(
    1.26,
    "another program sets another range, calibration or mode in an INA228, INA237 or INA238",
    "the configuration that decides what a result means is read with every result; then the chip is configured again",
)
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(
    "written", [b"\x00\x00\x10", b"\x00\x00\x20", b"\x02\x08\x00", b"\x01\xb3\x69", b"\x01\xa2\x69"]
)
def test_a_foreign_configuration_is_never_read_as_ours(
    name: str, written: bytes, measured: Callable[[str], None]
) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    bench.run_until_read()
    ours = {pointer: bench.chip("cpu")._words[pointer] for pointer in (0, 1, 2)}
    bench.run_next()
    bench.chip("cpu").write(written)
    assert f"reads 0x{written[1:].hex()} instead of" in failure(bench.run_next()["cpu"])
    bench.run_next()
    bench.run_until_read()
    assert {pointer: bench.chip("cpu")._words[pointer] for pointer in (0, 1, 2)} == ours
    assert power_losses([bench.run_next()], "cpu") == 0
    measured("found in the next sweep; no number is wrong")


@pytest.mark.parametrize("name", LIKE_INA226)
@pytest.mark.parametrize("written", [b"\x00\x53\x07", b"\x05\x04\x00", b"\x00\x42\x06"])
def test_a_foreign_range_or_mode_of_the_ina226_family_is_never_read(name: str, written: bytes) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    bench.run_until_read()
    bench.run_next()
    bench.chip("cpu").write(written)
    kept = bench.chip("cpu")._words[written[0]]  # without the bit of the range, if it has one range
    assert f"reads 0x{kept:04x} instead of" in failure(bench.run_next()["cpu"])
    bench.run_next()
    bench.run_until_read()
    assert (bench.chip("cpu")._words[0], bench.chip("cpu")._words[5]) == (0x4207, CALIBRATIONS[name])
    assert power_losses([bench.run_next()], "cpu") == 0


@pytest.mark.parametrize("name", LIKE_INA226)
@pytest.mark.parametrize("amperes", [-0.7, 0.3])
def test_a_configured_chip_of_the_ina226_family_computes_its_current(name: str, amperes: float) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    rail = bench.rails["cpu"]
    assert isinstance(rail, ConstantRail)
    rail.volts, rail.amperes = 12.8, amperes
    bench.run_until_read()
    bench.run_next()
    bits, words = RANGES[name][0], bench.chip("cpu")._words
    amperes_per_lsb = 2.5e-6 / 0.1 * 0x0800 / CALIBRATIONS[name]
    current = of_two_complement(words[0x04], 16) * amperes_per_lsb
    assert current == pytest.approx(amperes, abs=(1 << 16 - bits) * amperes_per_lsb)


@pytest.mark.parametrize("name", FAMILY)
def test_a_temperature_that_another_program_measures_takes_its_share(name: str) -> None:
    chip = chip_of(name)
    chip.adopt((0x0000, 0x1000, 0xFB6A))  # 16 results of 1.052 ms each for voltage, current and temperature
    assert chip.conversion_seconds == pytest.approx(16 * 3 * 1.052e-3)
    chip.adopt((0x0000, 0x1000, 0xBB6A))
    assert chip.conversion_seconds == pytest.approx(16 * 2 * 1.052e-3)


def test_a_foreign_write_to_an_ina219_fails_the_next_sweep() -> None:
    bench = Bench.of(with_shunt("ina219", "cpu", "bus = 1"))
    bench.run_until_read()
    bench.chip("cpu").write(b"\x00\x39\x9e")
    assert "reads 0x399e instead of 0x3c47" in failure(bench.run_next()["cpu"])


@pytest.mark.parametrize("name", [*LIKE_INA226, *FAMILY])
def test_a_chip_that_stops_converting_is_configured_again(name: str) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
    bench.run_until_read()
    bench.chip("cpu")._finished = 10**9
    bench.run_next()
    assert "has stopped converting" in failure(bench.run_next()["cpu"])
    bench.run_until_read()


@pytest.mark.parametrize("name", [*LIKE_INA226, *FAMILY])
def test_a_result_read_twice_is_not_new(name: str) -> None:
    """The hardware counters of an INA228 have risen since, but the result is the same."""
    voltage, current = ("140us", "2.116ms") if name in LIKE_INA226 else ("50us", "2.074ms")
    slow = f'averaging = {{ count = 1024, voltage = "{voltage}", current = "{current}" }}'
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1", more=slow))  # 2.31 s or 2.17 s a result
    bench.run_until_read()
    readings = [bench.run_next()["cpu"] for _ in range(21)]
    assert sum(isinstance(reading, Reading) and reading.is_new for reading in readings) in (9, 10)
    assert all(isinstance(reading, Reading) for reading in readings)


class BusyMachine(HandClock):
    """Whatever is done takes longer than a conversion."""

    def monotonic(self) -> float:
        self.seconds += 0.002
        return super().monotonic()


def test_a_newly_configured_chip_reports_converting_even_with_an_instant_result() -> None:
    """The meter relies on it: earlier counts of an INA228 may have had other LSBs."""
    bench = Bench(settings_of(with_shunt("ina228", "cpu", "bus = 1")), BusyMachine())
    kinds = [type(bench.run()["cpu"]) for _ in range(3)]
    assert kinds == [Settling, Reading, Reading]


@pytest.mark.parametrize("name", SHORTEST)
def test_a_load_of_simulate_stays_within_the_range_of_every_chip(name: str) -> None:
    bench = Bench.of(with_shunt(name, "cpu", "bus = 1", more='averaging = "auto"'))
    bench.world = build_world(bench.settings, bench.clock.monotonic)
    bench.sweep = bench.new_sweep()
    bench.rails = bench.world.rails
    bench.run_until_read()
    currents = [outcome.amperes for _ in range(120) if isinstance(outcome := bench.run_next()["cpu"], Reading)]
    assert len(currents) == 120
    assert max(currents) > 0.3


# Other chips in their place

ALL = {
    "ina260": ina260("cpu", "bus = 1"),
    "ina3221": ina3221("cpu", "bus = 1", 2, 0x40),
    **{name: with_shunt(name, "cpu", "bus = 1") for name in SHORTEST},
}


@pytest.mark.parametrize("configured", SHORTEST)
@pytest.mark.parametrize("wired", ALL)
def test_another_power_monitor_is_refused_and_never_written_to(configured: str, wired: str) -> None:
    if wired == configured or {wired, configured} <= {*WITHOUT_OWN_ID} or (configured, wired) == ("ina237", "ina238"):
        pytest.skip("the right one, or one that no register tells apart from it")
    bench = Bench.of(ALL[configured])
    bench.world.wires[1] = Bench.of(ALL[wired]).world.wires[1]
    bench.wire.log = []
    for _ in range(3):
        assert failure(bench.run_next()["cpu"]).startswith(f"not an {configured.upper()} at 0x40 on /dev/i2c-1: ")
    assert not any(len(m.data) > 1 for t in bench.wire.log for m in t.messages if not m.is_read)


@pytest.mark.parametrize("configured", WITHOUT_OWN_ID)
@pytest.mark.parametrize("wired", WITHOUT_OWN_ID)
def test_the_configuration_decides_between_chips_like_an_ina226(configured: str, wired: str) -> None:
    bench = Bench.of(ALL[configured])
    bench.world.wires[1] = Bench.of(ALL[wired]).world.wires[1]
    bench.wire.log = []
    outcomes = [bench.run_next()["cpu"] for _ in range(3)]
    assert isinstance(outcomes[-1], Settling | Reading)


@pytest.mark.reliability(
    2.26,
    "a clone of the INA226 with other IDs, or none",
    "it is read: the configuration decides",
)
@pytest.mark.parametrize(
    ("die_id", "manufacturer_id"), [(0x2261, 0x5449), (0x0000, 0x190F), (0x0000, 0x0000), (0xFFFF, 0xFFFF)]
)
def test_a_clone_of_the_ina226_is_read_whatever_its_ids(die_id: int, manufacturer_id: int) -> None:
    bench = Bench.of(ALL["ina226"])
    bench.chip("cpu")._words |= {0xFF: die_id, 0xFE: manufacturer_id}
    bench.run_until_read()


@pytest.mark.parametrize("configuration", [0x0127, 0x3127, 0x5127, 0x6127, 0x7127, 0xC127])
def test_a_configuration_that_no_ina226_shows_is_refused(configuration: int) -> None:
    bench = Bench.of(ALL["ina231"])
    bench.chip("cpu")._words[0] = configuration
    message = f"configuration register reads 0x{configuration:04x}, with bits that an INA231 never shows"
    assert message in failure(bench.run()["cpu"])


@pytest.mark.parametrize("configuration", [0x0127, 0x1127, 0x2127, 0x6127, 0xC127])
@pytest.mark.parametrize("name", ["ina234", "ina236"])
def test_a_configuration_that_no_chip_with_two_ranges_shows_is_refused(name: str, configuration: int) -> None:
    bench = Bench.of(ALL[name])
    bench.chip("cpu")._words[0] = configuration
    assert f"with bits that an {name.upper()} never shows" in failure(bench.run()["cpu"])


@pytest.mark.parametrize("device_id", [0x0000, 0x2370, 0x2371, 0x2381, 0xFFFF])
def test_an_ina237_is_read_with_and_without_a_device_id(device_id: int) -> None:
    bench = Bench.of(ALL["ina237"])
    bench.chip("cpu")._words[0x3F] = device_id
    bench.run_until_read()


def test_an_ina237_that_another_program_calibrated_is_read() -> None:
    bench = Bench.of(ALL["ina237"])
    bench.chip("cpu").write(b"\x02\x40\x00")
    bench.run_until_read()


@pytest.mark.parametrize("device_id", [0x2281, 0xA480, 0xA080])
@pytest.mark.parametrize("name", ["ina232", "ina237"])
def test_a_device_id_of_another_chip_is_believed(name: str, device_id: int) -> None:
    bench = Bench.of(ALL[name])
    bench.chip("cpu")._words[0x3F] = device_id
    part = {0x228: "INA228", 0x238: "INA238", 0xA48: "INA234", 0xA08: "INA236"}[device_id >> 4]
    assert f"its registers identify it as an {part}" in failure(bench.run()["cpu"])


def keep_the_pointer(chip: RegisterChip) -> None:
    """The number of a register that the chip does not have leaves its pointer where it is."""
    write = chip.write

    def write_known(data: bytes) -> None:
        if data and data[0] in chip.REGISTERS:
            write(data)

    chip.write = write_known


def show_ones(chip: RegisterChip) -> None:
    """A register that the chip does not have reads 0xFFFF."""
    chip._words |= {pointer: 0xFFFF for pointer in range(0x100) if pointer not in chip.REGISTERS}


@pytest.mark.parametrize("absent", [keep_the_pointer, show_ones])
@pytest.mark.parametrize("name", SHORTEST)
def test_a_chip_is_identified_whatever_its_absent_registers_read(
    name: str, absent: Callable[[RegisterChip], None]
) -> None:
    """No datasheet says what they read, here 0 by default."""
    bench = Bench.of(ALL[name])
    absent(bench.chip("cpu"))
    bench.run_until_read()
    bench.sweep = bench.new_sweep()
    bench.run_until_read()


def test_an_ina3221_without_its_first_input_is_not_an_ina219() -> None:
    bench = Bench.of(ALL["ina219"])
    wired = Bench.of(ALL["ina3221"])
    wired.run_until_read()
    bench.world.wires[1] = wired.world.wires[1]
    assert wired.chip("cpu")._words[CONFIG] & 0xC000 == 0
    assert "its registers identify it as an INA3221" in failure(bench.run()["cpu"])


def test_an_empty_address_is_reported_as_a_missing_chip() -> None:
    for name in SHORTEST:
        bench = Bench.of(with_shunt(name, "cpu", "bus = 1"))
        bench.chip("cpu").unplug()
        message = f"no {name.upper()} at 0x40 on /dev/i2c-1: NACK; is it powered? Is the address right?"
        assert failure(bench.run()["cpu"]) == message


@pytest.mark.parametrize("name", [*LIKE_INA226, *FAMILY])
def test_a_stuck_or_faulty_status_does_not_pass_for_the_canary_bit(name: str) -> None:
    status = chip_of(name).status
    assert status is not None
    assert status.is_written(status.written | chip_of(name).new_result)
    for word in (0xFFFF, 0xAAAA, 0x5555, *([0x0000] if name in FAMILY else [])):
        assert not status.is_written(word)
    memory = 1 << 5 if name in LIKE_INA226 else 1 << 0  # MEMERROR, and MEMSTAT, which is 1 if all is well
    assert not status.is_written(status.written ^ memory)


# What "auto" chooses


@given(name=st.sampled_from(list(SHORTEST)), sample_interval_seconds=st.floats(0.01, 60.0))
def test_auto_covers_the_interval_or_the_chips_maximum(name: str, sample_interval_seconds: float) -> None:
    chip = chip_of(name, sample_interval_seconds=sample_interval_seconds)
    word = chip.configuration[-1].written
    if name == "ina219":
        assert word >> 7 & 0xF == word >> 3 & 0xF >= 8
        seconds = (1 << (word >> 7 & 7)) * 2 * 532e-6
        longest_seconds = 0.136192
    elif name in LIKE_INA226:
        times = CONVERSION_MICROSECONDS
        seconds = AVERAGING_COUNTS[word >> 9 & 7] * (times[word >> 6 & 7] + times[word >> 3 & 7]) * 1e-6
        longest_seconds = 16.883712
        assert word & 0xF007 == 0x4007
    else:
        times = ina228_family.CONVERSION_MICROSECONDS
        seconds = (1, 4, 16, 64, 128, 256, 512, 1024)[word & 7] * (times[word >> 9 & 7] + times[word >> 6 & 7]) * 1e-6
        longest_seconds = 8.43776
        assert word >> 12 == 0xB
    assert math.isclose(chip.conversion_seconds, seconds, rel_tol=1e-9)
    assert seconds >= min(sample_interval_seconds, longest_seconds) * (1 - 1e-9)
    assert seconds <= sample_interval_seconds * 2.01


@pytest.mark.parametrize("chip", WITH_TWO_RANGES)
def test_an_address_between_those_of_the_a_and_b_variants_is_refused(chip: str) -> None:
    for address in (0x40, 0x43, 0x48, 0x4B):
        assert settings_of(with_shunt(chip, "cpu", "bus = 1", address)).devices
    for address in (0x44, 0x47, 0x4C):
        with pytest.raises(ConfigError, match=rf"0x{address:02x} is not in 0x40\.\.0x43 or 0x48\.\.0x4b"):
            settings_of(with_shunt(chip, "cpu", "bus = 1", address))


def test_each_chip_has_its_own_file_and_options() -> None:
    for module in (ina219, ina228, ina234, ina237, ina238):
        options = chips.options()[module.OPTIONS.chip]
        assert options.external_shunt
        assert options.inputs is None
        assert options.addresses == (
            (0x40, 0x41, 0x42, 0x43, 0x48, 0x49, 0x4A, 0x4B) if module is ina234 else range(0x40, 0x50)
        )
