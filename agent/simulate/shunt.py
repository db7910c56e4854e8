"""The base of the twins that measure one rail across a shunt on the board."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulate.chips import RegisterChip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from agent.settings import Device
    from agent.simulate.rails import Rail


class SimulatedShuntChip(RegisterChip):
    """A chip with a shunt on a rail."""

    def __init__(self, address: int, rail: Rail, shunt_ohms: float, now: Callable[[], float]) -> None:
        """Power the chip on.

        Args:
            address: see `RegisterChip`.
            rail: the rail that it measures.
            shunt_ohms: the shunt on the board.
            now: see `RegisterChip`.
        """
        self.rail = rail
        self.shunt_ohms = shunt_ohms
        super().__init__(address, now)

    @classmethod
    def build(
        cls, devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]
    ) -> Self:
        """The chip that one device of the configuration sits on; see `world.BuildChip`."""
        (device,) = devices
        return cls(address, rails[device.name], device.shunt_ohms or 0.0, now)

    def _measured_inputs(self) -> Sequence[tuple[int, Rail]]:
        return ((1, self.rail),)
