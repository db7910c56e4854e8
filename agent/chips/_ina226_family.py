"""The base of TI's INA226, INA230, INA231, INA232, INA234 and INA236: one input, and a shunt on the board.

Datasheets: SBOS547 (INA226), SBOS601 (INA230), SBOS644 (INA231), SBOSAA2 (INA232), SBOS844 (INA234), SBOSA81 (INA236);
the section numbers here are those of SBOS547B and SBOSA81D.

| | bus voltage LSB | up to | shunt voltage LSB | ADCRANGE | ID registers |
|---|---|---|---|---|---|
| INA226 | 1.25 mV | 36 V | 2.5 uV | - | 0xFE, 0xFF |
| INA230 | 1.25 mV | 36 V | 2.5 uV | - | 0xFF, with a value that is not given |
| INA231 | 1.25 mV | 28 V | 2.5 uV | - | none |
| INA232 | 1.6 mV | 48 V | 2.5 uV | yes | 0x3E alone |
| INA234 | 25.6 mV | 28 V | 40 uV | yes | 0x3E, 0x3F |
| INA236 | 1.6 mV | 48 V | 2.5 uV | yes | 0x3E, 0x3F |

Clones of the INA226 hold other IDs, or none. So the word in the configuration decides between INA226, INA230 and
INA231, whose registers are the same, unless an ID shows that it is another kind of chip.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from agent.chips import _averaging as averaging
from agent.chips._base import TEXAS_INSTRUMENTS, ComputedRegister, ExpectedBits, Word
from agent.chips._shunt import ShuntChip
from agent.i2c.transfers import Register
from agent.settings import ChipOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.i2c.transfers import I2C

_NEUTRAL_CALIBRATION = 0x0800
"""With it, the current register holds the word of the shunt voltage register, for any shunt."""

_ADC_RANGE = 1 << 12


# A0 alone selects one of 0x40-0x43 on an INA234A, and one of 0x48-0x4B on an INA234B (section 7.5.1, table 7-1).
NEWER_ADDRESSES = (*range(0x40, 0x44), *range(0x48, 0x4C))


def options(chip: str, addresses: Sequence[int] = range(0x40, 0x50)) -> ChipOptions:
    """The configuration keys that a chip of this family accepts."""
    return ChipOptions(chip=chip, addresses=addresses, external_shunt=True, averaging=averaging.CHOICES)


class INA226FamilyChip(ShuntChip):
    """One chip of the family. The numbers are those of an INA226.

    Attributes:
        fixed_configuration: bits of the configuration that no host can change.
        calibration: below the neutral one, so that current and shunt voltage are different numbers: what two chips at
            one address answer is the AND of their bits, and the AND of two currents is then not this share of the AND
            of two shunt voltages. All of the range fits. Chips whose words mean different numbers have different ones,
            so that one that was exchanged for another is not taken for it.
    """

    signature_names = frozenset({"ina226", ""})
    calibration: ClassVar[int] = 0x0700
    fixed_configuration: ClassVar[Word] = Word(0x00, 0x4000, 0xF000)

    bus_volts_per_lsb = 1.25e-3
    highest_volts = 36.0
    full_scale_shunt_volts = 0.08192

    # Bus voltage register 0x02 (section 7.1.3), never negative, and shunt voltage register 0x01 (section 7.1.2), two's
    # complement. INA234:
    #   15   14                                        4    3      0
    # +----+---------------------------------------------+---------+
    # | +- |                  12 bits                    |    0    |
    # +----+---------------------------------------------+---------+
    # The others:
    #   15   14                                                  0
    # +----+-------------------------------------------------------+
    # | +- |                        16 bits                        |
    # +----+-------------------------------------------------------+
    results = (Register(0x02), Register(0x01))
    # Mask/enable register 0x06 (section 7.1.7; INA232, INA234 and INA236: 7.6.1), power-on 0x0000:
    #   15  14  13  12  11   10   9    6    5     4    3    2    1    0
    # +---+---+---+---+---+------+------+------+---+----+---+----+-----+
    # |SOL|SUL|BOL|BUL|POL| CNVR |  0   | MEM  |AFF|CVRF|OVF|APOL| LEN |
    # |   |   |   |   |   |      |      |ERROR |   |    |   |    |     |
    # +---+---+---+---+---+------+------+------+---+----+---+----+-----+
    # No canary bit: the calibration serves as one. No function is selected for the alert pin. CVRF: a result is ready.
    # MEMERROR (0 on INA226, INA230 and INA231): the chip's memory is damaged.
    status = ExpectedBits(Register(0x06), written=0, power_on=0, bits=0xFFE3)
    new_result = 1 << 3
    scales = True  # ADCRANGE sets the LSB of the shunt voltage, the calibration shows which chip it is

    @property
    def computed(self) -> ComputedRegister:
        """See `I2CChip.computed`: current register 0x04 (section 7.1.5), shunt voltage x calibration / 2048.

        It averages the current of every single sample (section 6.3.1.1), which is the same number as that of the
        averaged shunt voltage, give or take roundings, whatever the load does. The power register is not used: it
        averages products, which for a load that varies during a result are not the product of the two averages.
        """
        amperes_per_lsb = self.shunt_volts_per_lsb / self.shunt_ohms
        return ComputedRegister(
            Register(0x04),
            "current",
            per_lsb=amperes_per_lsb * _NEUTRAL_CALIBRATION / self.calibration,
            volts_per_lsb=self.bus_volts_per_lsb,
            amperes_per_lsb=amperes_per_lsb,
            requires=(
                ExpectedBits(Register(0x05), self.calibration, power_on=0x0000),
                ExpectedBits(Register(0x00), 0b111, power_on=0b111, bits=0b111),
            ),
        )

    @property
    def averaged_power(self) -> ComputedRegister | None:
        """See `I2CChip.averaged_power`: register 0x03 (section 7.1.4), of 25 LSBs of the current times 1 V."""
        current = self.computed
        return replace(
            current,
            register=Register(0x03),
            quantity="power",
            per_lsb=25 * current.per_lsb,
            unaveraged=ExpectedBits(Register(0x00), 0, power_on=0, bits=0b111 << 9),
        )

    def configuration_words(self, codes: averaging.Codes) -> tuple[ExpectedBits, ...]:
        """See `I2CChip.configuration_words`."""
        # Calibration register 0x05 (section 7.1.6), power-on 0x0000: 0.00512 / (CURRENT_LSB x shunt). With CURRENT_LSB
        # = LSB of the shunt voltage / shunt it would be 0x0800 for any shunt. Without a calibration, current and power
        # register stay 0.
        calibration = ExpectedBits(Register(0x05), self.calibration, power_on=0x0000)
        # Configuration register 0x00 (section 7.1.1; INA232, INA234 and INA236: 7.6.1), power-on 0x4127:
        #   15    14  13    12    11   10   9    8   7   6    5   4   3    2   1   0
        # +-----+--------+------+------------+------------+------------+------------+
        # | RST | 1   0  | ADC  |    AVG     |   VBUSCT   |   VSHCT    |    MODE    |
        # |     |        |RANGE |            |            |            |            |
        # +-----+--------+------+------------+------------+------------+------------+
        # ADCRANGE 0: +-81.92 mV; always 0 in INA226, INA230 and INA231. MODE 111: shunt and bus voltage, continuously.
        word = 0x4000 | codes.count << 9 | codes.voltage << 6 | codes.current << 3 | 0b111
        return (calibration, ExpectedBits(Register(0x00), word, power_on=0x4127))

    def adopt(self, found: Sequence[int]) -> None:
        """See `I2CChip.adopt`. No calibration is needed: current is computed from the shunt voltage."""
        _, configuration = found
        super().adopt((configuration,))
        self._adopt_range(is_narrow=bool(configuration & _ADC_RANGE & ~self.fixed_configuration.mask))

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`. This refuses every power monitor whose IDs show that it is another kind."""
        found = super().identify(port)
        self._refuse_another_kind(found[-1], self.fixed_configuration)
        return found


class NewerINA226FamilyChip(INA226FamilyChip):
    """An INA232, INA234 or INA236, with a choice of two ranges. The numbers are those of INA232 and INA236."""

    # Register 0x3E (section 7.6.1); only the INA234 and the INA236 have a device ID in bits 15-4 of 0x3F.
    ids: tuple[Word, ...] = (Word(0x3E, TEXAS_INSTRUMENTS),)
    fixed_configuration = Word(0x00, 0x4000, 0xE000)
    calibration = 0x0680
    bus_volts_per_lsb = 1.6e-3
    highest_volts = 48.0

    @property
    def averaged_power(self) -> ComputedRegister | None:
        """See `I2CChip.averaged_power`: these multiply the averages, which shows nothing."""
        return None
