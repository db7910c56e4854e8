"""Where a chip sits: a bus, the mux channels on the path to it, an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent.i2c.muxes import MuxKind

BOARD = "board"

BusName = int | str
"""N of /dev/i2c-N, the path of a link to one, or "board": the board's own default bus through Blinka."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chip sits: its bus, the mux and channel directly before it (None on the trunk), its address."""

    bus: BusName
    mux: Mux | None
    channel: int | None
    address: int

    @classmethod
    def behind(cls, bus: BusName, path: Hops, address: int) -> Place:
        """The place with this address at the end of a path."""
        if not path:
            return cls(bus, None, None, address)
        return cls(bus, path[-1].mux, path[-1].channel, address)

    @property
    def path(self) -> Hops:
        """The hops from the trunk inwards; empty on the trunk. The only walk along the chain of muxes."""
        if self.mux is None or self.channel is None:
            return ()
        return (*self.mux.place.path, Hop(self.mux, self.channel))

    @property
    def address_path(self) -> str:
        """The path without mux names: `1/70.3/40` is 0x40 behind channel 3 of 0x70 on /dev/i2c-1.

        The state file stores it, so renaming a mux must not change it.
        """
        hops = (f"{hop.mux.address:02x}.{hop.channel}" for hop in self.path)
        return "/".join([str(self.bus), *hops, f"{self.address:02x}"])

    def __str__(self) -> str:
        return f"0x{self.address:02x} {describe_segment(self.bus, self.path)}"


@dataclass(frozen=True, slots=True)
class Mux:
    """A mux: the name that the configuration gives it, its kind, and its own place on the trunk or behind a mux."""

    name: str
    kind: MuxKind
    place: Place

    @property
    def bus(self) -> BusName:
        """The bus that it sits on."""
        return self.place.bus

    @property
    def address(self) -> int:
        """Its own address."""
        return self.place.address

    def __str__(self) -> str:
        return f"mux {self.name} ({self.place})"


class Hop(NamedTuple):
    """One mux channel on a path."""

    mux: Mux
    channel: int

    @property
    def control_byte(self) -> int:
        """The byte that opens this channel and no other."""
        return self.mux.kind.control_byte(self.channel)


Hops = tuple[Hop, ...]
"""A path: the mux channels from the trunk to one segment of bus, outermost first. The empty path is the trunk."""

TRUNK: Hops = ()


def bus_path(bus: BusName) -> str:
    """The bus as a person names it: `/dev/i2c-1`, `/dev/i2c-rack`, or `the board's default bus`."""
    if isinstance(bus, int):
        return f"/dev/i2c-{bus}"
    return "the board's default bus" if bus == BOARD else bus


def describe_segment(bus: BusName, path: Hops) -> str:
    """The segment at the end of a path, in words: `behind mux m0 (0x70 on /dev/i2c-1) channel 3`, `on /dev/i2c-1`."""
    words = f"on {bus_path(bus)}"
    for hop in path:
        words = f"behind mux {hop.mux.name} (0x{hop.mux.address:02x} {words}) channel {hop.channel}"
    return words
