"""Distinguishes a mux from any other chip at 0x70 to 0x77, and closes it.

A mux has no ID, only its control byte (drawn in `agent.i2c.muxes`), so writing is the only test: a mux returns the
control bits that were written to it. Other chips at these addresses: the display driver HT16K33 (0x70-0x77), the
all-call address of the PCA9685 (0x70), the pressure sensors BMP280, BME280 and MS5611 (0x76 and 0x77), the SHTC3
(0x70), and PMBus regulators, for which each of these bytes is a command without data. Hence:

1. Read twice, which writes nothing. If the two bytes differ it is no mux: leave it alone.
2. Write 0x00, which closes a mux. The chips above take it as the number of the register to read next, or ignore it.
3. Read. Any control byte but 0x00 means no mux: leave it alone from here on.
4. Write 0x01, 0x02, 0x04, 0x08 and read each back. The chips above take these, too, as register numbers. None of them
   holds its own number in each of these registers, so the first wrong answer ends the test.
5. Only if all of them came back: write 0x10, which a mux with eight control bits returns, and one with four does not.
   (For an HT16K33 a byte above 0x0F would be a command, such as 0x20: standby.)
6. Write 0x00 again, whatever happened.

After each answer only those kinds of the table remain that would have answered the same.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from agent.errors import BusError
from agent.i2c import hints
from agent.i2c.failures import describe, is_time_out
from agent.i2c.muxes import CLOSED, MUX_KINDS
from agent.i2c.place import bus_path

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.i2c.bus import Bus
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Place

# The fifth distinguishes eight control bits from four; no kind has a number in between.
_TESTED_BITS = range(5)
_ATTEMPTS = 3


class OpenMuxError(BusError):
    """A mux keeps a channel open, so a scan would take the chips behind it for its neighbours."""


def close_candidate(bus: Bus, address: int) -> None:
    """Close the part at the address on the selected segment, if it may be a mux: steps 1 and 2.

    Raises:
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    byte = bus.byte_at(address)
    if byte is not None and byte == bus.byte_at(address):
        _write(bus, address, CLOSED)


def recognise(bus: Bus, place: Place) -> MuxKind | None:
    """The kind of the mux at the place, closed on return; None for any other chip: steps 3 to 6.

    If several kinds answer alike, it is the first of them in the table; see `lookalikes`.

    Raises:
        OpenMuxError: a mux does not close.
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    kinds = _answering(CLOSED, bus.byte_at(place.address), MUX_KINDS.values())
    if not kinds:
        return None
    try:
        for bit in _TESTED_BITS:
            if not any(kind.control_bits >> bit for kind in kinds):
                break
            kinds = _answering(1 << bit, _read_back(bus, place, bit), kinds)
    finally:
        is_closed = _close(bus, place.address, kinds)
    if kinds and not is_closed:
        raise OpenMuxError(
            f"the mux at {place} does not close, so it is unclear which chips are behind it; power-cycle it"
        )
    return kinds[0] if kinds else None


def lookalikes(kind: MuxKind) -> tuple[str, ...]:
    """The other parts that a scan reports as this kind."""
    rows = (other.part for other in MUX_KINDS.values() if other.control_bits == kind.control_bits)
    return tuple(part for part in dict.fromkeys((*kind.lookalikes, *rows)) if part != kind.part)


def proof(kind: MuxKind) -> str:
    """The evidence that a mux is of this kind or one of its lookalikes."""
    return f"returns {kind.control_bits.bit_length()} control bits, as a {' or '.join(lookalikes(kind))} does"


def _answering(written: int, read: int | None, kinds: Collection[MuxKind]) -> list[MuxKind]:
    """The kinds that answer like this after that byte was written."""
    if read is None:
        return []
    return [kind for kind in kinds if kind.control_byte_in(read) == written & kind.control_bits]


def _read_back(bus: Bus, place: Place, bit: int) -> int | None:
    """Write a byte with this bit alone and read it back; None if it was not acknowledged."""
    try:
        return bus.byte_at(place.address) if _write(bus, place.address, 1 << bit) else None
    except OSError as error:
        if not is_time_out(error):
            raise
        raise BusError(
            f"{bus_path(place.bus)}: stuck since channel {bit} of the mux at {place} was opened; "
            f"{hints.of_held_channel()}",
            error.errno,
        ) from error


def _write(bus: Bus, address: int, byte: int) -> bool:
    """Write a byte; return whether it was acknowledged."""
    try:
        bus.write_byte(address, byte)
    except BusError:
        raise
    except OSError as error:
        if describe(error) != "NACK":
            raise
        return False
    return True


def _close(bus: Bus, address: int, kinds: Collection[MuxKind]) -> bool:
    """Close a mux of one of these kinds; return whether it confirms that. After an error the next attempt may work."""
    for _ in range(_ATTEMPTS):
        with suppress(OSError):
            if _write(bus, address, CLOSED) and _answering(CLOSED, bus.byte_at(address), kinds or MUX_KINDS.values()):
                return True
    return False
