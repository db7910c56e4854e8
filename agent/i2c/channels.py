"""Mux channels as drivers want them: bus objects that select their channel when a driver takes their lock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from agent.i2c.muxes import CLOSED

if TYPE_CHECKING:
    from agent.i2c.place import Hop
    from agent.i2c.transfers import I2C


def driver_channel(port: I2C, hop: Hop) -> I2C:
    """A channel on `port`: Adafruit's own wherever its control byte has one bit for each channel."""
    kind = hop.mux.kind
    if kind.enable_bit:
        return _NumberedChannel(port, hop)
    from adafruit_tca9548a import PCA9546A, TCA9548A

    stock_mux = {4: PCA9546A}.get(kind.channels, TCA9548A)
    return stock_mux(port, hop.mux.address)[hop.channel]  # type: ignore[no-any-return] # Adafruit publishes no types


class _NumberedChannel:
    """The counterpart of Adafruit's channel for a mux whose control byte holds an enable bit and a channel number."""

    def __init__(self, port: I2C, hop: Hop) -> None:
        self._port = port
        self._write_control_byte = partial(port.writeto, hop.mux.address)
        self._control_byte = hop.control_byte
        self.writeto = port.writeto
        self.readfrom_into = port.readfrom_into
        self.writeto_then_readfrom = port.writeto_then_readfrom

    def try_lock(self) -> bool:
        """Take the lock of the bus and open the channel; an error releases the lock."""
        if not self._port.try_lock():
            return False
        try:
            self._write_control_byte(bytes((self._control_byte,)))
        except BaseException:
            self._port.unlock()
            raise
        return True

    def unlock(self) -> None:
        """Close the channel and release the lock."""
        try:
            self._write_control_byte(bytes((CLOSED,)))
        finally:
            self._port.unlock()
