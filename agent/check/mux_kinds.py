"""Compares the kind of a mux in the configuration with what the mux returns, and with what answers behind it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from agent.errors import AgentError, SensorError
from agent.i2c.mux_probes import close, probing, written_and_read
from agent.i2c.muxes import CLOSED, MUX_KINDS, lookalikes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.i2c.bus import Bus
    from agent.i2c.mux_probes import MuxProbes
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Mux, Place

# These distinguish the numbers of control bits: eight, four, three and two.
_TESTED = (0x01, 0x02, 0x04, 0x08, 0x10)


def refuse(bus: Bus, mux: Mux, written: int, read: int) -> NoReturn:
    """Raise SensorError for a mux that returned another byte, with the kinds that answer as it does."""
    kinds = [kind for kind in MUX_KINDS.values() if kind is not mux.kind and kind.returns(read, written)]
    with suppress(OSError):
        kinds = _answering_alike(bus, mux, kinds)
    hint = (
        f"it answers as {_names(kinds)} does" if kinds else "is it a mux, and is there a second part at this address?"
    )
    raise SensorError(f"{mux.kind.part} at {mux.place}: 0x{written:02x} was written, 0x{read:02x} is read; {hint}")


def refuse_more_bits(bus: Bus, mux: Mux) -> None:
    """Write a bit that the configured kind does not have; there it connects nothing.

    Raises:
        SensorError: the mux keeps the bit, so it is of another kind.
        BusError: the bus is stuck.
        OSError: as the adapter reports it.
    """
    absent_bit = mux.kind.control_bits + 1
    if absent_bit > 0xFF:
        return
    bus.select(mux.place.path)
    try:
        read = written_and_read(bus, mux.place, absent_bit)
    finally:
        close(bus, mux.address, ())
    if read is not None and not mux.kind.returns(read, absent_bit):
        refuse(bus, mux, absent_bit, read)


def refuse_other_connections(bus: Bus, mux: Mux, behind: Iterable[Place]) -> None:
    """Write the control bytes by which a lookalike connects channels, and the configured kind connects others or none.

    A chip on channel 0, 1 or 2 of a PCA9546A that is configured as a PCA9547 answers where it should not. If nothing
    does, power monitors with equal addresses show whether two bytes connect one of them or two. Kinds that connect the
    channels in use with the same bytes need no test.

    Args:
        bus: in a session.
        mux: as it is configured.
        behind: the places of the parts that are configured behind it.

    Raises:
        SensorError: the mux is of another kind.
        BusError: the bus is stuck, or the mux does not keep its control byte.
        OSError: as the adapter reports it.
    """
    places = list(behind)
    addresses = sorted({place.address for place in places})
    for other in lookalikes(mux.kind):
        if any(_is_elsewhere(place, mux.kind, other) for place in places):
            with probing(bus, mux.place, (mux.kind, other)) as probes:
                why = _contradiction(probes, mux.kind, other, addresses)
            if why:
                raise SensorError(f"{mux.kind.part} at {mux.place}: {why}; is it {_names([other])}?")


def hint_for_silent(bus: Bus, place: Place, behind: Sequence[Place]) -> str:
    """A hint at the kind of the mux, if a chip answers on a channel that only another kind has there; else empty.

    Args:
        bus: between two sessions.
        place: where the chip should be.
        behind: the places of all parts that are configured behind its mux.
    """
    mux, channel = place.mux, place.channel
    if mux is None or channel is None:
        return ""
    addresses = sorted({other.address for other in behind})
    for other in lookalikes(mux.kind):
        if _is_elsewhere(place, mux.kind, other):
            byte = other.control_byte(channel)
            with (
                suppress(AgentError, OSError),
                bus.session(),
                probing(bus, mux.place, (mux.kind, other)) as probes,
            ):
                # A part on another channel may have shown that the kind is right.
                is_excluded = _unconnected_answer(probes, other, mux.kind, addresses) is not None
                if not is_excluded and probes.answers_only_with(place.address, byte):
                    return (
                        f"0x{place.address:02x} answers at control byte 0x{byte:02x}, which is channel {channel} of "
                        f"{_names([other])}: is mux {mux.name} one?"
                    )
    return _hint_of_fewer_bits(bus, mux)


def _hint_of_fewer_bits(bus: Bus, mux: Mux) -> str:
    """The kinds that a mux may be that keeps fewer bits than its kind has. The channels in use need not show that."""
    kinds = [kind for kind in MUX_KINDS.values() if kind.control_bits < mux.kind.control_bits]
    with suppress(AgentError, OSError):
        if kinds:
            with bus.session():
                kinds = _answering_alike(bus, mux, kinds)
        return f"mux {mux.name} answers as {_names(kinds)} does" if kinds else ""
    return ""


def _contradiction(probes: MuxProbes, kind: MuxKind, other: MuxKind, addresses: Sequence[int]) -> str:
    """Why a mux is not of this kind, but of the other one; empty if nothing shows that."""
    found = _unconnected_answer(probes, kind, other, addresses)
    if found is not None:
        byte, address = found
        return (
            f"0x{address:02x} answers behind it at control byte 0x{byte:02x}, with which a {kind.name} connects no "
            "channel"
        )
    if bool(kind.enable_bit) == bool(other.enable_bit) or _unconnected_answer(probes, other, kind, addresses):
        return ""
    # Two channels where each channel has a number; the same one where each has a bit, as the others are empty.
    numbered = kind if kind.enable_bit else other
    first, second = numbered.control_byte(0), numbered.control_byte(1)
    for address in addresses:
        if probes.answers_only_with(address, first):
            is_one_chip = probes.connect_one_chip(address, first, second)
            if is_one_chip is (kind is numbered):
                shown = "the same chip" if is_one_chip else "two chips"
                return f"control bytes 0x{first:02x} and 0x{second:02x} connect {shown} at 0x{address:02x}"
    return ""


def _unconnected_answer(
    probes: MuxProbes, kind: MuxKind, other: MuxKind, addresses: Iterable[int]
) -> tuple[int, int] | None:
    """A byte that connects a channel on the other kind but none on this one, and an address that answers with it.

    Returns:
        None if nothing answers: the mux may be of this kind.
    """
    for byte in map(other.control_byte, range(other.channels)):
        for address in addresses:
            if not kind.connects(byte) and probes.answers_only_with(address, byte):
                return byte, address
    return None


def _is_elsewhere(place: Place, kind: MuxKind, other: MuxKind) -> bool:
    """Whether another kind has the channel of a place, and connects it with another byte."""
    channel = place.channel
    return (
        channel is not None and channel < other.channels and other.control_byte(channel) != kind.control_byte(channel)
    )


def _answering_alike(bus: Bus, mux: Mux, kinds: list[MuxKind]) -> list[MuxKind]:
    """Those of the kinds that return the same bits as the mux, with the interrupt lines that it shows while closed."""
    kinds = [kind for kind in kinds if mux.address in kind.addresses]
    bus.select(mux.place.path)
    lines = 0
    try:
        # A mux that has the highest bit of its kind is shown by this one channel, so that no others are opened.
        for byte in (CLOSED, mux.kind.control_bits + 1 >> 1, *_TESTED):
            if not kinds:
                break
            read = written_and_read(bus, mux.place, byte) or 0
            lines = read if byte == CLOSED else lines
            kinds = [kind for kind in kinds if kind.returns(read, byte) and (read ^ lines) & kind.interrupt_bits == 0]
    finally:
        close(bus, mux.address, ())
    return kinds


def _names(kinds: Sequence[MuxKind]) -> str:
    return " or ".join(f"a {kind.name}" for kind in kinds)
