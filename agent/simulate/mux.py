"""The TCA9548A and PCA9546A bus switches (SCPS207, SCPS148)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.simulate.part import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

CHANNEL_COUNTS = {"tca9548a": 8, "pca9546a": 4}


class SimulatedMux(Part):
    """A switch with a single register, which has no address of its own: every byte written is the register.

    ::

         7    6    5    4    3    2    1    0
        CH7  CH6  CH5  CH4  CH3  CH2  CH1  CH0     1 = channel connected; power-on 0x00; PCA9546A: bits 7-4 stay 0

    A write is in the register at once, but the channels follow only after the STOP (SCPS207, control register). Of
    several bytes the last one stays. Parts behind a channel may be muxes again.
    """

    def __init__(self, address: int, channel_count: int = 8) -> None:
        """A mux with nothing behind it and all channels closed.

        Args:
            address: 0x70-0x77.
            channel_count: 8 on a TCA9548A, 4 on a PCA9546A.
        """
        super().__init__(address)
        self.control = 0
        self._open = 0
        self._behind: tuple[list[Part], ...] = tuple([] for _ in range(channel_count))

    def attach(self, channel: int, part: Part) -> None:
        """Put a part behind a channel, counted from 0."""
        self._behind[channel].append(part)

    @property
    def open_channels(self) -> tuple[int, ...]:
        """The channels that are connected now."""
        return tuple(channel for channel in range(len(self._behind)) if self._open >> channel & 1)

    def reached_at(self, address: int) -> Iterator[Part]:
        """Itself, and whoever is at `address` behind an open channel."""
        if not self._plugged:
            return
        yield from super().reached_at(address)
        for channel in self.open_channels:
            for part in self._behind[channel]:
                yield from part.reached_at(address)

    def write(self, data: bytes) -> None:
        """Take the last byte as the new control register."""
        if data:
            self.control = data[-1] & ((1 << len(self._behind)) - 1)

    def read(self, length: int) -> bytes:
        """Give the control register, again and again."""
        return bytes([self.control]) * length

    def stop(self) -> None:
        """Connect what the control register says."""
        self._open = self.control

    def power_loss(self) -> None:
        """All channels closed."""
        self.control = 0
        self._open = 0
