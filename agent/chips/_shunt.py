"""The base of the chips with one input that measure the voltage across a shunt on the board, and the bus voltage."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.chips._base import I2CChip, Measurement, signed
from agent.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ShuntChip(I2CChip):
    """One chip of this kind. Current is the shunt voltage divided by the resistance of the shunt.

    Attributes:
        value_bits: the width of a voltage value, sign included.
        padding_bits: the bits below the value in its register.
        bus_volts_per_lsb: of the value of the bus voltage.
    """

    value_bits: ClassVar[int] = 16
    padding_bits: ClassVar[int] = 0
    bus_volts_per_lsb: ClassVar[float]

    @property
    def shunt_volts_per_lsb(self) -> float:
        """Of the value of the shunt voltage, in the range that `full_scale_shunt_volts` is now."""
        return self.full_scale_shunt_volts / (1 << (self.value_bits - 1))

    def _adopt_range(self, *, is_narrow: bool) -> None:
        """Decode from now on in the range of a quarter (ADCRANGE 1), or in the full one."""
        own = type(self).full_scale_shunt_volts
        self.full_scale_shunt_volts = own / 4 if is_narrow else own

    def decode(self, words: Sequence[int]) -> tuple[Measurement, ...]:
        """See `I2CChip.decode`: the word of the bus voltage, then that of the shunt voltage."""
        voltage_word, shunt_word = words
        digits = (self.value_bits + self.padding_bits) // 4
        volts = (voltage_word >> self.padding_bits) * self.bus_volts_per_lsb
        self._refuse_volts_beyond_range(volts, voltage_word, digits)
        lsbs = signed(shunt_word >> self.padding_bits, self.value_bits)
        full_scale_lsbs = 1 << (self.value_bits - 1)
        if lsbs in (full_scale_lsbs - 1, -full_scale_lsbs):
            raise SensorError(
                f"{self}: shunt voltage register reads 0x{shunt_word:0{digits}x}, the end of its range "
                f"({self.full_scale_shunt_volts * 1e3:.2f} mV); overload, or a shunt too large?"
            )
        return (Measurement(volts, lsbs * self.shunt_volts_per_lsb / self.shunt_ohms),)
