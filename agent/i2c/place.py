"""Where a chip sits: a bus, the mux channels on the path to it, an address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BusName = int | Literal["board"]
"""N of /dev/i2c-N, or "board": the board's own default bus through Blinka."""


@dataclass(frozen=True, slots=True)
class Mux:
    """A TCA9548A or PCA9546A, on the trunk of its bus or, with `parent`, behind a channel of another mux."""

    name: str
    chip: Literal["tca9548a", "pca9546a"]
    bus: BusName
    address: int
    parent: Mux | None = None
    parent_channel: int | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chip sits: its bus, the mux and channel directly before it (None on the trunk), its address."""

    bus: BusName
    mux: Mux | None
    channel: int | None
    address: int

    def __str__(self) -> str:
        return f"0x{self.address:02x} {describe_segment(self.bus, self.mux, self.channel)}"

    @property
    def way(self) -> str:
        """The same whatever the muxes are called: `1/70.3/40` is 0x40 behind channel 3 of 0x70 on /dev/i2c-1."""
        steps = [f"{self.address:02x}"]
        mux, channel = self.mux, self.channel
        while mux is not None:
            steps.append(f"{mux.address:02x}.{channel}")
            channel, mux = mux.parent_channel, mux.parent
        return "/".join([str(self.bus), *reversed(steps)])


def bus_path(bus: BusName) -> str:
    """The bus as a person names it: `/dev/i2c-1`, or `the board's default bus`."""
    return "the board's default bus" if bus == "board" else f"/dev/i2c-{bus}"


def describe_segment(bus: BusName, mux: Mux | None, channel: int | None) -> str:
    """A stretch of bus in words: `behind mux m0 (0x70 on /dev/i2c-1) channel 3`, or `on /dev/i2c-1`."""
    if mux is None:
        return f"on {bus_path(bus)}"
    where = f"0x{mux.address:02x} {describe_segment(mux.bus, mux.parent, mux.parent_channel)}"
    return f"behind mux {mux.name} ({where}) channel {channel}"
