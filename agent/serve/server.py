"""The scrape server: `/metrics`, a landing page at `/`, and `/-/healthy`.

It serves the metrics that the loop published last; a scrape never touches a bus.
"""

from __future__ import annotations

import errno
import html
import logging
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AI_PASSIVE, SOCK_STREAM, getaddrinfo
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

from agent.errors import AgentError, BusyError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import CollectorRegistry

    from agent.settings import ServeSettings

log = logging.getLogger(__name__)

_CLIENT_TIMEOUT_SECONDS = 10.0


class ScrapeServer:
    """A small HTTP server in its own thread.

    Args:
        settings: the address and port to listen on.
        registry: makes the registry that `/metrics` shows; returns None before the first sweep.
        health: returns what is wrong, or None if the agent is healthy.
        title: the heading of the landing page.
        client_timeout_seconds: a client that sends or takes nothing for this long is disconnected.

    Raises:
        BusyError: another program listens on this port.
        PermissionDeniedError: the port is below 1024.
        AgentError: this machine does not have the address.
    """

    def __init__(
        self,
        settings: ServeSettings,
        registry: Callable[[], CollectorRegistry | None],
        health: Callable[[], str | None],
        title: str,
        *,
        client_timeout_seconds: float = _CLIENT_TIMEOUT_SECONDS,
    ) -> None:
        class Handler(_Handler):
            timeout = client_timeout_seconds

        Handler.registry = staticmethod(registry)
        Handler.health = staticmethod(health)
        Handler.title = title
        self._server = _listen(settings, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="scrape", daemon=True)
        self._thread.start()
        host, port = self.address
        log.info("serving http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port in use; with port 0 in the settings, the system chose the port."""
        host, port, *_ = self._server.server_address
        return str(host), int(port)

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Take a port that the last run left in TIME_WAIT. A port on which another program listens still fails.
    allow_reuse_address = True

    def server_bind(self) -> None:
        """Bind without the reverse DNS lookup of `HTTPServer`, which may take very long offline."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, _request: object, client_address: object) -> None:
        log.debug("scrape from %s broke off: %s", client_address, sys.exc_info()[1])


class _Handler(BaseHTTPRequestHandler):
    registry: Callable[[], CollectorRegistry | None]
    health: Callable[[], str | None]
    title: str
    server_version = "wattpush"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/-/healthy":
            problem = self.health()
            self._answer(200 if problem is None else 503, "text/plain; charset=utf-8", (problem or "healthy") + "\n")
        elif path == "/":
            title = html.escape(self.title)
            self._answer(
                200,
                "text/html; charset=utf-8",
                f'<!doctype html><html lang="en"><title>{title}</title><h1>{title}</h1>'
                '<p><a href="/metrics">Metrics</a></p><p><a href="/-/healthy">Health</a></p></html>\n',
            )
        else:
            self._answer(404, "text/plain; charset=utf-8", "not found; try /metrics\n")

    do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

    def _metrics(self) -> None:
        registry = self.registry()
        if registry is None:
            self._answer(503, "text/plain; charset=utf-8", "no sweep has finished yet\n")
            return
        encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        self._answer(200, content_type, encode(registry))

    def _answer(self, status: int, content_type: str, body: str | bytes) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        log.debug("scrape: " + format, *args)  # noqa: G003 - http.server's format string


def _listen(settings: ServeSettings, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    where = f"serve: listen: {settings.host}:{settings.port}"
    try:
        family, _, _, _, address = getaddrinfo(
            settings.host or None, settings.port, type=SOCK_STREAM, flags=AI_PASSIVE
        )[0]

        class Server(_Server):
            address_family = family

        return Server(address[:2], handler)  # type: ignore[arg-type] # typeshed: IPv4 addresses only
    except PermissionError as error:
        raise PermissionDeniedError(f"{where}: permission denied; choose a port above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BusyError(f"{where}: in use; stop what listens there or choose another port") from error
        raise AgentError(f"{where}: {error.strerror or error}; is that an address of this machine?") from error
