"""TI INA228: one input with 20 bits, up to 85 V, and hardware counters of energy and charge. Datasheet: SLYS021."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips import _ina228_family
from agent.chips._base import HARDWARE_COUNTER_BITS, HardwareCounters, Measurement
from agent.i2c.transfers import Register

if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = _ina228_family.options("ina228")


class Chip(_ina228_family.INA228FamilyChip):
    """One INA228. Its hardware counters add up every single conversion (section 7.3.2); we never reset them."""

    options = OPTIONS
    signature_names = frozenset({"ina228"})
    ids = _ina228_family.ids(0x228)
    unused_code = 0b101  # that of power-on
    value_bits = 20
    padding_bits = 4
    bus_volts_per_lsb = 195.3125e-6
    power_lsbs = 3.2
    results = (Register(0x05, length_bytes=3), Register(0x04, length_bytes=3))
    # Energy register 0x09 (section 7.6.1.10), unsigned; charge register 0x0A (section 7.6.1.11), two's complement
    #   39                                                        0
    # +------------------------------------------------------------+
    # |                          40 bits                           |
    # +------------------------------------------------------------+
    counter_registers = (Register(0x09, HARDWARE_COUNTER_BITS // 8), Register(0x0A, HARDWARE_COUNTER_BITS // 8))

    # Energy at 85 V and the full scale of the shunt, whose resistance cancels out; charge changes more slowly.
    counter_lsbs_per_second = (
        _ina228_family.INA228FamilyChip.highest_volts * (1 << (value_bits - 1)) / (16 * power_lsbs)
    )

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`."""
        (measurement,) = super().decode(words[:2])
        if len(words) == 2:
            return (measurement,)
        energy_word, charge_word = words[2:]
        # Section 8.1.2, with the CURRENT_LSB that follows from the calibration: one LSB of charge is
        # CURRENT_LSB, one of power 3.2 x CURRENT_LSB, and one of energy 16 times that.
        coulombs_per_lsb = self.shunt_volts_per_lsb / self.shunt_ohms
        most_amperes = type(self).full_scale_shunt_volts / self.shunt_ohms
        counters = HardwareCounters(
            energy_word,
            charge_word,
            joules_per_lsb=16 * self.power_lsbs * coulombs_per_lsb,
            coulombs_per_lsb=coulombs_per_lsb,
            most_watts=self.highest_volts * most_amperes,
            most_amperes=most_amperes,
        )
        return (measurement._replace(hardware_counters=counters),)
