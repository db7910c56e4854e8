"""The INA237 (SLYS024): 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina23x

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA237(ina23x.SimulatedINA23x):
    """An INA237."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina23x.registers(device_id=0x2371)


build = SimulatedINA237.build
