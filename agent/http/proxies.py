"""The proxy, if any, that the environment puts before an endpoint."""

from __future__ import annotations

import base64
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from agent.errors import ConfigError
from agent.http.endpoint import bracketed, host_and_port

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NO_HOST = re.compile(r"[\x00- \x7f]|%[01]|%7f", re.IGNORECASE)
"""Spaces and control characters, for which urllib3 raises an exception of a different kind in a host name."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy, reached in plain text or over TLS.

    Attributes:
        authorization: the value of the Proxy-Authorization header, if the proxy wants one.
        secrets: every form of the password in it: none may reach a message.
    """

    scheme: str
    host: str
    port: int
    authorization: str | None = field(default=None, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def words(self) -> str:
        """The proxy in a message."""
        return f"the proxy {bracketed(self.host)}:{self.port}"


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for `url` by http_proxy, https_proxy, all_proxy and no_proxy; None to connect directly.

    Source: Python's urllib.request.getproxies_environment, whose rules these are; for no_proxy see `_is_exempt`.

    Raises:
        ConfigError: the variable does not hold the URL of an HTTP proxy.
    """
    scheme = urlsplit(url).scheme
    variables = _proxy_variables(environ)
    name = scheme if scheme in variables else "all"
    if name not in variables or _is_exempt(*host_and_port(url), variables.get("no", "")):
        return None
    value = variables[name]
    try:
        return _parse(value if "://" in value else f"http://{value}")
    except (ValueError, KeyError):
        # The message shows neither the value nor the cause: they may hold a password.
        message = f"environment: {name}_proxy is not the URL of an HTTP proxy (http://host:port); correct or unset it"
        raise ConfigError((message,)) from None


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Whether an entry of no_proxy covers the host; a host name is not looked up for it.

    There is no standard. These are the forms that curl, Go and Python's requests understand: `*`; a name, which covers
    the names below it, with or without `.` or `*.` before it; an address, IPv6 also without brackets; a network such as
    10.0.0.0/8 or fd00::/8; a port after a name, IPv4 address or bracket.
    """
    name = host.partition("%")[0].rstrip(".").lower()
    address = _address(name)
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        if entry == "*":
            return True
        pattern, entry_port = _split_port(entry)
        if not pattern or entry_port not in ("", str(port)):
            continue
        if address is not None:
            if address in _network(pattern):
                return True
        elif f".{name}".endswith(f".{pattern.removeprefix('*').strip('.')}"):
            return True
    return False


def _split_port(entry: str) -> tuple[str, str]:
    """An entry of no_proxy without its brackets and port, and the port."""
    found = re.fullmatch(r"\[([^]]*)\](?::(\d+))?|([^:]*):(\d+)", entry)
    return (found[1] or found[3] or "", found[2] or found[4] or "") if found else (entry, "")


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _network(text: str) -> Container[object]:
    """The addresses that an entry of no_proxy covers: one, a network, or none."""
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return ()


def _parse(url: str) -> Proxy:
    """The proxy that a URL names; ValueError or KeyError if we cannot use it."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or _NO_HOST.search(parts.hostname):
        raise ValueError("not an HTTP proxy")
    if parts.username is None:
        return Proxy(parts.scheme, parts.hostname, port)
    password = unquote_to_bytes(parts.password or "")
    encoded = base64.b64encode(unquote_to_bytes(parts.username) + b":" + password).decode("ascii")
    secrets = (encoded, password.decode(errors="replace")) if password else (encoded,)
    return Proxy(parts.scheme, parts.hostname, port, f"Basic {encoded}", secrets)


def _proxy_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The values by scheme; a lower-case variable overrides its upper-case twin, and an empty one removes it."""
    found: dict[str, str] = {}
    for is_lower_case in (False, True):
        for name, value in environ.items():
            scheme, _, suffix = name.lower().rpartition("_")
            if suffix != "proxy" or (name == name.lower()) != is_lower_case:
                continue
            if scheme == "http" and not is_lower_case and "REQUEST_METHOD" in environ:
                continue  # under CGI, any client may set HTTP_PROXY by a header (CVE-2016-1000110)
            if value:
                found[scheme] = value
            else:
                found.pop(scheme, None)
    return found
