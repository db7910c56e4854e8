"""The pages that the scrape server shows: `/metrics`, the live page at `/`, and `/-/healthy`."""

from __future__ import annotations

import logging
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

from agent.errors import one_line
from agent.serve.live_page import HEADERS, LivePage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.serve.live_view import Source

log = logging.getLogger(__name__)

_NO_HEADERS: Mapping[str, str] = {}


class Pages:
    """Answers requests with what `source` has to show."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.live = LivePage()

    def answer(self, head: bytes, client_address: tuple[str, int]) -> bytes:
        """The whole answer to a request, from its request line and headers."""
        return _Handler(head, client_address, self).wfile.getvalue()


class _Handler(BaseHTTPRequestHandler):
    """http.server's parser of requests, on bytes that are complete: it never waits for a client."""

    server_version = "wattpush"
    sys_version = ""
    rfile: BytesIO
    wfile: BytesIO

    def __init__(self, head: bytes, client_address: tuple[str, int], pages: Pages) -> None:
        # Not the constructor of the base class, which takes a socket.
        self.rfile, self.wfile = BytesIO(head), BytesIO()
        self.client_address = client_address
        self.pages = pages
        self.close_connection = True
        self.handle_one_request()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._metrics()
        elif path == "/-/healthy":
            problem = self.pages.source.health()
            self._answer(200 if problem is None else 503, "text/plain; charset=utf-8", (problem or "healthy") + "\n")
        elif path == "/":
            page = self.pages.live.page(self.pages.source.live_view())
            self._answer(200, "text/html; charset=utf-8", page, HEADERS)
        else:
            self._answer(404, "text/plain; charset=utf-8", "not found; try /metrics\n")

    do_HEAD = do_GET  # noqa: N815 - http.server looks for this name

    def _metrics(self) -> None:
        registry = self.pages.source.scrape_registry()
        if registry is None:
            self._answer(503, "text/plain; charset=utf-8", "no sweep has finished yet\n")
            return
        try:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        except (TypeError, ValueError):  # of a version that is not a number
            encode, content_type = choose_encoder("")
        self._answer(200, content_type, encode(registry))

    def _answer(
        self, status: int, content_type: str, body: str | bytes, headers: Mapping[str, str] = _NO_HEADERS
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        # Without the client's control characters, which a terminal would obey.
        log.debug("scrape: %s", one_line(format % args))
