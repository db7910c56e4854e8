"""TI INA228: one input with 20 bits, up to 85 V, that adds up energy and charge by itself. Datasheet: SLYS021."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips import ACCUMULATOR_BITS, Accumulated, Measurement, _ina23x
from agent.i2c.transfers import Register

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.settings import Device

_ENERGY = 0x09
_CHARGE = 0x0A

_SHUNT_VOLTS_PER_LSB = 312.5e-9

OPTIONS = _ina23x.options("ina228")


class Chip(_ina23x.INA23xChip):
    """One INA228.

    Energy (0x09) and charge (0x0A) are added up with every conversion, whatever is averaged (section 7.3.2), and are
    never set to zero by us.
    """

    NAME = "INA228"
    DEVICE_ID = 0x228
    BITS = 20
    RIGHT_OF_VALUE = 4
    SHUNT_VOLTS_PER_LSB = _SHUNT_VOLTS_PER_LSB
    BUS_VOLTS_PER_LSB = 195.3125e-6

    def __init__(self, devices: Sequence[Device], sample_interval_seconds: float) -> None:
        super().__init__(devices, sample_interval_seconds)
        self.accumulators = (Register(_ENERGY, ACCUMULATOR_BITS // 8), Register(_CHARGE, ACCUMULATOR_BITS // 8))
        # Section 8.1.2, with the CURRENT_LSB that follows from the calibration: power in steps of 3.2 x CURRENT_LSB,
        # energy in steps of 16 times that, charge in steps of CURRENT_LSB.
        self._coulombs_per_step = _SHUNT_VOLTS_PER_LSB / self.shunt_ohms
        self._joules_per_step = 16 * 3.2 * self._coulombs_per_step
        self._most_amperes = _ina23x.FULL_SCALE_SHUNT_VOLTS / self.shunt_ohms
        self._most_watts = _ina23x.HIGHEST_VOLTS * self._most_amperes

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        # Energy register 0x09 (section 7.6.1.10), unsigned; charge register 0x0A (section 7.6.1.11), two's complement
        #   39                                                        0
        # +------------------------------------------------------------+
        # |                          40 bits                           |
        # +------------------------------------------------------------+
        voltage_word, shunt_word, *accumulator_words = words
        measurement = self.measurement(voltage_word, shunt_word)
        if not accumulator_words:
            return (measurement,)
        energy_word, charge_word = accumulator_words
        accumulated = Accumulated(
            energy_word,
            charge_word,
            self._joules_per_step,
            self._coulombs_per_step,
            self._most_watts,
            self._most_amperes,
        )
        return (Measurement(measurement.volts, measurement.amperes, accumulated),)
