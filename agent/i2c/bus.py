"""One I2C bus with its muxes, as all others see it: its sessions are the only way to a chip. It trusts no driver.

Blinka's lock is one plain flag on each bus object, and Adafruit's mux channel takes it before a write that may fail, so
one error at a mux hangs every later access. Nothing here waits for that flag: a `session` takes it once, holds it for a
whole sweep together with a lock on the device file that other processes respect, and always releases both. During a
session, `select` opens exactly the channels on one path and keeps every other channel closed, and `check_path` shows
after a chip was read that they were.

From the bottom up: `attempts.py` repeats transfers that fail, `switches.py` keeps the channels as they must be, and
the bus is opened, held and closed here.
"""

from __future__ import annotations

from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError, BusError, BusyError
from agent.i2c import hints
from agent.i2c.adapters import BusNames
from agent.i2c.attempts import ATTEMPTS, Attempts
from agent.i2c.channels import driver_channel
from agent.i2c.lock import exclusive_lock
from agent.i2c.place import bus_path
from agent.i2c.switches import Switches
from agent.i2c.sysfs import adapter_folder, bus_on, kernel_channels, kernel_owner, usb_port
from agent.i2c.transfers import OpenBus, RegisterReads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from agent.clock import Clock
    from agent.i2c.place import BusName, Hops, Mux, Place
    from agent.i2c.sysfs import KernelOwner
    from agent.i2c.transfers import I2C, Register

    Registers = tuple[Register, ...]

LOCK_WAIT_SECONDS = 1.0
"""How long to wait for a bus that another process holds; SIGTERM must end the process within 2 s."""


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
        names: BusNames | None = None,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            name: which bus.
            muxes: those on it.
            opener: opens it.
            clock: for waits and time-outs.
            sysfs: the kernel's view of the adapters.
            expected_adapter: the `adapter` of an earlier run; another one under the same number is an error.
            names: those of all buses.
        """
        self.name = name
        self.adapter = expected_adapter
        self._opener = opener
        self._clock = clock
        self._sysfs = sysfs
        self._names = names or BusNames()
        self._opened: OpenBus | None = None
        self._guarded: Place | None = None
        self._began_seconds = 0.0  # this session
        self._port: _SessionPort | None = None
        # Prepared for the device file that is open now; discarded when it is closed.
        self._chip_reads: dict[tuple[int, Registers], RegisterReads] = {}
        self._attempts = Attempts(name, clock)
        self._switches = Switches(name, clock, self._attempts)
        for mux in muxes:
            self.add_mux(mux)

    @property
    def trunk_mux_addresses(self) -> frozenset[int]:
        """The addresses of the muxes on its trunk."""
        return self._switches.trunk_addresses

    def add_mux(self, mux: Mux) -> None:
        """Add a mux to those that this bus switches."""
        self._switches.add(mux)

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
        self._attempts.begin()
        try:
            with self._other_processes_locked_out(
                opened.file_descriptor, LOCK_WAIT_SECONDS if wait_seconds is None else wait_seconds
            ):
                if not opened.i2c.try_lock():
                    raise BusyError(f"{bus_path(self.name)}: held by something else in this process")
                self._began_seconds = self._clock.monotonic()
                self._port = _SessionPort(opened.i2c, self._driver_transfer)
                self._switches.begin(opened, self._port)
                try:
                    yield
                finally:
                    try:
                        self._switches.close_all()
                    finally:
                        self._port = None
                        opened.i2c.unlock()
        finally:
            # An adapter that was plugged in again needs a new device file, and few report that.
            if not self._attempts.has_answered:
                self.close()

    def close(self) -> None:
        """Close the device file; the next session opens it again."""
        opened, self._opened = self._opened, None
        self._chip_reads.clear()
        self._switches.forget_prepared()
        if opened is not None:
            with suppress(Exception):  # an adapter that is gone may raise anything
                opened.close()

    def select(self, path: Hops) -> None:
        """Open exactly the channels on a path, so that the segment at its end can be read.

        Raises:
            MuxSwitchedError: a mux on the path cannot be reached because the one before it was switched.
            BusError: a mux on the path does not answer, or another one may have a channel open and cannot be closed.
        """
        self._switches.select(path)

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
            self._switches.transfer(reads.transfers)
        else:
            self._switches.transfer_guarded(reads.transfers, self._guarded)
        return reads.words()

    @property
    def retries(self) -> int:
        """How many transfers were repeated at once; only rises."""
        return self._attempts.retries

    @property
    def has_timed_out(self) -> bool:
        """Whether a transfer of this session, or of the last one, took as long as a time-out, and failed."""
        return self._attempts.has_timed_out

    @property
    def mux_conflicts(self) -> int:
        """How often a mux was found switched by another program; only rises."""
        return self._switches.mux_conflicts

    @property
    def last_mux_conflict(self) -> str | None:
        """The mux that was found switched last, and what to do; None if none was."""
        return self._switches.last_mux_conflict

    @property
    def possible_miswrites(self) -> int:
        """How often something may have been written to another chip than the one it was meant for; only rises."""
        return self._switches.possible_miswrites

    def note_possible_miswrite(self) -> None:
        """Let the sessions with all chips read their configuration again."""
        self._switches.possible_miswrites += 1

    @property
    def is_doubted(self) -> bool:
        """Whether a mux was found switched lately, so that any reading may be another chip's."""
        return self._switches.is_doubted

    @property
    def held_seconds(self) -> float:
        """How long this session has held the bus."""
        return self._clock.monotonic() - self._began_seconds

    def pause(self, seconds: float) -> None:
        """Wait for a chip to convert. Only a few milliseconds during a session: others wait for the bus."""
        self._clock.sleep(seconds)

    @contextmanager
    def guarding(self, place: Place) -> Iterator[None]:
        """Let `read` check the path to a place before and after it, and after each transfer the muxes beside the path.

        One check after several transfers does not see a channel that another program has opened and closed again. A
        mux on the path needs no check in between: until another program has selected the channel again, the chip does
        not answer. Raises as `check_path`.
        """
        if self._switches.is_empty:
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

        Raises:
            MuxSwitchedError: one is not, so what was read since `select` may be another chip's.
            BusError: a mux on the path does not answer, or the bus is stuck.
            OSError: as the adapter reports it.
        """
        self._switches.check_path(place)

    def byte_at(self, address: int, attempts: int = ATTEMPTS) -> int | None:
        """Read one byte, without writing anything, from the selected segment; None if the address does not answer.

        Args:
            address: any.
            attempts: how often to try; one NACK may be a disturbance.

        Raises:
            BusError: the bus is stuck.
            OSError: anything but a NACK, as the adapter reports it.
        """
        return self._switches.byte_at(address, attempts)

    def write_byte(self, address: int, value: int) -> None:
        """Write one byte to the selected segment. Raises as `read`."""
        self._session_port.writeto(address, bytes((value,)))

    def confirms(self, path: Hops) -> bool:
        """Whether every mux on the segments of the selected path is as `select` left it. Raises as `byte_at`."""
        return self._switches.confirms(path)

    def driver_port(self, path: Hops) -> I2C:
        """The segment at the end of a path as Adafruit's drivers want it: a bus object, or a mux channel on it.

        The channel selects and deselects around every access, so `select` is needed again afterwards.
        """
        port: I2C = self._session_port
        for hop in path:
            port = driver_channel(port, hop)
        self._switches.forget_selected()
        return port

    @property
    def number(self) -> int | None:
        """N of its /dev/i2c-N; None if it has none. Only during a session."""
        return None if self._opened is None else self._opened.number

    def kernel_owner(self, address: int) -> KernelOwner | None:
        """The kernel driver that owns an address of this bus, or None. Only during a session."""
        number = self.number
        return None if number is None else kernel_owner(number, address, self._sysfs)

    def kernel_channels(self, address: int) -> tuple[tuple[int, int], ...]:
        """The result of `sysfs.kernel_channels` for an address of this bus. Only during a session."""
        number = self.number
        return () if number is None else kernel_channels(number, address, self._sysfs)

    def refuse_kernel_owned(self, address: int) -> None:
        """Raise BusError if a kernel driver owns the address: the board's own protection may depend on that chip."""
        owner = self.kernel_owner(address)
        if owner is not None:
            raise BusError(
                f"0x{address:02x} on {bus_path(self.name)} belongs to the kernel driver {owner.driver}; "
                f"{hints.of_kernel_owner(owner)}"
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
            try:
                self._check_adapter(opened)
                if opened.number is not None:
                    self._names.claim(self.name, opened.number)
            except BusError:
                with suppress(Exception):
                    opened.close()
                raise
            self._opened = opened
        return self._opened

    def _check_adapter(self, opened: OpenBus) -> None:
        """Make sure that the number is still that of the same USB adapter.

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
        self._names.release(self.name)
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

    def _driver_transfer(self, transfer: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Do one transfer for a driver."""
        self._switches.transfer((partial(transfer, *arguments, **options),))

    def _other_processes_locked_out(
        self, file_descriptor: int | None, wait_seconds: float
    ) -> AbstractContextManager[None]:
        if file_descriptor is None:
            return nullcontext()
        return exclusive_lock(file_descriptor, bus_path(self.name), self._clock, wait_seconds)
