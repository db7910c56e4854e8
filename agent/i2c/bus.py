"""One I2C bus with its muxes: the only module that opens buses and switches channels. It trusts no driver.

Blinka's lock is one plain flag on each bus object, and Adafruit's mux channel takes it before a write that may fail, so
one error at a mux hangs every later access. Nothing here waits for that flag: a `session` takes it once, holds it for a
whole sweep together with a lock on the device file that other processes respect, and always releases both. During a
session, `select` opens exactly the channels on one path and keeps every other channel closed, and `check_path` shows
after a chip was read that they were.

A NACK may be a disturbance, so a transfer that fails with one is repeated at once: every transfer may happen twice, as
a register or a control byte then only holds the same value again. What fails slowly is a time-out and is not repeated.
The failures of one session may take `_FAILING_SECONDS` together; after that everything fails at once.
"""

from __future__ import annotations

import errno
import math
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.errors import AgentError, BusError, BusyError, MuxSwitchedError
from agent.i2c import hints
from agent.i2c.channels import driver_channel
from agent.i2c.lock import exclusive_lock
from agent.i2c.muxes import CLOSED
from agent.i2c.place import bus_path
from agent.i2c.sysfs import adapter_folder, bus_on, kernel_channels, kernel_driver, usb_port
from agent.i2c.transfers import OpenBus, RegisterReads, byte_read, byte_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from agent.clock import Clock
    from agent.i2c.place import BusName, Hop, Hops, Mux, Place
    from agent.i2c.transfers import I2C, Register, Transfer

    Registers = tuple[Register, ...]
    Segment = tuple[str, int] | None
    """The mux, by its name, and the channel that a segment is behind; None for the trunk."""

LOCK_WAIT_SECONDS = 1.0
"""How long to wait for a bus that another process holds; SIGTERM must end the process within 2 s."""

# How adapters report a NACK: Raspberry Pi 121, others 5 or 6, USB adapters an OSError without a number.
_NACK = frozenset({errno.EREMOTEIO, errno.ENXIO, errno.EIO, None})
_TIME_OUT = frozenset({errno.ETIMEDOUT, errno.EAGAIN})
# The device file has lost its adapter: the USB adapter was unplugged, or its module unloaded.
_GONE = frozenset({errno.ENODEV, errno.EBADF, errno.ESHUTDOWN})

# Where one transfer in five fails, one in 3,000 still fails this often in a row.
_ATTEMPTS = 5

# After another failure than a NACK, which is repeated anyway.
_CLOSE_ATTEMPTS = 3

# The kernel waits a second or more for a bus; with some USB adapters the failure is then EIO, that of a NACK.
_LONGEST_NACK_SECONDS = 0.5

DOUBT_SECONDS = 60.0
"""How long after a mux was found switched every reading is taken in doubt: whoever did it will come again."""

# Where one transfer in five fails, three in a row work in one of two attempts.
_GUARDED_ATTEMPTS = 10

# Consecutive ones: each may block for a second, and there may be 64 chips.
_TIME_OUTS_OF_A_STUCK_BUS = 2
# Also spent by one time-out of 2 s, or by two of 1 s with answers between them.
_FAILING_SECONDS = 1.5

# Probes of an address that must be silent, each followed by one of a mux that must answer.
_SILENT_PROBES = 3
_PROBE_ATTEMPTS = 10


class _ControlRead(NamedTuple):
    """Reads back one mux, and holds the control byte that it must have."""

    mux: Mux
    control_byte: int
    transfers: tuple[Transfer]
    buffer: bytearray


class _SessionPort:
    """The bus as drivers see it during a session. The session holds the lock, so a driver always gets it at once."""

    def __init__(self, i2c: I2C, transfer: Callable[..., None]) -> None:
        self.i2c = i2c
        self.writeto = partial(transfer, i2c.writeto)
        self.readfrom_into = partial(transfer, i2c.readfrom_into)
        self.writeto_then_readfrom = partial(transfer, i2c.writeto_then_readfrom)

    def try_lock(self) -> bool:
        return True

    def unlock(self) -> None:
        pass


class Bus:
    """One bus, its muxes and the state of their channels.

    Attributes:
        retries: how many transfers were repeated at once; only rises.
        mux_conflicts: how often a mux was found switched by somebody else; only rises.
        possible_miswrites: how often something may have been written to another chip than the one it was meant for, by
            us or by somebody else; only rises.
        last_mux_conflict: the mux that was found switched last, and what to do; None if none was.
        adapter: the USB port that the bus was found on, as its folder in sysfs; None if it has a path for a name, is
            not on USB, or was not opened yet.
    """

    def __init__(  # noqa: PLR0913 - its parts, and by keyword what an earlier run remembers
        self,
        name: BusName,
        muxes: Iterable[Mux],
        opener: Callable[[BusName], OpenBus],
        clock: Clock,
        sysfs: Path = Path("/sys"),
        *,
        expected_adapter: str | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            name: which bus.
            muxes: those on it.
            opener: opens it.
            clock: for waits and time-outs.
            sysfs: the kernel's view of the adapters.
            expected_adapter: the `adapter` of an earlier run; another one under the same number is an error.
        """
        self.name = name
        self.adapter = expected_adapter
        self.retries = 0
        self.mux_conflicts = 0
        self.possible_miswrites = 0
        self.last_mux_conflict: str | None = None
        self._opener = opener
        self._clock = clock
        self._sysfs = sysfs
        self._innermost_first: list[Mux] = []
        self._muxes_on: dict[Segment, list[Mux]] = {}
        self._opened: OpenBus | None = None
        self._doubted_until_seconds = -math.inf
        self._guarded: Place | None = None
        self._began_seconds = 0.0  # this session
        # Prepared for the device file that is open now; discarded when it is closed.
        self._mux_writes: dict[tuple[int, int], Transfer] = {}
        self._chip_reads: dict[tuple[int, Registers], RegisterReads] = {}
        self._control_reads: dict[Segment, tuple[_ControlRead, ...]] = {}
        # The state of one session.
        self._port: _SessionPort | None = None
        self._control_bytes: dict[str, int] = {}  # of each mux by name, as far as it is known
        self._opened_muxes: set[str] = set()
        self._silent_muxes: set[str] = set()  # they did not answer, so a channel of theirs may be open
        self._time_outs_in_a_row = 0
        self._failing_seconds = 0.0
        self._must_reopen = False
        for mux in muxes:
            self.add_mux(mux)

    def add_mux(self, mux: Mux) -> None:
        """Add a mux to those that this bus switches."""
        path = mux.place.path
        self._muxes_on.setdefault(_segment_behind(path[-1]) if path else None, []).append(mux)
        self._innermost_first.append(mux)
        self._innermost_first.sort(key=lambda known: len(known.place.path), reverse=True)
        self._control_reads.clear()

    @contextmanager
    def session(self, wait_seconds: float | None = None) -> Iterator[None]:
        """Hold the bus, also against other processes; on leaving, close every mux and release everything.

        Args:
            wait_seconds: how long to wait for another process; 0 tries once, None is LOCK_WAIT_SECONDS.

        Raises:
            BusyError: another process held the bus for longer.
            PermissionDeniedError: the device file may not be opened.
            BusError: there is no such bus.
        """
        opened = self._open()
        # Until a chip answers: an adapter that was plugged in again needs a new device file, and few report that.
        self._must_reopen = True
        try:
            with self._other_processes_locked_out(
                opened.file_descriptor, LOCK_WAIT_SECONDS if wait_seconds is None else wait_seconds
            ):
                if not opened.i2c.try_lock():
                    raise BusyError(f"{bus_path(self.name)}: held by something else in this process")
                self._control_bytes.clear()  # the previous user of the bus may have left any channel open
                self._opened_muxes.clear()
                self._silent_muxes.clear()
                self._time_outs_in_a_row = 0
                self._failing_seconds = 0.0
                self._began_seconds = self._clock.monotonic()
                self._port = _SessionPort(opened.i2c, self._driver_transfer)
                try:
                    yield
                finally:
                    try:
                        self._close_muxes()
                    finally:
                        self._port = None
                        opened.i2c.unlock()
        finally:
            if self._must_reopen:
                self.close()

    def close(self) -> None:
        """Close the device file; the next session opens it again."""
        opened, self._opened = self._opened, None
        self._mux_writes.clear()
        self._chip_reads.clear()
        self._control_reads.clear()
        if opened is not None:
            with suppress(Exception):  # an adapter that is gone may raise anything
                opened.close()

    def select(self, path: Hops) -> None:
        """Open exactly the channels on a path, so that the segment at its end can be read.

        Raises:
            MuxSwitchedError: a mux on the path cannot be reached because the one before it was switched.
            BusError: a mux on the path does not answer, or another one may have a channel open and cannot be closed.
        """
        segment: Segment = None
        for hop in path:
            self._close_muxes_on(segment, but=hop.mux)
            if self._control_bytes.get(hop.mux.name) != hop.control_byte:
                self._switch(hop.mux, hop.control_byte)
            segment = _segment_behind(hop)
        self._close_muxes_on(segment)

    def read(self, address: int, registers: Registers) -> tuple[int, ...]:
        """Read registers, a transaction each, most significant byte first, from the selected segment.

        Raises:
            BusError: the bus is stuck.
            OSError: as the adapter reports it (NACK, time-out, ...).
        """
        reads = self._chip_reads.get((address, registers))
        if reads is None:
            reads = self._chip_reads[address, registers] = RegisterReads(self._open(), address, registers)
        if self._guarded is None:
            self._transfer(reads.transfers)
        else:
            closed = [read for read in self._control_reads_for(self._guarded) if read.control_byte == CLOSED]
            for transfer in reads.transfers:
                self._transfer_guarded(transfer, closed)
            self.check_path(self._guarded)
        return reads.words()

    @property
    def is_doubted(self) -> bool:
        """Whether a mux was found switched lately, so that any reading may be another chip's."""
        return self._clock.monotonic() < self._doubted_until_seconds

    @property
    def held_seconds(self) -> float:
        """How long this session has held the bus."""
        return self._clock.monotonic() - self._began_seconds

    @contextmanager
    def guarding(self, place: Place) -> Iterator[None]:
        """Let `read` check the path to a place before and after it, and after each transfer the muxes beside the path.

        One check after several transfers does not see a channel that another program has opened and closed again. A
        mux on the path needs no check in between: until another program has selected the channel again, the chip does
        not answer. Raises as `check_path`.
        """
        if not self._muxes_on:
            yield
            return
        outer, self._guarded = self._guarded, place
        try:
            if outer is None:
                self.check_path(place)
            yield
        finally:
            self._guarded = outer

    def check_path(self, place: Place) -> None:
        """Make sure that every mux on a chip's path and trunk is as `select` left it; call it after reading the chip.

        Every mux on every segment of the path is read back. One that does not answer may have a channel open all the
        same: then the chip is shown to be the only one at its address, see `_exclude_silent_muxes`.

        Raises:
            MuxSwitchedError: one is not, so what was read since `select` may be another chip's.
            BusError: a mux on the path does not answer, or the bus is stuck.
            OSError: as the adapter reports it.
        """
        silent = [read.mux for read in self._control_reads_for(place) if not self._is_as_selected(read)]
        if silent:
            self._exclude_silent_muxes(silent, place)

    def byte_at(self, address: int, attempts: int = _ATTEMPTS) -> int | None:
        """Read one byte, without writing anything, from the selected segment; None if the address does not answer.

        Args:
            address: any.
            attempts: how often to try; one NACK may be a disturbance.

        Raises:
            BusError: the bus is stuck.
            OSError: anything but a NACK, as the adapter reports it.
        """
        control_bytes, buffer = dict(self._control_bytes), bytearray(1)
        try:
            self._transfer((partial(self._session_port.i2c.readfrom_into, address, buffer),), attempts)
        except BusError:
            raise
        except OSError as error:
            if error.errno not in _NACK:
                raise
            self._control_bytes = control_bytes  # a NACK of an empty address changes no channel
            return None
        return buffer[0]

    def write_byte(self, address: int, value: int) -> None:
        """Write one byte to the selected segment. Raises as `read`."""
        self._session_port.writeto(address, bytes((value,)))

    def confirms(self, path: Hops) -> bool:
        """Whether every mux on the selected path reports its channel as open. Raises as `byte_at`."""
        return all(self._reports_open(hop) for hop in path)

    def driver_port(self, path: Hops) -> I2C:
        """The segment at the end of a path as Adafruit's drivers want it: a bus object, or a mux channel on it.

        The channel selects and deselects around every access, so `select` is needed again afterwards.
        """
        port: I2C = self._session_port
        for hop in path:
            port = driver_channel(port, hop)
        self._control_bytes.clear()
        return port

    @property
    def number(self) -> int | None:
        """N of its /dev/i2c-N; None if it has none. Only during a session."""
        return None if self._opened is None else self._opened.number

    def kernel_driver(self, address: int) -> str | None:
        """The kernel driver that owns an address of this bus, or None. Only during a session."""
        number = self.number
        return None if number is None else kernel_driver(number, address, self._sysfs)

    def kernel_channels(self, address: int) -> tuple[tuple[int, int], ...]:
        """The result of `sysfs.kernel_channels` for an address of this bus. Only during a session."""
        number = self.number
        return () if number is None else kernel_channels(number, address, self._sysfs)

    def refuse_kernel_owned(self, address: int) -> None:
        """Raise BusError if a kernel driver owns the address: the board's own protection may depend on that chip."""
        driver = self.kernel_driver(address)
        if driver is not None:
            raise BusError(
                f"0x{address:02x} on {bus_path(self.name)} belongs to the kernel driver {driver}; "
                f'read it with chip = "hwmon" instead, or unbind the driver'
            )

    def _open(self) -> OpenBus:
        if self._opened is None:
            try:
                opened = self._opener(self.name)
            except AgentError:
                raise
            except Exception as error:  # back ends raise anything
                raise BusError(
                    f"{bus_path(self.name)}: cannot be opened ({type(error).__name__}: {error}); is the adapter there?"
                ) from error
            self._check_adapter(opened)
            self._opened = opened
        return self._opened

    def _check_adapter(self, opened: OpenBus) -> None:
        """Make sure that the number is still that of the same USB adapter; close it otherwise.

        The kernel numbers USB adapters in the order in which they are plugged in. A path is left to whoever made the
        link, and other adapters keep their numbers.
        """
        if opened.number is None or not isinstance(self.name, int):
            return
        found = adapter_folder(opened.number, self._sysfs)
        if found is None or found == self.adapter:
            return
        if self.adapter is None:
            self.adapter = found if usb_port(found) else None
            return
        with suppress(Exception):
            opened.close()
        present = bus_on(self.adapter, self._sysfs)
        raise BusError(
            f"{bus_path(self.name)} is another adapter now ({usb_port(found) or found} instead of "
            f"{usb_port(self.adapter)}); {hints.of_another_adapter(self.name, present)}"
        )

    @property
    def _session_port(self) -> _SessionPort:
        if self._port is None:
            raise RuntimeError("the bus is used outside a session")
        return self._port

    def _transfer(self, transfers: Iterable[Transfer], attempts: int = _ATTEMPTS) -> None:
        """Do transfers, repeat what a NACK ends, and record the outcome: after a failure, no channel's state is known.

        Raises:
            BusError: the bus is stuck.
            OSError: what the back end raised; without a number if it raised something else, as a time-out if it took
                as long as one.
        """
        if self._is_stuck():
            raise BusError(
                f"{bus_path(self.name)}: stuck, transactions time out; is a chip holding SDA or SCL low?",
                errno.ETIMEDOUT,
            )
        for transfer in transfers:
            self._try(transfer, attempts)
        self._must_reopen = False

    def _try(self, transfer: Transfer, attempts: int) -> None:
        """Do one transfer, and repeat it while it ends with a NACK."""
        while True:
            began = self._clock.monotonic()
            try:
                transfer()
            except Exception as error:  # USB back ends raise anything
                failure = self._failure(error, self._clock.monotonic() - began)
                attempts -= 1
                if not attempts or failure.errno not in _NACK or self._is_stuck():
                    self._control_bytes.clear()
                    raise failure from error
                self.retries += 1
            else:
                self._time_outs_in_a_row = 0
                return

    def _failure(self, error: Exception, seconds: float) -> OSError:
        """The failure of a transfer as an OSError; a slow one is a time-out, whatever the adapter calls it."""
        failure = OSError(*error.args if isinstance(error, OSError) else (f"{type(error).__name__}: {error}",))
        if is_gone(failure):
            self._must_reopen = True
        elif seconds > _LONGEST_NACK_SECONDS:
            failure = OSError(errno.ETIMEDOUT, f"time-out, {seconds:.1f} s")
        self._failing_seconds += seconds
        self._time_outs_in_a_row = self._time_outs_in_a_row + 1 if is_time_out(failure) else 0
        return failure

    def _transfer_guarded(self, transfer: Transfer, closed: Sequence[_ControlRead]) -> None:
        """Do a transfer, then read back at once the muxes that must be closed.

        A NACK gives another program the time to close its channel: then do both again.
        """
        for _ in range(_GUARDED_ATTEMPTS):
            retries_before = self.retries
            self._transfer((transfer,))
            for read in closed:
                self._is_as_selected(read)
            if self.retries == retries_before:
                return

    def _is_stuck(self) -> bool:
        return self._time_outs_in_a_row >= _TIME_OUTS_OF_A_STUCK_BUS or self._failing_seconds >= _FAILING_SECONDS

    def _driver_transfer(self, transfer: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Do one transfer for a driver."""
        self._transfer((partial(transfer, *arguments, **options),))

    def _switch(self, mux: Mux, control_byte: int) -> None:
        if control_byte != CLOSED:
            self._opened_muxes.add(mux.name)
        try:
            self._write_control_byte(mux, control_byte)
        except BusError:
            raise
        except OSError as error:
            if error.errno in _NACK:
                self._check_hops(mux.place.path)
            raise _does_not_answer(mux, error) from error
        self._control_bytes[mux.name] = control_byte
        self._silent_muxes.discard(mux.name)

    def _write_control_byte(self, mux: Mux, control_byte: int) -> None:
        write = self._mux_writes.get((mux.address, control_byte))
        if write is not None:
            self._transfer((write,))
            return
        # The first time through Blinka: the kernel then refuses an address that one of its drivers owns.
        self._session_port.writeto(mux.address, bytes((control_byte,)))
        self._mux_writes[mux.address, control_byte] = byte_write(self._open(), mux.address, control_byte)

    def _reports_open(self, hop: Hop) -> bool:
        read = self.byte_at(hop.mux.address)
        return read is not None and hop.mux.kind.control_byte_in(read) == hop.control_byte

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
                if error.errno in _NACK:
                    self._silent_muxes.add(mux.name)
                    return
                if attempts_left == 0 or self._is_stuck():
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
                transfer = byte_read(self._open(), mux.address, buffer)
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
            if error.errno in _NACK:
                self._check_hops(read.mux.place.path)
            if error.errno not in _NACK or read.control_byte != CLOSED:
                raise _does_not_answer(read.mux, error) from error
            self._silent_muxes.add(read.mux.name)
            return False
        if control_byte != read.control_byte:
            raise self._conflict(read, control_byte)
        return True

    def _read_back(self, read: _ControlRead) -> int:
        """The control byte of a mux. One that is not as it must be is read until two bytes in a row agree."""
        last = None
        for _ in range(_ATTEMPTS):
            self._transfer(read.transfers)
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
        path = bus_path(self.name if self.number is None else self.number)
        self.last_mux_conflict = (
            f"{read.mux} was switched while a chip was read: its control byte is 0x{control_byte:02x} instead of "
            f"0x{read.control_byte:02x}. Stop the program that does it, or let it lock the bus as in: flock {path} "
            "i2cget ... If there is none, check the supply of the mux and the wiring"
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
            if self.byte_at(place.address, attempts=1) is not None:
                # They may be closed when the chip is read again.
                self._silent_muxes.difference_update(mux.name for mux in silent)
                raise MuxSwitchedError(
                    f"{place}: another chip answers at this address while its channel is closed, perhaps behind "
                    f"{silent[0]}, which does not answer; {hints.of_silent_mux(silent[0].address)}"
                )
            read = self.byte_at(address, attempts=1)
            confirmed += read is not None and kind.control_byte_in(read) == CLOSED
            if confirmed == _SILENT_PROBES:
                self.select(path)
                return
        raise MuxSwitchedError(
            f"{place}: the bus is too disturbed to show that nothing behind {silent[0]}, which does not answer, has "
            f"the same address; {hints.of_silent_mux(silent[0].address)}"
        )

    def _close_muxes(self) -> None:
        """Close all muxes on the trunk, and those behind other muxes that this session opened."""
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

    def _other_processes_locked_out(
        self, file_descriptor: int | None, wait_seconds: float
    ) -> AbstractContextManager[None]:
        if file_descriptor is None:
            return nullcontext()
        return exclusive_lock(file_descriptor, bus_path(self.name), self._clock, wait_seconds)


def describe(error: OSError) -> str:
    """The meaning of an adapter's error on an I2C bus, in a few words."""
    if error.errno is None:
        return str(error) or "NACK"
    if error.errno in _NACK:
        return "NACK"
    if is_time_out(error):
        return "time-out"
    if is_gone(error):
        return f"{error.strerror}, the adapter is gone"
    if error.errno == errno.EBUSY:
        return "a kernel driver owns the address"
    return error.strerror or type(error).__name__


def is_nack(error: OSError) -> bool:
    """Whether nothing answered."""
    return error.errno in _NACK


def is_time_out(error: OSError) -> bool:
    """Whether SDA or SCL stayed low for longer than the adapter waits."""
    return error.errno in _TIME_OUT


def is_gone(error: OSError) -> bool:
    """Whether the adapter itself is gone."""
    return error.errno in _GONE


def _does_not_answer(mux: Mux, error: OSError) -> BusError:
    return BusError(f"{mux} does not answer: {describe(error)}; {_silent_mux_hint(mux, error)}", error.errno)


def _silent_mux_hint(mux: Mux, error: OSError) -> str:
    if error.errno == errno.EBUSY:
        return f"each channel is a separate bus (i2cdetect -l): use those buses instead of mux {mux.name}"
    if is_gone(error):
        return "was it unplugged?"
    return hints.of_silent_mux(mux.address)


def _segment_behind(hop: Hop) -> Segment:
    return (hop.mux.name, hop.channel)
