"""What failed, in words: whether trying again makes sense, which exit code it is, and what a person can do about it."""

from __future__ import annotations

import email.utils
import errno
import http.client
import re
import socket
import ssl
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.errors import ConfigError, GatewayRejectedError, GatewayUnreachableError, PermissionDeniedError
from agent.http.deadline import StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.http.connection import Answer
    from agent.http.proxies import Proxy
    from agent.push.render import Request

PushError = GatewayUnreachableError | GatewayRejectedError | PermissionDeniedError | ConfigError

_WORDS_LIMIT = 300

_TLS_CURES = {
    "certificate has expired": "renew it, or set this machine's clock",
    "certificate is not yet valid": "set this machine's clock",
    "unable to get local issuer certificate": "name the CA that signed it in pushgateway.ca_file",
    "unable to get issuer certificate": "name the CA that signed it in pushgateway.ca_file",
    "self-signed certificate": "name it in pushgateway.ca_file",
    "self-signed certificate in certificate chain": "name the CA that signed it in pushgateway.ca_file",
    "self signed certificate": "name it in pushgateway.ca_file",
    "self signed certificate in certificate chain": "name the CA that signed it in pushgateway.ca_file",
}
"""By OpenSSL's words (openssl-verification-options(1)); with or without the hyphen, which OpenSSL 3 added."""

_STATUS_CURES = {
    401: "check pushgateway.username and password_file, or bearer_token_file",
    403: "check pushgateway.username and password_file, or bearer_token_file, and what this user may do",
    404: "check the path in pushgateway.url; is a Pushgateway behind it?",
    405: "does pushgateway.url lead to a Pushgateway? A proxy before it has to let PUT and DELETE pass",
    407: "put the proxy's user and password into the proxy variable of the environment",
    413: "raise the limit of the proxy before the gateway (nginx: client_max_body_size)",
    415: "Pushgateway 1.5.0 or newer is needed, as bodies are compressed",
}


class AttemptFailedError(Exception):
    """An attempt at a request failed.

    Attributes:
        kind: the error that it is in the end, if no further attempt succeeds.
        text: what happened, where, and what to do; without the group's name.
        is_transient: whether another attempt may succeed.
        retry_after_seconds: how long the server asked us to wait before that.
        is_disconnect: whether a fresh connection was closed without an answer.
    """

    def __init__(
        self,
        kind: type[PushError],
        text: str,
        *,
        is_transient: bool = False,
        retry_after_seconds: float = 0.0,
        is_disconnect: bool = False,
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.is_transient = is_transient
        self.retry_after_seconds = retry_after_seconds
        self.is_disconnect = is_disconnect


def push_error(kind: type[PushError], text: str) -> PushError:
    """The error of `kind` that says `text`."""
    return ConfigError((text,)) if kind is ConfigError else kind(text)  # type: ignore[arg-type]  # only ConfigError takes a tuple


@dataclass(frozen=True, slots=True)
class Parties:
    """Who is talked to, in words without credentials."""

    url: str
    proxy: Proxy | None

    @property
    def gateway(self) -> str:
        """The gateway's host and port."""
        return _authority(self.url)

    @property
    def first(self) -> str:
        """Who is connected to: the proxy, if there is one."""
        return self.gateway if self.proxy is None else f"the proxy {self.proxy.host}:{self.proxy.port}"

    @property
    def whole_way(self) -> str:
        """The gateway, and the proxy on the way to it."""
        return self.gateway if self.proxy is None else f"{self.gateway} through {self.first}"


def explain(  # noqa: PLR0911 - one return for each kind of error reads best
    error: Exception, parties: Parties, phase: str, seconds: float
) -> AttemptFailedError:
    """What an exception of the network layers means.

    Args:
        error: as Connection.exchange raised it.
        parties: who was talked to.
        phase: what was being waited for.
        seconds: how long the attempt took.
    """
    if isinstance(error, (ConfigError, PermissionDeniedError)):
        return AttemptFailedError(type(error), str(error))
    if isinstance(error, StoppedError):
        return AttemptFailedError(GatewayUnreachableError, f"stopped before {parties.gateway} had answered")
    if isinstance(error, TimeoutError):
        return _transient(f"{parties.whole_way} timed out after {seconds:.1f} s, while {phase or 'connecting'}")
    if isinstance(error, socket.gaierror):
        return _explain_name(error, parties)
    if isinstance(error, UnicodeError):
        return AttemptFailedError(ConfigError, f"pushgateway.url: {parties.first} is not a host name")
    if isinstance(error, ssl.SSLError):
        return _explain_tls(error, parties)
    if isinstance(error, http.client.HTTPException):
        return _explain_http(error, parties)
    if isinstance(error, OSError):
        return _explain_os(error, parties)
    raise error


def judge(
    answer: Answer, request: Request, parties: Parties, unix_time_seconds: Callable[[], float]
) -> AttemptFailedError | None:
    """What an answer means; None if it accepts the request."""
    if 200 <= answer.status < 300:
        # A Pushgateway accepts without a word. A web page comes from something else that says yes to everything.
        if "text/html" in (answer.headers.get("Content-Type") or ""):
            return AttemptFailedError(
                GatewayRejectedError,
                f"{parties.whole_way} answered {request.method} {request.path} with a web page; "
                "is there a Pushgateway at pushgateway.url, or a captive portal in between?",
            )
        return None
    status = f"{answer.status} {one_line(answer.reason)}".strip()
    what = f"{request.method} {request.path}"
    if 300 <= answer.status < 400:
        location = answer.headers.get("Location")
        target = f"to {_origin(location, request.url)}" if location else "without saying where"
        return AttemptFailedError(
            GatewayRejectedError,
            f"{parties.whole_way} answered {what} with {status} {target}; redirects are not followed: "
            "set pushgateway.url to where the Pushgateway is",
        )
    words = one_line(answer.body.decode("utf-8", errors="replace"))
    said = f"{status}: {words}" if words else status
    if answer.status in (408, 429) or answer.status >= 500:
        wait_seconds = _retry_after_seconds(answer, unix_time_seconds)
        asks = f"; it asks to wait {wait_seconds:.0f} s" if wait_seconds else ""
        return _transient(f"{parties.whole_way} answered {what} with {said}{asks}", retry_after_seconds=wait_seconds)
    cure = _STATUS_CURES.get(answer.status) or _cure_for_bad_request(answer.body.decode("utf-8", errors="replace"))
    return AttemptFailedError(GatewayRejectedError, f"{parties.whole_way} rejected {what} with {said}; {cure}")


def one_line(text: str, limit: int = _WORDS_LIMIT) -> str:
    """Somebody else's words, safe to print: one line of at most `limit` characters, without control characters."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _transient(text: str, *, retry_after_seconds: float = 0.0) -> AttemptFailedError:
    return AttemptFailedError(GatewayUnreachableError, text, is_transient=True, retry_after_seconds=retry_after_seconds)


def _permanent(text: str) -> AttemptFailedError:
    return AttemptFailedError(GatewayUnreachableError, text)


def _explain_name(error: socket.gaierror, parties: Parties) -> AttemptFailedError:
    if error.errno == socket.EAI_AGAIN:
        return _transient(f"{parties.first}: the name could not be looked up for now (no answer from DNS)")
    if error.errno == socket.EAI_NONAME:
        return _permanent(f"{parties.first}: there is no host of this name; check the name, and DNS")
    return _permanent(f"{parties.first}: the name could not be looked up: {one_line(str(error.strerror))}")


def _explain_tls(error: ssl.SSLError, parties: Parties) -> AttemptFailedError:
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return _transient(f"{parties.whole_way} ended the connection in the middle of TLS")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        cure = _TLS_CURES.get(reason, "it has to be made out for the host in pushgateway.url")
        return _permanent(f"{parties.whole_way}: TLS: the certificate is refused: {one_line(reason)}; {cure}")
    reason = one_line((error.reason or str(error)).replace("_", " ").lower())
    if "wrong version number" in reason or "record layer failure" in reason:
        return _permanent(f"{parties.whole_way} does not speak TLS; use http:// in its URL, or check the port")
    if "certificate required" in reason or "handshake failure" in reason:
        cure = "it may want a client certificate: set pushgateway.cert_file and key_file"
    elif "alert" in reason and ("unknown ca" in reason or "certificate" in reason):
        cure = "check the client certificate in pushgateway.cert_file"
    else:
        cure = "check which TLS versions and certificates it accepts"
    return _permanent(f"{parties.whole_way}: TLS failed: {reason}; {cure}")


def _explain_http(error: http.client.HTTPException, parties: Parties) -> AttemptFailedError:
    if isinstance(error, http.client.RemoteDisconnected):
        failure = _transient(
            f"{parties.whole_way} closed the connection without an answer. Pushgateway 1.11.0 does so instead of "
            "answering 400 to a push that it will never accept, such as one of a metric that another group has with "
            "another type: look at its metrics and its log"
        )
        failure.is_disconnect = True
        return failure
    if isinstance(error, http.client.InvalidURL):
        return AttemptFailedError(ConfigError, "pushgateway.url: it holds characters that a URL may not have")
    words = one_line(str(error), limit=80) or type(error).__name__
    return _transient(f"{parties.whole_way} did not answer in HTTP ({words}); is the port right?")


def _explain_os(error: OSError, parties: Parties) -> AttemptFailedError:
    tunnel = re.match(r"Tunnel connection failed: (\d{3}) ?(.*)", str(error), re.DOTALL)
    if tunnel:
        status = int(tunnel[1])
        text = f"{parties.first} answered CONNECT {parties.gateway} with {status} {one_line(tunnel[2])}".rstrip()
        if status in (408, 429) or status >= 500:
            return _transient(text)
        cure = _STATUS_CURES[407] if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else "ask who runs it"
        return AttemptFailedError(GatewayRejectedError, f"{text}; {cure}")
    if isinstance(error, ConnectionRefusedError):
        port = "" if parties.proxy or urlsplit(parties.url).port else " (pushgateway.url names no port: often 9091)"
        return _transient(f"{parties.first} refused the connection{port}; is it running?")
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return _transient(f"{parties.whole_way} reset the connection")
    if error.errno in (errno.EPERM, errno.EACCES):
        return _permanent(f"{parties.first}: connecting is forbidden here; check the firewall and IPAddressDeny=")
    return _transient(f"{parties.whole_way}: {one_line(error.strerror or str(error))}")


def _cure_for_bad_request(words: str) -> str:
    if "parsing error" in words:
        return "is it older than Pushgateway 1.5.0, which cannot read compressed bodies?"
    if "was collected before with the same name and label values" in words:
        return (
            "another group holds these very series, as after a change of group_by: `wattpush delete` removes this "
            "node's groups of both shapes, and the next push is accepted"
        )
    if "inconsistent" in words:
        return "if another group has this metric with another type, delete that group"
    return "see the log of the gateway"


def _retry_after_seconds(answer: Answer, unix_time_seconds: Callable[[], float]) -> float:
    """Seconds or a date (RFC 9110, section 10.2.3); 0 if absent, past or senseless."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=timezone.utc)
        return max(0.0, moment.timestamp() - unix_time_seconds())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _authority(url: str) -> str:
    """Host and port of a URL, never its user or password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def _origin(location: str, base: str) -> str:
    """Where a Location points, without its path, which may hold a token."""
    try:
        target = urlsplit(location)
        if not target.netloc:
            target = urlsplit(base)
            return f"another path of {target.scheme}://{_authority(base)}"
        return one_line(f"{target.scheme or urlsplit(base).scheme}://{target.netloc.rpartition('@')[2]}", limit=100)
    except ValueError:
        return "an address that makes no sense"
