"""Distinguishes muxes that return the same bits by what they connect: the addresses that answer behind them.

A control byte connects a channel on one kind and none on another, and a channel that is empty adds nothing to another:

                  0x01  0x02  0x04  0x08   0x09     0x0A     0x0C     ...
    PCA9546A        0     1     2     3    0 and 3  1 and 3  2 and 3
    PCA9547         -     -     -     0    1        2        4

1. If an address answers while a byte is set that connects nothing on one of the kinds, it is not that kind. So a chip
   on channel 0, 1 or 2 of a PCA9546A shows that it is no PCA9547.
2. If nothing does, the first channels of a PCA9546A are empty, and 0x08 to 0x0F all connect its channel 3 alone. If
   they show different addresses, it is a PCA9547.
3. If they show equal addresses, a power monitor tells, by its register pointer, whether two of them connect the same
   chip, as on a PCA9546A, or two. Without one nothing on the bus tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.chips import _signatures as signatures
from agent.i2c.mux_probes import probing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.i2c.bus import Bus
    from agent.i2c.mux_probes import MuxProbes
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Place
    from agent.scan.muxes import Kinds


def narrow(bus: Bus, place: Place, kinds: Kinds, addresses: Iterable[int]) -> Kinds:
    """The kinds that fit what answers behind a mux, in their order; it is closed on return.

    Args:
        bus: in a session, with the segment of the mux selected.
        place: that of the mux, which is closed.
        kinds: those that it may be by its control bits.
        addresses: those to probe; the others answer before the mux, or must not be accessed.

    Raises:
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    if not any(_unconnected_on(kind, kinds) for kind in kinds):
        return kinds
    probed = list(addresses)  # that of the mux itself always answers, so it shows nothing
    with probing(bus, place, kinds) as probes:
        kinds = tuple(kind for kind in kinds if not _any_answers(probes, probed, _unconnected_on(kind, kinds)))
        switches = tuple(kind for kind in kinds if not kind.enable_bit)
        numbered = tuple(kind for kind in kinds if kind.enable_bit)
        if switches and numbered:
            is_switch = _connects_one_segment(probes, probed, numbered[0])
            if is_switch is not None:
                return switches if is_switch else numbered
    return kinds


def _unconnected_on(kind: MuxKind, kinds: Kinds) -> list[int]:
    """The bytes that connect a single channel on another kind, and none on this one."""
    single = {other.control_byte(channel): None for other in kinds for channel in range(other.channels)}
    return [byte for byte in single if not kind.connects(byte)]


def _any_answers(probes: MuxProbes, addresses: Sequence[int], control_bytes: Iterable[int]) -> bool:
    """Whether anything answers with one of these bytes that does not when the mux is closed."""
    return any(
        probes.answers_only_with(address, byte)
        for byte in control_bytes
        for address in addresses
        if probes.answers(address, byte)
    )


def _connects_one_segment(probes: MuxProbes, addresses: Sequence[int], kind: MuxKind) -> bool | None:
    """Whether the bytes of all channels of this kind connect the same segment; None if nothing tells."""
    first, *others = (kind.control_byte(channel) for channel in range(kind.channels))

    def answering(byte: int) -> set[int]:
        return {address for address in addresses if probes.answers(address, byte)}

    expected = answering(first)
    for byte in others:
        found = answering(byte)
        if any(probes.answers_only_with(address, byte, first) for address in found - expected):
            return False
        if any(probes.answers_only_with(address, first, byte) for address in expected - found):
            return False
    for address in sorted(expected & set(signatures.ADDRESSES)):
        if probes.answers_only_with(address, first):  # not before the mux, too
            is_one_chip = probes.connect_one_chip(address, first, others[0])
            if is_one_chip is not None:
                return is_one_chip
    return None
