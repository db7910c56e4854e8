"""TI INA219 (and INA220): one input with a shunt on the board, 0-26 V. Datasheet: SBOS448.

Current is the shunt voltage divided by the resistance of the shunt. The chip's own current register serves as a check,
as in `_ina226_family.py`: two chips at one address contradict it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips._base import ComputedRegister, ExpectedBits, I2CChip, Measurement, Word, signed
from agent.errors import SensorError
from agent.i2c.transfers import Register
from agent.settings import AveragingChoices, ChipOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import _averaging as averaging
    from agent.chips._base import ReadRegister
    from agent.i2c.transfers import I2C

_BUS_VOLTAGE = Register(0x02)
_SHUNT_VOLTAGE = Register(0x01)

_BUS_VOLTS_PER_LSB = 4e-3
_SHUNT_VOLTS_PER_LSB = 10e-6

# Calibration register 0x05 (section 8.6.4.1), power-on 0x0000: with 0x1000 the current register would hold the word of
# the shunt voltage; with this, seven eighths of it.
_CALIBRATION = ExpectedBits(Register(0x05), 0x0E00, power_on=0x0000)

_SAMPLE_SECONDS = 532e-6
_SHORTER_SAMPLES_SECONDS = (84e-6, 148e-6, 276e-6, _SAMPLE_SECONDS)
"""Samples of 9, 10, 11 and 12 bits."""

_FIXED = Word(0x00, 0x0000, mask=0xC000)
"""Of the configuration: bit 14 is always 0, and RST clears itself."""

OPTIONS = ChipOptions(
    chip="ina219",
    addresses=range(0x40, 0x50),
    external_shunt=True,
    averaging=AveragingChoices((1, 2, 4, 8, 16, 32, 64, 128), conversion_seconds=(_SAMPLE_SECONDS,)),
)


class Chip(I2CChip):
    """One INA219. It has no register for a canary bit: a power loss shows in its configuration, read in every sweep."""

    options = OPTIONS
    signature_names = frozenset({""})
    results = (_BUS_VOLTAGE, _SHUNT_VOLTAGE)
    highest_volts = 26.0
    full_scale_shunt_volts = 0.32  # as configured by us and at power-on

    @property
    def computed(self) -> ComputedRegister:
        """See `I2CChip.computed`: current register 0x04 (section 8.6.3.4), shunt voltage x calibration / 4096.

        Reading it does not clear CNVR, as reading the power register would.
        """
        amperes_per_lsb = _SHUNT_VOLTS_PER_LSB / self.shunt_ohms
        return ComputedRegister(
            Register(0x04),
            "current",
            per_lsb=amperes_per_lsb * 0x1000 / _CALIBRATION.written,
            volts_per_lsb=_BUS_VOLTS_PER_LSB,
            amperes_per_lsb=amperes_per_lsb,
            requires=(_CALIBRATION, ExpectedBits(Register(0x00), 0b111, power_on=0b111, bits=0b111)),
        )

    def configuration_words(self, codes: averaging.Codes) -> tuple[ExpectedBits, ...]:
        """See `I2CChip.configuration_words`."""
        # Configuration register 0x00 (section 8.6.2.1), power-on 0x399F:
        #   15    14   13   12  11   10   9   8   7    6   5   4   3    2   1   0
        # +-----+----+----+--------+----------------+----------------+------------+
        # | RST | 0  |BRNG|  PGA   |      BADC      |      SADC      |    MODE    |
        # +-----+----+----+--------+----------------+----------------+------------+
        # BRNG 1: up to 32 V. PGA 11: +-320 mV. MODE 111: shunt and bus voltage, continuously. BADC, SADC 1nnn: 12 bits,
        # the mean of 2^n samples of 532 us. Power-on is 0011, a single sample: we never write the power-on value.
        samples = 0b1000 | codes.count
        return (_CALIBRATION, ExpectedBits(Register(0x00), 0x3807 | samples << 7 | samples << 3, power_on=0x399F))

    def adopt(self, found: Sequence[int]) -> None:
        """See `I2CChip.adopt`. The LSBs are the same in all ranges."""
        _, word = found
        self._require_continuous(word, word, 0b111)
        self.full_scale_shunt_volts = 0.04 * (1 << (word >> 11 & 3))
        own = type(self).highest_volts
        self.highest_volts = own if word >> 13 & 1 else 15.996  # one LSB below the end of the range
        self.conversion_seconds = sum(map(_sampling_seconds, (word >> 7 & 0xF, word >> 3 & 0xF)))

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`.

        An INA219 has no ID. This refuses every power monitor that has one, and a configuration that an INA219 never
        shows; any other chip may still pass for an INA219.
        """
        found = super().identify(port)
        self._refuse_another_kind(found[-1], _FIXED)
        return found

    def is_converted(self, read: ReadRegister) -> bool:
        """See `I2CChip.is_converted`."""
        # CNVR is cleared by writing the configuration, and by reading the power register, which we never do.
        return bool(read(_BUS_VOLTAGE) & 1 << 1)

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        # Bus voltage register 0x02 (section 8.6.3.2): 4 mV; CNVR: a result is complete
        #   15                                3   2    1     0
        # +------------------------------------+----+------+-----+
        # |              13 bits               | 0  | CNVR | OVF |
        # +------------------------------------+----+------+-----+
        # Shunt voltage register 0x01 (section 8.6.3.1): 10 uV, two's complement, at every PGA
        #   15   14                                            0
        # +----+-------------------------------------------------+
        # | +- |                    15 bits                      |
        # +----+-------------------------------------------------+
        voltage_word, shunt_word = words
        volts = (voltage_word >> 3) * _BUS_VOLTS_PER_LSB
        self._refuse_volts_beyond_range(volts, voltage_word)
        lsbs = signed(shunt_word)
        if abs(lsbs) >= round(self.full_scale_shunt_volts / _SHUNT_VOLTS_PER_LSB):
            raise SensorError(
                f"{self}: shunt voltage register reads 0x{shunt_word:04x}, the end of its range "
                f"({self.full_scale_shunt_volts * 1e3:g} mV); overload, or a shunt too large?"
            )
        return (Measurement(volts, lsbs * _SHUNT_VOLTS_PER_LSB / self.shunt_ohms),)


def _sampling_seconds(code: int) -> float:
    """The time of one quantity for this code of BADC or SADC (section 8.6.2.1, table 5)."""
    return _SAMPLE_SECONDS * (1 << (code & 7)) if code & 8 else _SHORTER_SAMPLES_SECONDS[code & 3]
