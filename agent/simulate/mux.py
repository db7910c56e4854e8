"""A bus switch of any kind in the table `agent.i2c.muxes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.i2c.muxes import MUX_KINDS
from agent.simulate.part import Part

if TYPE_CHECKING:
    from agent.i2c.muxes import MuxKind


class SimulatedMux(Part):
    """A switch with a single register, which has no register number: every byte written is the register.

    A write reaches the register at once, but the channels follow only after the STOP (SCPS207, control register). Of
    several bytes the last one stays. Parts behind a channel may be muxes again.

    Attributes:
        control: the register, as it was last written.
        open_channels: the channels that are connected now.
        interrupts: what the interrupt bits read at present, on a kind that has them.
    """

    def __init__(self, address: int, kind: MuxKind = MUX_KINDS["tca9548a"]) -> None:
        """A mux that was just powered, with nothing behind it.

        Args:
            address: 0x70-0x77.
            kind: its row of the table.
        """
        super().__init__(address)
        self._kind = kind
        self.control = kind.power_on
        self.open_channels = self._channels_of(kind.power_on)
        self.interrupts = 0
        self._behind: tuple[list[Part], ...] = tuple([] for _ in range(kind.channels))

    def attach(self, channel: int, part: Part) -> None:
        """Put a part behind a channel, counted from 0."""
        self._behind[channel].append(part)

    def _channels_of(self, control: int) -> tuple[int, ...]:
        """The channels that a control register connects.

        Written from the datasheets, not with `MuxKind.control_byte`, so that the two check each other. TCA9548A
        (SCPS207), PCA9546A, TCA9545A and TCA9543A: each bit connects its own channel, so several may be connected.
        PCA9547 (NXP, table 4): only if the enable bit B3 is 1, the channel whose number is in B2-B0. TCA9544A: the same
        with B2, and B1-B0. PCA9540B (NXP, table 4): as a TCA9544A, but 2 and 3 connect none.
        """
        enable_bit, channels = self._kind.enable_bit, range(self._kind.channels)
        if enable_bit == 0:
            return tuple(channel for channel in channels if control >> channel & 1)
        number = control % enable_bit
        return (number,) if control & enable_bit and number in channels else ()

    def reached_at(self, address: int) -> list[Part]:
        """Itself, and every part at `address` behind an open channel."""
        reached = super().reached_at(address)
        if self._plugged:
            for channel in self.open_channels:
                for part in self._behind[channel]:
                    reached += part.reached_at(address)
        return reached

    def write(self, data: bytes) -> None:
        """Take the last byte as the new control register."""
        if data:
            self.control = data[-1] & self._kind.control_bits

    def read(self, length: int) -> bytes:
        """Return the control register with the interrupt lines, once for each byte."""
        return bytes([self.control | self.interrupts & self._kind.interrupt_bits]) * length

    def stop(self) -> None:
        """Connect the channels of the control register."""
        self.open_channels = self._channels_of(self.control)

    def power_loss(self) -> None:
        """The register is back at its power-on value."""
        self.control = self._kind.power_on
        self.open_channels = self._channels_of(self.control)
