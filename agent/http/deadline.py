"""Ends every attempt at its deadline, however slow the other side is.

A socket's own timeout restarts with each operation: a server that sends one byte every few seconds never exceeds it.
So sockets have none, and one thread, the watchdog, watches the deadlines of all attempts under way and shuts down the
socket of an attempt that is over. This ends any wait on the socket: a TLS handshake, a proxy, an answer. Stopping
an attempt from outside is the same, only earlier.

Two operations need more, see addresses.py: looking up a name, and connecting to one of its addresses.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
from typing import TYPE_CHECKING

from agent.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_WATCHDOG_POLL_SECONDS = 0.01
"""How often the watchdog checks: an attempt ends at most this late."""

_RECEIVE_SHUTDOWNS = 10
"""How often the watchdog shuts down only the receiving side of a socket, before it shuts down both."""

WAITING_FOR_THE_ANSWER = "waiting for the answer"


class StoppedError(OSError):
    """The attempt was stopped from outside."""


class Deadline:
    """The end of the attempt under way on one connection.

    Attributes:
        phase: what the attempt waits for, for the message if time runs out.
        phase_began_at_seconds: when the phase began.
        monotonic: the clock.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.phase = ""
        self.phase_began_at_seconds = 0.0
        self.monotonic = monotonic
        self._ends_at_seconds = math.inf
        self._is_stopped: Callable[[], bool] = _never
        self._socket: socket.socket | None = None
        self._shutdowns = 0
        self._lock = threading.Lock()  # the watchdog must not shut down a descriptor that is already another file

    @contextlib.contextmanager
    def attempt(self, ends_at_seconds: float, is_stopped: Callable[[], bool]) -> Iterator[None]:
        """Make one attempt, until the monotonic clock shows `ends_at_seconds` or `is_stopped` returns True.

        A watchdog has to run meanwhile: see `watchdog`.

        Raises:
            TimeoutError: the time ended before the block did.
            StoppedError: the attempt was stopped from outside.
        """
        self.enter("")
        self._shutdowns = 0
        self._ends_at_seconds = ends_at_seconds
        self._is_stopped = is_stopped
        try:
            self.remaining_seconds()
            yield
        except Exception as error:
            # After a shutdown, TLS and HTTP raise various errors that mean nothing.
            if self._shutdowns:
                raise _over(is_stopped) from error
            raise
        finally:
            with self._lock:
                self._ends_at_seconds = math.inf
                self._is_stopped = _never
        if self._shutdowns:  # an answer that a shutdown cut short may look complete
            raise _over(is_stopped)

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase_began_at_seconds = self.monotonic()
        self.phase = phase

    def remaining_seconds(self) -> float:
        """How long the next operation may take, always more than 0.

        Raises:
            TimeoutError: no time is left.
            StoppedError: the attempt was stopped from outside.
        """
        if self._is_stopped():
            raise StoppedError("stopped")
        left_seconds = self._ends_at_seconds - self.monotonic()
        if left_seconds <= 0:
            raise TimeoutError("timed out")
        return left_seconds

    def guard(self, sock: socket.socket) -> None:
        """Shut this socket down when the attempt is over, in place of the one before."""
        self.release()
        with self._lock:
            # A duplicate descriptor: TLS takes over the socket object, and urllib3 drops it after errors.
            self._socket = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))

    def release(self) -> None:
        """Close the descriptor that `guard` made."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def enforce(self) -> None:
        """Shut the socket down if the attempt is over; again and again until the attempt has ended."""
        with self._lock:
            if self._socket is None or not (self._is_stopped() or self.monotonic() >= self._ends_at_seconds):
                return
            # SHUT_RD ends waiting for bytes but sends no FIN, which would make the request look complete to the server:
            # closing then resets the connection. Sending ends only when both sides are shut down.
            how = socket.SHUT_RD if self._shutdowns < _RECEIVE_SHUTDOWNS else socket.SHUT_RDWR
            self._shutdowns += 1
            with contextlib.suppress(OSError):  # not connected yet: the next check tries again
                self._socket.shutdown(how)


def _never() -> bool:
    return False


def _over(is_stopped: Callable[[], bool]) -> OSError:
    return StoppedError("stopped") if is_stopped() else TimeoutError("timed out")


@contextlib.contextmanager
def watchdog(deadlines: Sequence[Deadline], at_each_poll: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Enforce `deadlines`, also those that are added meanwhile, for as long as the block runs.

    `at_each_poll` is called in the watchdog's thread every 10 ms, and may not raise.

    Raises:
        NoThreadError: before the block is entered.
    """
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.wait(_WATCHDOG_POLL_SECONDS):
            for deadline in tuple(deadlines):
                deadline.enforce()
            at_each_poll()

    thread = start_thread("deadlines", watch)
    try:
        yield
    finally:
        is_done.set()
        thread.join()
