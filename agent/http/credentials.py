"""The files that the gateway's credentials come from, and the Authorization header made of them.

Nothing here is kept: a secret is read when a request is sent, so that one that has been rotated works at once.
"""

from __future__ import annotations

import base64
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import ConfigError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.settings import PushgatewaySettings

_BEARER_TOKEN = re.compile(rb"[!-~]+")
"""One line of printable ASCII: anything else could not travel in a header, or would add one of its own."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The value of the header, and every form in which it holds the secret: none may reach a message."""

    header: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets, should somebody have echoed them."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def locate(file: str, environ: Mapping[str, str]) -> Path:
    """Where `file` is: a bare name is that of a systemd credential, if there is one of that name.

    Source: systemd.exec(5), LoadCredential= and $CREDENTIALS_DIRECTORY.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and "/" not in file:
        credential = Path(directory, file)
        if credential.exists():
            return credential
    return Path(file)


def read_file(key: str, path: Path) -> bytes:
    """The contents of the file that `pushgateway.<key>` names.

    Raises:
        ConfigError: there is no such file, or it cannot be read for another reason than its mode.
        PermissionDeniedError: this user may not read it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # A pipe would keep the thread that pushes waiting for ever: this is read at every push.
            raise ConfigError((f"pushgateway.{key}: {path} is not a regular file; name one",))
        return path.read_bytes()
    except PermissionError as error:
        message = f"pushgateway.{key}: no permission to read {path}; let the user that wattpush runs as read it"
        raise PermissionDeniedError(message) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        message = f"pushgateway.{key}: cannot read {path}: {reason}; create it or correct the path"
        raise ConfigError((message,)) from error


def authorization(settings: PushgatewaySettings, environ: Mapping[str, str]) -> Authorization | None:
    """The Authorization header of the settings, read from its file now; None if none is configured.

    Sources: RFC 7617 (basic, in UTF-8), RFC 6750 section 2.1 (bearer).

    Raises:
        ConfigError: the file is missing, empty or holds what cannot be a token.
        PermissionDeniedError: the file may not be read.
    """
    if settings.bearer_token_file is not None:
        token = _read_secret("bearer_token_file", settings.bearer_token_file, environ)
        if not _BEARER_TOKEN.fullmatch(token):
            message = f"pushgateway.bearer_token_file: {settings.bearer_token_file} is not one line of printable ASCII"
            raise ConfigError((message,))
        text = token.decode("ascii")
        return Authorization(f"Bearer {text}", (text,))
    if settings.username is not None and settings.password_file is not None:
        password = _read_secret("password_file", settings.password_file, environ)
        encoded = base64.b64encode(settings.username.encode() + b":" + password).decode("ascii")
        return Authorization(f"Basic {encoded}", (encoded, password.decode(errors="replace")))
    return None


def _read_secret(key: str, file: str, environ: Mapping[str, str]) -> bytes:
    path = locate(file, environ)
    secret = read_file(key, path).rstrip(b"\r\n")
    if not secret:
        raise ConfigError((f"pushgateway.{key}: {path} is empty; write the secret into it",))
    return secret
