"""The table of mux kinds: one row holds everything that the agent knows about a kind.

The configuration, the bus, the scan, the hardware check, the simulator and the generated reference all read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MUX_ADDRESSES = range(0x70, 0x78)
"""The addresses that the pins A2, A1 and A0 select (SCPS207, table 1; SCPS148, table 1)."""

CLOSED = 0x00
"""The control byte that disconnects every channel, on every kind."""


@dataclass(frozen=True, slots=True)
class MuxKind:
    """One kind of mux.

    Attributes:
        name: the value of `chip` in the configuration.
        part: the name in its datasheet.
        channels: how many it has; they are numbered from 0.
        datasheet: where the facts in this row come from.
        aliases: other values of `chip` that mean this kind.
        enable_bit: the control bit that connects the channel whose number the bits below it hold; 0x00 where each
            channel has its own bit.
        interrupt_bits: bits that read the interrupt lines, whatever was written to them.
        power_on: the control byte after power-on.
        lookalikes: parts outside this table that return the same bits, so that a scan cannot tell them apart.
    """

    name: str
    part: str
    channels: int
    datasheet: str
    aliases: tuple[str, ...] = ()
    enable_bit: int = 0x00
    interrupt_bits: int = 0x00
    power_on: int = CLOSED
    lookalikes: tuple[str, ...] = ()

    # The control byte takes one of two forms.
    #
    # A bit for each channel (TCA9548A; four channels use bits 3-0 only):
    #
    #      7    6    5    4    3    2    1    0
    #     CH7  CH6  CH5  CH4  CH3  CH2  CH1  CH0      1 = channel connected
    #
    # An enable bit, and the number of the one connected channel below it (here with `enable_bit` 0x08):
    #
    #      7    6    5    4    3    2    1    0
    #      -    -    -    -    EN    NUMBER           EN 1 = channel NUMBER connected, 0 = none

    def control_byte(self, channel: int) -> int:
        """The byte that connects this channel and no other."""
        return self.enable_bit | channel if self.enable_bit else 1 << channel

    @property
    def control_bits(self) -> int:
        """The bits that the mux stores and returns when it is read."""
        return self.enable_bit | (self.enable_bit - 1) if self.enable_bit else (1 << self.channels) - 1

    def control_byte_in(self, read: int) -> int:
        """The control byte in a byte that was read: everything except the interrupt lines.

        Bits that are neither control nor interrupt bits read 0. They are not masked, because a 1 there means another
        chip.
        """
        return read & ~self.interrupt_bits


def _by_name(*kinds: MuxKind) -> Mapping[str, MuxKind]:
    return {kind.name: kind for kind in kinds}


# In the order in which a scan prefers them, where several return the same bits.
MUX_KINDS = _by_name(
    MuxKind("tca9548a", part="TCA9548A", channels=8, datasheet="SCPS207"),
    MuxKind("pca9546a", part="PCA9546A", channels=4, datasheet="SCPS148", lookalikes=("PCA9545A", "PCA9547")),
)


def mux_kind(name: str) -> MuxKind | None:
    """The kind with this name or alias; None if there is none."""
    return next((kind for kind in MUX_KINDS.values() if name in (kind.name, *kind.aliases)), None)


def mux_names() -> tuple[str, ...]:
    """Every name that the configuration accepts: the names of the kinds, then their aliases."""
    return (*MUX_KINDS, *(alias for kind in MUX_KINDS.values() for alias in kind.aliases))
