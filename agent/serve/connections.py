"""The connections of the scrape server: one thread serves them all, however many clients there are.

    accepted --first byte--> TLS handshake --done--> receiving --whole head--> answering --all sent--> closed
        |                          |                     |                         |
        +--------- its deadline, or a newer connection that needs the place -------+-----------------> closed

Without TLS a connection is receiving at once, and so is one of a client that sends plain HTTP to a server with TLS.

A thread for each connection would let any client that connects and says nothing use up the tasks of the service
(TasksMax=). No operation here waits for a single client, and the deadline of a phase is a total: a client that sends or
takes one byte at a time does not extend it.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import selectors
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from agent.serve.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 16 * 1024
"""Prometheus sends some 300 bytes."""

_RECEIVE_BYTES = 16 * 1024
"""As large as the largest TLS record (RFC 8446, section 5.1): OpenSSL keeps no rest of one, which no selector sees."""

_HANDSHAKE_RECORD = b"\x16"
"""The first byte of TLS (RFC 8446, section 5.1); no HTTP method begins with it."""

_ACCEPTS_PER_ROUND = 16
"""Between rounds, requests that have arrived are answered: a flood of connections does not push them out first."""

_NO_DESCRIPTOR_WAIT_SECONDS = 0.2
"""How long to wait if the process has no file descriptor left and none of them is a connection."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the clients together may use.

    Attributes:
        connections: how many are open at a time; one more takes the place of another without a whole request.
        request_seconds: how long a client may take to send its request, with the TLS handshake.
        answer_seconds: how long it may take to receive the answer.
    """

    connections: int = 64
    request_seconds: float = 5.0
    answer_seconds: float = 10.0


@dataclass(slots=True, eq=False)
class _Connection:
    sock: socket.socket
    descriptor: int
    """What the selector knows: that of `sock`, with and without TLS, even once `sock` is closed."""
    address: tuple[str, int]
    ends_at_seconds: float
    is_receiving: bool
    is_plain: bool = False
    """Whether the client does not speak TLS, and the server does."""
    head: bytearray = field(default_factory=bytearray)
    unsent: memoryview | None = None
    """The rest of the answer; None until the request is complete."""


class Connections:
    """Accepts connections on `listener` and answers one request on each, until `stop`.

    Args:
        listener: a listening socket; the caller closes it after `serve` has returned.
        answer: makes the whole answer from the head of a request and the client's address.
        limits: of all connections.
        tls: gives the context for a new connection; None is plain HTTP.
    """

    def __init__(
        self,
        listener: socket.socket,
        answer: Callable[[bytes, tuple[str, int]], bytes],
        limits: Limits,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._answer = answer
        self._limits = limits
        self._tls = tls
        self._is_stopped = threading.Event()
        self._open: dict[_Connection, None] = {}  # oldest first
        self._wake_receiver, self._wake_sender = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._wake_receiver, selectors.EVENT_READ)

    def stop(self) -> None:
        """End `serve` at once; for another thread."""
        self._is_stopped.set()
        with contextlib.suppress(OSError):
            self._wake_sender.send(b"x")

    def close(self) -> None:
        """Free everything; only when `serve` is not running."""
        for connection in tuple(self._open):
            self._close(connection)
        self._selector.close()
        self._wake_receiver.close()
        self._wake_sender.close()

    def serve(self) -> None:
        """Serve until `stop`; then close all connections."""
        try:
            while not self._is_stopped.is_set():
                self._serve_round()
        finally:
            self.close()

    def _serve_round(self) -> None:
        is_listener_ready = False
        for key, _ in self._selector.select(self._wait_seconds()):
            if isinstance(key.data, _Connection):
                self._advance(key.data)
            elif key.fileobj is self._listener:
                is_listener_ready = True
        now = time.monotonic()
        for connection in tuple(self._open):
            if now >= connection.ends_at_seconds:
                self._close(connection)
        if is_listener_ready:
            self._accept()

    def _wait_seconds(self) -> float | None:
        ends_at_seconds = min((connection.ends_at_seconds for connection in self._open), default=None)
        return None if ends_at_seconds is None else max(0.0, ends_at_seconds - time.monotonic())

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_ROUND):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:  # no file descriptor or no memory is left
                log.debug("scrape: cannot accept a connection: %s", error)
                if self._open:
                    self._make_room()
                else:
                    self._is_stopped.wait(_NO_DESCRIPTOR_WAIT_SECONDS)
                return
            sock.setblocking(False)
            if len(self._open) >= self._limits.connections:
                self._make_room()
            ends_at_seconds = time.monotonic() + self._limits.request_seconds
            connection = _Connection(sock, sock.fileno(), address[:2], ends_at_seconds, is_receiving=self._tls is None)
            self._open[connection] = None
            self._selector.register(connection.descriptor, selectors.EVENT_READ, connection)
            self._advance(connection)  # the request has often arrived already

    def _make_room(self) -> None:
        """Close the oldest connection without a whole request, if there is one, of the address that has most of them.

        A client far away, whose request takes a while, thus keeps its place among many from another address.
        """
        candidates = [connection for connection in self._open if connection.unsent is None] or list(self._open)
        count = collections.Counter(connection.address[0] for connection in candidates)
        self._close(max(candidates, key=lambda connection: count[connection.address[0]]))

    def _close(self, connection: _Connection) -> None:
        del self._open[connection]
        self._selector.unregister(connection.descriptor)
        connection.sock.close()

    def _advance(self, connection: _Connection) -> None:
        """Receive or send what is possible without waiting."""
        try:
            if not connection.is_receiving:
                self._begin(connection)
            if connection.is_receiving and connection.unsent is None:
                self._receive(connection)
            if connection.unsent is not None:
                self._send(connection)
        except (BlockingIOError, InterruptedError):
            pass
        except ssl.SSLWantReadError:
            self._wait_for(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._wait_for(connection, selectors.EVENT_WRITE)
        except OSError as error:
            log.debug("scrape from %s ended early: %s", connection.address[0], error)
            self._close(connection)
        except Exception:
            log.exception("scrape from %s failed", connection.address[0])
            self._close(connection)

    def _wait_for(self, connection: _Connection, events: int) -> None:
        self._selector.modify(connection.descriptor, events, connection)

    def _begin(self, connection: _Connection) -> None:
        """Shake hands, if the client speaks TLS. One that says nothing takes no memory for it."""
        sock = connection.sock
        if not isinstance(sock, ssl.SSLSocket):
            if self._tls is None or sock.recv(1, socket.MSG_PEEK) != _HANDSHAKE_RECORD:
                connection.is_plain = connection.is_receiving = True
                return
            sock = self._tls().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            connection.sock = sock
        sock.do_handshake()
        connection.is_receiving = True

    def _receive(self, connection: _Connection) -> None:
        received = connection.sock.recv(_RECEIVE_BYTES)
        connection.head += received
        if _is_whole(connection.head):
            connection.unsent = memoryview(self._answer_to(connection))
            connection.ends_at_seconds = time.monotonic() + self._limits.answer_seconds
            self._wait_for(connection, selectors.EVENT_WRITE)
        elif not received or len(connection.head) > _MAX_HEAD_BYTES:
            self._close(connection)

    def _answer_to(self, connection: _Connection) -> bytes:
        head = bytes(connection.head)
        if connection.is_plain:
            return refusal(
                head, HTTPStatus.BAD_REQUEST, "plain HTTP was sent to a port that speaks HTTPS; use https://"
            )
        return self._answer(head, connection.address)

    def _send(self, connection: _Connection) -> None:
        unsent: Any = connection.unsent
        if unsent:
            connection.unsent = unsent = unsent[connection.sock.send(unsent) :]
        if not unsent:
            if isinstance(connection.sock, ssl.SSLSocket):
                # Tell the client that this is all. It tells us the same, which is not worth waiting for.
                with contextlib.suppress(ssl.SSLWantReadError):
                    connection.sock.unwrap()
            self._close(connection)


def _is_whole(head: bytearray) -> bool:
    """Whether the empty line has arrived that ends a request's headers."""
    return b"\n\r\n" in head or b"\n\n" in head
