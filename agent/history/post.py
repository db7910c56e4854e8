"""Posts a body to a remote write server: one attempt, and what its outcome means."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from agent.errors import UnreachableError
from agent.history.answers import Meaning, Verdict, verdict_of, verdict_of_failure
from agent.history.write_request import HEADERS
from agent.http.client import Client
from agent.http.credentials import masked
from agent.http.deadline import WAITING_FOR_THE_ANSWER, watchdog
from agent.http.endpoint import Endpoint
from agent.http.failures import AttemptFailedError
from agent.threads import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.clock import Clock
    from agent.http.connection import Connection
    from agent.settings import RemoteWriteSettings

_TENANT_HEADERS: Final = frozenset({"x-scope-orgid", "thanos-tenant"})
"""Source: the documentation of Mimir and Cortex, and of Thanos receive."""

_SHORTEST_SECRET: Final = 6
"""A shorter value, such as "1" or "true", stands in many messages by chance."""


class Poster:
    """A remote write server and the connection to it; for one caller at a time, except for `stop`.

    Attributes:
        client: of the server.
    """

    def __init__(
        self,
        settings: RemoteWriteSettings,
        *,
        clock: Clock,
        environ: Mapping[str, str],
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """Opens and reads nothing yet.

        Raises:
            ConfigError: the environment names a proxy that cannot be used.
        """
        self.client = Client(endpoint_of(settings), clock=clock, environ=environ, getaddrinfo=getaddrinfo)
        self._settings = settings
        # The headers that the protocol prescribes are last: the configuration does not replace them.
        self._headers = {**dict(settings.headers), **HEADERS}
        self._clock = clock
        self._connection: Connection | None = None
        self._is_stopped = False

    def post(self, body: bytes) -> Verdict:
        """Send a body once; failures of the network and the server are in the verdict, never raised."""
        if self._connection is None:
            self._connection = self.client.new_connection()
        connection = self._connection
        ends_at_seconds = self._clock.monotonic() + self._settings.timeout_seconds
        try:
            with (
                watchdog([connection.deadline]),
                self.client.attempt(connection, ends_at_seconds, lambda: self._is_stopped) as attempt,
            ):
                answer = attempt.exchange("POST", self._settings.url, self._headers, body)
        except NoThreadError as error:  # nothing was sent: without a watchdog an attempt might never end
            return Verdict(Meaning.LATER, f"{self.client.route.server}: not sent: {error}", error=UnreachableError)
        except AttemptFailedError as failure:
            is_sent = connection.was_resent or connection.deadline.phase == WAITING_FOR_THE_ANSWER
            verdict = verdict_of_failure(failure, is_unanswered=is_sent)
            return replace(verdict, meaning=Meaning.LATER) if self._is_stopped else verdict
        verdict = verdict_of(answer, self.client.route, self._clock.time)
        verdict = replace(verdict, words=masked(verdict.words, attempt.secrets))
        return replace(verdict, is_unanswered=True) if connection.was_resent else verdict

    def stop(self) -> None:
        """End the attempt under way, and all later ones, within moments; for other threads and signal handlers."""
        self._is_stopped = True

    def close(self) -> None:
        """Close the connection; the next attempt opens another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def endpoint_of(settings: RemoteWriteSettings) -> Endpoint:
    """The server as an endpoint.

    A header may hold a key (`${NAME}` takes it from the environment), which no message shows. A tenant is no secret.
    """
    secrets = tuple(
        value
        for name, value in settings.headers
        if name.lower() not in _TENANT_HEADERS and len(value) >= _SHORTEST_SECRET
    )
    return Endpoint.of(settings, table="remote_write", usual_port=8428, disconnect_hint="", secrets=secrets)
