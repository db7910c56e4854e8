"""TI INA232: one input with a shunt on the board, 0-48 V. Datasheet: SBOSAA2.

Its table of registers ends with the manufacturer ID; SBOA539 mentions a device ID, whose value is not given.
"""

from __future__ import annotations

from agent.chips import _ina226_family

OPTIONS = _ina226_family.options("ina232", _ina226_family.NEWER_ADDRESSES)


class Chip(_ina226_family.NewerINA226FamilyChip):
    """One INA232."""

    options = OPTIONS
    signature_names = frozenset({"ina232"})
