"""The INA231 (SBOS644): an INA226 without an ID."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina226_family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.simulate.chips import Register


class SimulatedINA231(ina226_family.SimulatedINA226Family):
    """An INA231."""

    REGISTERS: ClassVar[Mapping[int, Register]] = ina226_family.registers({})


LOAD_SHUNT_VOLTS = ina226_family.LOAD_SHUNT_VOLTS
build = SimulatedINA231.build
