"""What sits on a bus, on the trunk and behind every mux channel; imported by commands/.

An address is probed by reading one byte from it, which writes nothing. Registers are read only where power monitors
sit, 0x40 to 0x4F. What may be a mux is the exception, see `muxes`. Addresses that a kernel driver owns are not touched
at all. Every stretch of bus is left with all channels closed, and the bus is held for one stretch at a time only, so
that an agent that runs meanwhile gets its turn.
"""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.chips import _signatures as identities
from agent.config.tables import MUX_ADDRESSES, MUX_CHANNELS
from agent.errors import AgentError, BusError, BusyError, PermissionDeniedError
from agent.i2c.bus import describe, is_gone, is_time_out
from agent.i2c.place import Mux, Place, bus_path, describe_segment
from agent.scan.chips import ChipReader
from agent.scan.muxes import MuxKind, OpenMuxError, close_candidate, recognise
from agent.scan.results import Finds, FoundChip, FoundMux, KernelOwned, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.i2c.bus import Bus, Way

    Progress = Callable[[int, int, str], None]
    """Told how many stretches of bus are done, how many there are as far as is known, and which one comes now."""

# The addresses outside the ranges that the I2C specification reserves (UM10204, section 3.1.12). Without 0x0C, the
# SMBus Alert Response: reading from it makes chips that pull their ALERT line let go of it.
ADDRESSES = tuple(address for address in range(0x08, 0x78) if address != 0x0C)

_LOOKS = 2


def scan_bus(bus: Bus, names: Iterator[str], hidden: Iterable[int] = (), progress: Progress = lambda *_: None) -> Finds:
    """Find everything on a bus. What goes wrong is among what is found: no AgentError is raised.

    Args:
        bus: as it is opened, without any mux.
        names: what to call its muxes.
        hidden: addresses that answer here though they sit elsewhere: before the mux of the kernel that leads here.
        progress: told before each stretch of bus.
    """
    return _Scan(bus, names, frozenset(hidden), progress).run()


@dataclass(frozen=True, slots=True)
class _Segment:
    """A stretch of bus that is still to be looked at, and the addresses that answer on the way to it."""

    mux: Mux | None
    channel: int | None
    hidden: frozenset[int]


class _Look:
    """One look at a stretch of bus: where it is, and what it has found there."""

    def __init__(self, segment: _Segment, way: Way) -> None:
        self.segment = segment
        self.way = way
        self.muxes: list[tuple[int, MuxKind]] = []
        self.chips: list[FoundChip] = []
        self.unknown: list[Unknown] = []
        self.troubles: list[AgentError] = []

    def addresses(self) -> frozenset[int]:
        """Where somebody answered."""
        places = [*(chip.place for chip in self.chips), *(unknown.place for unknown in self.unknown)]
        return frozenset([*(place.address for place in places), *(address for address, _ in self.muxes)])


class _Scan:
    def __init__(self, bus: Bus, names: Iterator[str], hidden: frozenset[int], progress: Progress) -> None:
        self._bus = bus
        self._names = names
        self._progress = progress
        self._pending = deque([_Segment(None, None, hidden)])
        self._muxes: list[FoundMux] = []
        self._chips: list[FoundChip] = []
        self._unknown: list[Unknown] = []
        self._troubles: list[AgentError] = []
        self._kernel_owned: tuple[KernelOwned, ...] = ()
        self._hiding = hidden

    def run(self) -> Finds:
        done = 0
        try:
            while self._pending:
                segment = self._pending.popleft()
                where = describe_segment(self._bus.name, segment.mux, segment.channel)
                self._progress(done, done + 1 + len(self._pending), where)
                self._look_at(segment)
                done += 1
        finally:
            self._bus.close()
        return Finds(
            self._bus.name,
            tuple(self._muxes),
            tuple(self._chips),
            tuple(self._unknown),
            self._kernel_owned,
            self._hiding,
            tuple(self._troubles),
        )

    def _look_at(self, segment: _Segment) -> None:
        """Look at a stretch of bus, once more if anything goes wrong; keep what the last look found.

        Of two errors the first is told: the second may only follow from it.
        """
        first: BusError | None = None
        for looks_left in reversed(range(_LOOKS)):
            look = _Look(segment, self._bus.way_to(segment.mux, segment.channel))
            try:
                with self._bus.session():
                    self._look(look)
            except (BusyError, PermissionDeniedError, OpenMuxError) as error:
                self._give_up(error)
                return
            except BusError as error:
                first = first or error
                if not looks_left:
                    self._give_up_behind(segment, first)
            else:
                if not (look.troubles and looks_left):
                    self._keep(look)
                    return

    def _give_up(self, error: AgentError) -> None:
        self._troubles.append(error)
        self._pending.clear()

    def _give_up_behind(self, segment: _Segment, error: BusError) -> None:
        """Without its trunk, stuck or gone, a bus has nothing more to say; else what is behind other muxes is left."""
        if segment.mux is None or is_time_out(error) or is_gone(error):
            self._give_up(error)
        else:
            self._troubles.append(error)
            self._pending = deque(pending for pending in self._pending if pending.mux is not segment.mux)

    def _keep(self, look: _Look) -> None:
        segment = look.segment
        self._chips += look.chips
        self._unknown += look.unknown
        self._troubles += look.troubles
        hidden = segment.hidden | look.addresses()
        if segment.mux is None:
            hidden |= {owned.place.address for owned in self._kernel_owned}
            self._hiding = hidden
        for address, kind in look.muxes:
            mux = Mux(next(self._names), kind.chip, self._bus.name, address, segment.mux, segment.channel)
            self._bus.learn(mux)
            self._muxes.append(FoundMux(mux, kind))
            self._pending += [_Segment(mux, channel, hidden) for channel in range(MUX_CHANNELS[kind.chip])]

    def _look(self, look: _Look) -> None:
        segment = look.segment
        if segment.mux is None:
            self._kernel_owned = tuple(self._owned_by_the_kernel(segment.hidden))
        untouchable = segment.hidden | {owned.place.address for owned in self._kernel_owned}
        free = [address for address in ADDRESSES if address not in untouchable]
        muxes = [address for address in free if address in MUX_ADDRESSES]
        # Somebody who was killed may have left a channel open: what is behind it would seem to sit here.
        for address in muxes:
            self._at(address, look, lambda place: close_candidate(self._bus, place.address))
        for address in free:
            self._at(address, look, lambda place: self._find(place, look))
        if not self._is_still_there(look.way):
            raise BusError(
                f"{describe_segment(self._bus.name, segment.mux, segment.channel)}: the channel did not stay open; "
                "is the mux well supplied?"
            )

    def _owned_by_the_kernel(self, hidden: frozenset[int]) -> Iterator[KernelOwned]:
        for address in ADDRESSES:
            driver = None if address in hidden else self._bus.kernel_driver(address)
            if driver is not None:
                place = Place(self._bus.name, None, None, address)
                yield KernelOwned(place, driver, self._bus.kernel_channels(address))

    def _at(self, address: int, look: _Look, act: Callable[[Place], None]) -> None:
        """Do something about an address, if anybody answers there."""
        place = Place(self._bus.name, look.segment.mux, look.segment.channel, address)
        try:
            self._bus.select(look.way)
            if self._answers(address):
                act(place)
        except BusError:
            raise
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise BusError(
                    f"{bus_path(self._bus.name)}: the adapter cannot do plain I2C transfers (the SMBus of a PC?); "
                    "name the buses to scan: --bus N"
                ) from error
            if is_gone(error):
                raise BusError(
                    f"{bus_path(self._bus.name)}: {describe(error)}; was it unplugged?", error.errno
                ) from error
            if error.errno != errno.EBUSY:
                look.troubles.append(BusError(f"{place}: {describe(error)}; is its wiring sound?", error.errno))
            elif place not in [unknown.place for unknown in look.unknown]:  # in a container that does not see /sys
                look.unknown.append(Unknown(place, "a kernel driver owns it"))

    def _answers(self, address: int) -> bool:
        # Where our chips and muxes are, a disturbance must not hide one.
        probes = 2 if address in identities.ADDRESSES or address in MUX_ADDRESSES else 1
        return any(self._bus.byte_at(address) is not None for _ in range(probes))

    def _find(self, place: Place, look: _Look) -> None:
        if place.address in MUX_ADDRESSES:
            kind = recognise(self._bus, place)
            if kind is None:
                look.unknown.append(Unknown(place, "no mux"))
            else:
                look.muxes.append((place.address, kind))
        elif place.address in identities.ADDRESSES:
            found = ChipReader(self._bus, look.way, place).find()
            if isinstance(found, FoundChip):
                look.chips.append(found)
            else:
                look.unknown.append(found)
        else:
            look.unknown.append(Unknown(place))

    def _is_still_there(self, way: Way) -> bool:
        try:
            return self._bus.still_leads(way)
        except BusError:
            raise
        except OSError:
            return False
