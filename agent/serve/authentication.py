"""Basic authentication: lets only the configured user see any page."""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from io import BytesIO
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.http.credentials import read_secret
from agent.serve.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

_CHALLENGE = 'WWW-Authenticate: Basic realm="wattpush", charset="UTF-8"'


class Authentication:
    """Checks the user and the password of each request.

    Args:
        username: of the one user.
        password_file: a path, or the name of a systemd credential.
        environ: for $CREDENTIALS_DIRECTORY.
        awaits_files: without a password, refuse every request until it is there, instead of raising.

    Raises:
        ConfigError: the file is missing or empty.
        PermissionDeniedError: this user may not read it.
    """

    def __init__(
        self, username: str, password_file: str, environ: Mapping[str, str], *, awaits_files: bool = False
    ) -> None:
        self._username = username
        self._password_file = password_file
        self._environ = environ
        self._problem = ""
        try:
            self._read()
        except AgentError as error:
            if not awaits_files:
                raise
            self._log(error)

    def refuse(self, head: bytes, client: str) -> bytes | None:
        """The answer to a request that may not see a page; None for one that may. `client` is its address."""
        try:
            expected = self._read()
        except AgentError as error:
            self._log(error)
            text = "the password of this server cannot be read; its log says why"
            return refusal(head, HTTPStatus.SERVICE_UNAVAILABLE, text)
        if self._problem:
            self._problem = ""
            log.info("serve.password_file: can be read again")
        given = _credentials(head)
        # Digests are of one length: a comparison in constant time gives away that of its operands.
        if given is not None and hmac.compare_digest(_digest(given), _digest(expected)):
            return None
        log.debug("scrape from %s: %s", client, "no user" if given is None else "wrong user or password")
        return refusal(head, HTTPStatus.UNAUTHORIZED, "user and password, please", _CHALLENGE)

    def _log(self, error: AgentError) -> None:
        if str(error) != self._problem:
            self._problem = str(error)
            log.error("%s; every request is refused until then", error)

    def _read(self) -> bytes:
        """The credentials as a client sends them (RFC 7617, section 2, in UTF-8)."""
        return self._username.encode() + b":" + read_secret("serve.password_file", self._password_file, self._environ)


def _digest(credentials: bytes) -> bytes:
    return hashlib.sha256(credentials).digest()


def _credentials(head: bytes) -> bytes | None:
    """User and password of a request; None if it has none that can be read."""
    try:
        scheme, _, token = parse_headers(BytesIO(head.partition(b"\n")[2])).get("Authorization", "").partition(" ")
        return base64.b64decode(token.strip(), validate=True) if scheme.lower() == "basic" else None
    except (HTTPException, ValueError):
        return None
