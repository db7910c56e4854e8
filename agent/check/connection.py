"""Checks the way to a server that we send to: files, credentials, name, connection, certificate, clock.

The subject of a finding begins with `prefix`, which tells the servers apart: nothing for the gateway.
"""

from __future__ import annotations

import ssl
import stat
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agent.check import failed, ok, warning
from agent.errors import AgentError, one_line
from agent.http.credentials import authorization, locate
from agent.http.failures import seconds_of_date
from agent.http.tls import TlsContexts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.check import Finding
    from agent.clock import Clock
    from agent.http.connection import Answer
    from agent.http.endpoint import Endpoint
    from agent.push.probe import Probe

# Let's Encrypt's certificates are renewed with 30 days left: at 14 days the renewal has failed for two weeks.
_FEWEST_DAYS = 14
_DAY_SECONDS = 86400.0
_LARGEST_SKEW_SECONDS = 5.0


def check_credentials(endpoint: Endpoint, environ: Mapping[str, str], prefix: str = "") -> Iterator[Finding]:
    """Whether there are credentials to send, and whether others can read them."""
    yield from _check_key(endpoint, environ, prefix)
    file = endpoint.bearer_token_file or endpoint.password_file
    what = f"{prefix}credentials"
    try:
        if file is None or authorization(endpoint, environ) is None:
            return
    except AgentError as error:
        yield failed(what, error)
        return
    path = locate(file, environ)
    who = "bearer token" if endpoint.bearer_token_file else f"password of {endpoint.username}"
    parts = urlsplit(endpoint.url)
    exposed = list(check_secrecy(what, path))
    if exposed:
        yield from exposed
    elif parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        yield warning(what, f"the {who} is sent in plain text", f"use https:// in {endpoint.table}.url")
    else:
        yield ok(what, f"{who}, from {path}")


def check_files(endpoint: Endpoint, environ: Mapping[str, str], prefix: str = "") -> Iterator[Finding]:
    """A warning for each file of a connection that this user cannot use.

    Only a warning, because another user may see more, and only the service sees its systemd credentials. Also one for
    each secret that others may read.
    """
    secret = endpoint.bearer_token_file or endpoint.password_file
    if secret is not None:
        yield from check_secrecy(f"{prefix}credentials", locate(secret, environ))
    yield from _check_key(endpoint, environ, prefix)
    try:
        authorization(endpoint, environ)
    except AgentError as error:
        yield warning(f"{prefix}credentials", *_halves(error))
    try:
        TlsContexts(endpoint, environ).context()
    except AgentError as error:
        yield warning(f"{prefix}TLS", *_halves(error))


def check_secrecy(what: str, path: Path) -> Iterator[Finding]:
    """A warning if the mode of a secret file lets every user read it."""
    try:
        is_open = path.stat().st_mode & stat.S_IROTH
    except OSError:
        return  # which reading it reports
    if is_open:
        yield warning(what, f"{path}: its mode lets every user of this machine read it", f"sudo chmod o= {path}")


def _check_key(endpoint: Endpoint, environ: Mapping[str, str], prefix: str) -> Iterator[Finding]:
    if endpoint.key_file is not None:
        yield from check_secrecy(f"{prefix}TLS", locate(endpoint.key_file, environ))


def _halves(error: AgentError) -> tuple[str, str]:
    text, _, hint = str(error).partition("; ")
    return text, hint


def check_hops(probe: Probe, clock: Clock, prefix: str = "") -> Iterator[Finding]:
    """Name, connection, certificate; raises AgentError at the step that fails."""
    begun_seconds = clock.monotonic()
    found = probe.look_up()
    milliseconds = 1000 * (clock.monotonic() - begun_seconds)
    yield ok(f"{prefix}name", f"{probe.route.first_hop} is {', '.join(found)} ({milliseconds:.0f} ms)")
    begun_seconds = clock.monotonic()
    certificate = probe.connect()
    milliseconds = 1000 * (clock.monotonic() - begun_seconds)
    yield ok(f"{prefix}connection", f"{probe.route.hops} accepts it ({milliseconds:.0f} ms)")
    if certificate:
        yield _certificate(certificate, clock, prefix)


def _certificate(certificate: Mapping[str, Any], clock: Clock, prefix: str) -> Finding:
    """How long it is valid; it is trusted, or there would have been no connection."""
    issuer = {key: value for part in certificate.get("issuer", ()) for key, value in part}
    by = one_line(str(issuer.get("organizationName") or issuer.get("commonName") or "an unnamed issuer"), limit=60)
    where = "server" if prefix else "gateway"
    hint = f"renew it on the {where}: once it has expired, nothing arrives"
    return check_expiry(f"{prefix}certificate", f"by {by}", certificate, clock, hint)


def check_expiry(what: str, text: str, certificate: Mapping[str, Any], clock: Clock, hint: str) -> Finding:
    """How long a valid certificate is still valid; a warning with the hint if that is not long."""
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - clock.time()) / _DAY_SECONDS
    text = f"{text}, for {days:.0f} more days"
    return warning(what, text, hint) if days < _FEWEST_DAYS else ok(what, text)


def skew(answer: Answer, unix_seconds: float, server: str, harm: str, prefix: str = "") -> Finding:
    """Compare the clocks by the Date of an answer.

    Args:
        answer: of the server.
        unix_seconds: when it was sent, by this machine's clock.
        server: whose it is, in words: "the gateway".
        harm: what a difference does.
        prefix: begins the subject.
    """
    hint = "is this machine's time synchronised? timedatectl timesync-status"
    what = f"{prefix}clock"
    date_seconds = seconds_of_date(answer.headers.get("Date"))
    if date_seconds is None:
        return warning(what, f"the answer of {server} has no date", hint)
    # The Date is in whole seconds (RFC 9110, section 6.6.1), so half a second is the best guess.
    behind_seconds = date_seconds + 0.5 - unix_seconds
    if abs(behind_seconds) <= _LARGEST_SKEW_SECONDS:
        return ok(what, f"this machine's and {server}'s agree")
    which = "behind" if behind_seconds > 0 else "ahead of"
    return warning(
        what,
        f"this machine's is {abs(behind_seconds):.0f} s {which} {server}'s, so {harm}",
        "run `sudo timedatectl set-ntp true` on the one that is wrong",
    )
