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

_TWO_STRAPS = range(0x70, 0x74)
_FIXED = range(0x70, 0x71)

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
        aliases: other values of `chip` that mean this kind: the same part from TI (TCA) or NXP (PCA).
        addresses: those that its pins can select. A clone may have others.
        enable_bit: the control bit that connects the channel whose number the bits below it hold; 0x00 where each
            channel has its own bit.
        interrupt_bits: bits that read the interrupt lines, whatever was written to them.
        power_on: the control byte after power-on.
    """

    name: str
    part: str
    channels: int
    datasheet: str
    aliases: tuple[str, ...] = ()
    addresses: range = MUX_ADDRESSES
    enable_bit: int = 0x00
    interrupt_bits: int = 0x00
    power_on: int = CLOSED

    # The control byte takes one of two forms.
    #
    # A bit for each channel (TCA9548A; four channels use bits 3-0 only, two bits 1-0):
    #
    #      7    6    5    4    3    2    1    0
    #     CH7  CH6  CH5  CH4  CH3  CH2  CH1  CH0      1 = channel connected
    #
    # An enable bit, and the number of the one connected channel below it (here with `enable_bit` 0x08):
    #
    #      7    6    5    4    3    2    1    0
    #      -    -    -    -    EN    NUMBER           EN 1 = channel NUMBER connected, 0 = none
    #
    # Where a channel has an interrupt input, bit 4 + channel reads 1 while that line is low, connected or not.

    def control_byte(self, channel: int) -> int:
        """The byte that connects this channel and no other."""
        return self.enable_bit | channel if self.enable_bit else 1 << channel

    def connects(self, control_byte: int) -> bool:
        """Whether this byte connects any channel."""
        if self.enable_bit:
            return bool(control_byte & self.enable_bit) and control_byte % self.enable_bit < self.channels
        return bool(control_byte & self.control_bits)

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

    def returns(self, read: int, written: int) -> bool:
        """Whether it may read as the one byte after the other one was written to it."""
        return self.control_byte_in(read) == written & self.control_bits


def _by_name(*kinds: MuxKind) -> Mapping[str, MuxKind]:
    return {kind.name: kind for kind in kinds}


# Where several return the same bits, in the order in which a scan prefers them: the commonest first, and before a
# PCA9540B the TCA9544A, with which the two channels of a PCA9540B work too.
MUX_KINDS = _by_name(
    MuxKind("tca9548a", part="TCA9548A", channels=8, datasheet="SCPS207, 8.5.4", aliases=("pca9548a",)),
    MuxKind("pca9546a", part="PCA9546A", channels=4, datasheet="SCPS148; SCPS205, 8.6.3", aliases=("tca9546a",)),
    MuxKind(
        "tca9545a",
        part="TCA9545A",
        channels=4,
        datasheet="SCPS204, 8.6; NXP PCA9545A, 6.2, table 4",
        aliases=("pca9545a",),
        addresses=_TWO_STRAPS,
        interrupt_bits=0xF0,
    ),
    MuxKind(
        "tca9543a",
        part="TCA9543A",
        channels=2,
        datasheet="SCPS169, tables 1 and 2; NXP PCA9543A, 6.2, table 4",
        aliases=("pca9543a",),
        addresses=_TWO_STRAPS,
        interrupt_bits=0x30,
    ),
    MuxKind(
        "tca9544a",
        part="TCA9544A",
        channels=4,
        datasheet="SCPS209, 8.6; SCPS146, tables 1 and 2",
        aliases=("pca9544a",),
        enable_bit=0x04,
        interrupt_bits=0xF0,
    ),
    MuxKind("pca9547", part="PCA9547", channels=8, datasheet="NXP PCA9547, 6.2, 6.4", enable_bit=0x08, power_on=0x08),
    MuxKind(
        "pca9540b",
        part="PCA9540B",
        channels=2,
        datasheet="NXP PCA9540B, 6.1, 6.2, table 4",
        addresses=_FIXED,
        enable_bit=0x04,
    ),
)


def mux_kind(name: str) -> MuxKind | None:
    """The kind with this name or alias; None if there is none."""
    return next((kind for kind in MUX_KINDS.values() if name in (kind.name, *kind.aliases)), None)


def mux_names() -> tuple[str, ...]:
    """Every name that the configuration accepts: the names of the kinds, then their aliases."""
    return (*MUX_KINDS, *(alias for kind in MUX_KINDS.values() for alias in kind.aliases))


def lookalikes(kind: MuxKind) -> tuple[MuxKind, ...]:
    """The other kinds that return the same control bits."""
    return tuple(other for other in MUX_KINDS.values() if other is not kind and other.control_bits == kind.control_bits)
