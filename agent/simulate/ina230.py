"""The INA230 (SBOS601): an INA226 without a manufacturer ID.

Its datasheet leaves the die ID open; drivers find that of an INA226.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina226_family
from agent.simulate.chips import DIE_ID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA230(ina226_family.SimulatedINA226Family):
    """An INA230."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina226_family.registers({DIE_ID: 0x2260})


LOAD_SHUNT_VOLTS = ina226_family.LOAD_SHUNT_VOLTS
build = SimulatedINA230.build
