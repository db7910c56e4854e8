"""What a part on an I2C bus is to the wire: something at an address that can lose its supply or its plug."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Part(ABC):
    """A target on the bus. A part that is unplugged answers nothing; plugging it in is a power-on."""

    def __init__(self, address: int) -> None:
        """Place the part.

        Args:
            address: the 7-bit address that its straps select.
        """
        self.address = address
        self._plugged = True

    def reached_at(self, address: int) -> Iterator[Part]:
        """Every part that a transfer to `address` reaches through this one, itself included."""
        if self._plugged and self.address == address:
            yield self

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Take the bytes of one write message; none at all when the host only probes."""

    @abstractmethod
    def read(self, length: int) -> bytes:
        """Give the bytes of one read message, `length` of them."""

    def stop(self) -> None:  # noqa: B027 - most parts have nothing left to do at a STOP
        """Notice the STOP that ends a transaction this part took part in."""

    @abstractmethod
    def power_loss(self) -> None:
        """The supply vanishes and is back at once: everything written is forgotten."""

    def unplug(self) -> None:
        """Take the part off the bus: every transfer to it, or through it, is a NACK."""
        self._plugged = False

    def plug(self) -> None:
        """Put the part back: it starts from its power-on state."""
        self._plugged = True
        self.power_loss()
