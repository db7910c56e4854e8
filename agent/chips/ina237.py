"""TI INA237: one input with 16 bits, up to 85 V, and a shunt on the board. Datasheet: SLYS024."""

from __future__ import annotations

from agent.chips import _ina228_family

OPTIONS = _ina228_family.options("ina237")


class Chip(_ina228_family.INA228FamilyChip):
    """One INA237."""

    options = OPTIONS
    ids = _ina228_family.ids(0x237)
