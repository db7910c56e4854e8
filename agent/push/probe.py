"""Reads from a server that we push to, over a connection of its own."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from agent.errors import UnreachableError
from agent.http.deadline import WAITING_FOR_THE_ANSWER, watchdog
from agent.http.failures import AttemptFailedError, transient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.http.client import Attempt, Client
    from agent.http.connection import Answer

BODY_LIMIT_BYTES = 16 * 2**20
"""The metrics of some ten thousand groups."""


class UnansweredError(UnreachableError):
    """The gateway took the request and did not answer in time."""


class Probe:
    """One connection to a server for single requests, each step within `timeout_seconds`.

    Args:
        client: of the server.
        timeout_seconds: for one step.
        body_limit_bytes: of a longer answer only the beginning is read.
        prefix: begins the messages.

    Attributes:
        secrets: of the last request: words of its answer that no message may show.
    """

    def __init__(
        self, client: Client, timeout_seconds: float, *, body_limit_bytes: int = BODY_LIMIT_BYTES, prefix: str = ""
    ) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._connection = client.new_connection(body_limit_bytes)
        self._body_limit_bytes = body_limit_bytes
        self._prefix = prefix
        self.route = client.route
        self.secrets: tuple[str, ...] = ()

    def look_up(self) -> list[str]:
        """The addresses of the first hop."""
        with self._step():
            return self._connection.look_up()

    def connect(self) -> Mapping[str, Any]:
        """Connect; return the server's certificate as ssl.SSLSocket.getpeercert, empty without TLS."""
        with self._step():
            self._connection.open()
            return self._connection.certificate()

    def get(self, path: str) -> Answer:
        """GET a path below the URL of the settings, with the credentials of a push, whatever the answer's status."""
        return self.exchange("GET", f"{self.route.endpoint.url.rstrip('/')}{path}")

    def exchange(self, method: str, url: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Answer:
        """Any request to the server, with the credentials of a push, whatever the answer's status."""
        with self._step() as attempt:
            answer = attempt.exchange(method, url, headers or {}, body)
            self.secrets = attempt.secrets
            length = answer.headers.get("Content-Length", "").strip()
            if length.isdecimal() and len(answer.body) < min(int(length[:15]), self._body_limit_bytes):
                raise transient(f"{self.route.hops} ended its answer in the middle")
            return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _step(self) -> Iterator[Attempt]:
        """Raises the error that a push would end with."""
        ends_at_seconds = self._client.clock.monotonic() + self._timeout_seconds
        try:
            with (
                watchdog([self._connection.deadline]),
                self._client.attempt(self._connection, ends_at_seconds) as attempt,
            ):
                yield attempt
        except AttemptFailedError as failure:
            is_late = isinstance(failure.__cause__, TimeoutError)
            if is_late and self._connection.deadline.phase == WAITING_FOR_THE_ANSWER:
                raise UnansweredError(f"{self._prefix}{failure.text}") from failure
            raise failure.final_error(f"{self._prefix}{failure.text}") from failure
