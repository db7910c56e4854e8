"""Compares the kind of a mux in the configuration with what the mux returns, and with what answers behind it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from agent.errors import AgentError, SensorError
from agent.i2c.muxes import CLOSED, MUX_KINDS, lookalikes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent.i2c.bus import Bus
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Mux, Place

# These distinguish the numbers of control bits: eight, four, three and two.
_TESTED = (0x01, 0x02, 0x04, 0x08, 0x10)

_CONFIRMATIONS = 3


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
        bus.write_byte(mux.address, absent_bit)
        read = bus.byte_at(mux.address)
    finally:
        bus.write_byte(mux.address, CLOSED)
    if read is not None and not mux.kind.returns(read, absent_bit):
        refuse(bus, mux, absent_bit, read)


def refuse_unconnected(bus: Bus, mux: Mux, behind: Iterable[Place]) -> None:
    """Write the control bytes that connect nothing on the configured kind, and a channel on a lookalike.

    A chip on channel 0, 1 or 2 of a PCA9546A that is configured as a PCA9547 answers then. Kinds that connect the
    channels in use with the same bytes need no test.

    Args:
        bus: in a session.
        mux: as it is configured.
        behind: the places of the parts that are configured behind it.

    Raises:
        SensorError: a part answers, so the mux is of another kind.
        BusError: the bus is stuck.
        OSError: as the adapter reports it.
    """
    places = list(behind)
    for other in lookalikes(mux.kind):
        if any(_is_elsewhere(place, mux.kind, other) for place in places):
            found = _unconnected_answer(bus, mux, mux.kind, other, places)
            if found is not None:
                byte, address = found
                raise SensorError(
                    f"{mux.kind.part} at {mux.place}: 0x{address:02x} answers behind it at control byte 0x{byte:02x}, "
                    f"with which a {mux.kind.name} connects no channel; is it {_names([other])}?"
                )


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
    for other in lookalikes(mux.kind):
        if _is_elsewhere(place, mux.kind, other):
            byte = other.control_byte(channel)
            with suppress(AgentError, OSError), bus.session():
                # A part on another channel may have shown that the kind is right.
                is_excluded = _unconnected_answer(bus, mux, other, mux.kind, behind) is not None
                if not is_excluded and _answers_only_with(bus, mux, byte, place.address):
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


def _unconnected_answer(
    bus: Bus, mux: Mux, kind: MuxKind, other: MuxKind, places: Iterable[Place]
) -> tuple[int, int] | None:
    """A byte that connects a channel on the other kind but none on this one, and an address that answers with it.

    Returns:
        None if nothing answers: the mux may be of this kind.
    """
    addresses = sorted({place.address for place in places})
    for byte in map(other.control_byte, range(other.channels)):
        for address in addresses:
            if not kind.connects(byte) and _answers_only_with(bus, mux, byte, address):
                return byte, address
    return None


def _is_elsewhere(place: Place, kind: MuxKind, other: MuxKind) -> bool:
    """Whether another kind has the channel of a place, and connects it with another byte."""
    channel = place.channel
    return (
        channel is not None and channel < other.channels and other.control_byte(channel) != kind.control_byte(channel)
    )


def _answers_only_with(bus: Bus, mux: Mux, byte: int, address: int) -> bool:
    """Whether an address answers while the mux has this control byte, and not while it is closed."""

    def answers() -> bool:
        return bus.byte_at(address) is not None

    return all(
        _with_byte(bus, mux, byte, answers) and not _with_byte(bus, mux, CLOSED, answers) for _ in range(_CONFIRMATIONS)
    )


def _with_byte(bus: Bus, mux: Mux, byte: int, act: Callable[[], bool]) -> bool:
    """Write a control byte that `Bus.select` would not write, call `act`, and close the mux."""
    bus.select(mux.place.path)
    try:
        bus.write_byte(mux.address, byte)
        return act()
    finally:
        bus.write_byte(mux.address, CLOSED)


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
            bus.write_byte(mux.address, byte)
            read = bus.byte_at(mux.address) or 0
            lines = read if byte == CLOSED else lines
            kinds = [kind for kind in kinds if kind.returns(read, byte) and (read ^ lines) & kind.interrupt_bits == 0]
    finally:
        bus.write_byte(mux.address, CLOSED)
    return kinds


def _names(kinds: Sequence[MuxKind]) -> str:
    return " or ".join(f"a {kind.name}" for kind in kinds)
