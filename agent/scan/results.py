"""What a scan finds: values, in the words of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.i2c.place import Place

if TYPE_CHECKING:
    from agent.chips import Measurement
    from agent.chips._signatures import Signature
    from agent.errors import AgentError
    from agent.i2c.place import BusName, Mux
    from agent.scan.muxes import MuxKind

ASSUMED_SHUNT_OHMS = 0.1
"""Nobody can see the shunt of a board over its bus: amperes are given for this one, until it is looked up."""


@dataclass(frozen=True, slots=True)
class FoundMux:
    """A mux, under the name that it got."""

    mux: Mux
    kind: MuxKind

    @property
    def place(self) -> Place:
        """Where it sits."""
        return Place(self.mux.bus, self.mux.parent, self.mux.parent_channel, self.mux.address)


@dataclass(frozen=True, slots=True)
class FoundInput:
    """An input of a chip.

    Attributes:
        number: 1-3 on a chip with several; None on others.
        measurement: what it reads now; None where it reads nothing that could be vouched for.
        problem: why not.
    """

    number: int | None
    measurement: Measurement | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundChip:
    """A power monitor; without `inputs` where wattpush cannot read it."""

    place: Place
    identity: Signature
    inputs: tuple[FoundInput, ...] = ()
    has_external_shunt: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that answers."""

    place: Place
    note: str = ""


@dataclass(frozen=True, slots=True)
class KernelOwned:
    """An address that a kernel driver has, which was not touched.

    Attributes:
        channels: of a mux, each channel and N of the /dev/i2c-N that the kernel makes of it.
    """

    place: Place
    driver: str
    channels: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Finds:
    """Everything found on a bus, each kind in the order in which it was found: the trunk, then mux after mux.

    Attributes:
        hiding: every address that answers on the trunk, or is not to be touched there: nothing behind a mux of this bus
            can be told apart from it.
        troubles: what could not be looked at, and why: where and what next are in the message.
    """

    bus: BusName
    muxes: tuple[FoundMux, ...]
    chips: tuple[FoundChip, ...]
    unknown: tuple[Unknown, ...]
    kernel_owned: tuple[KernelOwned, ...]
    hiding: frozenset[int]
    troubles: tuple[AgentError, ...]
