"""The certificate that the scrape server presents; a renewed one needs no restart."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.http.tls import file_versions, server_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.http.tls import Versions

log = logging.getLogger(__name__)


class Certificate:
    """The newest certificate that can be used, in an SSLContext.

    Args:
        cert_file: a path, or the name of a systemd credential.
        key_file: likewise.
        environ: for $CREDENTIALS_DIRECTORY.
        awaits_files: without usable files, refuse every connection until they are there, instead of raising.

    Raises:
        ConfigError: a file is missing or invalid, or the key is another certificate's.
        PermissionDeniedError: this user may not read a file.
    """

    def __init__(
        self, cert_file: str, key_file: str, environ: Mapping[str, str], *, awaits_files: bool = False
    ) -> None:
        self._files = (cert_file, key_file)
        self._environ = environ
        self._problem = ""
        self._context: ssl.SSLContext | None = None
        self._versions: Versions | None = file_versions(self._files, environ)
        try:
            self._context = self._load()
        except AgentError as error:
            if not awaits_files:
                raise
            self._versions = None
            self._problem = str(error)
            log.error("%s; nothing is served until it can be used", error)  # noqa: TRY400 - no traceback

    def context(self) -> ssl.SSLContext:
        """For a new connection. While new files are not whole or do not match, it is that of the earlier ones.

        Raises:
            SSLError: there has been no certificate that can be used.
        """
        versions = file_versions(self._files, self._environ)
        if versions != self._versions:
            try:
                self._context = self._load()
            except AgentError as error:
                # Tried again for every connection: not only a change of the files can make them usable.
                if str(error) != self._problem:
                    self._problem = str(error)
                    until = "nothing is served until it can be used"
                    log.warning("%s; %s", error, "the earlier certificate stays in use" if self._context else until)
            else:
                self._versions, self._problem = versions, ""
                log.info("serve.cert_file: the new certificate is in use")
        if self._context is None:
            raise ssl.SSLError("no certificate can be used")
        return self._context

    def _load(self) -> ssl.SSLContext:
        return server_context("serve", *self._files, self._environ)
