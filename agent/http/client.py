"""Attempts at requests to one endpoint: within their deadline, with credentials, with every failure explained."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent import __version__
from agent.http.addresses import Resolver
from agent.http.credentials import authorization
from agent.http.deadline import Deadline
from agent.http.endpoint import Route
from agent.http.failures import AttemptFailedError, explain
from agent.http.proxies import proxy_for
from agent.http.tls import TlsContexts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.clock import Clock
    from agent.http.connection import Answer, Connection
    from agent.http.endpoint import Endpoint


_BODY_LIMIT_BYTES = 8192


class Client:
    """The state that all connections to one endpoint share; safe for any number of threads.

    Attributes:
        route: to the endpoint.
        clock: of all deadlines.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        clock: Clock,
        environ: Mapping[str, str],
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """Opens and reads nothing yet.

        Raises:
            ConfigError: the environment names a proxy that cannot be used.
        """
        self.route = Route(endpoint, proxy_for(endpoint.url, environ))
        self.clock = clock
        self._environ = environ
        self._resolver = Resolver(getaddrinfo)
        self._tls_contexts = TlsContexts(endpoint, environ)

    def new_connection(self, body_limit_bytes: int = _BODY_LIMIT_BYTES) -> Connection:
        """A connection that is not open yet, and reads this much of an answer."""
        from agent.http.connection import Connection

        deadline = Deadline(self.clock.monotonic)
        return Connection(self.route, self._resolver, self._tls_contexts, deadline, body_limit_bytes)

    @contextlib.contextmanager
    def attempt(
        self, connection: Connection, ends_at_seconds: float, is_stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[Attempt]:
        """Make one attempt in the block; a `watchdog` of the connection's deadline has to run.

        Raises:
            AttemptFailedError: the failure in the block, explained and without secrets.
        """
        began_at_seconds = self.clock.monotonic()
        attempt = Attempt(connection, self.route, self._environ)
        try:
            with connection.deadline.attempt(ends_at_seconds, is_stopped):
                yield attempt
        except AttemptFailedError as failure:
            failure.mask(attempt.secrets)
            raise
        except Exception as error:  # `explain` raises again what is not a failure of the network
            seconds = self.clock.monotonic() - began_at_seconds
            explained = explain(error, self.route, connection.deadline.phase, seconds, attempt.secrets)
            explained.mask(attempt.secrets)
            raise explained from error


class Attempt:
    """An attempt under way.

    Attributes:
        secrets: words that no message may show.
    """

    def __init__(self, connection: Connection, route: Route, environ: Mapping[str, str]) -> None:
        self.secrets = route.endpoint.secrets + (() if route.proxy is None else route.proxy.secrets)
        self._connection = connection
        self._endpoint = route.endpoint
        self._environ = environ

    def exchange(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a request with the endpoint's credentials; raises as `Connection.exchange`."""
        all_headers = {**headers, "User-Agent": f"wattpush/{__version__}"}
        credentials = authorization(self._endpoint, self._environ)
        if credentials is not None:
            all_headers["Authorization"] = credentials.header
            self.secrets += credentials.secrets
        answer = self._connection.exchange(method, url, all_headers, body)
        return replace(answer, secrets=self.secrets)
