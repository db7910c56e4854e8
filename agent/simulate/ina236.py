"""The INA236 (SBOSA81): 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina226_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA236(ina226_family.SimulatedNewerINA226Family):
    """An INA236."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina226_family.newer_registers(device_id=0xA080)


LOAD_SHUNT_VOLTS = ina226_family.LOAD_SHUNT_VOLTS
build = SimulatedINA236.build
