"""Kept-alive HTTP/1.1 connections to the gateway, plain or over TLS, direct or through a proxy.

urllib3 makes the connections: TLS, proxies, tunnels. Its pools are not used: they hide whether a connection was used
before, which decides whether a dropped one is worth a second try. A request is written in one piece, since urllib3
takes twice the time for it, and http.client reads the answer. This module is imported with the first push, since
urllib3 is slow to import and a dry run does without it.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.util import parse_url
from urllib3.util.ssltransport import SSLTransport

from agent.http.deadline import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.http.deadline import BoundedTlsContext, Countdown, Resolver
    from agent.http.proxies import Proxy

    _Socket = socket.socket | SSLTransport

_BODY_LIMIT_BYTES = 8192
"""An answer longer than this, or than who asks can use, is not read to its end; its connection is closed instead."""

_LOOK_UP_MILLISECONDS = 10

_DROPPED = (
    http.client.RemoteDisconnected,
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)
"""What using a connection that the other side has closed ends in."""

_TARGET = re.compile(r"[!-~]+")
"""A request line has spaces around its target and ends with the line: the target may hold neither."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the gateway, or a proxy, answered; of the body only the beginning."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True, slots=True)
class Route:
    """How connections get to the gateway."""

    url: str
    proxy: Proxy | None
    resolver: Resolver
    tls_context: Callable[[], BoundedTlsContext]


class _Dialled(HTTPConnection):
    """Opens its socket through us: within the countdown, and known to whoever may have to end it."""

    dial: Callable[[str, int], socket.socket]

    def _new_conn(self) -> socket.socket:
        return self.dial(self._dns_host, self.port)


class _DialledTls(_Dialled, HTTPSConnection):
    """The same for TLS."""


class Connection:
    """One connection at a time to the gateway, opened when needed and kept for the next request; for one thread."""

    def __init__(self, route: Route, countdown: Countdown, body_limit_bytes: int = _BODY_LIMIT_BYTES) -> None:
        self.countdown = countdown
        self._body_limit_bytes = body_limit_bytes
        self._route = route
        self._connection: HTTPConnection | None = None
        # A second handle on the same TCP connection: TLS takes the first one over and hides it during the handshake,
        # and urllib3 forgets it at errors, while `abort` has to find it at any moment.
        self._handle: socket.socket | None = None

    def exchange(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        while_waiting: Callable[[], bool] = lambda: False,
    ) -> Answer:
        """Send one request and read its answer, whatever its status, without following redirects.

        The caller has started `countdown`; `while_waiting` is called after each 10 ms without an answer, until it says
        False. A connection that was dropped while idle is replaced at once: PUT and DELETE may safely be sent twice.

        Raises:
            OSError, http.client.HTTPException: as the socket, TLS and HTTP layers raise them.
            TimeoutError: the countdown ended.
            StoppedError: it was ended from outside.
            ConfigError, PermissionDeniedError: a TLS file cannot be used.
        """
        request = self._request(method, url, headers, body)
        kept = self._socket()
        try:
            # What has arrived on it by now nobody asked for: its end, or an answer left over.
            if kept is not None and _is_silent(kept):
                try:
                    return self._exchange_on(kept, method, request, while_waiting)
                except _DROPPED:
                    pass  # just now: a look before cannot win that race
            return self._exchange_on(self._open(), method, request, while_waiting)
        except BaseException:
            # Whatever was under way on it, the next request must not read the rest.
            self._give_up()
            raise

    def open(self) -> None:
        """Connect, unless it is connected; raises as `exchange`."""
        kept = self._socket()
        if kept is None or not _is_silent(kept):
            try:
                self._open()
            except BaseException:
                self._give_up()
                raise

    def certificate(self) -> Mapping[str, Any]:
        """The gateway's certificate, as ssl.SSLSocket.getpeercert, once open; empty without TLS."""
        sock = self._socket()
        return (sock.getpeercert() or {}) if isinstance(sock, (ssl.SSLSocket, SSLTransport)) else {}

    def abort(self) -> None:
        """End what is under way at once; for another thread, or a signal handler in this one."""
        handle = self._handle
        if handle is not None:
            with contextlib.suppress(OSError):  # not connected (any more): there is nothing to end
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, on which all was answered; the next request opens a new one."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        self._give_up()

    def _give_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._close_handle()

    def _socket(self) -> _Socket | None:
        return None if self._connection is None else self._connection.sock

    def _close_handle(self) -> None:
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """All of a request (RFC 9112); the callers' headers are single lines of printable characters."""
        parts = urlsplit(url)
        target = parts.path
        lines = [f"{name}: {value}" for name, value in headers.items()]
        proxy = self._route.proxy
        if proxy is not None and parts.scheme == "http":
            target = url  # a proxy is told all of it (section 3.2.2), and its own credentials
            if proxy.authorization is not None:
                lines.append(f"Proxy-Authorization: {proxy.authorization}")
        if not _TARGET.fullmatch(target):
            raise http.client.InvalidURL(f"{target!r} cannot stand in a request")
        head = [
            f"{method} {target} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Accept-Encoding: identity",  # its words are shown to people
            f"Content-Length: {len(body)}",
            *lines,
        ]
        return "\r\n".join([*head, "", ""]).encode() + body

    def _exchange_on(self, sock: _Socket, method: str, request: bytes, while_waiting: Callable[[], bool]) -> Answer:
        self.countdown.phase = "waiting for the answer"
        send_error: OSError | None = None
        try:
            sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError) as error:
            send_error = error  # who refuses a body early (413) may have said why before it closed
        response = http.client.HTTPResponse(sock, method=method)  # type: ignore[arg-type] # a transport has what is used
        try:
            while _is_silent(sock, _LOOK_UP_MILLISECONDS) and while_waiting():
                self.countdown.remaining_seconds()  # says so when the time is over
            response.begin()
            content = response.read(self._body_limit_bytes + 1)
        except http.client.HTTPException:
            if send_error is not None:
                raise send_error from None
            raise
        except ValueError as error:  # a chunk of less than no bytes, which http.client asks the socket for
            raise http.client.HTTPException("broken chunks") from error
        else:
            if response.will_close or not response.isclosed() or send_error is not None:
                self.close()
            return Answer(response.status, response.reason, response.headers, content[: self._body_limit_bytes])
        finally:
            response.close()

    def _open(self) -> _Socket:
        """A new connection to the gateway, with TLS where the URL asks for it; `close` knows it at each stage."""
        self._give_up()
        self._connection = connection = self._make()
        connection.connect()
        if connection.sock is None:
            raise http.client.NotConnected
        return connection.sock

    def _make(self) -> HTTPConnection:
        gateway, proxy = urlsplit(self._route.url), self._route.proxy
        is_tls = gateway.scheme == "https"
        host, port = gateway.hostname or "", gateway.port or (443 if is_tls else 80)
        first_host, first_port = (host, port) if proxy is None else (proxy.host, proxy.port)
        context = self._route.tls_context() if is_tls or (proxy is not None and proxy.scheme == "https") else None
        proxy_url = None if proxy is None else parse_url(f"{proxy.scheme}://{_bracketed(proxy.host)}:{proxy.port}")
        proxy_config = None if proxy is None else ProxyConfig(context, False, None, None)
        connection: _Dialled
        if context is None:
            connection = _Dialled(first_host, first_port, proxy=proxy_url, proxy_config=proxy_config)
        else:
            connection = _DialledTls(
                first_host, first_port, proxy=proxy_url, proxy_config=proxy_config, ssl_context=context
            )
        connection.dial = self._dial
        if is_tls and proxy is not None:
            credentials = {} if proxy.authorization is None else {"Proxy-Authorization": proxy.authorization}
            connection.set_tunnel(_bracketed(host), port, headers=credentials, scheme=proxy.scheme)
        return connection

    def _dial(self, host: str, port: int) -> socket.socket:
        addresses = self._route.resolver.addresses(host, port, self.countdown)
        return connect(addresses, self.countdown, self._remember)

    def _remember(self, sock: socket.socket) -> None:
        # Closed means given up, also by a kill: else the kernel goes on sending what did not get through, for a minute
        # and longer, and an old push that arrives after a newer one takes the counters back.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close_handle()
        self._handle = socket.socket(sock.family, sock.type, sock.proto, fileno=os.dup(sock.fileno()))


def _is_silent(sock: _Socket, milliseconds: int = 0) -> bool:
    """Whether nothing arrives meanwhile, be it only the end of the connection."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(milliseconds)


def _bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host
