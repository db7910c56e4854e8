"""Distinguishes muxes that return the same bits by what they connect: the addresses that answer behind them.

A control byte connects a channel on one kind and none on another, and a channel that is empty adds nothing to another:

                  0x01  0x02  0x04  0x08   0x09     0x0A     0x0C     ...
    PCA9546A        0     1     2     3    0 and 3  1 and 3  2 and 3
    PCA9547         -     -     -     0    1        2        4

1. If an address answers while a byte is set that connects nothing on one of the kinds, it is not that kind. So a chip
   on channel 0, 1 or 2 of a PCA9546A shows that it is no PCA9547.
2. If nothing does, the first channels of a PCA9546A are empty, and 0x08 to 0x0F all connect its channel 3 alone. If
   they show different addresses, it is a PCA9547. If not, they may be equal chips on each of its channels: then nothing
   on the bus tells.

Only what was recognised as a mux is written to, and nothing but reads goes to what is behind it, as in the scan itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import BusError
from agent.i2c.muxes import CLOSED
from agent.scan.muxes import close, written_and_read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agent.i2c.bus import Bus
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Place
    from agent.scan.muxes import Kinds

# A difference counts only if it shows each time: an answer may be lost.
_CONFIRMATIONS = 3
_PROBES = 2


def narrow(bus: Bus, place: Place, kinds: Kinds, addresses: Iterable[int]) -> Kinds:
    """The kinds that fit what answers behind a mux, in their order; it is closed on return.

    Args:
        bus: in a session, with the segment of the mux selected.
        place: that of the mux, which is closed.
        kinds: those that it may be by its control bits.
        addresses: those to probe; the others answer before the mux, or must not be accessed.

    Raises:
        BusError: the bus is stuck.
        OSError: anything but a NACK, as the adapter reports it.
    """
    if not any(_unconnected_on(kind, kinds) for kind in kinds):
        return kinds
    probes = _Probes(bus, place, kinds, addresses)
    try:
        kinds = tuple(kind for kind in kinds if not probes.any_answers(_unconnected_on(kind, kinds)))
        switches = [kind for kind in kinds if not kind.enable_bit]
        numbered = [kind for kind in kinds if kind.enable_bit]
        if switches and numbered and probes.differ(numbered[0]):
            kinds = tuple(numbered)
    finally:
        close(bus, place.address, kinds)
    return kinds


def _unconnected_on(kind: MuxKind, kinds: Kinds) -> list[int]:
    """The bytes that connect a single channel on another kind, and none on this one."""
    single = {other.control_byte(channel): None for other in kinds for channel in range(other.channels)}
    return [byte for byte in single if not kind.connects(byte)]


class _Probes:
    """What answers behind one mux."""

    def __init__(self, bus: Bus, place: Place, kinds: Kinds, addresses: Iterable[int]) -> None:
        self._bus = bus
        self._place = place
        self._kinds = kinds
        self._addresses = list(addresses)  # that of the mux itself always answers, so it shows nothing
        self._set: int | None = None

    def any_answers(self, control_bytes: Iterable[int]) -> bool:
        """Whether anything answers with one of these bytes that does not when the mux is closed."""
        return any(
            self._is_confirmed(address, byte, CLOSED) for byte in control_bytes for address in self._answering(byte)
        )

    def differ(self, kind: MuxKind) -> bool:
        """Whether the channels of this kind show different addresses."""
        first, *others = (kind.control_byte(channel) for channel in range(kind.channels))
        expected = set(self._answering(first))
        for byte in others:
            found = set(self._answering(byte))
            if any(self._is_confirmed(address, byte, first) for address in found - expected):
                return True
            if any(self._is_confirmed(address, first, byte) for address in expected - found):
                return True
        return False

    def _answering(self, byte: int) -> Iterator[int]:
        return (address for address in self._addresses if self._answers(address, byte))

    def _is_confirmed(self, address: int, byte: int, other_byte: int) -> bool:
        """Whether the address always answers with the first byte, and never with the other one."""
        return all(
            self._answers(address, byte) and not self._answers(address, other_byte) for _ in range(_CONFIRMATIONS)
        )

    def _answers(self, address: int, byte: int) -> bool:
        """Whether the address answers while a control byte is set."""
        if byte != self._set:
            self._set = None
            read = written_and_read(self._bus, self._place, byte)
            if read is None or not any(kind.returns(read, byte) for kind in self._kinds):
                raise BusError(
                    f"the mux at {self._place} does not keep its control byte; does it have a stable supply?"
                )
            self._set = byte
        return self._bus.byte_at(address, _PROBES) is not None
