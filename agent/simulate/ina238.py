"""The INA238 (SLYS025): 16 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina23x

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA238(ina23x.SimulatedINA23x):
    """An INA238."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina23x.registers(device_id=0x2381)


build = SimulatedINA238.build
