"""What answers behind a mux whose kind is in doubt, while it has control bytes that `Bus.select` would not write.

Only what was recognised as a mux, or is configured as one, is written to, and nothing but reads goes to what is behind.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agent.errors import BusError
from agent.i2c import hints
from agent.i2c.failures import is_nack, is_time_out
from agent.i2c.muxes import CLOSED, MUX_KINDS
from agent.i2c.place import bus_path
from agent.i2c.transfers import Register

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from agent.i2c.bus import Bus
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Place

# A difference counts only if it shows each time: an answer may be lost.
_CONFIRMATIONS = 3
_PROBES = 2
_CLOSE_ATTEMPTS = 3

# Of a power monitor: its configuration, and what differs from that in one part or another: two IDs and a calibration.
_CONFIGURATION = 0x00
_OTHER_REGISTERS = (0xFE, 0x3E, 0x05)


@contextmanager
def probing(bus: Bus, place: Place, kinds: Collection[MuxKind]) -> Iterator[MuxProbes]:
    """Select the segment of a mux, which may be of any of these kinds; at the end, close the mux."""
    bus.select(place.path)
    try:
        yield MuxProbes(bus, place, kinds)
    finally:
        close(bus, place.address, kinds)


class MuxProbes:
    """The probes behind one mux; the bus is in a session. See `probing`.

    Methods raise:
        BusError: the bus is stuck, or the mux does not keep what is written to it.
        OSError: anything but a NACK, as the adapter reports it.
    """

    def __init__(self, bus: Bus, place: Place, kinds: Collection[MuxKind]) -> None:
        self._bus = bus
        self._place = place
        self._kinds = kinds
        self._set: int | None = None

    def answers(self, address: int, byte: int) -> bool:
        """Whether an address answers while the mux has this control byte."""
        self._write(byte)
        return self._bus.byte_at(address, _PROBES) is not None

    def answers_only_with(self, address: int, byte: int, other_byte: int = CLOSED) -> bool:
        """Whether an address always answers with the first byte, and never with the other one."""
        return all(self.answers(address, byte) and not self.answers(address, other_byte) for _ in range(_CONFIRMATIONS))

    def connect_one_chip(self, address: int, byte: int, other_byte: int) -> bool | None:
        """Whether two control bytes connect the same power monitor, and not two with equal addresses.

        A monitor keeps its register pointer until the next one is written: what is read last through one byte is what a
        byte without a pointer shows, unless another register of the same chip was read through the other one.

        Returns:
            None if what answers keeps no pointer, or does not tell the same each time.
        """
        for register in _OTHER_REGISTERS:
            kept = self._first_byte_of(address, byte, register)
            configuration = self._first_byte_of(address, byte, _CONFIGURATION)
            if kept is not None and configuration is not None and kept != configuration:
                break
        else:
            return None
        found: set[int | None] = set()
        for _ in range(_CONFIRMATIONS):
            is_kept = self._first_byte_of(address, byte, register) == kept
            is_readable = self._first_byte_of(address, other_byte, _CONFIGURATION) is not None
            self._write(byte)
            found.add(self._bus.byte_at(address, _PROBES) if is_kept and is_readable else None)
        if found == {configuration}:
            return True
        return False if found == {kept} else None

    def _first_byte_of(self, address: int, byte: int, register: int) -> int | None:
        """The first byte of a register, if a read without a pointer returns it too."""
        self._write(byte)
        try:
            (word,) = self._bus.read(address, (Register(register),))
        except BusError:
            raise
        except OSError as error:
            if not is_nack(error):
                raise
            return None
        first = word >> 8
        return first if self._bus.byte_at(address, _PROBES) == first else None

    def _write(self, byte: int) -> None:
        if byte != self._set:
            self._set = None
            read = written_and_read(self._bus, self._place, byte)
            if read is None or not any(kind.returns(read, byte) for kind in self._kinds):
                raise BusError(
                    f"the mux at {self._place} does not keep its control byte; does it have a stable supply?"
                )
            self._set = byte


def written_and_read(bus: Bus, place: Place, byte: int) -> int | None:
    """Write a control byte and read it back; None if it was not acknowledged.

    Raises:
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    try:
        return bus.byte_at(place.address) if write(bus, place.address, byte) else None
    except OSError as error:
        if not is_time_out(error):
            raise
        raise BusError(
            f"{bus_path(place.bus)}: stuck since {_opened_by(byte)} of the mux at {place} was opened; "
            f"{hints.of_held_channel()}",
            error.errno,
        ) from error


def may_be_closed(read: int | None, kinds: Collection[MuxKind] = MUX_KINDS.values()) -> bool:
    """Whether a mux of one of these kinds that reads like this is closed."""
    return read is not None and any(kind.returns(read, CLOSED) for kind in kinds)


def close(bus: Bus, address: int, kinds: Collection[MuxKind]) -> bool:
    """Close a mux of one of these kinds; return whether it confirms that. After an error the next attempt may work."""
    for _ in range(_CLOSE_ATTEMPTS):
        with suppress(OSError):
            if write(bus, address, CLOSED) and may_be_closed(bus.byte_at(address), kinds or MUX_KINDS.values()):
                return True
    return False


def write(bus: Bus, address: int, byte: int) -> bool:
    """Write a byte; return whether it was acknowledged. Raises as `written_and_read`."""
    try:
        bus.write_byte(address, byte)
    except BusError:
        raise
    except OSError as error:
        if not is_nack(error):
            raise
        return False
    return True


def _opened_by(byte: int) -> str:
    """The channel in words, as far as it is known before the kind is: most kinds have a bit for each."""
    return f"channel {byte.bit_length() - 1}" if byte.bit_count() == 1 else f"a channel (control byte 0x{byte:02x})"
