"""One I2C bus with its muxes: the only module that opens buses and switches channels, and it trusts no driver.

Blinka's lock is one plain flag an object, and the stock mux channel takes it before a write that may fail, so one error
at a mux hangs every later access. Here nothing waits for that flag: a `session` takes it once, holds it over a whole
sweep together with a lock on the device file that other processes respect, and releases both whatever happens. While a
session lasts, `select` leaves exactly the channels open that lead to one stretch of bus, and nothing else.
"""

from __future__ import annotations

import errno
import fcntl
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, BusError, BusyError
from agent.i2c import hints
from agent.i2c.place import bus_path, describe_segment
from agent.i2c.sysfs import kernel_channels, kernel_driver
from agent.i2c.transfers import OpenBus, RegisterReads, byte_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agent.clock import Clock
    from agent.i2c.place import BusName, Mux
    from agent.i2c.transfers import I2C, Register, Transfer

    Registers = tuple[Register, ...]
    Step = tuple[tuple[Mux, ...], Mux, int]

LOCK_WAIT_SECONDS = 1.0
"""How long another process may hold the bus before a sweep is given up; SIGTERM must be obeyed within 2 s."""

# Short beside a sweep, so that one who waits gets his turn even from one who reads without a pause.
_LOCK_POLL_SECONDS = 0.0005

CLOSED = 0x00

# How adapters say "no answer" (NACK): Raspberry Pi 121, others 5 or 6, USB adapters an OSError without a number.
_NACK = frozenset({errno.EREMOTEIO, errno.ENXIO, errno.EIO, None})
_TIME_OUT = frozenset({errno.ETIMEDOUT, errno.EAGAIN})
# The device file leads nowhere any more: an unplugged USB adapter, an unloaded module.
_GONE = frozenset({errno.ENODEV, errno.EBADF, errno.ESHUTDOWN})

_CLOSE_ATTEMPTS = 3
# In a row, with nothing that worked between them: each may block for a second, and there may be 64 chips.
_TIME_OUTS_OF_A_STUCK_BUS = 2


class _HeldBus:
    """The bus as drivers see it during a session: the lock is held already, so taking it cannot hang."""

    def __init__(self, i2c: I2C, watched: Callable[..., None]) -> None:
        self.writeto = partial(watched, i2c.writeto)
        self.readfrom_into = partial(watched, i2c.readfrom_into)
        self.writeto_then_readfrom = partial(watched, i2c.writeto_then_readfrom)

    def try_lock(self) -> bool:
        return True

    def unlock(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Way:
    """What leads to one stretch of bus.

    Attributes:
        steps: from the trunk inwards: the muxes to be closed, then one with the control byte that opens its channel.
        others: the muxes to be closed on that stretch itself.
    """

    steps: tuple[Step, ...]
    others: tuple[Mux, ...]


class Bus:
    """One bus, its muxes and the state of their channels."""

    def __init__(
        self,
        name: BusName,
        muxes: Sequence[Mux],
        opener: Callable[[BusName], OpenBus],
        clock: Clock,
        sysfs: Path = Path("/sys"),
    ) -> None:
        self.name = name
        self._opener = opener
        self._clock = clock
        self._sysfs = sysfs
        self._innermost_first = sorted(muxes, key=_depth, reverse=True)
        self._on_segment: dict[tuple[str, int] | None, list[Mux]] = {}
        for mux in muxes:
            self._on_segment.setdefault(_segment_of(mux), []).append(mux)
        self._opened: OpenBus | None = None
        # Made for the bus as it is open now, and made anew when it was closed in between.
        self._mux_writes: dict[tuple[int, int], Transfer] = {}
        self._chip_reads: dict[tuple[int, Registers], RegisterReads] = {}
        # All from here on is about one session.
        self._port: _HeldBus | None = None
        self._masks: dict[str, int] = {}  # the control byte of each mux, as far as it is known
        self._switched: set[str] = set()
        self._time_outs_in_a_row = 0
        self._must_reopen = False

    @contextmanager
    def session(self) -> Iterator[None]:
        """Hold the bus, against other processes too; on leaving, every mux is closed and everything released.

        Raises:
            BusyError: another process held the bus for longer than LOCK_WAIT_SECONDS.
            PermissionDeniedError: the device file may not be opened.
            BusError: there is no such bus.
        """
        opened = self._open()
        # Until something answers: an adapter that is plugged in again needs a new device file, and few say so.
        self._must_reopen = True
        try:
            with self._other_processes_locked_out(opened.file_descriptor):
                if not opened.i2c.try_lock():
                    raise BusyError(f"{bus_path(self.name)}: held by something else in this process")
                self._masks.clear()  # whoever had the bus before may have left any channel open
                self._switched.clear()
                self._time_outs_in_a_row = 0
                self._port = _HeldBus(opened.i2c, self._watched)
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
        """Give the device file back; the next session opens it anew."""
        opened, self._opened = self._opened, None
        self._mux_writes.clear()
        self._chip_reads.clear()
        if opened is not None:
            with suppress(Exception):  # an adapter that is gone may say so in any way it likes
                opened.close()

    def way_to(self, mux: Mux | None, channel: int | None) -> Way:
        """The way to one stretch of bus: `channel` of `mux`, or the trunk."""
        steps: list[Step] = []
        segment: tuple[str, int] | None = None
        for hop_mux, hop_channel in _hops(mux, channel):
            steps.append((self._others_on(segment, hop_mux), hop_mux, 1 << hop_channel))
            segment = (hop_mux.name, hop_channel)
        return Way(tuple(steps), self._others_on(segment, None))

    def select(self, way: Way) -> None:
        """Open exactly the channels on the way to a stretch of bus.

        Raises:
            BusError: a mux on the way does not answer, or another may have a channel open that cannot be closed.
        """
        masks = self._masks
        for others, mux, mask in way.steps:
            for other in others:
                if masks.get(other.name) != CLOSED:
                    self._close(other)
            if masks.get(mux.name) != mask:
                self._switch(mux, mask)
        for other in way.others:
            if masks.get(other.name) != CLOSED:
                self._close(other)

    def read(self, address: int, registers: Registers) -> tuple[int, ...]:
        """Read registers, a transaction each, most significant byte first, from the selected stretch of bus.

        Raises:
            BusError: the bus is stuck.
            OSError: as the adapter reports it (NACK, time-out, ...).
        """
        reads = self._chip_reads.get((address, registers))
        if reads is None:
            reads = self._chip_reads[address, registers] = RegisterReads(self._open(), address, registers)
        self._do(reads.transfers)
        return reads.words()

    def learn(self, mux: Mux) -> None:
        """Add a mux that was found on the bus; ways that were made before do not know of it."""
        self._innermost_first = sorted([*self._innermost_first, mux], key=_depth, reverse=True)
        self._on_segment.setdefault(_segment_of(mux), []).append(mux)

    def byte_at(self, address: int) -> int | None:
        """Read one byte, without writing anything, from the selected stretch of bus; None if nobody is there.

        Raises:
            BusError: the bus is stuck.
            OSError: anything but a NACK, as the adapter reports it.
        """
        masks, buffer = dict(self._masks), bytearray(1)
        try:
            self._held.readfrom_into(address, buffer)
        except BusError:
            raise
        except OSError as error:
            if error.errno not in _NACK:
                raise
            self._masks = masks  # that nobody is there says nothing about the channels
            return None
        return buffer[0]

    def write_byte(self, address: int, value: int) -> None:
        """Write one byte to the selected stretch of bus. Raises as `read`."""
        self._held.writeto(address, bytes((value,)))

    def still_leads(self, way: Way) -> bool:
        """Whether every mux on the selected way has its channel open, as itself says. Raises as `byte_at`."""
        return all(self.byte_at(mux.address) == mask for _, mux, mask in way.steps)

    def driver_port(self, mux: Mux | None, channel: int | None) -> I2C:
        """The selected stretch of bus as the stock drivers want it: a bus object, or a stock mux channel on it.

        The channel selects and deselects around every access, so what is open has to be selected again afterwards.
        """
        from adafruit_tca9548a import PCA9546A, TCA9548A

        port: Any = self._held
        for hop_mux, hop_channel in _hops(mux, channel):
            chip = PCA9546A if hop_mux.chip == "pca9546a" else TCA9548A
            port = chip(port, hop_mux.address)[hop_channel]
        self._masks.clear()
        return port  # type: ignore[no-any-return] # Adafruit publishes no types

    def kernel_driver(self, address: int) -> str | None:
        """The name of the kernel driver that owns an address of this bus, which has to be in a session, or None."""
        number = self._opened.number if self._opened is not None else None
        return None if number is None else kernel_driver(number, address, self._sysfs)

    def kernel_channels(self, address: int) -> tuple[tuple[int, int], ...]:
        """What `kernel_channels` says of an address of this bus, which has to be in a session."""
        number = self._opened.number if self._opened is not None else None
        return () if number is None else kernel_channels(number, address, self._sysfs)

    def refuse_kernel_owned(self, address: int) -> None:
        """Raise BusError if a kernel driver owns the address: it may be in use for the board's own protection."""
        driver = self.kernel_driver(address)
        if driver is not None:
            raise BusError(
                f"0x{address:02x} on {bus_path(self.name)} belongs to the kernel driver {driver}; "
                f'read it with chip = "hwmon" instead, or unbind the driver'
            )

    def _open(self) -> OpenBus:
        if self._opened is None:
            try:
                self._opened = self._opener(self.name)
            except AgentError:
                raise
            except Exception as error:  # back ends raise what they like
                raise BusError(
                    f"{bus_path(self.name)}: cannot be opened ({type(error).__name__}: {error}); is the adapter there?"
                ) from error
        return self._opened

    @property
    def _held(self) -> _HeldBus:
        if self._port is None:
            raise RuntimeError("the bus is used outside a session")
        return self._port

    def _do(self, transfers: Iterable[Transfer]) -> None:
        """Do transfers, and note how it went: after a failure no channel's state is known any more.

        Raises:
            BusError: the bus is stuck.
            OSError: whatever the back end raised; without a number if it was no OSError.
        """
        if self._time_outs_in_a_row >= _TIME_OUTS_OF_A_STUCK_BUS:
            raise BusError(
                f"{bus_path(self.name)}: stuck, transactions time out; is a chip holding SDA or SCL low?",
                errno.ETIMEDOUT,
            )
        try:
            for transfer in transfers:
                transfer()
                self._time_outs_in_a_row = 0
        except OSError as error:
            self._masks.clear()
            self._must_reopen |= is_gone(error)
            self._time_outs_in_a_row = self._time_outs_in_a_row + 1 if is_time_out(error) else 0
            raise
        except Exception as error:  # USB back ends raise what they like
            self._masks.clear()
            raise OSError(f"{type(error).__name__}: {error}") from error
        self._must_reopen = False

    def _watched(self, transfer: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Do one transfer of a driver."""
        self._do((partial(transfer, *arguments, **options),))

    def _switch(self, mux: Mux, mask: int) -> None:
        if mask != CLOSED:
            self._switched.add(mux.name)
        write = self._mux_writes.get((mux.address, mask))
        try:
            if write is not None:
                self._do((write,))
            else:
                # The first time as Blinka writes: the kernel then refuses an address that a driver of its own has.
                self._held.writeto(mux.address, bytes((mask,)))
                self._mux_writes[mux.address, mask] = byte_write(self._open(), mux.address, mask)
        except BusError:
            raise
        except OSError as error:
            raise BusError(
                f"mux {mux.name} (0x{mux.address:02x} {describe_segment(mux.bus, mux.parent, mux.parent_channel)}) "
                f"does not answer: {describe(error)}; {self._cure(mux, error)}",
                error.errno,
            ) from error
        self._masks[mux.name] = mask

    def _cure(self, mux: Mux, error: OSError) -> str:
        if error.errno == errno.EBUSY:
            return f"it gives each channel a bus of its own (i2cdetect -l): name those, without mux {mux.name}"
        if error.errno in _GONE:
            return "was it unplugged?"
        return hints.of_silent_mux(mux.address)

    def _others_on(self, segment: tuple[str, int] | None, wanted: Mux | None) -> tuple[Mux, ...]:
        return tuple(mux for mux in self._on_segment.get(segment, ()) if mux is not wanted)

    def _close(self, mux: Mux) -> None:
        """Close a mux that is not on the way, so that nothing behind it can answer in place of what is read.

        One that does not answer at all is absent or without power, and passes nothing. Any other failure leaves open
        what may not be left open.
        """
        for attempts_left in reversed(range(_CLOSE_ATTEMPTS)):
            try:
                self._switch(mux, CLOSED)
            except BusError as error:
                if attempts_left == 0 and error.errno not in _NACK:
                    raise
            else:
                return
        self._masks[mux.name] = CLOSED

    def _close_muxes(self) -> None:
        """Close all muxes on the trunk, and those behind other muxes that this session had open."""
        for mux in self._innermost_first:
            # What cannot be closed now is closed before anything is read in the next session.
            with suppress(BusError):
                if self._masks.get(mux.name) == CLOSED:
                    continue
                if mux.parent is None:
                    self._close(mux)
                elif mux.name in self._switched:
                    self.select(self.way_to(mux.parent, mux.parent_channel))

    @contextmanager
    def _other_processes_locked_out(self, file_descriptor: int | None) -> Iterator[None]:
        if file_descriptor is None:
            yield
            return
        give_up_at = self._clock.monotonic() + LOCK_WAIT_SECONDS
        while True:
            try:
                fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if self._clock.monotonic() >= give_up_at:
                    raise BusyError(
                        f"{bus_path(self.name)}: another process has held the bus for {LOCK_WAIT_SECONDS:g} s; "
                        "is a second agent running?"
                    ) from error
                self._clock.sleep(_LOCK_POLL_SECONDS)
            except OSError as error:
                raise BusError(f"{bus_path(self.name)}: cannot be locked: {error.strerror}", error.errno) from error
        try:
            yield
        finally:
            fcntl.flock(file_descriptor, fcntl.LOCK_UN)


def describe(error: OSError) -> str:
    """What an adapter's error means on an I2C bus, in a word or two."""
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


def is_time_out(error: OSError) -> bool:
    """Whether the bus was held for longer than the adapter waits."""
    return error.errno in _TIME_OUT


def is_gone(error: OSError) -> bool:
    """Whether the adapter itself is not there any more."""
    return error.errno in _GONE


def _segment_of(mux: Mux) -> tuple[str, int] | None:
    if mux.parent is None or mux.parent_channel is None:
        return None
    return (mux.parent.name, mux.parent_channel)


def _depth(mux: Mux) -> int:
    return 0 if mux.parent is None else 1 + _depth(mux.parent)


def _hops(mux: Mux | None, channel: int | None) -> list[tuple[Mux, int]]:
    """The mux channels from the trunk inwards."""
    hops: list[tuple[Mux, int]] = []
    while mux is not None and channel is not None:
        hops.append((mux, channel))
        channel, mux = mux.parent_channel, mux.parent
    hops.reverse()
    return hops
