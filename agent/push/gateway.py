"""Pushes groups of metrics to a Prometheus Pushgateway: within a budget of time, whatever the network does."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from agent.http.client import Client
from agent.http.endpoint import Endpoint
from agent.push.base import GatewayDestination
from agent.push.delivery import Delivery
from agent.push.failures import DISCONNECT_HINT
from agent.push.render import delete_requests, put_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.clock import Clock
    from agent.http.connection import Connection
    from agent.metrics.groups import Group
    from agent.push.delivery import PushResult
    from agent.push.render import Request
    from agent.settings import PushgatewaySettings


class Pushgateway(GatewayDestination):
    """A Pushgateway and its idle connections; for one caller at a time, except for `stop`."""

    def __init__(
        self,
        settings: PushgatewaySettings,
        *,
        clock: Clock,
        sleep: Callable[[float], None],
        environ: Mapping[str, str],
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        """Opens and reads nothing yet.

        Args:
            settings: where and how to push.
            clock: for the budget, and for the date in a Retry-After.
            sleep: waits between attempts, called from several threads at once; an exception from it ends the push.
            environ: the environment, for proxies and $CREDENTIALS_DIRECTORY.
            getaddrinfo: looks up names.

        Raises:
            ConfigError: the environment names a proxy that cannot be used.
        """
        self._settings = settings
        self._sleep = sleep
        self._client = Client(endpoint_of(settings), clock=clock, environ=environ, getaddrinfo=getaddrinfo)
        # Lists whose single steps are safe between threads: a signal handler that calls `stop` must find no lock held.
        self._idle: list[Connection] = []
        self._under_way: list[Delivery] = []

    def push(self, groups: Sequence[Group], budget_seconds: float) -> tuple[PushResult, ...]:
        """Replace these groups on the gateway, all within one budget; a result for each, in order.

        Failures are in the results, never raised. A transient failure is tried again until the budget is spent; one
        group that fails does not keep the others from being pushed.

        Raises:
            Exception: as raised by a collector of the metrics, before anything was sent, or by `sleep`.
        """
        return self._deliver(put_requests(groups, self._settings), budget_seconds)

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], budget_seconds: float) -> tuple[PushResult, ...]:
        """Remove these groups from the gateway, as `push` replaces them; a missing one counts as removed."""
        return self._deliver(delete_requests(grouping_keys, self._settings), budget_seconds)

    def held(self, hostname: str, budget_seconds: float) -> dict[tuple[str, str], float]:
        """The samples that the gateway holds of a node, by device and name; see `held_samples`."""
        from agent.push.held import held_samples

        labels = {"job": self._settings.job, "hostname": hostname}
        return held_samples(self._client, labels, min(budget_seconds, self._settings.timeout_seconds))

    def held_groups(self) -> list[dict[str, str]] | None:
        """The grouping keys, without `job`, of the groups of this job; None if the gateway does not show them all."""
        from agent.push.held import held_groups

        return held_groups(self._client, self._settings.job, self._settings.timeout_seconds)

    def stop(self) -> None:
        """End everything under way now; for other threads and signal handlers.

        `push` and `delete` return within moments, with errors for the groups that are left. A wait between attempts is
        in `sleep`, which has to end by itself. Later calls work again.
        """
        for delivery in tuple(self._under_way):
            delivery.stop()

    def close(self) -> None:
        """Close the idle connections; the next push opens new ones."""
        while self._idle:
            self._idle.pop().close()

    def _deliver(self, requests: Sequence[Request], budget_seconds: float) -> tuple[PushResult, ...]:
        delivery = Delivery(requests, budget_seconds, client=self._client, idle=self._idle, sleep=self._sleep)
        self._under_way.append(delivery)
        try:
            return delivery.run()
        finally:
            self._under_way.remove(delivery)


def endpoint_of(settings: PushgatewaySettings) -> Endpoint:
    """The gateway as an endpoint."""
    return Endpoint.of(settings, table="pushgateway", usual_port=9091, disconnect_hint=DISCONNECT_HINT)
