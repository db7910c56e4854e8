"""One simulated bus for several processes: the wire lives in the test's process, others reach it over a socket.

As on a real bus, open channels and configured chips survive a process that is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.i2c.bus import Bus
from agent.i2c.transfers import OpenBus
from agent.measure.readings import Failure, Reading
from agent.measure.sweep import Sweep
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.wire import Wire
from tests.bench import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection

    from agent.i2c.place import BusName
    from agent.simulate.wire import Message


class WireServer:
    """Carries out the transfers of other processes on a wire, with a thread for each process."""

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
        """Return when every client has disconnected: a kernel, too, completes a transfer before the process dies."""
        while self._clients:
            self._clients.pop().join(60)

    def close(self) -> None:
        # Closing the listener would not wake the thread. When the process is stopped and continued, the kernel would
        # restart the accept on whatever socket has that number by then: the next test's.
        self._is_closing = True
        Client(self.address, "AF_UNIX").close()
        self._accepting.join(60)
        self._listener.close()


class RemoteWire(Wire):
    """The wire of a `WireServer`, in another process. As in a kernel, no signal interrupts a transfer."""

    def __init__(self, address: str) -> None:
        super().__init__(time.monotonic)
        self._connection = Client(address, "AF_UNIX")

    def transfer(self, messages: Sequence[Message]) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._connection.send([(address, is_read, bytes(buffer)) for address, is_read, buffer in messages])
            code, answers = self._connection.recv()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if code is not None:
            raise OSError(code, os.strerror(code))
        reads = (buffer for _, is_read, buffer in messages if is_read)
        for buffer, answer in zip(reads, answers, strict=True):
            memoryview(buffer)[:] = answer

    def close(self) -> None:
        self._connection.close()


def remote_sweep(config: str, address: str, device_file: Path | None) -> Sweep:
    """A sweep in another process, which locks `device_file`, if any."""
    settings = settings_of(config)

    def open_bus(_: BusName) -> OpenBus:
        wire = RemoteWire(address)
        lock_file = None if device_file is None else os.open(device_file, os.O_RDWR)
        return OpenBus(SimulatedI2C(wire), lock_file, wire.close)

    clock = SystemClock()
    return Sweep(settings, [Bus(1, settings.muxes, open_bus, clock, Path("/nonexistent"))], clock)


def read_in_a_tight_loop(
    config: str,
    address: str,
    device_file: Path | None,
    *,
    truth: Mapping[str, float],
    results: Connection,
    readings: int,
) -> None:
    """Sweep without a pause and compare each reading with the truth.

    Sends the counts (right, wrong, failed, mux conflicts) after the first right reading, the first wrong one, the first
    conflict, and at the end.
    """
    sweep = remote_sweep(config, address, device_file)
    pause = threading.Event()
    right = wrong = failed = 0
    received: set[str] = set()
    while right + wrong + failed < readings:
        for outcome in sweep.run():
            match outcome:
                case Reading(device=device, volts=volts) if abs(volts - truth[device]) < 1e-6:
                    right += 1
                case Reading():
                    wrong += 1
                case Failure(tried=True):
                    failed += 1
                case _:  # the chip is not due: let the other process read meanwhile
                    pause.wait(0.001)
        counts = right, wrong, failed, sweep.mux_conflicts
        news = {name for name, count in zip(("right", "wrong", "", "conflicts"), counts, strict=True) if count and name}
        if news - received:
            results.send(counts)
            received |= news
    results.send((right, wrong, failed, sweep.mux_conflicts))
