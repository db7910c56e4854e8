"""The scrape server: serves the metrics that the loop published last; a scrape never touches a bus."""

from __future__ import annotations

import errno
import logging
import resource
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import AgentError, BusyError, PermissionDeniedError
from agent.serve.authentication import Authentication
from agent.serve.certificate import Certificate
from agent.serve.connections import Connections, Limits
from agent.serve.pages import Pages
from agent.threads import NoThreadError, start_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.serve.live_view import Source
    from agent.settings import ServeSettings

log = logging.getLogger(__name__)

_BACKLOG = 1024
"""Connections that wait to be accepted. One that finds no place there is tried again by its kernel after 1 and 3 s."""

_SILENT_SECONDS = 1
"""How long the kernel keeps a connection that has sent nothing. On a busy node a scraper may be preempted before it has
sent its request; a flood of connections would push it out meanwhile.
"""

_DESCRIPTOR_SHARE = 4
"""One in this many file descriptors of the process may be a connection: buses, pushes and the state need the others."""

_STOP_SECONDS = 1.0
"""How long `close` waits for an answer that is being made."""


class ScrapeServer:
    """A small HTTP server in one thread of its own.

    Args:
        settings: the address and port to listen on, the files for TLS, the user.
        source: what the pages show.
        environ: for $CREDENTIALS_DIRECTORY.
        limits: of all clients together.
        awaits_files: if the files for TLS or the password cannot be used, serve nothing until they can.

    Raises:
        ConfigError: a file for TLS or the password cannot be used.
        BusyError: another program listens on this port.
        PermissionDeniedError: the port is below 1024, or a file may not be read.
        AgentError: this machine does not have the address, or no thread can be started.
    """

    def __init__(
        self,
        settings: ServeSettings,
        source: Source,
        *,
        environ: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        awaits_files: bool = False,
    ) -> None:
        certificate = _certificate(settings, environ or {}, awaits_files=awaits_files)
        self._authentication = _authentication(settings, environ or {}, awaits_files=awaits_files)
        self._listener = _listen(settings)
        self._pages = Pages(source)
        self._connections = Connections(
            self._listener,
            self._answer,
            _affordable(limits or Limits()),
            None if certificate is None else certificate.context,
        )
        try:
            self._thread = start_thread("scrape", self._connections.serve)
        except NoThreadError as error:
            self._connections.close()
            self._listener.close()
            raise AgentError(f"{_where(settings)}: {error}") from error
        host, port = self.address
        scheme = "http" if certificate is None else "https"
        address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        log.info("serving %s/metrics, and a live page at %s/", address, address)

    def show(self, source: Source) -> None:
        """Serve this from the next request on."""
        self._pages = Pages(source)

    def _answer(self, head: bytes, client_address: tuple[str, int]) -> bytes:
        refusal = None if self._authentication is None else self._authentication.refuse(head, client_address[0])
        return self._pages.answer(head, client_address) if refusal is None else refusal

    @property
    def address(self) -> tuple[str, int]:
        """The address and port in use; with port 0 in the settings, the system chose the port."""
        host, port, *_ = self._listener.getsockname()
        return str(host), int(port)

    def close(self) -> None:
        """Stop listening."""
        self._connections.stop()
        self._thread.join(_STOP_SECONDS)
        self._listener.close()


def _certificate(settings: ServeSettings, environ: Mapping[str, str], *, awaits_files: bool) -> Certificate | None:
    if settings.cert_file is None or settings.key_file is None:
        return None
    return Certificate(settings.cert_file, settings.key_file, environ, awaits_files=awaits_files)


def _authentication(
    settings: ServeSettings, environ: Mapping[str, str], *, awaits_files: bool
) -> Authentication | None:
    if settings.username is None or settings.password_file is None:
        return None
    return Authentication(settings.username, settings.password_file, environ, awaits_files=awaits_files)


def _affordable(limits: Limits) -> Limits:
    soft_limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft_limit == resource.RLIM_INFINITY:
        return limits
    return replace(limits, connections=max(1, min(limits.connections, soft_limit // _DESCRIPTOR_SHARE)))


def _where(settings: ServeSettings) -> str:
    return f"serve: listen: {settings.host}:{settings.port}"


def _listen(settings: ServeSettings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host or None, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # Take a port that the last run left in TIME_WAIT. A port on which another program listens still fails.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_DEFER_ACCEPT"):  # Linux
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _SILENT_SECONDS)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except PermissionError as error:
        raise PermissionDeniedError(f"{_where(settings)}: permission denied; choose a port above 1023") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BusyError(f"{_where(settings)}: in use; stop what listens there or choose another port") from error
        raise AgentError(
            f"{_where(settings)}: {error.strerror or error}; is that an address of this machine?"
        ) from error
    return listener
