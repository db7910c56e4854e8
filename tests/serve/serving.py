"""Scrape servers with a registry of one gauge, and clients that speak TLS in pieces."""

from __future__ import annotations

import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge

from agent.serve.server import ScrapeServer
from agent.settings import ServeSettings
from agent.simulate.clock import HandClock
from tests.run.running import LONG_SECONDS
from tests.serve.node import Node
from tests.servers import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trustme

    from agent.serve.connections import Limits
    from agent.serve.live_view import View

HOST = "127.0.0.1"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n"


def registry_of(value: float = 6.0) -> CollectorRegistry:
    registry = CollectorRegistry()
    Gauge("watts", "shown", registry=registry).set(value)
    return registry


class OneGauge:
    """A `Source` of a healthy node with one metric."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry or registry_of()
        self._node = Node(HandClock())

    def scrape_registry(self) -> CollectorRegistry:
        return self._registry

    def health(self) -> None:
        return None

    def live_view(self) -> View:
        return self._node.agent.live_view()


@contextlib.contextmanager
def serving(
    *, registry: CollectorRegistry | None = None, limits: Limits | None = None, **keys: Any
) -> Iterator[ScrapeServer]:
    """A server with these keys of [serve]."""
    server = ScrapeServer(ServeSettings(HOST, 0, **keys), OneGauge(registry), limits=limits)
    try:
        yield server
    finally:
        server.close()


def write_pair(folder: Path, issued: trustme.LeafCert) -> dict[str, Any]:
    """Write a certificate and its key; return the keys of [serve] that name them."""
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
    return {
        "cert_file": write_file(folder / "cert.pem", chain),
        "key_file": write_file(folder / "key.pem", issued.private_key_pem.bytes()),
    }


def trusting(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(context)
    return context


def connected(server: ScrapeServer, sent: bytes = b"") -> socket.socket:
    client = socket.create_connection(server.address, LONG_SECONDS)
    client.sendall(sent)
    return client


def everything(sock: socket.socket) -> bytes:
    """All that arrives until the server ends the connection; over TLS, an end without its notice is an error."""
    chunks = []
    while chunk := sock.recv(1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def scrape(server: ScrapeServer, context: ssl.SSLContext, request: bytes = SCRAPE) -> tuple[bytes, bytes]:
    """The answer over TLS, and the server's certificate in DER."""
    with (
        connected(server) as plain,
        context.wrap_socket(plain, server_hostname=HOST, suppress_ragged_eofs=False) as client,
    ):
        client.sendall(request)
        return everything(client), client.getpeercert(binary_form=True) or b""


class Pieces:
    """A TLS client whose bytes the test sends when and in which pieces it likes."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    def hello(self) -> bytes:
        """The bytes of the ClientHello."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()

    def handshake(self) -> bytes:
        """Receive until the handshake is over on this side; the client's last bytes of it are not sent."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._receive()
            else:
                return self.outgoing.read()

    def encrypted(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    def answer(self) -> bytes:
        chunks: list[bytes] = []
        while True:
            try:
                chunk = self.tls.read(1 << 16)
            except ssl.SSLWantReadError:
                self._receive()
                continue
            except ssl.SSLZeroReturnError:
                chunk = b""
            if not chunk:
                return b"".join(chunks)
            chunks.append(chunk)

    def _receive(self) -> None:
        received = self.sock.recv(1 << 16)
        assert received, "the server has ended the connection"
        self.incoming.write(received)
