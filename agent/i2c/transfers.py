"""Transfers that are prepared once and then repeated: what a sweep does again and again.

Blinka makes the kernel's structures anew for every transfer, which takes ten times as long as the system call itself.
Where the bus has a device file they are made here once, with Blinka's own classes and on Blinka's own file; everywhere
else the bus object is asked, as ever.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Transfer = Callable[[], object]
    """Does one transaction on the bus. Raises OSError, or what the back end likes."""


class I2C(Protocol):
    """What a Blinka bus object offers; mux channels and the simulator offer the same."""

    def try_lock(self) -> bool:
        """Take the lock if it is free."""

    def unlock(self) -> None:
        """Release the lock."""

    def writeto(self, address: int, buffer: bytes | bytearray, *, start: int = 0, end: int | None = None) -> None:
        """Write bytes to a chip."""

    def readfrom_into(self, address: int, buffer: bytearray, *, start: int = 0, end: int | None = None) -> None:
        """Fill the buffer from a chip."""

    def writeto_then_readfrom(  # noqa: PLR0913 - as Blinka has it
        self,
        address: int,
        buffer_out: bytes | bytearray,
        buffer_in: bytearray,
        *,
        out_start: int = 0,
        out_end: int | None = None,
        in_start: int = 0,
        in_end: int | None = None,
    ) -> None:
        """Write, then read without letting go of the bus."""


@dataclass(frozen=True, slots=True)
class OpenBus:
    """A bus that has been opened.

    Attributes:
        i2c: the object that drivers talk to.
        file_descriptor: the file on which other processes are locked out; None where there is none.
        close: gives the device file back.
        number: N of its /dev/i2c-N, which that file then is; None where there is none.
    """

    i2c: I2C
    file_descriptor: int | None
    close: Callable[[], None]
    number: int | None = None

    def device_file(self) -> int | None:
        """The file descriptor, if it is that of a /dev/i2c-N, which takes transfers of its own."""
        return None if self.number is None else self.file_descriptor


class Register(NamedTuple):
    """A register to read: its number and its length."""

    number: int
    length_bytes: int = 2


class RegisterReads:
    """Reads some registers of one chip, a transaction each.

    Attributes:
        transfers: to be done in this order; then `words` has what they read.
    """

    def __init__(self, opened: OpenBus, address: int, registers: Sequence[Register]) -> None:
        self._lengths = [register.length_bytes for register in registers]
        self._results = bytearray(sum(self._lengths))
        self._are_words = all(length == 2 for length in self._lengths)
        self._unpack = struct.Struct(f">{len(self._lengths)}H").unpack
        ends = [sum(self._lengths[: position + 1]) for position in range(len(self._lengths))]
        self.transfers: tuple[Transfer, ...] = tuple(
            _register_read(opened, address, register.number, self._results, slice(end - register.length_bytes, end))
            for register, end in zip(registers, ends, strict=True)
        )

    def words(self) -> tuple[int, ...]:
        """What the registers held: unsigned, most significant byte first."""
        if self._are_words:
            return self._unpack(self._results)
        words, start = [], 0
        for length in self._lengths:
            words.append(int.from_bytes(self._results[start : start + length], "big"))
            start += length
        return tuple(words)


def byte_write(opened: OpenBus, address: int, value: int) -> Transfer:
    """Writes one byte: the control byte of a mux."""
    data = bytearray((value,))
    device_file = opened.device_file()
    if device_file is None:
        return partial(opened.i2c.writeto, address, data)
    return _transfer_on_file(device_file, [(address, False, data, 0, 1)])


def _register_read(opened: OpenBus, address: int, number: int, results: bytearray, place: slice) -> Transfer:
    """Writes the number of a register and reads it into a slice of `results`."""
    pointer = bytearray((number,))
    device_file = opened.device_file()
    if device_file is None:
        read = opened.i2c.writeto_then_readfrom
        return partial(read, address, pointer, results, in_start=place.start, in_end=place.stop)
    # One write and one read, the read last: all that the adapter of a Raspberry Pi 0-4 can do in one transfer.
    return _transfer_on_file(
        device_file,
        [(address, False, pointer, 0, 1), (address, True, results, place.start, place.stop - place.start)],
    )


def _transfer_on_file(file_descriptor: int, messages: Sequence[tuple[int, bool, bytearray, int, int]]) -> Transfer:
    """One I2C_RDWR of messages (address, is a read, memory, offset, length); see the kernel's i2c/dev-interface."""
    from ctypes import POINTER, c_uint8, cast

    from Adafruit_PureIO import smbus

    arrays = [
        ((c_uint8 * length).from_buffer(memory, offset), address, is_read)
        for address, is_read, memory, offset, length in messages
    ]
    request = smbus.make_i2c_rdwr_data(
        [
            (address, smbus.I2C_M_RD if is_read else 0, len(array), cast(array, POINTER(c_uint8)))
            for array, address, is_read in arrays
        ]
    )
    return partial(smbus.ioctl, file_descriptor, smbus.I2C_RDWR, request)
