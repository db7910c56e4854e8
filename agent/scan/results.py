"""The results of a scan: values, in the words of the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.chips import Measurement
    from agent.chips._signatures import Signature
    from agent.errors import AgentError
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import BusName, Mux, Place

ASSUMED_SHUNT_OHMS = 0.1
"""A shunt on the board is invisible on the bus: amperes are for this one until a person looks it up."""


@dataclass(frozen=True, slots=True)
class FoundInput:
    """An input of a chip.

    Attributes:
        number: 1-3 on a chip with several inputs; None on others.
        measurement: what it reads now; None if it reads nothing meaningful.
        problem: why it reads nothing meaningful.
    """

    number: int | None
    measurement: Measurement | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class FoundChip:
    """A power monitor; without `inputs` if wattpush does not read this kind."""

    place: Place
    signature: Signature
    inputs: tuple[FoundInput, ...] = ()
    has_external_shunt: bool = False


@dataclass(frozen=True, slots=True)
class UnknownChip:
    """Something that answers, but that the scan does not identify."""

    place: Place
    note: str = ""


@dataclass(frozen=True, slots=True)
class KernelOwned:
    """An address that a kernel driver owns, so the scan did not access it.

    Attributes:
        channels: for a mux, each channel with N of the /dev/i2c-N that the kernel makes of it.
        unread: why wattpush cannot read it from this driver, and what to do; empty if it can, or if that is unknown.
    """

    place: Place
    driver: str
    channels: tuple[tuple[int, int], ...] = ()
    unread: str = ""


@dataclass(frozen=True, slots=True)
class BusScan:
    """Everything found on a bus, each kind in the order in which it was found: the trunk, then one mux after another.

    Attributes:
        trunk_addresses: every address that answers on the trunk or that the kernel owns there. It answers behind every
            mux of this bus too, so a chip with the same address behind a mux cannot be told apart from it.
        errors: what could not be scanned; each message names the place, the reason and the next step.
        lookalikes: by the name of a mux, the other kinds that it may be: those that return the same bits, if nothing
            that is behind it tells them apart.
    """

    bus: BusName
    muxes: tuple[Mux, ...]
    chips: tuple[FoundChip, ...]
    unknown: tuple[UnknownChip, ...]
    kernel_owned: tuple[KernelOwned, ...]
    trunk_addresses: frozenset[int]
    errors: tuple[AgentError, ...]
    lookalikes: Mapping[str, tuple[MuxKind, ...]] = field(default_factory=dict)
