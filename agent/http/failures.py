"""Failures of the network, in words: what failed, whether to try again, the exit code, and a hint."""

from __future__ import annotations

import email.utils
import errno
import html
import http.client
import re
import socket
import ssl
from datetime import timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agent.errors import ConfigError, PermissionDeniedError, RejectedError, UnreachableError, one_line
from agent.http.credentials import masked
from agent.http.deadline import StoppedError
from agent.http.endpoint import authority
from agent.threads import NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.errors import AgentError
    from agent.http.connection import Answer
    from agent.http.endpoint import Route

_TLS_HINTS = {
    "certificate has expired": ("renew it, or set this machine's clock", ""),
    "certificate is not yet valid": ("set this machine's clock", ""),
    "unable to get local issuer certificate": ("name the CA that signed it in ", "ca_file"),
    "unable to get issuer certificate": ("name the CA that signed it in ", "ca_file"),
    "self-signed certificate": ("name it in ", "ca_file"),
    "self-signed certificate in certificate chain": ("name the CA that signed it in ", "ca_file"),
    "self signed certificate": ("name it in ", "ca_file"),
    "self signed certificate in certificate chain": ("name the CA that signed it in ", "ca_file"),
}
"""Hints, with the keys that they name, by OpenSSL's words (openssl-verification-options(1)); 3.0 added the hyphen."""

_HTML = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(!--|(!doctype html|html|head|body|title|meta|script|center|div|h1|p)\b)",
    re.IGNORECASE,
)
"""The beginning of a web page, but not that of an error in XML, whose words belong into a message."""

WANTS_TLS = re.compile(r"HTTP request (?:was sent )?to (?:an )?HTTPS|plain HTTP to an SSL", re.IGNORECASE)
"""A port that speaks TLS answers 400 to a request without it, in plain text where the server is written in Go.

Source: Go, net/http/server.go; nginx, src/http/ngx_http_special_response.c; Apache, modules/ssl/ssl_engine_kernel.c.
"""

PROXY_CREDENTIALS_HINT = "put the proxy's user and password into the proxy variable of the environment"


class AttemptFailedError(Exception):
    """An attempt at a request failed.

    Attributes:
        kind: the error that it becomes if no further attempt succeeds.
        text: what happened, where, and what to do.
        is_transient: whether another attempt may succeed.
        retry_after_seconds: how long the server asks us to wait before that.
        is_disconnect: whether the server closed a new connection without an answer.
    """

    def __init__(
        self,
        kind: type[AgentError],
        text: str,
        *,
        is_transient: bool = False,
        retry_after_seconds: float = 0.0,
        is_disconnect: bool = False,
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.is_transient = is_transient
        self.retry_after_seconds = retry_after_seconds
        self.is_disconnect = is_disconnect

    @property
    def text(self) -> str:
        """What happened, where, and what to do."""
        return str(self)

    def mask(self, secrets: Iterable[str]) -> None:
        """Remove `secrets` from the text."""
        self.args = (masked(self.text, secrets),)

    def final_error(self, text: str) -> AgentError:
        """An error of `kind` with this text."""
        return ConfigError((text,)) if issubclass(self.kind, ConfigError) else self.kind(text)


def transient(text: str, *, retry_after_seconds: float = 0.0) -> AttemptFailedError:
    """A failure after which another attempt may succeed."""
    return AttemptFailedError(UnreachableError, text, is_transient=True, retry_after_seconds=retry_after_seconds)


def explain(  # noqa: PLR0911 - one return for each kind of error reads best
    error: Exception, route: Route, phase: str, seconds: float, secrets: Iterable[str] = ()
) -> AttemptFailedError:
    """Explain an exception of the network layers.

    Args:
        error: as Connection.exchange raised it.
        route: where the request went.
        phase: what the attempt was waiting for.
        seconds: how long the attempt took.
        secrets: words that no message may show.
    """
    if isinstance(error, (ConfigError, PermissionDeniedError)):
        return AttemptFailedError(type(error), str(error))
    if isinstance(error, NoThreadError):
        return transient(str(error))
    if isinstance(error, StoppedError):
        return AttemptFailedError(UnreachableError, f"stopped before {route.server} had answered")
    if isinstance(error, TimeoutError):
        return transient(f"{route.hops} timed out after {seconds:.1f} s, while {phase or 'connecting'}")
    if isinstance(error, socket.gaierror):
        return _explain_name(error, route)
    if isinstance(error, UnicodeError):
        return AttemptFailedError(ConfigError, f"{route.endpoint.table}.url: {route.first_hop} is not a host name")
    if isinstance(error, ssl.SSLError):
        return _explain_tls(error, route)
    if isinstance(error, http.client.HTTPException):
        return _explain_http(error, route, secrets)
    if isinstance(error, OSError):
        return _explain_os(error, route, secrets)
    raise error


def status_line(answer: Answer) -> str:
    """The status and the reason of an answer for a message."""
    return f"{answer.status} {one_line(masked(answer.reason, answer.secrets))}".strip()


def web_page_text(route: Route, what: str, server: str) -> str:
    """The message for a success that is a web page, which comes from a server that accepts everything.

    Args:
        route: to the endpoint.
        what: method and path.
        server: that should be there.
    """
    return (
        f"{route.hops} answered {what} with a web page; "
        f"is there {server} at {route.endpoint.table}.url, or a captive portal in between?{proxy_hint(route)}"
    )


def redirect_text(answer: Answer, route: Route, what: str) -> str:
    """The message for a redirect; `what` is the method and path."""
    location = answer.headers.get("Location")
    target = f"to {redirect_target(location, route.endpoint.url)}" if location else "without saying where"
    return (
        f"{route.hops} answered {what} with {status_line(answer)} {target}; redirects are not followed: "
        f"set {route.endpoint.table}.url to where the server is{proxy_hint(route)}"
    )


def quoted_body(answer: Answer) -> str:
    """The words of an answer for a message: of a web page only the title, as its source says nothing in a log.

    Secrets are masked first: cut to the length of a message, one could show its beginning.
    """
    body = masked(answer.body.decode("utf-8", errors="replace"), answer.secrets)
    if not is_web_page(answer):
        return one_line(body)
    title = re.search(r"<title[^>]*>(.*?)</title", body, re.IGNORECASE | re.DOTALL)
    words = one_line(html.unescape(title[1]), limit=100) if title else ""
    return f'a web page, "{words}"' if words else "a web page"


def is_web_page(answer: Answer) -> bool:
    """Whether the answer is HTML, by its type or by how it begins: many servers name no type."""
    content_type = (answer.headers.get("Content-Type") or "").partition(";")[0]
    return "html" in content_type.lower() or _HTML.match(answer.body) is not None


def proxy_hint(route: Route) -> str:
    """What to consider of an answer that may be the proxy's own: a proxy cannot answer within a tunnel of TLS."""
    if route.proxy is None or urlsplit(route.endpoint.url).scheme == "https":
        return ""
    return f"; {route.first_hop} may have refused it: no_proxy={urlsplit(route.endpoint.url).hostname} goes around it"


def _permanent(text: str) -> AttemptFailedError:
    return AttemptFailedError(UnreachableError, text)


def _explain_name(error: socket.gaierror, route: Route) -> AttemptFailedError:
    if error.errno == socket.EAI_AGAIN:
        return transient(f"{route.first_hop}: the name could not be looked up for now (no answer from DNS)")
    if error.errno == socket.EAI_NONAME and "%" in route.first_hop:
        return _permanent(f"{route.first_hop}: this machine has no network interface of the name after the %")
    if error.errno == socket.EAI_NONAME:
        return _permanent(f"{route.first_hop}: there is no host of this name; check the name, and DNS")
    return _permanent(f"{route.first_hop}: the name could not be looked up: {one_line(str(error.strerror))}")


def _explain_tls(error: ssl.SSLError, route: Route) -> AttemptFailedError:
    table = route.endpoint.table
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)):
        return transient(f"{route.hops} ended the connection in the middle of TLS")
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        hint, key = _TLS_HINTS.get(reason, ("it has to be made out for the host in ", "url"))
        hint += f"{table}.{key}" if key else ""
        return _permanent(f"{route.hops}: TLS: the certificate is refused: {one_line(reason)}; {hint}")
    reason = one_line((error.reason or str(error)).replace("_", " ").lower())
    if "wrong version number" in reason or "record layer failure" in reason:
        return _permanent(f"{route.hops} does not speak TLS; use http:// in its URL, or check the port")
    if "certificate required" in reason or "handshake failure" in reason:
        hint = f"it may want a client certificate: set {table}.cert_file and key_file"
    elif "alert" in reason and ("unknown ca" in reason or "certificate" in reason):
        hint = f"check the client certificate in {table}.cert_file"
    else:
        hint = "check which TLS versions and certificates it accepts"
    return _permanent(f"{route.hops}: TLS failed: {reason}; {hint}")


def _explain_http(error: http.client.HTTPException, route: Route, secrets: Iterable[str]) -> AttemptFailedError:
    if isinstance(error, http.client.RemoteDisconnected):
        text = f"{route.hops} closed the connection without an answer"
        hint = route.endpoint.disconnect_hint
        failure = transient(f"{text}. {hint}" if hint else text)
        failure.is_disconnect = True
        return failure
    if isinstance(error, http.client.InvalidURL):
        return AttemptFailedError(
            ConfigError, f"{route.endpoint.table}.url: it holds characters that a URL may not have"
        )
    words = one_line(masked(str(error), secrets), limit=80) or type(error).__name__
    return transient(f"{route.hops} did not answer in HTTP ({words}); is the port right?{_tls_hint(route, ' If')}")


def _explain_os(error: OSError, route: Route, secrets: Iterable[str]) -> AttemptFailedError:
    tunnel = re.match(r"Tunnel connection failed: (\d{3}) ?(.*)", str(error), re.DOTALL)
    if tunnel:
        status = int(tunnel[1])
        reason = one_line(masked(tunnel[2], secrets))
        text = f"{route.first_hop} answered CONNECT {route.server} with {status} {reason}".rstrip()
        if status in (408, 429) or status >= 500:
            return transient(text)
        hint = PROXY_CREDENTIALS_HINT if status == http.HTTPStatus.PROXY_AUTHENTICATION_REQUIRED else "ask who runs it"
        return AttemptFailedError(RejectedError, f"{text}; {hint}")
    if isinstance(error, ConnectionRefusedError):
        return transient(f"{route.first_hop} refused the connection{_port_hint(route)}; is it running?")
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return transient(f"{route.hops} reset the connection{_tls_hint(route, '; if')}")
    if error.errno in (errno.EPERM, errno.EACCES):
        return _permanent(f"{route.first_hop}: connecting is forbidden here; check the firewall and IPAddressDeny=")
    return transient(f"{route.hops}: {one_line(error.strerror or str(error))}")


def _tls_hint(route: Route, start: str) -> str:
    """What to add if a port that speaks TLS may have done this to a request in plain HTTP; begins with `start`."""
    if urlsplit(route.endpoint.url).scheme == "https":
        return ""
    return f"{start} it speaks TLS, write https:// in {route.endpoint.table}.url"


def _port_hint(route: Route) -> str:
    endpoint = route.endpoint
    if endpoint.usual_port is None or route.proxy is not None or urlsplit(endpoint.url).port is not None:
        return ""
    return f" ({endpoint.table}.url names no port: often {endpoint.usual_port})"


def retry_after_seconds(answer: Answer, unix_time_seconds: Callable[[], float]) -> float:
    """The wait that an answer asks for, in seconds or as a date (RFC 9110, section 10.2.3); 0 if there is none."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    moment_seconds = seconds_of_date(value)
    return 0.0 if moment_seconds is None else max(0.0, moment_seconds - unix_time_seconds())


def seconds_of_date(value: str | None) -> float | None:
    """The date of a header as Unix time (RFC 9110, section 5.6.7); None if it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(value or "")
        return moment.replace(tzinfo=moment.tzinfo or timezone.utc).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def redirect_target(location: str, base: str) -> str:
    """The target of a Location header, without its path, which may hold a token."""
    try:
        target = urlsplit(location)
        if not target.netloc:
            target = urlsplit(base)
            return f"another path of {target.scheme}://{authority(base)}"
        return one_line(f"{target.scheme or urlsplit(base).scheme}://{target.netloc.rpartition('@')[2]}", limit=100)
    except ValueError:
        return "an address that makes no sense"
