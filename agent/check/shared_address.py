"""Checks that a chip behind a mux is alone at its address: whatever sits nearer to the trunk answers with it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from agent.errors import BusError, SensorError
from agent.i2c.muxes import MUX_ADDRESSES
from agent.i2c.place import TRUNK, describe_segment

if TYPE_CHECKING:
    from agent.i2c.bus import Bus
    from agent.i2c.place import Place
    from agent.i2c.transfers import I2C


def refuse_shared_address(bus: Bus, place: Place) -> None:
    """Check that nothing nearer to the trunk answers at the address: it would receive every transfer to this place.

    Chips with the same address behind other channels do not matter: those are closed while this one is read.

    Args:
        bus: in a session.
        place: of the chip.

    Raises:
        SensorError: a part answers there.
        BusError: the bus is stuck, or a mux fails.
        OSError: as the adapter reports it.
    """
    port = bus.driver_port(TRUNK)
    for hop in place.path:
        nearer_path = hop.mux.place.path
        bus.select(nearer_path)
        if _reads(port, place.address) is not None:
            nearer = describe_segment(place.bus, nearer_path)
            raise SensorError(
                f"two parts at one address: 0x{place.address:02x} also answers {nearer} while the path to "
                f"{place} is closed. Both together read as the AND of their bits, a wrong number without an error; "
                f"{_hint(port, bus, place)}"
            )


def _hint(port: I2C, bus: Bus, place: Place) -> str:
    """An unconfigured mux with an open channel connects the chips behind it to the trunk."""
    bus.select(TRUNK)
    for address in MUX_ADDRESSES:
        # The configured ones are closed, but may show interrupt lines.
        control = None if address in bus.trunk_mux_addresses else _reads(port, address)
        if control:
            # Its kind is unknown, so the number of the channel is, too.
            return (
                f"0x{address:02x} {describe_segment(place.bus, TRUNK)} looks like a mux with an open channel (control "
                f"byte 0x{control:02x}) that the configuration does not close: add it as a [[mux]], as wattpush scan "
                "--toml writes it"
            )
    return "strap one of them to another address (A0, A1), or move it behind a mux channel where it is alone"


def _reads(port: I2C, address: int) -> int | None:
    """A byte from this address; None if nothing answers there."""
    byte = bytearray(1)
    try:
        port.readfrom_into(address, byte)
    except BusError:
        raise
    except OSError as error:
        if error.errno == errno.EBUSY:  # a kernel driver has it, so a chip is there
            return 0
        return None
    return byte[0]
