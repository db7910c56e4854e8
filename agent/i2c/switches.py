"""The channels of the muxes on one bus: opens those on a path, keeps all others closed, and shows that they were.

Another program may switch a mux at any moment. So every mux is read back after a chip was read, and one that does not
answer, which may have a channel open all the same, is shown to have had no chip in place of the one that was read.
"""

from __future__ import annotations

import errno
import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import BusError, MuxSwitchedError
from agent.i2c import hints
from agent.i2c.attempts import ATTEMPTS
from agent.i2c.failures import describe, is_gone, is_nack, is_time_out
from agent.i2c.muxes import CLOSED, lookalikes
from agent.i2c.place import bus_path
from agent.i2c.transfers import byte_read, byte_write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.clock import Clock
    from agent.i2c.attempts import Attempts
    from agent.i2c.place import BusName, Hop, Hops, Mux, Place
    from agent.i2c.transfers import I2C, OpenBus, Transfer

    Segment = tuple[str, int] | None
    """The mux, by its name, and the channel that a segment is behind; None for the trunk."""

DOUBT_SECONDS = 60.0
"""How long after a mux was found switched every reading is in doubt: it is likely to be switched again."""

# Where one transfer in five fails, three in a row work in one of two attempts.
_GUARDED_ATTEMPTS = 10

# After another failure than a NACK, which is repeated anyway.
_CLOSE_ATTEMPTS = 3

# Probes of an address that must be silent, each followed by one of a mux that must answer.
_SILENT_PROBES = 3
_PROBE_ATTEMPTS = 10


class _ControlRead(NamedTuple):
    """Reads back one mux, and holds the control byte that it must have."""

    mux: Mux
    control_byte: int
    transfers: tuple[Transfer]
    buffer: bytearray


class Switches:
    """The muxes of one bus and the state of their channels. `opened` and `port` are there during a session only.

    Attributes:
        mux_conflicts: how often a mux was found switched by another program; only rises.
        possible_miswrites: how often something may have been written to another chip than the one it was meant for, by
            us or by another program; only rises.
        last_mux_conflict: the mux that was found switched last, and what to do; None if none was.
    """

    def __init__(self, name: BusName, clock: Clock, attempts: Attempts) -> None:
        """Prepare, without a mux."""
        self.mux_conflicts = 0
        self.possible_miswrites = 0
        self.last_mux_conflict: str | None = None
        self._name = name
        self._clock = clock
        self._attempts = attempts
        self._innermost_first: list[Mux] = []
        self._muxes_on: dict[Segment, list[Mux]] = {}
        self._doubted_until_seconds = -math.inf
        # Prepared for the device file that is open now; discarded when it is closed.
        self._mux_writes: dict[tuple[int, int], Transfer] = {}
        self._control_reads: dict[Segment, tuple[_ControlRead, ...]] = {}
        # The state of one session.
        self._opened: OpenBus
        self._port: I2C
        self._control_bytes: dict[str, int] = {}  # of each mux by name, as far as it is known
        self._opened_muxes: set[str] = set()
        self._silent_muxes: set[str] = set()  # they did not answer, so a channel of theirs may be open

    def add(self, mux: Mux) -> None:
        """Add a mux to those that this bus switches."""
        path = mux.place.path
        self._muxes_on.setdefault(_segment_behind(path[-1]) if path else None, []).append(mux)
        self._innermost_first.append(mux)
        self._innermost_first.sort(key=lambda known: len(known.place.path), reverse=True)
        self._control_reads.clear()

    def begin(self, opened: OpenBus, port: I2C) -> None:
        """Begin a session, in which the previous user of the bus may have left any channel open.

        Args:
            opened: the bus.
            port: does the transfers that are not prepared.
        """
        self._opened, self._port = opened, port
        self._control_bytes.clear()
        self._opened_muxes.clear()
        self._silent_muxes.clear()

    def forget_prepared(self) -> None:
        """Discard the prepared transfers, as the device file is closed."""
        self._mux_writes.clear()
        self._control_reads.clear()

    def forget_selected(self) -> None:
        """Take the state of every channel as unknown: a driver is about to switch them."""
        self._control_bytes.clear()

    @property
    def is_empty(self) -> bool:
        """Whether there is no mux on this bus."""
        return not self._muxes_on

    @property
    def trunk_addresses(self) -> frozenset[int]:
        """The addresses of the muxes on the trunk."""
        return frozenset(mux.address for mux in self._muxes_on.get(None, ()))

    def transfer(self, transfers: Iterable[Transfer], attempts: int = ATTEMPTS) -> None:
        """Do transfers as `Attempts.do`; after a failure, no channel's state is known."""
        try:
            self._attempts.do(transfers, attempts)
        except OSError:
            self._control_bytes.clear()
            raise

    @property
    def is_doubted(self) -> bool:
        """Whether a mux was found switched lately, so that any reading may be another chip's."""
        return self._clock.monotonic() < self._doubted_until_seconds

    def select(self, path: Hops) -> None:
        """See `Bus.select`."""
        segment: Segment = None
        for hop in path:
            self._close_muxes_on(segment, but=hop.mux)
            if self._control_bytes.get(hop.mux.name) != hop.control_byte:
                self._switch(hop.mux, hop.control_byte)
            segment = _segment_behind(hop)
        self._close_muxes_on(segment)

    def check_path(self, place: Place) -> None:
        """See `Bus.check_path`.

        Every mux on every segment of the path is read back. One that does not answer may have a channel open all the
        same: then the chip is shown to be the only one at its address, see `_exclude_silent_muxes`.
        """
        silent = [read.mux for read in self._control_reads_for(place) if not self._is_as_selected(read)]
        if silent:
            self._exclude_silent_muxes(silent, place)

    def byte_at(self, address: int, attempts: int = ATTEMPTS) -> int | None:
        """See `Bus.byte_at`."""
        control_bytes, buffer = dict(self._control_bytes), bytearray(1)
        try:
            self.transfer((partial(self._opened.i2c.readfrom_into, address, buffer),), attempts)
        except BusError:
            raise
        except OSError as error:
            if not is_nack(error):
                raise
            self._control_bytes = control_bytes  # a NACK of an empty address changes no channel
            return None
        return buffer[0]

    def confirms(self, path: Hops) -> bool:
        """Whether every mux on the segments of the selected path reports that it is as `select` left it.

        One beside the path that does not answer counts as closed, as for `select`. Raises as `byte_at`.
        """
        segment = _segment_behind(path[-1]) if path else None
        reads = self._control_reads.get(segment) or self._prepare_control_reads(segment, path)
        return all(map(self._reports, reads))

    def _reports(self, expected: _ControlRead) -> bool:
        read = self.byte_at(expected.mux.address)
        if read is None:
            return expected.control_byte == CLOSED
        return expected.mux.kind.control_byte_in(read) == expected.control_byte

    def _switch(self, mux: Mux, control_byte: int) -> None:
        if control_byte != CLOSED:
            self._opened_muxes.add(mux.name)
        try:
            self._write_control_byte(mux, control_byte)
        except BusError:
            raise
        except OSError as error:
            if is_nack(error):
                self._check_hops(mux.place.path)
            raise _does_not_answer(mux, error) from error
        self._control_bytes[mux.name] = control_byte
        self._silent_muxes.discard(mux.name)

    def _write_control_byte(self, mux: Mux, control_byte: int) -> None:
        write = self._mux_writes.get((mux.address, control_byte))
        if write is not None:
            self.transfer((write,))
            return
        # The first time through Blinka: the kernel then refuses an address that one of its drivers owns.
        self._port.writeto(mux.address, bytes((control_byte,)))
        self._mux_writes[mux.address, control_byte] = byte_write(self._opened, mux.address, control_byte)

    def _close_muxes_on(self, segment: Segment, but: Mux | None = None) -> None:
        """Close the muxes on a segment, except the one that is next on the path."""
        for mux in self._muxes_on.get(segment, ()):
            if mux is not but and self._control_bytes.get(mux.name) != CLOSED and mux.name not in self._silent_muxes:
                self._close(mux)

    def _close(self, mux: Mux) -> None:
        """Close a mux that is not on the path, so that nothing behind it can answer in place of the chip that is read.

        One that does not answer may be absent, or have a channel open: `check_path` decides. Any other failure is an
        error if it lasts.
        """
        for attempts_left in reversed(range(_CLOSE_ATTEMPTS)):
            try:
                self._switch(mux, CLOSED)
            except MuxSwitchedError:
                raise
            except BusError as error:
                if is_nack(error):
                    self._silent_muxes.add(mux.name)
                    return
                if attempts_left == 0 or self._attempts.is_stuck:
                    raise
            else:
                return

    def _control_reads_for(self, place: Place) -> tuple[_ControlRead, ...]:
        segment: Segment = None if place.mux is None or place.channel is None else (place.mux.name, place.channel)
        reads = self._control_reads.get(segment)
        return self._prepare_control_reads(segment, place.path) if reads is None else reads

    def _prepare_control_reads(self, segment: Segment, path: Hops) -> tuple[_ControlRead, ...]:
        """Reads of every mux on every segment of the path that ends at this segment, those that must be closed first.

        Another program that opened one of these closes it again soon.
        """
        control_bytes = {hop.mux.name: hop.control_byte for hop in path}
        reads = []
        for on_path in (None, *map(_segment_behind, path)):
            for mux in self._muxes_on.get(on_path, ()):
                buffer = bytearray(1)
                transfer = byte_read(self._opened, mux.address, buffer)
                reads.append(_ControlRead(mux, control_bytes.get(mux.name, CLOSED), (transfer,), buffer))
        reads.sort(key=lambda read: read.control_byte != CLOSED)
        self._control_reads[segment] = tuple(reads)
        return self._control_reads[segment]

    def _check_hops(self, path: Hops) -> None:
        """Make sure that the muxes before one that does not answer are as selected. Raises as `check_path`."""
        if path:
            segment = _segment_behind(path[-1])
            for read in self._control_reads.get(segment) or self._prepare_control_reads(segment, path):
                if read.control_byte != CLOSED:
                    self._is_as_selected(read)

    def _is_as_selected(self, read: _ControlRead) -> bool:
        """Read back a mux; False if it does not answer. Raises as `check_path`."""
        if read.mux.name in self._silent_muxes:
            return False
        try:
            control_byte = self._read_back(read)
        except BusError:
            raise
        except OSError as error:
            if is_nack(error):
                self._check_hops(read.mux.place.path)
            if not is_nack(error) or read.control_byte != CLOSED:
                raise _does_not_answer(read.mux, error) from error
            self._silent_muxes.add(read.mux.name)
            return False
        if control_byte != read.control_byte:
            raise self._conflict(read, control_byte)
        return True

    def _read_back(self, read: _ControlRead) -> int:
        """The control byte of a mux. One that is not as it must be is read until two bytes in a row agree."""
        last = None
        for _ in range(ATTEMPTS):
            self.transfer(read.transfers)
            control_byte = read.mux.kind.control_byte_in(read.buffer[0])
            if control_byte == last or (last is None and control_byte == read.control_byte):
                return control_byte
            last = control_byte
        raise MuxSwitchedError(f"{read.mux}: reads differently each time; check the wiring and the pull-ups of the bus")

    def _conflict(self, read: _ControlRead, control_byte: int) -> MuxSwitchedError:
        """Count a mux that is not as `select` left it; every mux is switched again before the next read."""
        self._control_bytes.clear()
        self._silent_muxes.clear()  # they may be behind the mux that was switched
        self.mux_conflicts += 1
        self.possible_miswrites += 1
        self._doubted_until_seconds = self._clock.monotonic() + DOUBT_SECONDS
        path = bus_path(self._name if self._opened.number is None else self._opened.number)
        self.last_mux_conflict = (
            f"{read.mux} was switched while a chip was read: its control byte is 0x{control_byte:02x} instead of "
            f"0x{read.control_byte:02x}. Stop the program that does it, or let it lock the bus as in: flock {path} "
            "i2cget ... If there is none, check the supply of the mux and the wiring"
            f"{_interrupts_hint(read, control_byte)}"
        )
        return MuxSwitchedError(self.last_mux_conflict)

    def _exclude_silent_muxes(self, silent: Sequence[Mux], place: Place) -> None:
        """Make sure that no chip behind a silent mux has answered in place of the one at `place`.

        The mux directly before that chip is closed, then its address is probed: whatever answers is behind another
        mux. Silence counts only if that mux answers right after it, which shows that the wire is not disturbed. A chip
        that is on the same segment as the silent mux has an address of its own: the configuration refuses others.
        """
        path = place.path
        if not path:
            return
        kind, address = path[-1].mux.kind, path[-1].mux.address
        self._switch(path[-1].mux, CLOSED)
        confirmed = 0
        for _ in range(_PROBE_ATTEMPTS):
            try:
                other = self.byte_at(place.address, attempts=1)
                read = None if other is not None else self.byte_at(address, attempts=1)
            except BusError:
                raise
            except OSError as error:
                if not is_time_out(error):
                    raise
                continue  # a lost arbitration shows nothing; two slow time-outs in a row are a stuck bus
            if other is not None:
                # They may be closed when the chip is read again.
                self._silent_muxes.difference_update(mux.name for mux in silent)
                raise MuxSwitchedError(
                    f"{place}: another chip answers at this address while its channel is closed, perhaps behind "
                    f"{silent[0]}, which does not answer; {_straps_hint(silent[0])}"
                )
            confirmed += read is not None and kind.control_byte_in(read) == CLOSED
            if confirmed == _SILENT_PROBES:
                self.select(path)
                return
        raise MuxSwitchedError(
            f"{place}: the bus is too disturbed to show that nothing behind {silent[0]}, which does not answer, has "
            f"the same address; {_straps_hint(silent[0])}"
        )

    def transfer_guarded(self, transfers: Iterable[Transfer], place: Place) -> None:
        """Do transfers, and read back after each one the muxes beside the path to a place; check the path at the end.

        A NACK gives another program the time to close its channel: then a transfer is done again. Raises as
        `check_path`.
        """
        closed = [read for read in self._control_reads_for(place) if read.control_byte == CLOSED]
        for transfer in transfers:
            self._transfer_beside(transfer, closed)
        self.check_path(place)

    def _transfer_beside(self, transfer: Transfer, closed: Sequence[_ControlRead]) -> None:
        for _ in range(_GUARDED_ATTEMPTS):
            retries_before = self._attempts.retries
            self.transfer((transfer,))
            for read in closed:
                self._is_as_selected(read)
            if self._attempts.retries == retries_before:
                return

    def close_all(self) -> None:
        """End a session: close all muxes on the trunk, and those behind other muxes that this session opened."""
        for mux in self._innermost_first:
            # The next session closes what cannot be closed now, before it reads anything.
            with suppress(BusError):
                if self._control_bytes.get(mux.name) == CLOSED:
                    continue
                path = mux.place.path
                if not path:
                    if mux.name in self._opened_muxes or mux.name not in self._silent_muxes:
                        self._close(mux)
                elif mux.name in self._opened_muxes:
                    self.select(path)


def _does_not_answer(mux: Mux, error: OSError) -> BusError:
    return BusError(f"{mux} does not answer: {describe(error)}; {_silent_mux_hint(mux, error)}", error.errno)


def _silent_mux_hint(mux: Mux, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"each channel is a separate bus (i2cdetect -l): use those buses instead of mux {mux.name}"
    if is_gone(error):
        return "was it unplugged?"
    return _straps_hint(mux)


def _interrupts_hint(read: _ControlRead, control_byte: int) -> str:
    """Names the kind that reads like this while an interrupt line is low; until then the configured kind works too."""
    kinds = [kind.name for kind in lookalikes(read.mux.kind) if kind.returns(control_byte, read.control_byte)]
    return f'; or does it have interrupt lines, and is chip = "{kinds[0]}"?' if kinds else ""


def _straps_hint(mux: Mux) -> str:
    return hints.of_silent_mux(mux.address, mux.kind.addresses)


def _segment_behind(hop: Hop) -> Segment:
    return (hop.mux.name, hop.channel)
