"""One simulated bus for several processes: the wire lives in the test's process, others reach it over a socket.

As with a real bus, what a process leaves behind when it is killed stays as it was: open channels, configured chips.
"""

from __future__ import annotations

import contextlib
import os
import threading
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.clock import SystemClock
from agent.i2c.bus import Bus
from agent.i2c.transfers import OpenBus
from agent.measure.readings import Failure, Reading
from agent.measure.sweep import Sweep
from tests.bench import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from agent.i2c.place import BusName
    from agent.simulate.wire import Wire


class WireServer:
    """Carries out the transfers of other processes on a wire, one thread for each."""

    def __init__(self, wire: Wire, folder: Path) -> None:
        self._wire = wire
        self.address = str(folder / "wire.socket")
        self._clients: list[threading.Thread] = []
        self._listener = Listener(self.address, "AF_UNIX", backlog=64)
        self._is_closing = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            connection = self._listener.accept()
            if self._is_closing:
                connection.close()
                return
            client = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._clients.append(client)
            client.start()

    def _serve(self, connection: Connection) -> None:
        with connection, contextlib.suppress(EOFError, ConnectionError):
            while True:
                messages = [(address, is_read, bytearray(data)) for address, is_read, data in connection.recv()]
                try:
                    self._wire.transfer(messages)
                except OSError as error:
                    connection.send((error.errno, []))
                else:
                    connection.send((None, [bytes(data) for _, is_read, data in messages if is_read]))

    def wait_for_clients(self) -> None:
        """Return when every process that came has gone: a kernel, too, ends a transfer before its process dies."""
        while self._clients:
            self._clients.pop().join(60)

    def close(self) -> None:
        # Closed under its feet, the thread would go on waiting; and the kernel begins its wait anew when the process
        # has been stopped for a moment, on whatever socket has the number by then: that of the next test.
        self._is_closing = True
        Client(self.address, "AF_UNIX").close()
        self._accepting.join(60)
        self._listener.close()


class RemoteI2C:
    """The bus object of another process."""

    def __init__(self, address: str) -> None:
        self._connection = Client(address, "AF_UNIX")
        self._locked = False

    def try_lock(self) -> bool:
        was_locked, self._locked = self._locked, True
        return not was_locked

    def unlock(self) -> None:
        self._locked = False

    def writeto(self, address: int, buffer: Any, *, start: int = 0, end: int | None = None) -> None:
        self._transfer([(address, False, bytes(memoryview(buffer)[start:end]))], [])

    def readfrom_into(self, address: int, buffer: Any, *, start: int = 0, end: int | None = None) -> None:
        target = memoryview(buffer)[start:end]
        self._transfer([(address, True, bytes(len(target)))], [target])

    def writeto_then_readfrom(
        self,
        address: int,
        buffer_out: Any,
        buffer_in: Any,
        *,
        out_start: int = 0,
        out_end: int | None = None,
        in_start: int = 0,
        in_end: int | None = None,
    ) -> None:
        target = memoryview(buffer_in)[in_start:in_end]
        written = bytes(memoryview(buffer_out)[out_start:out_end])
        self._transfer([(address, False, written), (address, True, bytes(len(target)))], [target])

    def _transfer(self, messages: list[tuple[int, bool, bytes]], targets: list[memoryview]) -> None:
        self._connection.send(messages)
        code, answers = self._connection.recv()
        if code is not None:
            raise OSError(code, os.strerror(code))
        for target, answer in zip(targets, answers, strict=True):
            target[:] = answer

    def close(self) -> None:
        self._connection.close()


def remote_sweep(config: str, address: str, device_file: Path | None) -> Sweep:
    """A sweep in another process; `device_file` is what processes lock, None for one that does without."""
    settings = settings_of(config)

    def open_bus(_: BusName) -> OpenBus:
        i2c = RemoteI2C(address)
        return OpenBus(i2c, None if device_file is None else os.open(device_file, os.O_RDWR), i2c.close)

    clock = SystemClock()
    return Sweep(settings, [Bus(1, settings.muxes, open_bus, clock, Path("/nonexistent"))], clock)


def read_in_a_tight_loop(  # noqa: PLR0917 - a process is handed its arguments in a row
    config: str, address: str, device_file: Path | None, truth: Mapping[str, float], results: Connection, readings: int
) -> None:
    """What a process does: sweep after sweep, compare with the truth; send (right, wrong, failed) once something was
    right, once something was wrong, and at the end.
    """
    sweep = remote_sweep(config, address, device_file)
    pause = threading.Event()
    right = wrong = failed = 0
    told: set[str] = set()
    while right + wrong + failed < readings:
        for outcome in sweep.run():
            match outcome:
                case Reading(device=device, volts=volts) if abs(volts - truth[device]) < 1e-6:
                    right += 1
                case Reading():
                    wrong += 1
                case Failure(tried=True):
                    failed += 1
                case _:  # it rests: let the other process read meanwhile
                    pause.wait(0.001)
        news = {name for name, count in (("right", right), ("wrong", wrong)) if count} - told
        if news:
            results.send((right, wrong, failed))
            told |= news
    results.send((right, wrong, failed))
