"""Checks whether a push arrives: each step towards the gateway, then a push and a delete of a test group."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.build_info import machine_hash
from agent.check import Finding, Status, failed, ok, warning
from agent.check.connection import check_credentials, check_hops, skew
from agent.errors import AgentError, RejectedError
from agent.http.client import Client
from agent.push.gateway import Pushgateway, endpoint_of
from agent.push.held import BUILD_INFO
from agent.push.probe import BODY_LIMIT_BYTES, Probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.clock import Clock
    from agent.http.connection import Answer
    from agent.metrics.groups import Group
    from agent.settings import PushgatewaySettings, Settings

_FIRST_VERSION_WITH_GZIP = (1, 5)
_POLL_SECONDS = 0.1
# A Pushgateway answers a PUT once it has stored the group, with --push.disable-consistency-check a moment before.
_SHOWN_WITHIN_SECONDS = 1.0

_HONOR_LABELS = Finding(
    Status.NOTE,
    "scrape",
    "how Prometheus scrapes the gateway cannot be seen from here",
    "its job needs honor_labels: true, else `job` and `instance` become the gateway's own",
)


def check_gateway(
    settings: Settings, gateway: PushgatewaySettings, clock: Clock, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Follow the route of a push; a finding for each step.

    The test group has a name that is unique to this machine, and a metric that no other group has. It is deleted
    whatever happens; if an interrupted check leaves it behind, the next check deletes it.

    Args:
        settings: holds the hostname to push under.
        gateway: where to push.
        clock: for timeouts, and to compare with the gateway's.
        environ: the environment, for proxies and $CREDENTIALS_DIRECTORY.
    """
    try:
        probe = Probe(Client(endpoint_of(gateway), clock=clock, environ=environ), gateway.timeout_seconds)
    except AgentError as error:
        yield failed("proxy", error)
        return
    credentials = list(check_credentials(endpoint_of(gateway), environ))
    yield from credentials
    if any(finding.exit_code for finding in credentials):
        return  # a push does not begin without them
    try:
        yield from _check_route(probe, clock)
        yield from _check_push(settings, gateway, clock, environ, probe)
    except AgentError as error:
        yield failed("gateway", error)
    finally:
        probe.close()
    yield _HONOR_LABELS


def _check_route(probe: Probe, clock: Clock) -> Iterator[Finding]:
    """Name, connection, certificate, version, clock; raises AgentError at the step that fails."""
    yield from check_hops(probe, clock)
    begun_seconds = clock.monotonic()
    answer = probe.get("/api/v1/status")
    seconds = clock.monotonic() - begun_seconds
    yield _version(answer)
    harm = "timestamps and push_time_seconds disagree"
    yield skew(answer, clock.time() - seconds / 2, "the gateway", harm)


def _version(answer: Answer) -> Finding:
    """Source: the Pushgateway's README, "Query API": /api/v1/status shows build_information."""
    try:
        version = str(json.loads(answer.body)["data"]["build_information"]["version"])
    except (ValueError, KeyError, TypeError, RecursionError):
        version = ""
    numbers = re.match(r"(\d{1,4})\.(\d{1,4})(?:\.\d{1,4})?", version)
    if numbers is None:
        return warning(
            "version",
            f"not shown (GET /api/v1/status: {answer.status})",
            "does a proxy before the gateway block it? Does pushgateway.url lead to a Pushgateway?",
        )
    if (int(numbers[1]), int(numbers[2])) < _FIRST_VERSION_WITH_GZIP:
        return warning("version", f"Pushgateway {numbers[0]} cannot read compressed pushes", "install 1.5.0 or newer")
    return ok("version", f"Pushgateway {numbers[0]}")


def _check_push(
    settings: Settings, gateway: PushgatewaySettings, clock: Clock, environ: Mapping[str, str], probe: Probe
) -> list[Finding]:
    """PUT and DELETE, by the code of a run; not an iterator, so that the caller cannot stop it in between."""
    name = "-".join(filter(None, ("wattpush-check", machine_hash())))
    group = _group({"hostname": settings.hostname, "device": name})
    destination = Pushgateway(gateway, clock=clock, sleep=clock.sleep, environ=environ)
    begun_seconds = clock.monotonic()
    try:
        try:
            (pushed,) = destination.push([group], gateway.timeout_seconds)
            milliseconds = 1000 * (clock.monotonic() - begun_seconds)
            is_shown = None if pushed.error is not None else _is_shown(name, clock, probe)
        finally:
            # Also after a refusal, because a Pushgateway then keeps an empty group.
            (deleted,) = destination.delete([group.grouping_key], gateway.timeout_seconds)
    finally:
        destination.close()
    push = ok("push", f"PUT of the group {name} is accepted ({milliseconds:.0f} ms)")
    if pushed.error is not None:
        push = _of_group(failed("push", pushed.error), pushed.name)
    if is_shown is False:
        push = warning(
            "push",
            f"PUT of the group {name} is accepted, but GET /metrics does not show the group",
            "does pushgateway.url lead to a Pushgateway, and always to the same one?",
        )
    if deleted.error is not None:
        delete = failed("delete", deleted.error, "if the group is left behind, the next check deletes it")
        return [push, _of_group(delete, deleted.name)]
    if is_shown is False:
        return [push, ok("delete", "accepted; the group was not visible before")]
    return [push, _check_gone(name, gateway, clock, probe)]


def _of_group(finding: Finding, name: str) -> Finding:
    """The finding without the name of the test group, which its path has."""
    return replace(finding, text=finding.text.removeprefix(f"{name}: "))


def _is_shown(name: str, clock: Clock, probe: Probe) -> bool | None:
    """Whether the gateway shows the group; None if that cannot be seen.

    Any web server may answer 200 to a PUT. The first answer to GET /metrics shows whether it is a Pushgateway, which is
    worth waiting for.
    """
    ends_at_seconds = clock.monotonic() + _SHOWN_WITHIN_SECONDS
    while True:
        try:
            answer = probe.get("/metrics")
        except AgentError:
            return None
        if answer.status != 200 or len(answer.body) >= BODY_LIMIT_BYTES:
            return None
        if f'"{name}"'.encode() in answer.body:
            return True
        if BUILD_INFO not in answer.body or clock.monotonic() >= ends_at_seconds:
            return False
        clock.sleep(_POLL_SECONDS)


def _check_gone(name: str, gateway: PushgatewaySettings, clock: Clock, probe: Probe) -> Finding:
    """Whether the group disappears: a Pushgateway answers a DELETE before it has done it."""
    ends_at_seconds = clock.monotonic() + gateway.timeout_seconds
    while True:
        try:
            answer = probe.get("/metrics")
        except AgentError as error:
            return warning("delete", f"accepted, but then: {error}", "try again")
        if answer.status != 200 or len(answer.body) >= BODY_LIMIT_BYTES:
            why = f"GET /metrics: {answer.status}" if answer.status != 200 else "too many metrics"
            return ok("delete", f"accepted; that the group is gone cannot be seen from here ({why})")
        if f'"{name}"'.encode() not in answer.body:
            return ok("delete", "accepted, and the group is gone")
        if clock.monotonic() >= ends_at_seconds:
            still_there = RejectedError(f"the group {name} is still there, though the DELETE was accepted")
            return failed("delete", still_there, "see the log of the gateway")
        clock.sleep(_POLL_SECONDS)


def _group(grouping_key: Mapping[str, str]) -> Group:
    from prometheus_client import CollectorRegistry, Gauge

    from agent.metrics.groups import Group

    registry = CollectorRegistry()
    Gauge("wattpush_check", "Pushed and deleted by `wattpush check --gateway`.", registry=registry).set(1)
    return Group(grouping_key, registry)
