"""The scrape server of this process, which outlasts a reload that keeps its address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import BusyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.serve.live_view import Source
    from agent.serve.server import ScrapeServer
    from agent.settings import ServeSettings


class Scrapes:
    """At most one server at a time.

    A reload that opened it again would drop its clients, and could find no thread for it: then the run would end.
    """

    def __init__(self) -> None:
        self._server: ScrapeServer | None = None
        self._settings: ServeSettings | None = None

    def serve(self, settings: ServeSettings, source: Source, environ: Mapping[str, str], *, awaits_files: bool) -> None:
        """Serve this from now on; see `ScrapeServer`. If that fails, an earlier server is kept."""
        earlier = self._settings
        if self._server is not None and settings == earlier:
            self._server.show(source)
            return
        from agent.serve.server import ScrapeServer

        try:
            server = ScrapeServer(settings, source, environ=environ, awaits_files=awaits_files)
        except BusyError:
            # Perhaps the earlier server has the port, under another address of this machine.
            if self._server is None or earlier is None or earlier.port != settings.port:
                raise
            self.close()
            server = ScrapeServer(settings, source, environ=environ, awaits_files=awaits_files)
        self.close()
        self._server, self._settings = server, settings

    def close(self) -> None:
        """Stop serving, if anything is served."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
