"""The INA226 (SBOS547): 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina226_family
from agent.simulate.chips import DIE_ID, MANUFACTURER_ID, TEXAS_INSTRUMENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA226(ina226_family.SimulatedINA226Family):
    """An INA226."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina226_family.registers(
        {MANUFACTURER_ID: TEXAS_INSTRUMENTS, DIE_ID: 0x2260}
    )


LOAD_SHUNT_VOLTS = ina226_family.LOAD_SHUNT_VOLTS
build = SimulatedINA226.build
