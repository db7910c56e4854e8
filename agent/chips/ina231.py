"""TI INA231: an INA226 for up to 28 V, without an ID. Datasheet: SBOS644."""

from __future__ import annotations

from agent.chips import _ina226_family

OPTIONS = _ina226_family.options("ina231")


class Chip(_ina226_family.INA226FamilyChip):
    """One INA231."""

    options = OPTIONS
    highest_volts = 28.0
