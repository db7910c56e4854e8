"""The INA238 (SLYS025): 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina228_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA238(ina228_family.SimulatedINA228Family):
    """An INA238."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina228_family.registers(device_id=0x2381)


build = SimulatedINA238.build
