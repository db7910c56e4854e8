"""Telling a mux from whatever else may sit at 0x70 to 0x77, and closing it.

A TCA9548A has no ID, only its control byte (SCPS207, section 8.5; SCPS148 for the PCA9546A):

     7    6    5    4    3    2    1    0
    CH7  CH6  CH5  CH4  CH3  CH2  CH1  CH0        1 = channel connected; a PCA9546A knows bits 3-0 only

So it can be told by writing alone: it is what gives back whatever was written. Other chips that sit here: the display
driver HT16K33 (0x70-0x77), the PCA9685's call to all (0x70), the pressure sensors BMP280, BME280 and MS5611 (0x76 and
0x77), the SHTC3 (0x70), regulators with PMBus, to which each of these bytes is a command without its data. Hence:

1. Read twice, which writes nothing. Who says two different things is no mux, and is let alone.
2. Write 0x00, which closes a mux. To the chips above it is the number of a register to be read next, or nothing.
3. Read: anything but 0x00 is no mux, and is let alone from here on.
4. Write 0x01, 0x02, 0x04, 0x08 and read each back. To the chips above these, too, are numbers of registers; none of
   them holds just its own number there, so the first of these bytes ends it.
5. Only to what gave all of them back: 0x10, which eight channels give back and four do not. (To an HT16K33 a byte above
   0x0F would be a command, such as 0x20: stand by.)
6. Write 0x00 again, whatever happened.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.errors import BusError
from agent.i2c import hints
from agent.i2c.bus import CLOSED, describe, is_time_out
from agent.i2c.place import bus_path

if TYPE_CHECKING:
    from agent.i2c.bus import Bus
    from agent.i2c.place import Place

_LOW_CHANNELS = (0, 1, 2, 3)
_FIFTH_CHANNEL = 4
_ATTEMPTS = 3


class OpenMuxError(BusError):
    """A mux keeps a channel open, whatever is written: another look would take what is behind it for its neighbours."""


@dataclass(frozen=True, slots=True)
class MuxKind:
    """A kind of mux, by its name in the configuration.

    Attributes:
        proof: what that rests on.
        is_sure: whether it can hardly be anything else.
    """

    chip: Literal["tca9548a", "pca9546a"]
    part: str
    proof: str
    is_sure: bool


TCA9548A = MuxKind("tca9548a", "TCA9548A", "gives back five channel bits", is_sure=True)
# A PCA9545A is used like a PCA9546A; a PCA9547 gives back four bits too, and is not.
PCA9546A = MuxKind("pca9546a", "PCA9546A", "gives back four channel bits, as a PCA9545A or PCA9547 does", is_sure=False)


def close_candidate(bus: Bus, address: int) -> None:
    """Close what answers at the address on the selected stretch of bus, if it may be a mux: steps 1 and 2.

    Raises:
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    byte = bus.byte_at(address)
    if byte is not None and byte == bus.byte_at(address):
        _write(bus, address, CLOSED)


def recognise(bus: Bus, place: Place) -> MuxKind | None:
    """What kind of mux answers at the place, which is closed then; None for anything else: steps 3 to 6.

    Raises:
        OpenMuxError: a mux does not close.
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    address = place.address
    if _read(bus, address) != CLOSED:
        return None
    kind = None
    try:
        if all(_gives_back(bus, place, channel) for channel in _LOW_CHANNELS):
            kind = {1 << _FIFTH_CHANNEL: TCA9548A, CLOSED: PCA9546A}.get(_given_back(bus, place, _FIFTH_CHANNEL))
    finally:
        is_closed = _close(bus, address)
    if kind is not None and not is_closed:
        raise OpenMuxError(
            f"the mux at {place} does not close, so nothing here can be told apart; switch it off and on"
        )
    return kind


def _gives_back(bus: Bus, place: Place, channel: int) -> bool:
    return _given_back(bus, place, channel) == 1 << channel


def _given_back(bus: Bus, place: Place, channel: int) -> int:
    """What is read after the byte that opens a channel was written; -1 if it was not taken."""
    try:
        return _read(bus, place.address) if _write(bus, place.address, 1 << channel) else -1
    except OSError as error:
        if not is_time_out(error):
            raise
        raise BusError(
            f"{bus_path(place.bus)}: stuck since channel {channel} of the mux at {place} was opened; "
            f"{hints.of_held_channel()}",
            error.errno,
        ) from error


def _read(bus: Bus, address: int) -> int:
    """A NACK may be a disturbance, so it takes several to be an answer: -1, which no byte is."""
    for _ in range(_ATTEMPTS):
        byte = bus.byte_at(address)
        if byte is not None:
            return byte
    return -1


def _write(bus: Bus, address: int, byte: int) -> bool:
    """Whether it was acknowledged."""
    for _ in range(_ATTEMPTS):
        try:
            bus.write_byte(address, byte)
        except BusError:
            raise
        except OSError as error:
            if describe(error) != "NACK":
                raise
        else:
            return True
    return False


def _close(bus: Bus, address: int) -> bool:
    """Whether it says so itself. Whatever goes wrong on the way, the next attempt may be heard."""
    for _ in range(_ATTEMPTS):
        with suppress(OSError):
            if _write(bus, address, CLOSED) and bus.byte_at(address) == CLOSED:
                return True
    return False
