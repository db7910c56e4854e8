"""Reads from a Pushgateway: its version, and what it holds."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from agent.errors import AgentError
from agent.http.client import Client
from agent.http.deadline import watchdog
from agent.http.failures import AttemptFailedError
from agent.push.gateway import endpoint_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.clock import Clock
    from agent.http.client import Attempt
    from agent.http.connection import Answer
    from agent.settings import PushgatewaySettings

BODY_LIMIT_BYTES = 16 * 2**20
"""The metrics of some ten thousand groups."""

BUILD_INFO = b"pushgateway_build_info"
"""Every Pushgateway exposes this metric about itself."""

_PUSH_TIME = "push_time_seconds"
"""A series that a Pushgateway adds to every group, also to one that was only ever rejected."""


class Probe:
    """One connection to the gateway for GET requests; each step takes at most the timeout of the settings."""

    def __init__(self, gateway: PushgatewaySettings, *, clock: Clock, environ: Mapping[str, str]) -> None:
        """Opens and reads nothing yet; raises ConfigError if the environment names a proxy that cannot be used."""
        self._client = Client(endpoint_of(gateway), clock=clock, environ=environ)
        self._connection = self._client.new_connection(body_limit_bytes=BODY_LIMIT_BYTES)
        self.route = self._client.route

    def look_up(self) -> list[str]:
        """The addresses of the first hop."""
        with self._step():
            return self._connection.look_up()

    def connect(self) -> Mapping[str, Any]:
        """Connect; return the gateway's certificate as ssl.SSLSocket.getpeercert, empty without TLS."""
        with self._step():
            self._connection.open()
            return self._connection.certificate()

    def get(self, path: str) -> Answer:
        """GET a path below the URL of the settings, with the credentials of a push, whatever the answer's status."""
        with self._step() as attempt:
            return attempt.exchange("GET", f"{self.route.endpoint.url.rstrip('/')}{path}", {}, b"")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextlib.contextmanager
    def _step(self) -> Iterator[Attempt]:
        """Raises the error that a push would end with."""
        ends_at_seconds = self._client.clock.monotonic() + self.route.endpoint.timeout_seconds
        try:
            with (
                watchdog([self._connection.deadline]),
                self._client.attempt(self._connection, ends_at_seconds) as attempt,
            ):
                yield attempt
        except AttemptFailedError as failure:
            raise failure.final_error(failure.text) from failure


def held_groups(
    gateway: PushgatewaySettings, *, clock: Clock, environ: Mapping[str, str]
) -> list[dict[str, str]] | None:
    """The grouping keys, without `job`, of the groups of this job; None if the gateway does not show them all.

    Raises:
        ConfigError: the environment names a proxy that cannot be used.
    """
    probe = Probe(gateway, clock=clock, environ=environ)
    try:
        answer = probe.get("/metrics")
    except AgentError:
        return None
    finally:
        probe.close()
    if answer.status != 200 or len(answer.body) >= BODY_LIMIT_BYTES or BUILD_INFO not in answer.body:
        return None
    return _groups_of(gateway.job, answer.body.decode(errors="replace"))


def _groups_of(job: str, exposition: str) -> list[dict[str, str]]:
    from prometheus_client.parser import text_string_to_metric_families

    lines = [line for line in exposition.split("\n") if line.startswith(f"{_PUSH_TIME}{{")]
    samples = [
        sample for family in text_string_to_metric_families("\n".join([*lines, ""])) for sample in family.samples
    ]
    return [
        # A group without `instance` in its key is shown with an empty one.
        {name: value for name, value in sample.labels.items() if name != "job" and value}
        for sample in samples
        if sample.labels.get("job") == job
    ]
