"""The base of TI's INA228, INA237 and INA238: one input, a shunt on the board, up to 85 V, registers 0x00-0x3F.

Datasheets: SLYS021 (INA228), SBOSA20 (INA237), SLYS025 (INA238); the section numbers here are those of SLYS021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.chips import _averaging as averaging
from agent.chips._base import TEXAS_INSTRUMENTS, ComputedRegister, ExpectedBits, Word
from agent.chips._shunt import ShuntChip
from agent.i2c.transfers import Register
from agent.settings import AveragingChoices, ChipOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

# By register code (section 7.6.1.2).
_CONVERSION_SECONDS = (50e-6, 84e-6, 150e-6, 280e-6, 540e-6, 1.052e-3, 2.074e-3, 4.12e-3)
_CHOICES = AveragingChoices(averaging.COUNTS, _CONVERSION_SECONDS)


def options(chip: str) -> ChipOptions:
    """The configuration keys that a chip of this family accepts."""
    return ChipOptions(chip=chip, addresses=range(0x40, 0x50), external_shunt=True, averaging=_CHOICES)


def ids(device_id: int) -> tuple[Word, ...]:
    """The ID registers, with the device ID in bits 15-4 of 0x3F; bits 3-0 are the revision."""
    return (Word(0x3E, TEXAS_INSTRUMENTS), Word(0x3F, device_id << 4, mask=0xFFF0))


class INA228FamilyChip(ShuntChip):
    """One chip of the family. The numbers are those of an INA237; an INA238 differs in accuracy and ID alone."""

    power_lsbs: ClassVar[float] = 0.2
    """The LSB of the power register in watts, divided by that of the current register in amperes."""

    unused_code: ClassVar[int] = 0b100
    """VTCT, the conversion time of the temperature, which is not measured. That of an INA228 is another one, so that an
    exchanged chip shows."""

    bus_volts_per_lsb = 3.125e-3
    highest_volts = 85.0
    full_scale_shunt_volts = 0.16384

    # Bus voltage register 0x05 (section 7.6.1.6), never negative, and shunt voltage register 0x04 (section 7.6.1.5),
    # two's complement. INA228: 195.3125 uV and 312.5 nV
    #   23   22                                        4   3      0
    # +----+---------------------------------------------+---------+
    # | +- |                  20 bits                    |    0    |
    # +----+---------------------------------------------+---------+
    # INA237 and INA238: 3.125 mV and 5 uV
    #   15   14                                        0
    # +----+---------------------------------------------+
    # | +- |                  16 bits                    |
    # +----+---------------------------------------------+
    results = (Register(0x05), Register(0x04))
    # Diagnostic flags and alert register 0x0B (section 7.6.1.12), power-on 0x0001:
    #    15    14   13   12    11    10     9   8    7   6   5   4   3   2    1    0
    # +------+----+----+----+------+------+----+---+----+---+---+---+---+---+-----+----+
    # |ALATCH|CNVR|SLOW|APOL|ENERGY|CHARGE|MATH| 0 |TMP |SHN|SHN|BUS|BUS|POL|CNVRF|MEM |
    # |      |    |ALRT|    |  OF  |  OF  | OF |   | OL |TOL|TUL|OL |UL |   |     |STAT|
    # +------+----+----+----+------+------+----+---+----+---+---+---+---+---+-----+----+
    # Canary bit: ALATCH, which latches the alert pin, whose limits are out of reach at power-on. With it, CNVRF (a
    # result is complete) stays until the register is read. MEMSTAT 1: the chip's memory is sound.
    status = ExpectedBits(Register(0x0B), written=0x8001, power_on=0x0001, bits=0xF101)
    new_result = 1 << 1
    scales = True  # ADCRANGE sets the LSB of the shunt voltage, the calibration that of the hardware counters

    @property
    def computed(self) -> ComputedRegister:
        """See `I2CChip.computed`.

        With the neutral calibration the current register holds the word of the shunt voltage, in both ranges, if
        TEMPCOMP does not correct it; the power register 0x08 (sections 7.6.1.9 and 8.1.2) is its product with the bus
        voltage, both averaged before (section 7.3.2).
        """
        amperes_per_lsb = self.shunt_volts_per_lsb / self.shunt_ohms
        return ComputedRegister(
            Register(0x08, length_bytes=3),
            "power",
            per_lsb=self.power_lsbs * amperes_per_lsb,
            volts_per_lsb=self.bus_volts_per_lsb,
            amperes_per_lsb=amperes_per_lsb,
            requires=(
                ExpectedBits(Register(0x00), 0, power_on=0, bits=1 << 5),
                ExpectedBits(Register(0x02), 0x1000, power_on=0x1000),
                ExpectedBits(Register(0x01), 0xB000, power_on=0xB000, bits=0xB000),
            ),
        )

    def configuration_words(self, codes: averaging.Codes) -> tuple[ExpectedBits, ...]:
        """See `I2CChip.configuration_words`."""
        # Configuration register 0x00 (section 7.6.1.1), power-on 0x0000:
        #   15   14     13                6    5     4    3       0
        # +-----+------+-------------------+------+-----+----------+
        # | RST |RSTACC|      CONVDLY      |TEMPC | ADC |    0     |
        # |     |      |                   | OMP  |RANGE|          |
        # +-----+------+-------------------+------+-----+----------+
        # ADCRANGE 0: +-163.84 mV. TEMPCOMP 0: no temperature compensation of the shunt. RST and RSTACC, which clear the
        # hardware counters, are never written as 1.
        range_and_delay = ExpectedBits(Register(0x00), 0x0000, power_on=0x0000, bits=0x3FF0)
        # Shunt calibration register 0x02 (section 7.6.1.3), power-on 0x1000: 13107.2e6 x CURRENT_LSB x shunt (INA237
        # and INA238: 819.2e6). With CURRENT_LSB = LSB of the shunt voltage / shunt, which is 312.5 nV in an INA228 and
        # 5 uV in the others, it is 0x1000 for any shunt.
        calibration = ExpectedBits(Register(0x02), 0x1000, power_on=0x1000)
        # ADC configuration register 0x01 (section 7.6.1.2), power-on 0xFB68:
        #   15       12   11        9   8         6   5         3   2        0
        # +-------------+-------------+-------------+-------------+-----------+
        # |    MODE     |   VBUSCT    |    VSHCT    |    VTCT     |    AVG    |
        # +-------------+-------------+-------------+-------------+-----------+
        # MODE 1011: shunt and bus voltage, continuously; without the temperature, which takes a share of the time in
        # the power-on mode.
        word = 0xB000 | codes.voltage << 9 | codes.current << 6 | self.unused_code << 3 | codes.count
        return (range_and_delay, calibration, ExpectedBits(Register(0x01), word, power_on=0xFB68))

    def adopt(self, found: Sequence[int]) -> None:
        """See `I2CChip.adopt`."""
        configuration, _, adc_configuration = found
        # MODE 1nnn: continuously; bit 1: shunt, bit 0: bus voltage, bit 2: temperature, which takes its share.
        self._require_continuous(adc_configuration, adc_configuration >> 12, 0b1011)
        self._adopt_range(is_narrow=bool(configuration >> 4 & 1))
        self.conversion_seconds = averaging.conversion_seconds(
            _CHOICES, adc_configuration & 7, adc_configuration >> 9 & 7, adc_configuration >> 6 & 7
        )
        if adc_configuration >> 14 & 1:
            temperature_seconds = _CONVERSION_SECONDS[adc_configuration >> 3 & 7]
            self.conversion_seconds += averaging.COUNTS[adc_configuration & 7] * temperature_seconds
