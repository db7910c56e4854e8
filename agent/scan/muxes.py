"""Distinguishes a mux from any other chip at 0x70 to 0x77, and closes it.

A mux has no ID, only its control byte (drawn in `agent.i2c.muxes`), so writing is the only test: a mux returns the
control bits that were written to it. Other chips at these addresses: the display driver HT16K33 (0x70-0x77), the
all-call address of the PCA9685 (0x70), the pressure sensors BMP280, BME280 and MS5611 (0x76 and 0x77), the SHTC3
(0x70), and PMBus regulators, for which each of these bytes is a command without data. Hence:

1. Read twice, which writes nothing. If the two bytes differ it is no mux: leave it alone.
2. Write 0x00, which closes a mux. The chips above take it as the number of the register to read next, or ignore it.
3. Read twice. A mux reads 0x00 now, except for interrupt lines: leave alone whatever has another bit, or reads
   differently each time.
4. Write 0x01, 0x02, 0x04, 0x08 and read each back, with the interrupt lines of step 3. The chips above take these,
   too, as register numbers. None of them holds its own number in each of these registers, so the first wrong answer
   ends the test.
5. With two or three control bits some of these answers were 0, as registers often are. So write 0x05, 0x06, 0x09 and
   0x0A, too, and read their lower bits back: also register numbers, which no PMBus chip takes for a command without
   data (0x03 clears its faults), and which connect no two channels of such a mux.
6. Only if no bit was masked so far: write 0x10, which a mux with eight control bits returns, and one with four does
   not. (For an HT16K33 a byte above 0x0F would be a command, such as 0x20: standby.)
7. Write 0x00 again, whatever happened.

After each answer only those kinds of the table remain that have this address and would have answered the same. If none
remains, repeat it all: an interrupt line may have changed, or the mux may have lost its power. A mux that opened by
itself after step 2 has mixed the chips behind it with those before it: then the segment is scanned again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import BusError
from agent.i2c.mux_probes import close, may_be_closed, write, written_and_read
from agent.i2c.muxes import CLOSED, MUX_KINDS
from agent.i2c.place import describe_segment

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.i2c.bus import Bus
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Hops, Place

    Kinds = tuple[MuxKind, ...]

_SINGLE_BITS = (0x01, 0x02, 0x04, 0x08)
_FEW_BITS = 0x07
_WITH_FEW_BITS = (0x05, 0x06, 0x09, 0x0A)
_FIFTH_BIT = 0x10
_ATTEMPTS = 3


class OpenMuxError(BusError):
    """A mux keeps a channel open, so a scan would take the chips behind it for its neighbours."""


def close_candidate(bus: Bus, address: int) -> None:
    """Close the part at the address on the selected segment, if it may be a mux: steps 1 and 2.

    Raises:
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    if _steady_byte(bus, address) is not None:
        write(bus, address, CLOSED)


def recognise(bus: Bus, place: Place) -> Kinds:
    """The kinds that the mux at the place may be, closed on return; none for any other chip: steps 3 to 7.

    Raises:
        OpenMuxError: a mux does not close.
        BusError: the bus is stuck, or the mux was open, after `close_candidate` had closed it.
        OSError: anything but a NACK, as the adapter reports it.
    """
    was_open = False
    not_closing: OpenMuxError | None = None
    for _ in range(_ATTEMPTS):
        lines = _steady_byte(bus, place.address)
        if lines is not None and not may_be_closed(lines):
            was_open = True
            close_candidate(bus, place.address)
        elif lines is not None:
            try:
                kinds = _recognised(bus, place, lines)
            except OpenMuxError as error:
                not_closing = error  # or an interrupt line was pulled
                continue
            if kinds and was_open:
                raise BusError(f"the mux at {place} opened a channel by itself; does it have a stable supply?")
            if kinds:
                return kinds
    if not_closing is not None:
        raise not_closing
    return ()


def _recognised(bus: Bus, place: Place, lines: int) -> Kinds:
    """The kinds that answer as the mux at the place does; `lines` is what it reads while it is closed."""
    kinds = tuple(kind for kind in MUX_KINDS.values() if place.address in kind.addresses)
    kinds = _answering(kinds, CLOSED, lines, lines)
    if not kinds:
        return ()
    try:
        for byte in _SINGLE_BITS:
            kinds = _tested(bus, place, kinds, byte, lines)
        if all(kind.control_bits <= _FEW_BITS for kind in kinds):
            for byte in _WITH_FEW_BITS:
                kinds = _tested(bus, place, kinds, byte, lines)
        elif any(kind.control_bits & _FIFTH_BIT for kind in kinds):
            kinds = _tested(bus, place, kinds, _FIFTH_BIT, lines)
    finally:
        has_closed = close(bus, place.address, kinds)
    if kinds and not has_closed:
        raise OpenMuxError(
            f"the mux at {place} does not close, so it is unclear which chips are behind it; power-cycle it"
        )
    return kinds


def confirm(bus: Bus, path: Hops) -> None:
    """Make sure that all muxes are as `select` left them: what answered may be behind another channel.

    Raises:
        BusError: one is not, or the bus is stuck.
    """
    try:
        is_as_selected = bus.confirms(path)
    except BusError:
        raise
    except OSError:
        is_as_selected = False
    if not is_as_selected:
        raise BusError(
            f"{describe_segment(bus.name, path)}: a mux changed its channels by itself, or shows an interrupt line; "
            "scan again. Does it have a stable supply?"
        )


def proof(kind: MuxKind, others: Collection[MuxKind]) -> str:
    """The evidence that a mux is of this kind, or of one of the others that a scan cannot tell from it."""
    names = " or ".join(other.part for other in others)
    text = f"returns {kind.control_bits.bit_length()} control bits, as a {names} does"
    for other in others:
        shown = [n for n in range(kind.channels) if kind.control_byte(n) == other.control_byte(0)]
        if shown and shown != [0]:
            text += f"; a {other.part} would have its channel 0 shown as channel {shown[0]}, and the others hidden"
    return text


def _steady_byte(bus: Bus, address: int) -> int | None:
    """What the address reads as, if that is the same twice."""
    byte = bus.byte_at(address)
    return byte if byte is not None and byte == bus.byte_at(address) else None


def _tested(bus: Bus, place: Place, kinds: Kinds, byte: int, lines: int) -> Kinds:
    """The kinds that still fit after this byte was written; if none is left, nothing is written."""
    return _answering(kinds, byte, written_and_read(bus, place, byte), lines) if kinds else ()


def _answering(kinds: Kinds, written: int, read: int | None, lines: int) -> Kinds:
    """The kinds that read like this after that byte was written, while these interrupt lines are pulled."""
    if read is None:
        return ()
    return tuple(
        kind
        for kind in kinds
        if kind.returns(read, written) and read & kind.interrupt_bits == lines & kind.interrupt_bits
    )
