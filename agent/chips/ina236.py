"""TI INA236: one input with 16 bits and a shunt on the board, 0-48 V. Datasheet: SBOSA81."""

from __future__ import annotations

from agent.chips import _ina226_family
from agent.chips._base import TEXAS_INSTRUMENTS, Word

OPTIONS = _ina226_family.options("ina236", _ina226_family.NEWER_ADDRESSES)


class Chip(_ina226_family.NewerINA226FamilyChip):
    """One INA236."""

    options = OPTIONS
    ids = (Word(0x3E, TEXAS_INSTRUMENTS), Word(0x3F, 0xA080, mask=0xFFF0))
    signature_names = frozenset({"ina236"})
