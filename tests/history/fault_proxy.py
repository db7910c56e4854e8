"""An HTTP proxy in front of a remote write server that injects faults and keeps the requests that it saw."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from random import Random
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tests.servers import START_SECONDS, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

    from tests.servers import Client, ReceivedRequest

    Reply = tuple[str, bytes] | tuple[str, bytes, str]
    """Status line, body, and a header."""

HOP_HEADERS = frozenset({"host", "connection", "content-length"})
"""Of one connection; the client of the next one makes its own."""


@dataclass(slots=True)
class Faults:
    """What the proxy does to requests; tests change it at any time. Requests are judged in this order.

    Attributes:
        hangs: sends nothing until the client gives up or the proxy goes.
        retry_after_seconds: answers 429 with this Retry-After.
        largest_body_bytes: answers 413 to a larger body.
        answer: gives the status line and body for a request body, such as `("400 Bad Request", b"out of order")`; None
            passes it on.
        busy_share: the share of requests that are answered 503 and not passed on.
        lost_answer_share: the share of requests that are passed on and whose answer is lost.
    """

    hangs: bool = False
    retry_after_seconds: float | None = None
    largest_body_bytes: int | None = None
    answer: Callable[[bytes], tuple[str, bytes] | None] | None = None
    busy_share: float = 0.0
    lost_answer_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached the proxy.

    Attributes:
        at_seconds: `time.monotonic` when it had been read.
        was_passed_on: whether the server got it.
        status: what the client was answered; 0 if nothing.
    """

    at_seconds: float
    target: str
    headers: dict[str, str]
    body: bytes
    was_passed_on: bool
    status: int


class FaultProxy:
    """The proxy, on a port that it keeps through outages; use it as a context manager.

    Args:
        write_url: of the server; it may be down.
        seed: of the choice of requests that suffer.
    """

    def __init__(self, write_url: str, *, seed: int = 1) -> None:
        self.faults = Faults()
        self.port = free_port()
        self._parts = urlsplit(write_url)
        self._random = Random(seed)
        self._seen: list[Seen] = []
        self._lock = threading.Lock()
        self._server: Server | None = None

    @property
    def write_url(self) -> str:
        """The URL for the client."""
        return f"http://127.0.0.1:{self.port}{self._parts.path}"

    @property
    def seen(self) -> list[Seen]:
        """Every request so far, in the order of its answer."""
        with self._lock:
            return list(self._seen)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> None:
        """Accept connections."""
        assert self._server is None
        self._server = Server(self._behave, listener=socket.create_server(("127.0.0.1", self.port), backlog=128))
        self._server.__enter__()

    def down(self) -> None:
        """Cut every connection, and refuse new ones."""
        if self._server is not None:
            self._server.__exit__()
            self._server = None

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        """Refuse connections for a while."""
        self.down()
        try:
            yield
        finally:
            self.up()

    def _behave(self, client: Client) -> None:
        while (request := client.read_request()) is not None:
            if not self._handle(client, request):
                return

    def _handle(self, client: Client, request: ReceivedRequest) -> bool:
        """Answer one request, and tell whether the connection goes on."""
        at_seconds = time.monotonic()
        with self._lock:
            luck = self._random.random()
        faults = self.faults
        reply = self._reply(faults, request.body, luck)
        was_passed_on = False
        if reply is None and not faults.hangs:
            with contextlib.suppress(OSError):
                reply = self._passed_on(request)
                was_passed_on = True
            if reply is None:
                reply = ("502 Bad Gateway", b"the server is away\n")
            elif luck < faults.busy_share + faults.lost_answer_share:
                reply = None
        status = 0 if reply is None else int(reply[0].split(maxsplit=1)[0])
        seen = Seen(at_seconds, request.target, request.headers, request.body, was_passed_on, status)
        with self._lock:
            self._seen.append(seen)
        if reply is not None:
            client.answer(*reply)
            return True
        if faults.hangs:
            client.hang()
        client.reset()
        return False

    @staticmethod
    def _reply(faults: Faults, body: bytes, luck: float) -> Reply | None:
        """The answer of the proxy itself; None if it has none."""
        if faults.hangs:
            return None
        if faults.retry_after_seconds is not None:
            return "429 Too Many Requests", b"slow down\n", f"Retry-After: {faults.retry_after_seconds:g}"
        if faults.largest_body_bytes is not None and len(body) > faults.largest_body_bytes:
            return "413 Request Entity Too Large", b"too large\n"
        fixed = None if faults.answer is None else faults.answer(body)
        if fixed is None and luck < faults.busy_share:
            return "503 Service Unavailable", b"busy\n"
        return fixed

    def _passed_on(self, request: ReceivedRequest) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name not in HOP_HEADERS}
        connection = HTTPConnection(self._parts.netloc, timeout=START_SECONDS)
        try:
            connection.request(request.method, request.target, request.body, headers)
            answer = connection.getresponse()
            return f"{answer.status} {answer.reason}", answer.read()
        finally:
            connection.close()
