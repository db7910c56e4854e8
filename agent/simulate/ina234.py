"""The INA234 (SBOS844): 12 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina226_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA234(ina226_family.SimulatedNewerINA226Family):
    """An INA234."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina226_family.newer_registers(device_id=0xA480)
    BITS = 12
    SHUNT_VOLTS_LSB = 40e-6
    BUS_VOLTS_LSB = 25.6e-3


LOAD_SHUNT_VOLTS = ina226_family.LOAD_SHUNT_VOLTS
build = SimulatedINA234.build
