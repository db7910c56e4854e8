"""An endpoint to send to, as configured, and the route to it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from agent.settings import ConnectionSettings

if TYPE_CHECKING:
    from agent.http.proxies import Proxy


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint(ConnectionSettings):
    """A server to send to: how to reach it, and what messages need to know of it.

    Attributes:
        table: the table of the configuration that holds these keys, for messages: `pushgateway.ca_file`.
        usual_port: the port that such a server usually has, for a hint.
        disconnect_hint: what such a server may mean if it closes the connection without an answer.
        secrets: words of every request that no message may show, besides the credentials.
    """

    table: str
    usual_port: int | None = None
    disconnect_hint: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        settings: ConnectionSettings,
        *,
        table: str,
        usual_port: int,
        disconnect_hint: str,
        secrets: tuple[str, ...] = (),
    ) -> Endpoint:
        """The server of a table of the configuration."""
        connection = {one.name: getattr(settings, one.name) for one in fields(ConnectionSettings)}
        return cls(**connection, table=table, usual_port=usual_port, disconnect_hint=disconnect_hint, secrets=secrets)


@dataclass(frozen=True, slots=True)
class Route:
    """The route to an endpoint, in words without credentials."""

    endpoint: Endpoint
    proxy: Proxy | None

    @property
    def server(self) -> str:
        """Host and port of the endpoint."""
        return authority(self.endpoint.url)

    @property
    def first_hop(self) -> str:
        """Where connections go: the proxy, if there is one."""
        return self.server if self.proxy is None else self.proxy.words

    @property
    def hops(self) -> str:
        """The endpoint, and the proxy before it."""
        return self.server if self.proxy is None else f"{self.server} through {self.first_hop}"


def authority(url: str) -> str:
    """Host and port of a URL, never its user or password."""
    host, port = host_and_port(url)
    return f"{bracketed(host)}:{port}"


def host_and_port(url: str) -> tuple[str, int]:
    """Host and port of a URL, ready to look up: `fe80::1%eth0` for `[fe80::1%25eth0]` (RFC 6874, section 2)."""
    parts = urlsplit(url)
    address, _, zone = (parts.hostname or "").partition("%")
    host = f"{address}%{unquote(zone.removeprefix('25'))}" if zone else address
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def bracketed(host: str) -> str:
    """A host as written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
