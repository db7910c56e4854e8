"""TI INA226: one input with a shunt on the board, 0-36 V. Datasheet: SBOS547."""

from __future__ import annotations

from agent.chips import _ina226_family

OPTIONS = _ina226_family.options("ina226")


class Chip(_ina226_family.INA226FamilyChip):
    """One INA226, or a clone of it."""

    options = OPTIONS
