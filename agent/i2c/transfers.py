"""Transfers that are prepared once and repeated in every sweep.

Blinka builds the kernel's structures for every transfer, which takes ten times as long as the system call itself. For a
bus with a device file they are built here once, with Blinka's own classes and for Blinka's own file; for any other bus
the bus object does the transfers as usual.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Transfer = Callable[[], object]
    """Does one transaction on the bus. Raises OSError, or anything else that a back end raises."""


class I2C(Protocol):
    """The interface of a Blinka bus object; mux channels and the simulator have it too."""

    def try_lock(self) -> bool:
        """Take the lock if it is free."""

    def unlock(self) -> None:
        """Release the lock."""

    def writeto(self, address: int, buffer: bytes | bytearray, *, start: int = 0, end: int | None = None) -> None:
        """Write bytes to a chip."""

    def readfrom_into(self, address: int, buffer: bytearray, *, start: int = 0, end: int | None = None) -> None:
        """Fill the buffer from a chip."""

    def writeto_then_readfrom(  # noqa: PLR0913 - the signature of Blinka
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
        """Write, then read without releasing the bus in between."""


@dataclass(frozen=True, slots=True)
class OpenBus:
    """A bus that has been opened.

    Attributes:
        i2c: the object that drivers talk to.
        file_descriptor: the file whose lock keeps other processes out; None if there is none.
        close: closes the device file.
        number: N of its /dev/i2c-N, which is then that file; None for an adapter without one.
    """

    i2c: I2C
    file_descriptor: int | None
    close: Callable[[], None]
    number: int | None = None

    def device_file(self) -> int | None:
        """The file descriptor, if it is that of a /dev/i2c-N, which accepts prepared transfers."""
        return None if self.number is None else self.file_descriptor


class Register(NamedTuple):
    """A register to read: its number and its length."""

    number: int
    length_bytes: int = 2


class RegisterReads:
    """Reads some registers of one chip, a transaction each.

    Attributes:
        transfers: do them in this order; `words` then returns what they read.
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
        """The contents of the registers: unsigned, most significant byte first."""
        if self._are_words:
            return self._unpack(self._results)
        words, start = [], 0
        for length in self._lengths:
            words.append(int.from_bytes(self._results[start : start + length], "big"))
            start += length
        return tuple(words)


def byte_write(opened: OpenBus, address: int, value: int) -> Transfer:
    """A transfer that writes one byte: the control byte of a mux."""
    data = bytearray((value,))
    device_file = opened.device_file()
    if device_file is None:
        return partial(opened.i2c.writeto, address, data)
    return _transfer_on_file(device_file, [(address, False, data, 0, 1)])


def byte_read(opened: OpenBus, address: int, buffer: bytearray) -> Transfer:
    """A transfer that reads one byte into the buffer, without writing: the control byte of a mux."""
    device_file = opened.device_file()
    if device_file is None:
        return partial(opened.i2c.readfrom_into, address, buffer)
    return _transfer_on_file(device_file, [(address, True, buffer, 0, 1)])


def _register_read(opened: OpenBus, address: int, number: int, results: bytearray, target: slice) -> Transfer:
    """A transfer that writes a register's number and reads the register into a slice of `results`."""
    pointer = bytearray((number,))
    device_file = opened.device_file()
    if device_file is None:
        read = opened.i2c.writeto_then_readfrom
        return partial(read, address, pointer, results, in_start=target.start, in_end=target.stop)
    # One write, then one read: the most that the adapter of a Raspberry Pi 0-4 can do in one transfer.
    return _transfer_on_file(
        device_file,
        [(address, False, pointer, 0, 1), (address, True, results, target.start, target.stop - target.start)],
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
