"""Checks whether a push arrives: each step towards the gateway, then a push and a delete of a test group."""

from __future__ import annotations

import json
import re
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.build_info import machine_hash
from agent.check import Finding, Status, failed, ok, warning
from agent.errors import AgentError, RejectedError
from agent.http.client import Client
from agent.http.credentials import authorization, locate
from agent.http.failures import one_line, seconds_of_date
from agent.http.tls import TlsContexts
from agent.push.gateway import Pushgateway, endpoint_of
from agent.push.held import BUILD_INFO
from agent.push.probe import BODY_LIMIT_BYTES, Probe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.clock import Clock
    from agent.http.connection import Answer
    from agent.metrics.groups import Group
    from agent.settings import PushgatewaySettings, Settings

# Let's Encrypt's certificates are renewed with 30 days left: at 14 days the renewal has failed for two weeks.
_FEWEST_DAYS = 14
_LARGEST_SKEW_SECONDS = 5.0
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
    credentials = list(_check_credentials(gateway, environ))
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


def _check_credentials(gateway: PushgatewaySettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    file = gateway.bearer_token_file or gateway.password_file
    try:
        if file is None or authorization(endpoint_of(gateway), environ) is None:
            return
    except AgentError as error:
        yield failed("credentials", error)
        return
    path = locate(file, environ)
    who = "bearer token" if gateway.bearer_token_file else f"password of {gateway.username}"
    parts = urlsplit(gateway.url)
    if path.stat().st_mode & 0o004:
        yield warning("credentials", f"{path}: every user of this machine can read it", f"sudo chmod o= {path}")
    elif parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        yield warning("credentials", f"the {who} is sent in plain text", "use https:// in pushgateway.url")
    else:
        yield ok("credentials", f"{who}, from {path}")


def check_files(gateway: PushgatewaySettings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """A warning for each file of a push that this user cannot use.

    Only a warning, because another user may see more, and only the service sees its systemd credentials.
    """
    try:
        authorization(endpoint_of(gateway), environ)
    except AgentError as error:
        yield warning("credentials", *_halves(error))
    try:
        TlsContexts(endpoint_of(gateway), environ).context()
    except AgentError as error:
        yield warning("TLS", *_halves(error))


def _halves(error: AgentError) -> tuple[str, str]:
    text, _, hint = str(error).partition("; ")
    return text, hint


def _check_route(probe: Probe, clock: Clock) -> Iterator[Finding]:
    """Name, connection, certificate, version, clock; raises AgentError at the step that fails."""
    begun_seconds = clock.monotonic()
    found = probe.look_up()
    milliseconds = 1000 * (clock.monotonic() - begun_seconds)
    yield ok("name", f"{probe.route.first_hop} is {', '.join(found)} ({milliseconds:.0f} ms)")
    begun_seconds = clock.monotonic()
    certificate = probe.connect()
    milliseconds = 1000 * (clock.monotonic() - begun_seconds)
    yield ok("connection", f"{probe.route.hops} accepts it ({milliseconds:.0f} ms)")
    if certificate:
        yield _certificate(certificate, clock)
    begun_seconds = clock.monotonic()
    answer = probe.get("/api/v1/status")
    seconds = clock.monotonic() - begun_seconds
    yield _version(answer)
    yield _skew(answer, clock.time() - seconds / 2)


def _certificate(certificate: Mapping[str, Any], clock: Clock) -> Finding:
    """How long it is valid; it is trusted, or there would have been no connection."""
    issuer = {key: value for part in certificate.get("issuer", ()) for key, value in part}
    by = one_line(str(issuer.get("organizationName") or issuer.get("commonName") or "an unnamed issuer"), limit=60)
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - clock.time()) / 86400
    validity = f"by {by}, for {days:.0f} more days"
    if days < _FEWEST_DAYS:
        return warning("certificate", validity, "renew it on the gateway: once it has expired, no push arrives")
    return ok("certificate", validity)


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


def _skew(answer: Answer, unix_seconds: float) -> Finding:
    """The Date of an answer is in whole seconds (RFC 9110, section 6.6.1), so half a second is the best guess."""
    hint = "is this machine's time synchronised? timedatectl timesync-status"
    date_seconds = seconds_of_date(answer.headers.get("Date"))
    if date_seconds is None:
        return warning("clock", "the answer of the gateway has no date", hint)
    behind_seconds = date_seconds + 0.5 - unix_seconds
    if abs(behind_seconds) <= _LARGEST_SKEW_SECONDS:
        return ok("clock", "this machine's and the gateway's agree")
    which = "behind" if behind_seconds > 0 else "ahead of"
    return warning(
        "clock",
        f"this machine's is {abs(behind_seconds):.0f} s {which} the gateway's, so timestamps and push_time_seconds "
        "disagree",
        "run `sudo timedatectl set-ntp true` on the one that is wrong",
    )


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
        push = failed("push", pushed.error)
    if is_shown is False:
        push = warning(
            "push",
            f"PUT of the group {name} is accepted, but GET /metrics does not show the group",
            "does pushgateway.url lead to a Pushgateway, and always to the same one?",
        )
    if deleted.error is not None:
        return [push, failed("delete", deleted.error, "if the group is left behind, the next check deletes it")]
    if is_shown is False:
        return [push, ok("delete", "accepted; the group was not visible before")]
    return [push, _check_gone(name, gateway, clock, probe)]


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
