"""A bus object as Blinka programs use it, on a simulated wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.simulate.wire import Buffer, Message, Wire

SCANNED_ADDRESSES = range(0x08, 0x78)
"""The addresses outside the ranges that the I2C specification reserves."""


class SimulatedI2C:
    """Speaks like CircuitPython's `busio.I2C` (docs.circuitpython.org, shared-bindings/busio).

    The lock is one plain flag, as in Blinka: it has no owner and no time-out, is not re-entrant, and does not cover a
    second object on the same wire. Like CircuitPython itself, and stricter than Blinka, this refuses every transfer
    without the lock. As on Linux, every transfer ends with a STOP, whatever `stop` is.
    """

    def __init__(self, wire: Wire) -> None:
        """Open the wire."""
        self._wire: Wire | None = wire
        self._locked = False

    def try_lock(self) -> bool:
        """Take the lock; False if it is already taken."""
        if self._locked:
            return False
        self._locked = True
        return True

    def unlock(self) -> None:
        """Release the lock; no error if it was free."""
        self._locked = False

    def deinit(self) -> None:
        """Close the bus object."""
        self._wire = None

    def writeto(
        self,
        address: int,
        buffer: Buffer,
        *,
        start: int = 0,
        end: int | None = None,
        stop: bool = True,  # noqa: ARG002 - part of the interface; Linux ends every write with a STOP
    ) -> None:
        """Write `buffer[start:end]`.

        Raises:
            OSError: see `Wire.transfer`.
            RuntimeError: the lock is free.
            ValueError: after `deinit()`.
        """
        self._transfer([(address, False, memoryview(buffer)[start:end])])

    def readfrom_into(
        self,
        address: int,
        buffer: bytearray | memoryview,
        *,
        start: int = 0,
        end: int | None = None,
        stop: bool = True,  # noqa: ARG002 - part of the interface; Linux ends every read with a STOP
    ) -> None:
        """Fill `buffer[start:end]`.

        Raises:
            OSError: see `Wire.transfer`; the buffer is left as it was.
            RuntimeError: the lock is free.
            ValueError: after `deinit()`.
        """
        self._transfer([(address, True, memoryview(buffer)[start:end])])

    def writeto_then_readfrom(  # noqa: PLR0913 - the signature of busio
        self,
        address: int,
        buffer_out: Buffer,
        buffer_in: bytearray | memoryview,
        *,
        out_start: int = 0,
        out_end: int | None = None,
        in_start: int = 0,
        in_end: int | None = None,
        stop: bool = False,
    ) -> None:
        """Write, then read: one transaction with a repeated START, or two with `stop`.

        Raises:
            OSError: see `Wire.transfer`; `buffer_in` is left as it was.
            RuntimeError: the lock is free.
            ValueError: after `deinit()`.
        """
        # A driver may pass one buffer for both directions, so what is written is copied before anything is read.
        write: Message = (address, False, bytes(memoryview(buffer_out)[out_start:out_end]))
        read: Message = (address, True, memoryview(buffer_in)[in_start:in_end])
        if stop:
            self._transfer([write])
            self._transfer([read])
        else:
            self._transfer([write, read])

    def scan(self) -> list[int]:
        """The addresses that answer, probed with an empty write, then with a read of one byte as Blinka does.

        Raises:
            RuntimeError: the lock is free.
            ValueError: after `deinit()`.
        """
        return [address for address in SCANNED_ADDRESSES if self._answers(address)]

    def _answers(self, address: int) -> bool:
        for probe in ((address, False, b""), (address, True, bytearray(1))):
            try:
                self._transfer([probe])
            except OSError:
                continue
            return True
        return False

    def _transfer(self, messages: list[Message]) -> None:
        if self._wire is None:
            raise ValueError("this I2C bus object was closed with deinit(): open the bus again")
        if not self._locked:
            raise RuntimeError("the I2C bus was used without its lock: call try_lock() first")
        self._wire.transfer(messages)
