"""The INA237 (SBOSA20): 16 bits, and a manufacturer ID alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina228_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA237(ina228_family.SimulatedINA228Family):
    """An INA237."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina228_family.registers(device_id=None)


build = SimulatedINA237.build
