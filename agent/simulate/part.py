"""A part on a simulated I2C bus: it has an address, and can lose power or be unplugged."""

from __future__ import annotations

from abc import ABC, abstractmethod


class Part(ABC):
    """A target on the bus. An unplugged part does not answer; plugging it in powers it on."""

    def __init__(self, address: int) -> None:
        """Place the part.

        Args:
            address: the 7-bit address that its straps select.
        """
        self.address = address
        self._plugged = True

    def reached_at(self, address: int) -> list[Part]:
        """Every part that a transfer to `address` reaches through this one, including itself."""
        return [self] if self._plugged and self.address == address else []

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Receive the bytes of one write message; none when the host only probes."""

    @abstractmethod
    def read(self, length: int) -> bytes:
        """Return the `length` bytes of one read message."""

    def stop(self) -> None:  # noqa: B027 - most parts do nothing at a STOP
        """End a transaction that reached this part."""

    @abstractmethod
    def power_loss(self) -> None:
        """Lose and regain power at once: all registers return to their power-on values."""

    def unplug(self) -> None:
        """Take the part off the bus: every transfer to it, or through it, gets a NACK."""
        self._plugged = False

    def plug(self) -> None:
        """Put the part back; it starts in its power-on state."""
        self._plugged = True
        self.power_loss()
