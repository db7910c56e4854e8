"""TI INA230: an INA226 for up to 28 V. Datasheet: SBOS601."""

from __future__ import annotations

from agent.chips import _ina226_family

OPTIONS = _ina226_family.options("ina230")


class Chip(_ina226_family.INA226FamilyChip):
    """One INA230."""

    options = OPTIONS
    highest_volts = 28.0
