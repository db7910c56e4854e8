"""The INA232 (SBOSAA2): 16 bits, and a manufacturer ID alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina226_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA232(ina226_family.SimulatedNewerINA226Family):
    """An INA232."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina226_family.newer_registers(device_id=None)


LOAD_SHUNT_VOLTS = ina226_family.LOAD_SHUNT_VOLTS
build = SimulatedINA232.build
