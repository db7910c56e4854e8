"""Network operations that all end at one moment, however slow the other side is.

A socket's own time-out is for each operation: a server that sends one byte every few seconds never exceeds it. Here
every operation, before it starts, gets the time that is left until the end of the attempt. Looking up a name cannot
be interrupted at all, so it runs in a thread that is waited for no longer than that. The C code below `sendall`,
`do_handshake` and a TLS `read` keeps its own deadline over all the packets of one call, so nothing restarts the time.

When somebody outside ends the attempt (`StoppedError`, and `shutdown` on the socket), everything here returns at once.
"""

from __future__ import annotations

import copy
import socket
import ssl
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

AddressInfo = tuple[int, int, int, str, Any]
"""What getaddrinfo gives: family, type, protocol, canonical name, address."""

_STOP_POLL_SECONDS = 0.1
"""How often waiting for a name looks whether it was stopped; nothing can wake it as `shutdown` wakes a socket."""


class StoppedError(OSError):
    """The attempt was ended from outside."""


class Countdown:
    """The time that is left to the attempt under way; belongs to one connection, and starts anew for each attempt.

    Attributes:
        phase: what is being waited for, for the message if time runs out.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.phase = ""
        self._monotonic = monotonic
        self._ends_at_seconds = 0.0
        self._is_stopped: Callable[[], bool] = lambda: False

    def start(self, ends_at_seconds: float, is_stopped: Callable[[], bool]) -> None:
        """Run until the monotonic clock shows `ends_at_seconds`, or until `is_stopped` says so."""
        self._ends_at_seconds = ends_at_seconds
        self._is_stopped = is_stopped
        self.phase = ""

    def remaining_seconds(self) -> float:
        """How long the next operation may take, always more than 0.

        Raises:
            TimeoutError: no time is left.
            StoppedError: the attempt was ended from outside.
        """
        if self._is_stopped():
            raise StoppedError("stopped")
        left = self._ends_at_seconds - self._monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


class BoundedSocket(socket.socket):
    """A socket each of whose operations gets the time that is left on `countdown`."""

    # None only while TLS takes a plain socket over, before any traffic.
    countdown: Countdown | None = None

    def _bound(self) -> None:
        if self.countdown is not None:
            self.settimeout(self.countdown.remaining_seconds())

    def recv_into(self, buffer: Buffer, nbytes: int | None = None, flags: int = 0) -> int:
        """As socket.recv_into."""
        self._bound()
        return super().recv_into(buffer, memoryview(buffer).nbytes if nbytes is None else nbytes, flags)

    def recv(self, bufsize: int = 1024, flags: int = 0) -> bytes:
        """As socket.recv."""
        self._bound()
        return super().recv(bufsize, flags)

    def send(self, data: Buffer, flags: int = 0) -> int:
        """As socket.send."""
        self._bound()
        return super().send(data, flags)

    def sendall(self, data: Buffer, flags: int = 0) -> None:
        """As socket.sendall."""
        self._bound()
        super().sendall(data, flags)


class BoundedTlsSocket(BoundedSocket, ssl.SSLSocket):
    """The same over TLS."""


class BoundedTlsContext(ssl.SSLContext):
    """Hands the countdown of a plain socket on to the TLS socket that takes it over, before the handshake."""

    sslsocket_class = BoundedTlsSocket

    def wrap_socket(  # type: ignore[override]  # only what a client needs of the many arguments
        self, sock: socket.socket, *, server_hostname: str | None = None
    ) -> ssl.SSLSocket:
        """As ssl.SSLContext.wrap_socket."""
        countdown = sock.countdown if isinstance(sock, BoundedSocket) else None
        tls = super().wrap_socket(sock, server_hostname=server_hostname, do_handshake_on_connect=False)
        try:
            if countdown is not None and isinstance(tls, BoundedTlsSocket):
                countdown.phase = "agreeing on TLS"
                tls.countdown = countdown
                tls.settimeout(countdown.remaining_seconds())
            tls.do_handshake()
        except BaseException:
            tls.close()
            raise
        return tls


class _Lookup:
    """A look-up under way in a thread of its own; abandoned when nobody can wait longer, it still ends by itself."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.addresses: list[AddressInfo] = []
        self.error: Exception | None = None


class Resolver:
    """Looks names up without waiting longer than allowed.

    A look-up that hangs is joined by the next one for the same name, not repeated: there is never more than one
    thread for a name.
    """

    def __init__(self, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo) -> None:
        self._getaddrinfo = getaddrinfo
        self._under_way: dict[tuple[str, int], _Lookup] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int, countdown: Countdown) -> list[AddressInfo]:
        """The addresses of `host`, in the order to try them.

        Raises:
            TimeoutError: no answer in time.
            StoppedError: ended from outside.
            socket.gaierror: the name does not exist, or the name server could not tell.
            UnicodeError: this cannot be a name.
        """
        try:
            return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
        except socket.gaierror:
            pass  # not an address: it has to be looked up
        with self._lock:
            lookup = self._under_way.get((host, port))
            if lookup is None:
                lookup = _Lookup()
                threading.Thread(target=self._run, args=(host, port, lookup), name="resolver", daemon=True).start()
                self._under_way[host, port] = lookup
        countdown.phase = "looking up the name"
        while not lookup.done.wait(min(countdown.remaining_seconds(), _STOP_POLL_SECONDS)):
            pass
        if lookup.error is not None:
            # A copy: several threads may be waiting, and a traceback belongs to one of them.
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


def connect(
    addresses: list[AddressInfo], countdown: Countdown, opened: Callable[[socket.socket], None]
) -> BoundedSocket:
    """A connection to the first of `addresses` that takes one; `opened` sees each socket before it connects.

    Each address gets an equal share of what is left, so that one that swallows packets (IPv6 without a route, often)
    leaves time for the next.

    Raises:
        OSError: what the last address failed with; TimeoutError and StoppedError as for any operation.
    """
    countdown.phase = "connecting"
    failure: OSError = OSError("the name has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = BoundedSocket(family, kind, protocol)
        try:
            sock.countdown = countdown
            opened(sock)
            sock.settimeout(countdown.remaining_seconds() / (len(addresses) - tried))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    countdown.remaining_seconds()  # says so if it was the time, or somebody from outside, that ended it
    raise failure
