"""TI INA234: one input with 12 bits and a shunt on the board, 0-28 V. Datasheet: SBOS844."""

from __future__ import annotations

from dataclasses import replace

from agent.chips import _ina226_family
from agent.chips._base import TEXAS_INSTRUMENTS, ComputedRegister, Word

OPTIONS = _ina226_family.options("ina234", _ina226_family.NEWER_ADDRESSES)


class Chip(_ina226_family.NewerINA226FamilyChip):
    """One INA234."""

    options = OPTIONS
    ids = (Word(0x3E, TEXAS_INSTRUMENTS), Word(0x3F, 0xA480, mask=0xFFF0))
    signature_names = frozenset({"ina234"})
    calibration = 0x0580
    value_bits = 12
    padding_bits = 4
    bus_volts_per_lsb = 25.6e-3
    highest_volts = 28.0

    @property
    def computed(self) -> ComputedRegister:
        """See `I2CChip.computed`. The current is left-aligned, too: drivers/hwmon/ina2xx.c of Linux reads it so."""
        computed = super().computed
        return replace(computed, per_lsb=computed.per_lsb / (1 << self.padding_bits), amperes_per_lsb=computed.per_lsb)
