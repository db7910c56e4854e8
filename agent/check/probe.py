"""Looks at a gateway step by step, over the same parts that push: what `wattpush check --gateway` stands on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from agent import __version__
from agent.http.credentials import authorization, masked
from agent.http.deadline import Countdown, Resolver
from agent.http.proxies import proxy_for
from agent.http.tls import TlsContexts
from agent.push.failures import AttemptFailedError, Parties, explain, push_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.clock import Clock
    from agent.http.connection import Answer, Connection
    from agent.push.failures import PushError
    from agent.settings import PushgatewaySettings

_Result = TypeVar("_Result")

BODY_LIMIT_BYTES = 16 * 2**20
"""The metrics of some ten thousand groups; of a longer answer only the beginning is read."""


class Probe:
    """One connection to the gateway, for looking only; each step takes at most the time-out of the settings."""

    def __init__(
        self,
        settings: PushgatewaySettings,
        *,
        clock: Clock,
        environ: Mapping[str, str],
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """Nothing is opened or read yet.

        Raises:
            ConfigError: the environment names a proxy that cannot be used.
        """
        self._settings = settings
        self._clock = clock
        self._environ = environ
        self.parties = Parties(settings.url, proxy_for(settings.url, environ))
        self._resolver = Resolver(getaddrinfo)
        self._countdown = Countdown(clock.monotonic)
        self._tls_contexts = TlsContexts(settings, environ)
        self._connection: Connection | None = None
        self._secrets: tuple[str, ...] = () if self.parties.proxy is None else self.parties.proxy.secrets

    def look_up(self) -> list[str]:
        """The addresses of whoever is connected to: the gateway, or the proxy before it.

        Raises:
            GatewayUnreachableError: there is no such name, or nobody could tell.
            ConfigError: this cannot be a name.
        """
        parts, proxy = urlsplit(self._settings.url), self.parties.proxy
        host = parts.hostname or "" if proxy is None else proxy.host

        def look_up() -> list[str]:
            found = self._resolver.addresses(host, 0, self._countdown)
            return list(dict.fromkeys(str(address[0]) for *_, address in found))

        return self._step(look_up)

    def connect(self) -> Mapping[str, Any]:
        """Connect; return the gateway's certificate as ssl.SSLSocket.getpeercert, which is empty without TLS.

        Raises:
            GatewayUnreachableError: nobody listens, or TLS is not agreed on.
            ConfigError, PermissionDeniedError: a file of the settings cannot be used.
        """
        connection = self._only_connection()

        def connect() -> Mapping[str, Any]:
            connection.open()
            return connection.certificate()

        return self._step(connect)

    def get(self, path: str) -> Answer:
        """GET a path below the URL of the settings, with the credentials of a push; whatever the answer's status.

        Raises:
            GatewayUnreachableError: no answer.
            ConfigError, PermissionDeniedError: a file of the settings cannot be used.
        """
        connection = self._only_connection()

        def ask() -> Answer:
            headers = {"User-Agent": f"wattpush/{__version__}"}
            credentials = authorization(self._settings, self._environ)
            if credentials is not None:
                headers["Authorization"] = credentials.header
                self._secrets += credentials.secrets
            url = f"{self._settings.url.rstrip('/')}{path}"
            return connection.exchange("GET", url, headers, b"")

        return self._step(ask)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()

    def _only_connection(self) -> Connection:
        if self._connection is None:
            from agent.http.connection import Connection, Route

            route = Route(self._settings.url, self.parties.proxy, self._resolver, self._tls_contexts.context)
            self._connection = Connection(route, self._countdown, BODY_LIMIT_BYTES)
        return self._connection

    def _step(self, step: Callable[[], _Result]) -> _Result:
        """Do one step within the time-out; whatever goes wrong on the network is said as a push would say it."""
        started_seconds = self._clock.monotonic()
        self._countdown.start(started_seconds + self._settings.timeout_seconds, lambda: False)
        try:
            return step()
        except Exception as error:
            seconds = self._clock.monotonic() - started_seconds
            raise self._error(explain(error, self.parties, self._countdown.phase, seconds)) from error

    def _error(self, failure: AttemptFailedError) -> PushError:
        return push_error(failure.kind, masked(failure.text, self._secrets))
