"""Kept-alive HTTP/1.1 connections to an endpoint, plain or over TLS, direct or through a proxy.

urllib3 makes the connections: TLS, proxies, tunnels. Its pools are not used because they hide whether a connection was
used before, which decides whether a dropped one is worth a second try. A request is written in one piece, which takes
half the time that urllib3 needs, and http.client reads the answer. This module is imported with the first request:
urllib3 is slow to import, and a dry run does without it.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import select
import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from urllib3.connection import HTTPConnection, HTTPSConnection, ProxyConfig
from urllib3.util import parse_url
from urllib3.util.ssltransport import SSLTransport

from agent.http.addresses import NameWatch, connect, numeric_addresses
from agent.http.deadline import WAITING_FOR_THE_ANSWER
from agent.http.endpoint import bracketed, host_and_port

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.http.addresses import AddressInfo, Resolver
    from agent.http.deadline import Deadline
    from agent.http.endpoint import Route
    from agent.http.tls import TlsContexts

    _Socket = socket.socket | SSLTransport

_SLICE_MILLISECONDS = 100

_INTERIM = range(102, 200)
"""The final answer is still to come after these, known or not (RFC 9110, section 15.2); http.client itself skips only
100. 101 would end HTTP on the connection, and no request asks for that."""

_DROPPED = (
    http.client.RemoteDisconnected,
    ConnectionResetError,
    BrokenPipeError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)
"""The errors of using a connection that the other side has closed."""

_ZONE = re.compile(r"%[^]]*(?=])")
"""The zone of an IPv6 address in a URL, which means something on this machine only (RFC 6874, section 2)."""

_TARGET = re.compile(r"[!-~]+")
"""Spaces surround the target in a request line, which it ends with: the target may hold neither."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of the endpoint or of a proxy.

    Attributes:
        body: its beginning only.
        secrets: words of the request that no message may show; the server may have echoed them.
    """

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes
    secrets: tuple[str, ...] = field(default=(), repr=False)


class _Dialled(HTTPConnection):
    """Connects within the deadline, and records what it waits for."""

    dial: Callable[[str, int], socket.socket]
    deadline: Deadline

    def _new_conn(self) -> socket.socket:
        sock = self.dial(self._dns_host, self.port)
        self.deadline.enter("agreeing on TLS")
        return sock

    def _tunnel(self) -> None:
        self.deadline.enter("waiting for the proxy")
        super()._tunnel()
        self.deadline.enter("agreeing on TLS")


class _DialledTls(_Dialled, HTTPSConnection):
    """The same over TLS."""


class Connection:
    """One connection at a time to an endpoint, opened when needed and kept for the next request; for one thread.

    Every operation is part of an attempt of `deadline`, and ends with it. Only the first `body_limit_bytes` of a longer
    answer are read; its connection is then closed.

    Attributes:
        was_resent: whether the last exchange sent its request on a connection that was dropped, and then again.
    """

    def __init__(
        self,
        route: Route,
        resolver: Resolver,
        tls_contexts: TlsContexts,
        deadline: Deadline,
        body_limit_bytes: int,
    ) -> None:
        self.deadline = deadline
        self.was_resent = False
        self._body_limit_bytes = body_limit_bytes
        self._route = route
        self._resolver = resolver
        self._tls_contexts = tls_contexts
        self._connection: HTTPConnection | None = None
        self._watch: NameWatch | None = None
        self._new_addresses: list[AddressInfo] = []

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send one request and read its answer, whatever its status, without following redirects.

        A connection that was dropped while idle is replaced at once, which is safe because sending a PUT or DELETE
        twice has the same effect as sending it once. For a POST see `was_resent`.

        Raises:
            OSError, http.client.HTTPException: as the socket, TLS and HTTP layers raise them.
            ConfigError, PermissionDeniedError: a TLS file cannot be used.
        """
        request = self._request(method, url, headers, body)
        idle = self._socket()
        self.was_resent = False
        try:
            # Anything that arrives on an idle connection is its end, or an answer without a request.
            if idle is not None and _is_silent(idle) and not self._has_moved():
                try:
                    return self._exchange_on(idle, method, request)
                except _DROPPED:
                    self.was_resent = True
                    # Dropped after the check, unless the deadline did it: then this raises.
                    self.deadline.remaining_seconds()
            return self._exchange_on(self._open(), method, request)
        except BaseException:
            # The next request must not read the rest of this exchange.
            self._give_up()
            raise

    def look_up(self) -> list[str]:
        """The addresses of the first hop; raises as `Resolver.addresses`."""
        proxy = self._route.proxy
        host = host_and_port(self._route.endpoint.url)[0] if proxy is None else proxy.host
        found = self._resolver.addresses(host, 0, self.deadline)
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def open(self) -> None:
        """Connect, unless connected; raises as `exchange`."""
        idle = self._socket()
        if idle is None or not _is_silent(idle):
            try:
                self._open()
            except BaseException:
                self._give_up()
                raise

    def certificate(self) -> Mapping[str, Any]:
        """The endpoint's certificate, as ssl.SSLSocket.getpeercert, once open; empty without TLS."""
        sock = self._socket()
        return (sock.getpeercert() or {}) if isinstance(sock, (ssl.SSLSocket, SSLTransport)) else {}

    def close(self) -> None:
        """Close the connection gracefully: all requests on it are answered. The next request opens a new one."""
        sock = self._socket()
        if sock is not None:
            with contextlib.suppress(OSError):
                _reset_on_close(sock.socket if isinstance(sock, SSLTransport) else sock, is_on=False)
        self._give_up()

    def _has_moved(self) -> bool:
        """Whether the name of the first hop leads elsewhere by now."""
        if self._watch is not None:
            self._new_addresses = self._watch.new_addresses()
        return bool(self._new_addresses)

    def _give_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.deadline.release()

    def _socket(self) -> _Socket | None:
        return None if self._connection is None else self._connection.sock

    def _request(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> bytes:
        """The bytes of a request (RFC 9112); every header is one line of printable characters."""
        parts = urlsplit(url)
        target = parts.path
        lines = [f"{name}: {value}" for name, value in headers.items()]
        proxy = self._route.proxy
        if proxy is not None and parts.scheme == "http":
            target = url  # a proxy gets the absolute form (section 3.2.2), and its own credentials
            if proxy.authorization is not None:
                lines.append(f"Proxy-Authorization: {proxy.authorization}")
        if not _TARGET.fullmatch(target):
            raise http.client.InvalidURL(f"{target!r} cannot stand in a request")
        head = [
            f"{method} {target} HTTP/1.1",
            f"Host: {_ZONE.sub('', parts.netloc)}",
            "Accept-Encoding: identity",  # messages quote the body
            f"Content-Length: {len(body)}",
            *lines,
        ]
        return "\r\n".join([*head, "", ""]).encode() + body

    def _exchange_on(self, sock: _Socket, method: str, request: bytes) -> Answer:
        self.deadline.enter(WAITING_FOR_THE_ANSWER)
        send_error: OSError | None = None
        try:
            sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError) as error:
            send_error = error  # a server that refuses a body early (413) may have answered before it closed
        response = http.client.HTTPResponse(sock, method=method)  # type: ignore[arg-type] # SSLTransport has all it needs
        try:
            # In slices: Python runs signal handlers only between system calls, and one may have come just before this.
            while _is_silent(sock, _SLICE_MILLISECONDS):
                pass
            response.begin()
            while response.status in _INTERIM:
                response.headers = None  # type: ignore[assignment] # then `begin` reads the next answer
                response.begin()
            content = response.read(self._body_limit_bytes + 1)
        except http.client.HTTPException:
            if send_error is not None:
                raise send_error from None
            raise
        except ValueError as error:  # http.client asks the socket for the negative length of a chunk
            raise http.client.HTTPException("broken chunks") from error
        else:
            if response.will_close or not response.isclosed() or send_error is not None:
                self.close()
            return Answer(response.status, response.reason, response.headers, content[: self._body_limit_bytes])
        finally:
            response.close()

    def _open(self) -> _Socket:
        """Open a new connection, with TLS if the URL asks for it; `close` may end it at every stage."""
        self._give_up()
        self._connection = connection = self._make()
        connection.connect()
        if connection.sock is None:
            raise http.client.NotConnected
        return connection.sock

    def _make(self) -> HTTPConnection:
        url, proxy = self._route.endpoint.url, self._route.proxy
        is_tls = urlsplit(url).scheme == "https"
        host, port = host_and_port(url)
        first_host, first_port = (host, port) if proxy is None else (proxy.host, proxy.port)
        context = self._tls_contexts.context() if is_tls or (proxy is not None and proxy.scheme == "https") else None
        proxy_url = None if proxy is None else parse_url(f"{proxy.scheme}://{bracketed(proxy.host)}:{proxy.port}")
        proxy_config = None if proxy is None else ProxyConfig(context, False, None, None)
        connection: _Dialled
        if context is None:
            connection = _Dialled(first_host, first_port, proxy=proxy_url, proxy_config=proxy_config)
        else:
            connection = _DialledTls(
                first_host, first_port, proxy=proxy_url, proxy_config=proxy_config, ssl_context=context
            )
        connection.dial = self._dial
        connection.deadline = self.deadline
        if is_tls and proxy is not None:
            credentials = {} if proxy.authorization is None else {"Proxy-Authorization": proxy.authorization}
            connection.set_tunnel(bracketed(host), port, headers=credentials, scheme=proxy.scheme)
        return connection

    def _dial(self, host: str, port: int) -> socket.socket:
        addresses, self._new_addresses = self._new_addresses, []
        sock = connect(addresses or self._resolver.addresses(host, port, self.deadline), self.deadline)
        self._watch = None
        if not numeric_addresses(host, port):
            with contextlib.suppress(OSError):  # reset already
                address = sock.getpeername()[0]
                self._watch = NameWatch(self._resolver, host, port, address, self.deadline.monotonic)
        # Closing gives up, even if the process is killed: otherwise the kernel keeps sending unsent data for a minute
        # or longer, and an old push that arrives after a newer one sets the counters back.
        _reset_on_close(sock, is_on=True)
        return sock


def _reset_on_close(sock: socket.socket, *, is_on: bool) -> None:
    """Whether closing resets the connection and drops what was not sent (socket(7), SO_LINGER of 0 seconds)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", is_on, 0))


def _is_silent(sock: _Socket, milliseconds: int = 0) -> bool:
    """Whether nothing arrives in this time, not even the end of the connection."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return not poll.poll(milliseconds)
