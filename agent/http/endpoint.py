"""An endpoint to send to, as configured, and the route to it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
    """

    table: str
    usual_port: int | None = None
    disconnect_hint: str = ""

    @classmethod
    def of(cls, settings: ConnectionSettings, *, table: str, usual_port: int, disconnect_hint: str) -> Endpoint:
        """The server of a table of the configuration."""
        connection = {field.name: getattr(settings, field.name) for field in fields(ConnectionSettings)}
        return cls(**connection, table=table, usual_port=usual_port, disconnect_hint=disconnect_hint)


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
        return self.server if self.proxy is None else f"the proxy {self.proxy.host}:{self.proxy.port}"

    @property
    def hops(self) -> str:
        """The endpoint, and the proxy before it."""
        return self.server if self.proxy is None else f"{self.server} through {self.first_hop}"


def authority(url: str) -> str:
    """Host and port of a URL, never its user or password."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{bracketed(host)}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def bracketed(host: str) -> str:
    """A host as written in a URL: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host
