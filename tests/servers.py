"""Servers on real loopback sockets: a Pushgateway, servers that misbehave on request, a proxy."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from typing_extensions import Self

START_SECONDS = 60
"""How long a real server may take to accept a connection, or to answer, on a busy machine."""


# Outside of the range from which Linux takes the port of a connection or of a server that asks for any: tests in
# another process may do so before the port is used.
_ports = random.sample(range(20_000, 32_000), 12_000)


def free_port() -> int:
    """A port on which nobody listens; never the same one twice."""
    while True:
        port = _ports.pop()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def get(url: str) -> str:
    """The body at `url`, fetched without a proxy."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=START_SECONDS)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        body = answer.read().decode()
        assert answer.status == 200, body
        return body
    finally:
        connection.close()


@contextlib.contextmanager
def running_pushgateway(*arguments: str, port: int | None = None, persistence_file: str = "") -> Iterator[str]:
    """The URL of a real Pushgateway. If it is not installed, the test is skipped, or fails in CI."""
    binary = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if binary is None:
        message = "needs a real Pushgateway: apt-get install prometheus-pushgateway"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    port = free_port() if port is None else port
    process = subprocess.Popen(
        # Debian's package persists pushed groups by default, and the next Pushgateway would load them.
        [binary, f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={persistence_file}", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        # It logs that it listens, or why it cannot. Its log has to be read from then on, or it would block.
        for line in process.stderr:
            if b"listen" in line.lower():
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait(START_SECONDS)
        process.stderr.close()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until `process` accepts connections; fail if it ends instead."""
    for _ in range(START_SECONDS * 20):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the server ended with exit code {process.wait(0.05)}")
    pytest.fail(f"the server does not listen on port {port}")


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Client:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: Server, number: int) -> None:
        self.sock = sock
        self.server = server
        self.number = number
        self.file = sock.makefile("rb")

    def read_request(self) -> ReceivedRequest | None:
        """The next request on this connection; None if the client has closed it."""
        first = self.file.readline().decode("latin-1").split()
        if len(first) < 2:
            return None
        headers: dict[str, str] = {}
        while (line := self.file.readline().decode("latin-1").strip()) != "":
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        body = self.file.read(int(headers.get("content-length", "0")))
        request = ReceivedRequest(first[0], first[1], headers, body)
        self.server.requests.append(request)
        return request

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def hang(self) -> None:
        """Send nothing until the test ends."""
        self.server.closing.wait()

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


class Server:
    """Accepts connections, runs `behave` on each in a thread, and keeps the requests."""

    def __init__(
        self,
        behave: Callable[[Client], None],
        tls: ssl.SSLContext | None = None,
        *,
        host: str = "127.0.0.1",
        listener: socket.socket | None = None,
    ) -> None:
        self.behave = behave
        self.tls = tls
        self.closing = threading.Event()
        self.connections = 0
        self.requests: list[ReceivedRequest] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = listener or socket.create_server((host, 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.stop_listening()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(START_SECONDS)
        assert not any(thread.is_alive() for thread in self._threads)

    def stop_listening(self) -> None:
        """Refuse new connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock.dup())
            self._start(self._serve, sock, self.connections)

    def _serve(self, sock: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(self._sockets[number - 1])
            stack.enter_context(sock)
            if self.tls is not None:
                sock = stack.enter_context(self.tls.wrap_socket(sock, server_side=True))
            client = Client(sock, self, number)
            stack.enter_context(client.file)
            self.behave(client)


def answering(status: str, body: bytes = b"", *headers: str, delay_seconds: float = 0.0) -> Callable[[Client], None]:
    """Gives every request on a kept-alive connection the same answer."""

    def behave(client: Client) -> None:
        while client.read_request() is not None:
            if delay_seconds:
                client.server.closing.wait(delay_seconds)
            client.answer(status, body, *headers)

    return behave


def in_turn(*behaviours: Callable[[Client], None]) -> Callable[[Client], None]:
    """Gives the first connection the first behaviour, and so on; the last one repeats."""

    def behave(client: Client) -> None:
        behaviours[min(client.number, len(behaviours)) - 1](client)

    return behave


def hanging(client: Client) -> None:
    """Accepts the connection, then neither reads nor writes."""
    client.hang()


def dropping(client: Client) -> None:
    """Reads a request and closes without an answer."""
    client.read_request()


def resetting(client: Client) -> None:
    """Reads a request and resets the connection."""
    client.read_request()
    client.reset()


def raw(data: bytes) -> Callable[[Client], None]:
    """Reads a request, answers with these raw bytes, and closes."""

    def behave(client: Client) -> None:
        client.read_request()
        client.send(data)

    return behave


def trickling(start: bytes, drop: bytes = b"x", every_seconds: float = 0.05) -> Callable[[Client], None]:
    """Answers with `start`, then one drop at a time until the client disconnects."""

    def behave(client: Client) -> None:
        client.read_request()
        client.send(start)
        while not client.server.closing.wait(every_seconds):
            client.send(drop)

    return behave


def proxying(authorization: str | None = None) -> Callable[[Client], None]:
    """An HTTP proxy: CONNECT, and requests with an absolute URI; 407 without `authorization`."""

    def behave(client: Client) -> None:
        request = client.read_request()
        if request is None:
            return
        if authorization is not None and request.headers.get("proxy-authorization") != authorization:
            client.answer("407 Proxy Authentication Required")
            return
        target = request.target if request.method == "CONNECT" else urlsplit(request.target).netloc
        host, _, port = target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=START_SECONDS) as upstream:
            if request.method == "CONNECT":
                client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = urlsplit(request.target).path
                lines = [f"{name}: {value}" for name, value in request.headers.items() if "proxy" not in name]
                head = "\r\n".join([f"{request.method} {path} HTTP/1.1", *lines, "Connection: close", "", ""])
                upstream.sendall(head.encode() + request.body)
            backwards = threading.Thread(target=_pump, args=(upstream, client.sock), daemon=True)
            backwards.start()
            _pump(client.sock, upstream)
            backwards.join(START_SECONDS)

    return behave


def _pump(source: socket.socket, destination: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            destination.sendall(data)
    with contextlib.suppress(OSError):
        destination.shutdown(socket.SHUT_WR)


def write_file(path: Path, content: str | bytes) -> str:
    """Write the file and give its path as a setting."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)
