"""Looking up a name within a deadline, connecting to one of its addresses, and noticing that it leads elsewhere.

A lookup cannot be interrupted and therefore runs in a separate thread, which ends by itself.
"""

from __future__ import annotations

import copy
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent.threads import NoThreadError, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.http.deadline import Deadline

AddressInfo = tuple[int, int, int, str, Any]
"""What getaddrinfo returns: family, type, protocol, canonical name, address."""

_LOOKUP_POLL_SECONDS = 0.1
"""How often an attempt that waits for a name checks whether it was stopped."""

_CHECK_SECONDS = 300.0
"""How often a kept connection is checked against its name: a gateway that moved is followed within minutes."""


class Lookup:
    """A lookup under way in a separate thread, which ends by itself even if every caller has given up.

    Attributes:
        done: set when it has ended.
        addresses: what it found; empty until then, and after an error.
        error: why it failed.
    """

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
        self._under_way: dict[tuple[str, int], Lookup] = {}
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
        if numeric := numeric_addresses(host, port):
            return numeric
        lookup = self.begin(host, port)
        deadline.enter("looking up the name")
        while not lookup.done.wait(min(deadline.remaining_seconds(), _LOOKUP_POLL_SECONDS)):
            pass
        if lookup.error is not None:
            # A copy: several threads may wait for this lookup, and a traceback belongs to one of them.
            raise copy.copy(lookup.error) from lookup.error
        return lookup.addresses

    def begin(self, host: str, port: int) -> Lookup:
        """Begin to look up a name, or join the lookup under way; raises NoThreadError."""
        with self._lock:
            lookup = self._under_way.get((host, port))
            if lookup is None:
                lookup = Lookup()
                start_thread("resolver", self._run, host, port, lookup)
                self._under_way[host, port] = lookup
            return lookup

    def _run(self, host: str, port: int, lookup: Lookup) -> None:
        try:
            lookup.addresses = self._getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for it
            lookup.error = error
        finally:
            with self._lock:
                del self._under_way[host, port]
            lookup.done.set()


class NameWatch:
    """Notices that the name of a kept connection no longer leads to its address, without ever waiting for DNS."""

    def __init__(self, resolver: Resolver, host: str, port: int, address: str, monotonic: Callable[[], float]) -> None:
        self._resolver = resolver
        self._name = host, port
        self._address = address
        self._monotonic = monotonic
        self._next_check_seconds = monotonic() + _CHECK_SECONDS
        self._lookup: Lookup | None = None

    def new_addresses(self) -> list[AddressInfo]:
        """The addresses of the name, once a lookup has found only others than the one in use; else empty.

        A lookup that fails changes nothing: while DNS is down, the connection stays.
        """
        lookup = self._lookup
        if lookup is not None and lookup.done.is_set():
            self._lookup = None
            if all(address[0] != self._address for *_, address in lookup.addresses):
                return lookup.addresses
        elif lookup is None and self._monotonic() >= self._next_check_seconds:
            self._next_check_seconds = self._monotonic() + _CHECK_SECONDS
            with suppress(NoThreadError):
                self._lookup = self._resolver.begin(*self._name)
        return []


def numeric_addresses(host: str, port: int) -> list[AddressInfo]:
    """The address that `host` is; empty if it is a name."""
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (socket.gaierror, UnicodeError):
        return []


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
