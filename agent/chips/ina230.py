"""TI INA230: an INA226 without a documented ID. Datasheet: SBOS601A (that of 2012 ends at 28 V)."""

from __future__ import annotations

from agent.chips import _ina226_family

OPTIONS = _ina226_family.options("ina230")


class Chip(_ina226_family.INA226FamilyChip):
    """One INA230."""

    options = OPTIONS
