"""TI INA700: one input with its shunt inside, 0-40 V and up to 15 A. Datasheet: SBOSAB4A."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips import (
    AVERAGING_COUNTS,
    TEXAS_INSTRUMENTS,
    AveragingChoices,
    ChipOptions,
    ComputedRegister,
    ExpectedBits,
    I2CChip,
    Measurement,
    Register,
    SensorError,
    Word,
    conversion_seconds,
    refuse_another_kind,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import I2C, AveragingCodes, Device

AVERAGING = AveragingChoices(
    counts=AVERAGING_COUNTS,
    # Section 6.5, "ADC conversion-time", by register code.
    conversion_seconds=(50e-6, 84e-6, 150e-6, 280e-6, 540e-6, 1.052e-3, 2.074e-3, 4.12e-3),
)
OPTIONS = ChipOptions(chip="ina700", addresses=range(0x44, 0x48), averaging=AVERAGING)


class Chip(I2CChip):
    """One INA700."""

    options = OPTIONS
    highest_volts = 40.0
    full_scale_amperes = 15.7  # just below the end of the register
    ids = (Word(0x3E, TEXAS_INSTRUMENTS),)
    signature_names = frozenset({"ina237", ""})  # that one has no device ID either
    results = (Register(0x05), Register(0x07))
    # Diagnostic flags and alert register 0x0B (section 7.6.1), power-on 0x0001:
    #   15    14   13   12   11-10    9     8    7 - 2    1    0
    # +------+----+----+----+------+------+---+--------+-----+----+
    # |ALATCH|CNVR|SLOW|APOL| over-| MATH | 0 | limits |CNVRF|MEM |
    # |      |    |ALRT|    | flows|  OF  |   |        |     |STAT|
    # +------+----+----+----+------+------+---+--------+-----+----+
    # Canary bit: ALATCH, which latches the alert pin, whose limits are out of reach at power-on. CNVRF: a result is
    # complete; with ALATCH, it stays until the register is read. MEMSTAT 1: the chip's memory is sound.
    status = ExpectedBits(Register(0x0B), written=0x8001, power_on=0x0001, bits=0xF101)
    new_result = 1 << 1
    # Power register 0x08 (section 7.6.1), 24 bits, unsigned: needs the MODE with both. With AVG 000 it is the product
    # of the two results; otherwise it may be the mean of products.
    computed = ComputedRegister(
        Register(0x08, length_bytes=3),
        "power",
        per_lsb=96e-6,
        volts_per_lsb=3.125e-3,
        amperes_per_lsb=480e-6,
        requires=(ExpectedBits(Register(0x01), 0xF000, power_on=0xF000, bits=0xF000),),
        unaveraged=ExpectedBits(Register(0x01), 0, power_on=0, bits=0b111),
    )

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        """See `I2CChip`; a conversion of the temperature comes on top of those that the configuration knows."""
        super().__init__(devices, sample_interval_seconds)
        self.conversion_seconds = _conversion_seconds(self.configuration[0].written)

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`. There is no device ID, so this refuses every chip with the ID of another kind."""
        found = super().identify(port)
        refuse_another_kind(self, self.signature_names)
        return found

    def configuration_words(self, codes: AveragingCodes) -> tuple[ExpectedBits, ...]:
        """See `I2CChip.configuration_words`."""
        # ADC configuration register 0x01 (section 7.6.1), power-on 0xFB68:
        #   15       12   11        9   8         6   5         3   2        0
        # +-------------+-------------+-------------+-------------+-----------+
        # |    MODE     |   VBUSCT    |   VSENCT    |     TCT     |    AVG    |
        # +-------------+-------------+-------------+-------------+-----------+
        # MODE 1111: temperature, current and bus voltage, continuously. There is no mode for a current without a
        # temperature, by which the chip corrects its shunt; TCT 000 is its shortest conversion.
        word = 0xF000 | codes.voltage << 9 | codes.current << 6 | codes.count
        return (ExpectedBits(Register(0x01), word, power_on=0xFB68),)

    def adopt(self, found: Sequence[int]) -> None:
        """See `I2CChip.adopt`."""
        (word,) = found
        self._require_continuous(word, word >> 12, 0b1111)
        self.conversion_seconds = _conversion_seconds(word)

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        # Bus voltage register 0x05 (section 7.6.1): 3.125 mV, never negative, to 40 V
        # Current register 0x07 (section 7.6.1): 480 uA, two's complement
        #   15   14                                      0
        # +----+------------------------------------------+
        # | +- |              VBUS, CURRENT               |
        # +----+------------------------------------------+
        voltage_word, current_word = words
        volts, amperes = voltage_word * 3.125e-3, signed(current_word) * 480e-6
        if volts > self.highest_volts:
            raise SensorError(
                f"{self}: bus voltage register reads 0x{voltage_word:04x}, more than {self.highest_volts:g} V; "
                "is the bus disturbed?"
            )
        if abs(amperes) > self.full_scale_amperes:
            raise SensorError(
                f"{self}: current register reads 0x{current_word:04x}, the end of its range "
                f"({self.full_scale_amperes:g} A); overload?"
            )
        return (Measurement(volts, amperes),)


def _conversion_seconds(word: int) -> float:
    """How long one result takes with this ADC configuration: all three quantities are averaged in turn."""
    count, temperature_seconds = AVERAGING.counts[word & 7], AVERAGING.conversion_seconds[word >> 3 & 7]
    pair_seconds = conversion_seconds(AVERAGING, word & 7, word >> 9 & 7, word >> 6 & 7)
    return pair_seconds + count * temperature_seconds
