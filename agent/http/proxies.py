"""The proxy, if any, that the environment puts before an endpoint."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed leaves it out

from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def proxy_for(url: str, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for `url` by http_proxy, https_proxy, all_proxy and no_proxy; None to connect directly.

    Source: Python's urllib.request.getproxies_environment and proxy_bypass_environment, whose rules these are.

    Raises:
        ConfigError: the variable does not hold the URL of an HTTP proxy.
    """
    parts = urlsplit(url)
    variables = _proxy_variables(environ)
    name = parts.scheme if parts.scheme in variables else "all"
    if name not in variables or proxy_bypass_environment(parts.netloc, variables):
        return None
    value = variables[name]
    try:
        return _parse(value if "://" in value else f"http://{value}")
    except (ValueError, KeyError):
        # The message shows neither the value nor the cause: they may hold a password.
        message = f"environment: {name}_proxy is not the URL of an HTTP proxy (http://host:port); correct or unset it"
        raise ConfigError((message,)) from None


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
