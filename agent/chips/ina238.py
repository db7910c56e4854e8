"""TI INA238: one input with 16 bits, up to 85 V, and a shunt on the board. Datasheet: SLYS025."""

from __future__ import annotations

from agent.chips import _ina23x

OPTIONS = _ina23x.options("ina238")


class Chip(_ina23x.INA23xChip):
    """One INA238."""

    options = OPTIONS
    ids = _ina23x.ids(0x238)
