"""The chips, register by register, where the drivers do not reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.simulate.chips import SamplingWindows
from agent.simulate.ina226 import SimulatedINA226
from agent.simulate.ina230 import SimulatedINA230
from agent.simulate.ina231 import SimulatedINA231
from agent.simulate.ina232 import SimulatedINA232
from agent.simulate.ina234 import SimulatedINA234
from agent.simulate.ina236 import SimulatedINA236
from agent.simulate.ina260 import SimulatedINA260
from agent.simulate.ina3221 import Input, SimulatedINA3221
from agent.simulate.rails import ConstantRail
from agent.simulate.recordings import Recording

if TYPE_CHECKING:
    from agent.simulate.chips import RegisterChip
    from agent.simulate.ina226_family import SimulatedINA226Family
    from tests.simulate.simulated_clock import HandClock

CONFIG = 0x00
CONTINUOUS, TRIGGERED, POWERED_DOWN = 7, 3, 0


def read(chip: RegisterChip, register: int) -> int:
    chip.write(bytes([register]))
    return int.from_bytes(chip.read(2), "big")


def write(chip: RegisterChip, register: int, word: int) -> None:
    chip.write(bytes([register, word >> 8, word & 0xFF]))


def config(averaging: int = 0, voltage: int = 4, current: int = 4, mode: int = CONTINUOUS, upper: int = 0x6000) -> int:
    return upper | averaging << 9 | voltage << 6 | current << 3 | mode


@pytest.fixture
def ina260(rail: ConstantRail, clock: HandClock) -> SimulatedINA260:
    return SimulatedINA260(0x40, rail, clock)


@pytest.fixture
def ina3221(rail: ConstantRail, clock: HandClock) -> SimulatedINA3221:
    return SimulatedINA3221(0x40, {1: Input(rail, 0.1), 3: Input(ConstantRail(3.3, -0.4, clock), 0.1)}, clock)


def test_power_on_values_are_those_of_the_datasheets(ina260: SimulatedINA260, ina3221: SimulatedINA3221) -> None:
    registers_260 = (0x00, 0x01, 0x02, 0x03, 0x06, 0x07, 0xFE, 0xFF)
    assert [read(ina260, r) for r in registers_260] == [0x6127, 0, 0, 0, 0, 0, 0x5449, 0x2270]
    assert [read(ina3221, register) for register in range(0x12)] == [
        *(0x7127, 0, 0, 0, 0, 0, 0),
        *(0x7FF8, 0x7FF8, 0x7FF8, 0x7FF8, 0x7FF8, 0x7FF8),
        *(0, 0x7FFE, 0x0002, 0x2710, 0x2328),
    ]
    assert (read(ina3221, 0xFE), read(ina3221, 0xFF)) == (0x5449, 0x3220)


def test_reading_past_a_register_gives_ones(ina260: SimulatedINA260) -> None:
    ina260.write(b"\xff")
    assert ina260.read(2) == ina260.read(2) == b"\x22\x70"
    assert ina260.read(1) == b"\x22"
    assert ina260.read(4) == b"\x22\x70\xff\xff"
    ina260.write(b"")
    assert ina260.read(2) == b"\x22\x70"
    ina260.power_loss()
    assert ina260.read(2) == b"\x61\x27"


def test_read_only_registers_and_bits_cannot_be_written(ina260: SimulatedINA260, ina3221: SimulatedINA3221) -> None:
    for register in (0x01, 0x02, 0x03, 0xFE, 0xFF, 0x55):
        before = read(ina260, register)
        write(ina260, register, 0xABCD)
        assert read(ina260, register) == before
    write(ina260, CONFIG, 0x7FFF)
    assert read(ina260, CONFIG) == 0x6FFF
    write(ina260, 0x06, 0xFFFF)
    assert read(ina260, 0x06) == 0xFC03
    write(ina3221, 0x0F, 0xFFFF)
    assert read(ina3221, 0x0F) == 0x7C02
    write(ina3221, 0x07, 0xFFFF)
    assert read(ina3221, 0x07) == 0xFFF8


def test_half_a_register_write_changes_nothing(ina260: SimulatedINA260) -> None:
    ina260.write(b"\x00\x00")
    assert ina260.read(2) == b"\x61\x27"


def test_the_reset_bit_restores_everything_and_clears_itself(ina260: SimulatedINA260, clock: HandClock) -> None:
    write(ina260, 0x07, 0x1234)
    write(ina260, 0x06, 0x8001)
    write(ina260, CONFIG, config(averaging=3))
    clock.advance(1.0)
    assert read(ina260, 0x02) == 4000
    write(ina260, CONFIG, 0x8000 | config(averaging=3))
    assert [read(ina260, register) for register in (0x00, 0x01, 0x02, 0x03, 0x06, 0x07)] == [0x6127, 0, 0, 0, 0, 0]
    clock.advance(0.0022)
    assert read(ina260, 0x02) == 4000


@pytest.mark.parametrize(
    ("codes", "microseconds"),
    [
        ((0, 4, 4), 2200),
        ((0, 0, 0), 280),
        ((1, 1, 2), 4 * (204 + 332)),
        ((2, 3, 5), 16 * (588 + 2116)),
        ((3, 6, 7), 64 * (4156 + 8244)),
        ((4, 0, 1), 128 * (140 + 204)),
        ((5, 7, 0), 256 * (8244 + 140)),
        ((6, 4, 4), 512 * 2200),
        ((7, 7, 7), 1024 * 2 * 8244),
    ],
)
def test_the_first_result_comes_after_averages_times_conversion_time(
    ina260: SimulatedINA260, clock: HandClock, codes: tuple[int, int, int], microseconds: int
) -> None:
    clock.advance(12345.678901)
    write(ina260, CONFIG, 0x8000)
    write(ina260, CONFIG, config(*codes))  # averaging, voltage and current conversion time
    clock.advance((microseconds - 1) * 1e-6)
    assert (read(ina260, 0x06), read(ina260, 0x02)) == (0, 0)
    clock.advance(1e-6)
    assert (read(ina260, 0x06), read(ina260, 0x02)) == (1 << 3, 4000)


def test_a_configuration_write_keeps_results_until_the_next_conversion(
    ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock
) -> None:
    clock.advance(0.0022)
    rail.volts = 12.0
    write(ina260, CONFIG, config(averaging=3))
    clock.advance(64 * 0.0022 - 1e-6)
    assert read(ina260, 0x02) == 4000
    clock.advance(1e-6)
    assert read(ina260, 0x02) == 9600


def test_reading_and_configuring_clear_the_ready_flag(ina260: SimulatedINA260, clock: HandClock) -> None:
    clock.advance(0.0022)
    assert read(ina260, 0x06) == 8
    assert read(ina260, 0x06) == 0
    clock.advance(0.0022)
    write(ina260, CONFIG, config())
    assert read(ina260, 0x06) == 0
    clock.advance(0.0021)
    assert read(ina260, 0x06) == 0
    clock.advance(0.0001)
    assert read(ina260, 0x06) == 8


def test_reading_results_leaves_the_ready_flag(ina260: SimulatedINA260, clock: HandClock) -> None:
    clock.advance(0.0022)
    read(ina260, 0x02)
    assert read(ina260, 0x06) == 8


def test_a_powered_down_chip_keeps_its_last_results(
    ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock
) -> None:
    clock.advance(0.0022)
    write(ina260, CONFIG, config(mode=POWERED_DOWN))
    rail.volts = 12.0
    clock.advance(10.0)
    assert (read(ina260, 0x02), read(ina260, 0x06)) == (4000, 8)


def test_triggered_mode_measures_once_per_configuration_write(
    ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock
) -> None:
    write(ina260, CONFIG, config(mode=TRIGGERED))
    clock.advance(0.0022)
    rail.volts = 12.0
    clock.advance(10.0)
    assert (read(ina260, 0x02), read(ina260, 0x06), read(ina260, 0x06)) == (4000, 8, 0)
    write(ina260, CONFIG, config(mode=TRIGGERED))
    clock.advance(0.0022)
    assert read(ina260, 0x02) == 9600


@pytest.mark.parametrize(("mode", "measured"), [(5, [800, 0]), (6, [0, 4000])])
def test_a_mode_for_one_quantity_takes_half_the_time(
    ina260: SimulatedINA260, clock: HandClock, mode: int, measured: list[int]
) -> None:
    write(ina260, CONFIG, config(mode=mode))
    clock.advance(0.0011)
    assert [read(ina260, 0x01), read(ina260, 0x02)] == measured


@pytest.mark.parametrize(
    ("volts_amperes", "words"),
    [
        ((5.0, 1.0), [800, 4000, 500]),
        ((12.0, -2.5), [0x10000 - 2000, 9600, 3000]),  # power has no sign
        ((0.0006, 0.0006), [0, 0, 0]),
        ((0.0007, -0.0007), [0xFFFF, 1, 0]),
        ((100.0, 100.0), [0x7FFF, 0x7FFF, 0xFFFF]),
        ((-1.0, -100.0), [0x8000, 0, 0]),
        ((36.0, 15.0), [12000, 28800, 54000]),
    ],
)
def test_the_ina260_rounds_and_saturates(
    ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock, volts_amperes: tuple[float, float], words: list[int]
) -> None:
    rail.volts, rail.amperes = volts_amperes
    clock.advance(0.0022)
    assert [read(ina260, register) for register in (1, 2, 3)] == words


def test_excess_power_sets_the_overflow_flag(ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock) -> None:
    rail.volts, rail.amperes = 36.0, 30.0
    clock.advance(0.0022)
    assert read(ina260, 0x06) == 8 | 4
    rail.amperes = 1.0
    clock.advance(0.0044)
    assert read(ina260, 0x06) == 8


def test_the_ina3221_results_are_left_aligned_and_signed(ina3221: SimulatedINA3221, clock: HandClock) -> None:
    clock.advance(3 * 0.0022)
    assert [read(ina3221, register) for register in range(1, 7)] == [
        *(2500 << 3, 625 << 3),
        *(0, 0),
        *((0x2000 - 1000) << 3, round(3.3 / 0.008) << 3),
    ]


@pytest.mark.parametrize(
    ("volts_amperes", "words"),
    [((100.0, 100.0), [0x7FF8, 0x7FF8]), ((-1.0, -100.0), [0x8000, 0]), ((26.0, -0.0004), [0xFFF8, 3250 << 3])],
)
def test_the_ina3221_saturates(
    ina3221: SimulatedINA3221,
    rail: ConstantRail,
    clock: HandClock,
    volts_amperes: tuple[float, float],
    words: list[int],
) -> None:
    rail.volts, rail.amperes = volts_amperes
    clock.advance(0.0066)
    assert [read(ina3221, 1), read(ina3221, 2)] == words


def test_each_enabled_ina3221_input_takes_its_time(ina3221: SimulatedINA3221, clock: HandClock) -> None:
    for enabled, inputs in ((0x1000, 1), (0x5000, 2), (0x7000, 3)):
        write(ina3221, CONFIG, config(averaging=1, upper=enabled))
        clock.advance(inputs * 4 * 0.0022 - 1e-6)
        assert read(ina3221, 0x0F) == 0x0002
        clock.advance(1e-6)
        assert read(ina3221, 0x0F) == 0x0003
    write(ina3221, CONFIG, config(upper=0))
    clock.advance(10.0)
    assert read(ina3221, 0x0F) == 0x0002


def test_a_disabled_input_keeps_its_last_result(
    ina3221: SimulatedINA3221, rail: ConstantRail, clock: HandClock
) -> None:
    clock.advance(0.0066)
    write(ina3221, CONFIG, config(upper=0x1000))
    rail.volts = 12.0
    clock.advance(1.0)
    assert read(ina3221, 0x02) == 625 << 3


def test_the_ina3221_sums_the_selected_shunts(ina3221: SimulatedINA3221, clock: HandClock) -> None:
    write(ina3221, 0x0F, 0x5000)  # inputs 1 and 3
    clock.advance(0.0066)
    assert read(ina3221, 0x0D) == (2500 - 1000) << 1
    write(ina3221, 0x0F, 0x1000)
    clock.advance(0.0066)
    assert read(ina3221, 0x0D) == (-1000 << 1) & 0xFFFF


def test_averaging_catches_a_burst_that_a_snapshot_misses(
    ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock
) -> None:
    write(ina260, CONFIG, config(averaging=6))  # 512 x 2.2 ms = 1.1264 s
    clock.advance(0.5)
    rail.amperes = 3.0
    clock.advance(0.22)
    rail.amperes = 1.0
    clock.advance(1.1264 - 0.72)
    assert read(ina260, 0x01) * 1.25e-3 == pytest.approx(1.0 + 2.0 * 0.22 / 1.1264, abs=0.005)
    write(ina260, CONFIG, config(averaging=0))
    clock.advance(0.0022)
    assert read(ina260, 0x01) == 800


def test_a_burst_during_the_other_quantitys_conversion_is_missed(
    ina260: SimulatedINA260, rail: ConstantRail, clock: HandClock
) -> None:
    write(ina260, CONFIG, config(averaging=1, voltage=7, current=7))
    clock.advance(0.008244)
    rail.volts, rail.amperes = 6.0, 9.0
    clock.advance(0.008244)
    rail.volts, rail.amperes = 5.0, 1.0
    clock.advance(6 * 0.008244)
    assert (read(ina260, 0x01), read(ina260, 0x02)) == (800, round((5.0 + 1.0 / 4) / 1.25e-3))


def test_the_ina3221_converts_its_inputs_in_turn(clock: HandClock) -> None:
    burst = Recording([(0.0, 5.0, 0.0), (0.0022, 5.0, 1.0), (0.0033, 5.0, 0.0)])
    chip = SimulatedINA3221(0x40, {number: Input(burst, 0.1) for number in (1, 2, 3)}, clock)
    clock.advance(0.0066)
    assert [read(chip, register) for register in (1, 3, 5)] == [0, 2500 << 3, 0]


def test_a_power_loss_restores_power_on_values_and_zero_results(ina260: SimulatedINA260, clock: HandClock) -> None:
    write(ina260, CONFIG, config(averaging=3))
    clock.advance(1.0)
    ina260.power_loss()
    assert [read(ina260, register) for register in (0, 1, 2, 3, 6)] == [0x6127, 0, 0, 0, 0]
    clock.advance(0.0021)
    assert read(ina260, 0x02) == 0
    clock.advance(0.0001)
    assert read(ina260, 0x02) == 4000


@given(
    values=st.lists(
        st.tuples(st.floats(0.001, 3.0), st.integers(-1000, 1000)),
        min_size=1,
        max_size=20,
    ),
    window=st.floats(0.01, 1.0),
    gap=st.floats(0.0, 1.0),
    offset=st.floats(0.0, 2.0),
    count=st.integers(1, 20),
)
def test_the_closed_form_mean_equals_sampling_each_conversion(
    values: list[tuple[float, int]], window: float, gap: float, offset: float, count: int
) -> None:
    ends = [sum(length for length, _ in values[: i + 1]) for i in range(len(values))]
    ends[-1] = 1000.0  # beyond every window
    steps = [(end, float(value)) for end, (_, value) in zip(ends, values, strict=True)]
    expected = 0.0
    for number in range(count):
        begin, end = offset + number * (window + gap), offset + number * (window + gap) + window
        start = 0.0
        for step_end, value in steps:
            expected += value * max(min(end, step_end) - max(begin, start), 0.0) / (count * window)
            start = step_end
    windows = SamplingWindows(offset, window, window + gap, count)
    assert windows.mean(steps) == pytest.approx(expected, abs=1e-6)


# The INA226 and the chips like it

LIKE_INA226 = (
    SimulatedINA226,
    SimulatedINA230,
    SimulatedINA231,
    SimulatedINA232,
    SimulatedINA234,
    SimulatedINA236,
)
WITH_TWO_RANGES = LIKE_INA226[3:]
IDS = {
    SimulatedINA226: (0x5449, 0x2260, 0, 0),
    SimulatedINA230: (0, 0x2260, 0, 0),
    SimulatedINA231: (0, 0, 0, 0),
    SimulatedINA232: (0, 0, 0x5449, 0),
    SimulatedINA234: (0, 0, 0x5449, 0xA480),
    SimulatedINA236: (0, 0, 0x5449, 0xA080),
}
"""Registers 0xFE, 0xFF, 0x3E and 0x3F. Those that a chip does not have read 0, which no datasheet says."""


def like_ina226(
    kind: type[SimulatedINA226Family], rail: ConstantRail | Recording, clock: HandClock, shunt_ohms: float = 0.01
) -> SimulatedINA226Family:
    return kind(0x40, rail, shunt_ohms, clock)


@pytest.mark.parametrize("kind", LIKE_INA226)
def test_a_chip_like_an_ina226_powers_on_as_in_its_datasheet(
    kind: type[SimulatedINA226Family], rail: ConstantRail, clock: HandClock
) -> None:
    chip = like_ina226(kind, rail, clock)
    assert [read(chip, register) for register in range(8)] == [0x4127, 0, 0, 0, 0, 0, 0, 0]
    assert tuple(read(chip, register) for register in (0xFE, 0xFF, 0x3E, 0x3F)) == IDS[kind]
    clock.advance(0.0022)
    assert read(chip, 0x06) == 1 << 3
    assert read(chip, 0x06) == 0
    assert read(chip, 0x01) != 0 != read(chip, 0x02)
    assert (read(chip, 0x03), read(chip, 0x04)) == (0, 0)  # no calibration


@pytest.mark.parametrize("kind", LIKE_INA226)
def test_fixed_bits_of_a_chip_like_an_ina226_cannot_be_written(
    kind: type[SimulatedINA226Family], rail: ConstantRail, clock: HandClock
) -> None:
    chip = like_ina226(kind, rail, clock)
    for register in (0x01, 0x02, 0x03, 0x04, 0xFE, 0xFF, 0x3E, 0x3F, 0x55):
        before = read(chip, register)
        write(chip, register, 0xABCD)
        assert read(chip, register) == before
    write(chip, CONFIG, 0x7FF8)
    assert read(chip, CONFIG) == (0x5FF8 if kind in WITH_TWO_RANGES else 0x4FF8)
    write(chip, CONFIG, 0x0000)
    assert read(chip, CONFIG) == 0x4000
    write(chip, 0x05, 0xFFFF)
    write(chip, 0x06, 0xFFFF)
    write(chip, 0x07, 0xFFFF)
    assert [read(chip, register) for register in (0x05, 0x06, 0x07)] == [0x7FFF, 0xFC03, 0xFFFF]


@pytest.mark.parametrize(
    ("kind", "bus", "shunt", "power_lsbs"),
    [
        (SimulatedINA226, 9600, 19200, 25),
        (SimulatedINA230, 9600, 19200, 25),
        (SimulatedINA231, 9600, 19200, 25),
        (SimulatedINA232, 7500, 19200, 32),
        (SimulatedINA234, 468 << 4, 1200 << 4, 32),  # 11.98 V
        (SimulatedINA236, 7500, 19200, 32),
    ],
)
def test_the_design_example_of_the_datasheet_reads_its_numbers(
    kind: type[SimulatedINA226Family], bus: int, shunt: int, power_lsbs: int, clock: HandClock
) -> None:
    """SBOSA81, table 8-4: 12 V, 6 A and 8 mohm, with a CURRENT_LSB of 500 uA, so that the calibration is 0x0500."""
    chip = like_ina226(kind, ConstantRail(11.98 if kind is SimulatedINA234 else 12.0, 6.0, clock), clock, 0.008)
    write(chip, 0x05, 0x0500)
    clock.advance(0.0022)
    assert (read(chip, 0x02), read(chip, 0x01)) == (bus, shunt)
    assert read(chip, 0x04) == 12000
    assert read(chip, 0x03) * power_lsbs * 500e-6 == pytest.approx(72, rel=0.003)


@pytest.mark.parametrize("kind", LIKE_INA226)
def test_current_and_power_overflow_with_too_high_a_calibration(
    kind: type[SimulatedINA226Family], clock: HandClock
) -> None:
    rail = ConstantRail(20.0, -4.0, clock)
    chip = like_ina226(kind, rail, clock)
    write(chip, 0x05, 0x4000)
    clock.advance(0.0022)
    assert (read(chip, 0x04), read(chip, 0x03)) == (0x8000, 0xFFFF)
    assert read(chip, 0x06) == 1 << 3 | 1 << 2
    write(chip, 0x05, 0x0800)
    clock.advance(0.0022)
    assert read(chip, 0x06) == 1 << 3
    assert read(chip, 0x04) == read(chip, 0x01) == 0x10000 - 16000
    write(chip, 0x05, 0x0301)
    clock.advance(0.0022)
    expected = -16000 * 0x301 // 2048
    assert read(chip, 0x04) == (expected & 0xFFF0 if kind is SimulatedINA234 else expected & 0xFFFF)


@pytest.mark.parametrize("kind", WITH_TWO_RANGES)
def test_the_narrow_range_has_a_quarter_of_the_lsb_and_ends_early(
    kind: type[SimulatedINA226Family], rail: ConstantRail, clock: HandClock
) -> None:
    chip = like_ina226(kind, rail, clock)
    clock.advance(0.0022)
    wide = read(chip, 0x01)
    write(chip, CONFIG, 0x5127)
    assert read(chip, 0x01) == wide  # until a conversion ends
    clock.advance(0.0022)
    assert read(chip, 0x01) == 4 * wide
    rail.amperes = 3.0  # 30 mV
    clock.advance(0.0044)
    assert read(chip, 0x01) == (0x7FF0 if kind is SimulatedINA234 else 0x7FFF)
    rail.amperes = -3.0
    clock.advance(0.0044)
    assert read(chip, 0x01) == 0x8000


@pytest.mark.parametrize("kind", LIKE_INA226)
def test_the_power_of_an_ina226_is_the_mean_of_its_samples(kind: type[SimulatedINA226Family], clock: HandClock) -> None:
    """SBOS547, section 6.3.1.1: half of the time 4 V and 4 A, the other half 12 V and 0 A, so 8 W instead of 16 W."""
    half = 2 * 2200e-6
    rail = Recording([(0.0, 4.0, 4.0), (half, 12.0, 0.0)]).beginning_at(clock())
    chip = like_ina226(kind, rail, clock)
    write(chip, 0x05, 0x0800)
    write(chip, CONFIG, 0x4327)  # 4 samples
    clock.advance(4 * 2200e-6)
    watts_per_lsb = (32 if kind in WITH_TWO_RANGES else 25) * 2.5e-6 / 0.01
    expected = 16.0 if kind in WITH_TWO_RANGES else 8.0
    assert read(chip, 0x03) * watts_per_lsb == pytest.approx(expected, rel=0.01)
    assert read(chip, 0x04) == read(chip, 0x01)
