"""The scan of a bus, of its trunk and behind every mux channel; imported by init/ and commands/.

Reading one byte from an address, which writes nothing, shows whether a chip answers there. Registers are read only at
0x40 to 0x4F, where power monitors sit. The scan writes only to what may be a mux, see `muxes`, and does not access an
address that a kernel driver owns. It holds the bus for one segment at a time, so that a running agent gets its turn,
and leaves every channel closed.
"""

from __future__ import annotations

import errno
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.chips import _signatures as signatures
from agent.errors import AgentError, BusError, BusyError, PermissionDeniedError
from agent.i2c import hints
from agent.i2c.failures import describe, is_gone, is_time_out
from agent.i2c.mux_probes import may_be_closed
from agent.i2c.muxes import MUX_ADDRESSES
from agent.i2c.place import TRUNK, Hop, Mux, Place, bus_path, describe_segment
from agent.scan.chips import ChipReader
from agent.scan.connections import narrow
from agent.scan.muxes import OpenMuxError, close_candidate, confirm, recognise
from agent.scan.results import BusScan, FoundChip, KernelOwned, UnknownChip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from agent.i2c.bus import Bus
    from agent.i2c.muxes import MuxKind
    from agent.i2c.place import Hops
    from agent.scan.muxes import Kinds

    Progress = Callable[[int, int, str], None]
    """Called with the number of segments that are done, the number known so far, and a description of the next one."""

# The addresses outside the ranges that the I2C specification reserves (UM10204, section 3.1.12). Without 0x0C, the
# SMBus Alert Response: reading it makes chips that pull their ALERT line release it.
ADDRESSES = tuple(address for address in range(0x08, 0x78) if address != 0x0C)

_ATTEMPTS = 2


def scan_bus(
    bus: Bus, names: Iterator[str], hidden: Iterable[int] = (), progress: Progress = lambda *_: None
) -> BusScan:
    """Find everything on a bus. Raises no AgentError: errors are part of the result.

    Args:
        bus: a bus without any configured mux.
        names: the names for its muxes.
        hidden: addresses that answer here but sit elsewhere: before the kernel's mux that leads here.
        progress: called before each segment.
    """
    return _Scan(bus, names, frozenset(hidden), progress).run()


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment that is still to be scanned, and the addresses that already answer on the path to it."""

    path: Hops
    hidden: frozenset[int]


class _Attempt:
    """One attempt at a segment, and its findings."""

    def __init__(self, segment: _Segment) -> None:
        self.segment = segment
        self.free: list[int] = []
        self.muxes: list[tuple[Place, Kinds]] = []
        self.chips: list[FoundChip] = []
        self.unknown: list[UnknownChip] = []
        self.errors: list[AgentError] = []

    def addresses(self) -> frozenset[int]:
        """The addresses that answered."""
        places = [
            *(chip.place for chip in self.chips),
            *(unknown.place for unknown in self.unknown),
            *(place for place, _ in self.muxes),
        ]
        return frozenset(place.address for place in places)


class _Scan:
    def __init__(self, bus: Bus, names: Iterator[str], hidden: frozenset[int], progress: Progress) -> None:
        self._bus = bus
        self._names = names
        self._progress = progress
        self._pending = deque([_Segment(TRUNK, hidden)])
        self._muxes: list[Mux] = []
        self._lookalikes: dict[str, tuple[MuxKind, ...]] = {}
        self._chips: list[FoundChip] = []
        self._unknown: list[UnknownChip] = []
        self._errors: list[AgentError] = []
        self._kernel_owned: tuple[KernelOwned, ...] = ()
        self._trunk_addresses = hidden

    def run(self) -> BusScan:
        done = 0
        try:
            while self._pending:
                segment = self._pending.popleft()
                where = describe_segment(self._bus.name, segment.path)
                self._progress(done, done + 1 + len(self._pending), where)
                self._scan_segment(segment)
                done += 1
        finally:
            self._bus.close()
        return BusScan(
            self._bus.name,
            tuple(self._muxes),
            tuple(self._chips),
            tuple(self._unknown),
            self._kernel_owned,
            self._trunk_addresses,
            tuple(self._errors),
            self._lookalikes,
        )

    def _scan_segment(self, segment: _Segment) -> None:
        """Scan a segment, a second time if anything fails; the findings of the last attempt count.

        Of two errors the first is reported: the second may only be its consequence.
        """
        first: BusError | None = None
        for attempts_left in reversed(range(_ATTEMPTS)):
            attempt = _Attempt(segment)
            try:
                with self._bus.session():
                    self._try(attempt)
            except (BusyError, PermissionDeniedError, OpenMuxError) as error:
                self._give_up(error)
                return
            except BusError as error:
                first = first or error
                if not attempts_left:
                    self._give_up_behind(segment, first)
            else:
                if not (attempt.errors and attempts_left):
                    self._keep(attempt)
                    return

    def _give_up(self, error: AgentError) -> None:
        self._errors.append(error)
        self._pending.clear()

    def _give_up_behind(self, segment: _Segment, error: BusError) -> None:
        """Give up the mux that this segment is behind; the whole bus if its trunk fails, or it is stuck or gone."""
        if segment.path == TRUNK or is_time_out(error) or is_gone(error):
            self._give_up(error)
            return
        mux = segment.path[-1].mux
        self._errors.append(error)
        self._pending = deque(pending for pending in self._pending if pending.path[-1].mux is not mux)

    def _keep(self, attempt: _Attempt) -> None:
        segment = attempt.segment
        self._chips += attempt.chips
        self._unknown += attempt.unknown
        self._errors += attempt.errors
        hidden = segment.hidden | attempt.addresses()
        if segment.path == TRUNK:
            hidden |= {owned.place.address for owned in self._kernel_owned}
            self._trunk_addresses = hidden
        for place, (kind, *others) in attempt.muxes:
            mux = Mux(next(self._names), kind, place)
            self._lookalikes[mux.name] = tuple(others)
            self._bus.add_mux(mux)
            self._muxes.append(mux)
            self._pending += [_Segment((*segment.path, Hop(mux, channel)), hidden) for channel in range(kind.channels)]

    def _try(self, attempt: _Attempt) -> None:
        segment = attempt.segment
        if segment.path == TRUNK:
            self._kernel_owned = tuple(self._owned_by_the_kernel(segment.hidden))
        untouchable = segment.hidden | {owned.place.address for owned in self._kernel_owned}
        attempt.free = free = [address for address in ADDRESSES if address not in untouchable]
        # A killed process may have left a channel open: chips behind it would seem to sit here.
        for address in free:
            if address in MUX_ADDRESSES:
                self._at(address, attempt, lambda place: close_candidate(self._bus, place.address))
        for address in free:
            self._at(address, attempt, lambda place: self._find(place, attempt))
        confirm(self._bus, segment.path)
        for place, kinds in attempt.muxes:
            if not may_be_closed(self._bus.byte_at(place.address), kinds):
                raise BusError(f"the mux at {place} did not stay closed; does it have a stable supply?")

    def _owned_by_the_kernel(self, hidden: frozenset[int]) -> Iterator[KernelOwned]:
        for address in ADDRESSES:
            owner = None if address in hidden else self._bus.kernel_owner(address)
            if owner is not None:
                place = Place.behind(self._bus.name, TRUNK, address)
                unread = hints.of_kernel_owner(owner) if owner.is_unread else ""
                yield KernelOwned(place, owner.driver, self._bus.kernel_channels(address), unread)

    def _at(self, address: int, attempt: _Attempt, act: Callable[[Place], None]) -> None:
        """Call `act` for an address, if it answers."""
        place = Place.behind(self._bus.name, attempt.segment.path, address)
        try:
            self._bus.select(attempt.segment.path)
            if self._answers(address):
                confirm(self._bus, attempt.segment.path)
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
                attempt.errors.append(BusError(f"{place}: {describe(error)}; check its wiring", error.errno))
            elif place not in [unknown.place for unknown in attempt.unknown]:  # in a container that does not see /sys
                attempt.unknown.append(UnknownChip(place, "a kernel driver owns it"))

    def _answers(self, address: int) -> bool:
        # Most addresses are empty, so probing them is most of what a scan costs. An address that wattpush can use gets
        # one more attempt.
        return self._bus.byte_at(address, attempts=3 if _is_usable(address) else 2) is not None

    def _find(self, place: Place, attempt: _Attempt) -> None:
        if place.address in MUX_ADDRESSES:
            kinds = recognise(self._bus, place)
            if kinds:
                probed = filter(_is_usable, attempt.free)
                attempt.muxes.append((place, narrow(self._bus, place, kinds, probed)))
            else:
                attempt.unknown.append(UnknownChip(place, "no mux"))
        elif place.address in signatures.ADDRESSES:
            found = ChipReader(self._bus, place).find()
            if isinstance(found, FoundChip):
                attempt.chips.append(found)
            else:
                attempt.unknown.append(found)
        else:
            attempt.unknown.append(UnknownChip(place))


def _is_usable(address: int) -> bool:
    """Whether wattpush could use what answers there."""
    return address in signatures.ADDRESSES or address in MUX_ADDRESSES
