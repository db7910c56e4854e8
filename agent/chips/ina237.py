"""TI INA237: one input with 16 bits, up to 85 V, and a shunt on the board. Datasheet: SBOSA20.

Its table of registers ends with the manufacturer ID (section 7.6.1). In the register that holds the device ID of an
INA238, public drivers find 0x237 or 0x238, so it is not relied upon, but one that names another chip is believed. An
INA238 has the same registers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips import _ina228_family
from agent.chips._base import TEXAS_INSTRUMENTS, Word

if TYPE_CHECKING:
    from agent.i2c.transfers import I2C

OPTIONS = _ina228_family.options("ina237")


class Chip(_ina228_family.INA228FamilyChip):
    """One INA237."""

    options = OPTIONS
    signature_names = frozenset({"ina237", "ina238", ""})
    ids = (Word(0x3E, TEXAS_INSTRUMENTS),)

    def identify(self, port: I2C) -> tuple[int, ...]:
        """See `I2CChip.identify`. This refuses every power monitor whose IDs show that it is another kind."""
        found = super().identify(port)
        self._refuse_another_kind()
        return found
