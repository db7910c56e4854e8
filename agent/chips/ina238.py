"""TI INA238: one input with 16 bits, up to 85 V, and a shunt on the board. Datasheet: SLYS025."""

from __future__ import annotations

from agent.chips import _ina228_family

OPTIONS = _ina228_family.options("ina238")


class Chip(_ina228_family.INA228FamilyChip):
    """One INA238."""

    options = OPTIONS
    signature_names = frozenset({"ina238"})
    ids = _ina228_family.ids(0x238)
