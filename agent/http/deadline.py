"""Ends every attempt at its deadline, however slow the other side is.

A socket's own timeout restarts with each operation: a server that sends one byte every few seconds never exceeds it.
So sockets have none, and one thread, the watchdog, watches the deadlines of all attempts under way and shuts down the
socket of an attempt that is over. This ends any wait on the socket: a TLS handshake, a proxy, an answer. Stopping
an attempt from outside is the same, only earlier.

Two operations need more: connecting, because the addresses of a name share the time, and looking up the name, which
cannot be interrupted and therefore runs in a separate thread.
"""

from __future__ import annotations

import contextlib
import copy
import math
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from agent.http.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AddressInfo = tuple[int, int, int, str, Any]
"""What getaddrinfo returns: family, type, protocol, canonical name, address."""

_WATCHDOG_POLL_SECONDS = 0.01
"""How often the watchdog checks: an attempt ends at most this late."""

_RECEIVE_SHUTDOWNS = 10
"""How often the watchdog shuts down only the receiving side of a socket, before it shuts down both."""

_LOOKUP_POLL_SECONDS = 0.1
"""How often an attempt that waits for a name checks whether it was stopped."""


WAITING_FOR_THE_ANSWER = "waiting for the answer"


class StoppedError(OSError):
    """The attempt was stopped from outside."""


class Deadline:
    """The end of the attempt under way on one connection.

    Attributes:
        phase: what the attempt waits for, for the message if time runs out.
        phase_began_at_seconds: when the phase began.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.phase = ""
        self.phase_began_at_seconds = 0.0
        self._monotonic = monotonic
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
        self.phase_began_at_seconds = self._monotonic()
        self.phase = phase

    def remaining_seconds(self) -> float:
        """How long the next operation may take, always more than 0.

        Raises:
            TimeoutError: no time is left.
            StoppedError: the attempt was stopped from outside.
        """
        if self._is_stopped():
            raise StoppedError("stopped")
        left_seconds = self._ends_at_seconds - self._monotonic()
        if left_seconds <= 0:
            raise TimeoutError("timed out")
        return left_seconds

    def guard(self, sock: socket.socket) -> None:
        """Shut this socket down when the attempt is over, in place of the one before."""
        # A duplicate descriptor: TLS takes over the socket object, and urllib3 drops it after errors.
        handle = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))
        self.release()
        with self._lock:
            self._socket = handle

    def release(self) -> None:
        """Close the descriptor that `guard` made."""
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def enforce(self) -> None:
        """Shut the socket down if the attempt is over; again and again until the attempt has ended."""
        with self._lock:
            if self._socket is None or not (self._is_stopped() or self._monotonic() >= self._ends_at_seconds):
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

    `at_each_look` is called in the watchdog's thread every 10 ms, and may not raise.

    Raises:
        NoThreadError: before the block is entered.
    """
    is_done = threading.Event()

    def watch() -> None:
        while not is_done.wait(_WATCHDOG_POLL_SECONDS):
            for deadline in tuple(deadlines):
                deadline.enforce()
            at_each_poll()

    thread = threading.Thread(target=watch, name="deadlines", daemon=True)
    start_thread(thread)
    try:
        yield
    finally:
        is_done.set()
        thread.join()


class _Lookup:
    """A lookup under way in a separate thread, which ends by itself even if every caller has given up."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.addresses: list[AddressInfo] = []
        self.error: Exception | None = None


class Resolver:
    """Looks up names within the deadline.

    A second caller for the same name joins the lookup under way, so there is at most one thread for a name.
    """

    def __init__(self, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._under_way: dict[tuple[str, int], _Lookup] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int, deadline: Deadline) -> list[AddressInfo]:
        """The addresses of `host`, in the order to try them.

        Raises:
            NoThreadError: the system has no thread left.
            TimeoutError: no answer in time.
            StoppedError: the attempt was stopped from outside.
            socket.gaierror: the name does not exist, or the name server failed.
            UnicodeError: this is not a valid name.
        """
        try:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        except socket.gaierror:
            pass  # not an address but a name
        with self._lock:
            lookup = self._under_way.get((host, port))
            if lookup is None:
                lookup = _Lookup()
                arguments = (host, port, lookup)
                start_thread(threading.Thread(target=self._run, args=arguments, name="resolver", daemon=True))
                self._under_way[host, port] = lookup
        deadline.enter("looking up the name")
        while not lookup.done.wait(min(deadline.remaining_seconds(), _LOOKUP_POLL_SECONDS)):
            pass
        if lookup.error is not None:
            # A copy: several threads may wait for this lookup, and a traceback belongs to one of them.
            raise copy.copy(lookup.error) from lookup.error
        return lookup.addresses

    def _run(self, host: str, port: int, lookup: _Lookup) -> None:
        try:
            lookup.addresses = self._getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for it
            lookup.error = error
        finally:
            with self._lock:
                del self._under_way[host, port]
            lookup.done.set()


def connect(addresses: list[AddressInfo], deadline: Deadline) -> socket.socket:
    """A connection, guarded by `deadline`, to the first of `addresses` that accepts one.

    Each address gets an equal share of the time that is left, so that one that swallows packets (often IPv6 without a
    route) leaves time for the next.

    Raises:
        OSError: the error of the last address; TimeoutError and StoppedError as for any operation.
    """
    deadline.enter("connecting")
    failure: OSError = OSError("the name has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            deadline.guard(sock)
            sock.settimeout(deadline.remaining_seconds() / (len(addresses) - tried))
            sock.connect(address)
            sock.settimeout(None)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    deadline.remaining_seconds()  # raises if the time, or a stop, ended it
    raise failure
