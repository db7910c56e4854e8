"""Credentials: the files that hold them, and the Authorization header.

Nothing is cached: every request reads its secret again, so that a rotated one works at once.
"""

from __future__ import annotations

import base64
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent import access
from agent.errors import ConfigError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.http.endpoint import Endpoint

_BEARER_TOKEN = re.compile(rb"[!-~]+")
"""One line of printable ASCII: anything else cannot stand in a header, or would add another one."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """The value of the header, and every form of the secret in it: none may reach a message."""

    header: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)


def masked(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets, in case a server echoed them."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


def locate(file: str, environ: Mapping[str, str]) -> Path:
    """The path of `file`: a bare name means the systemd credential of that name, if there is one.

    Source: systemd.exec(5), LoadCredential= and $CREDENTIALS_DIRECTORY.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and "/" not in file:
        credential = Path(directory, file)
        if credential.exists():
            return credential
    return Path(file)


def read_file(name: str, path: Path) -> bytes:
    """The contents of the file that the key of this name gives: `pushgateway.ca_file`.

    Raises:
        ConfigError: there is no such file, or it cannot be read for another reason than its mode.
        PermissionDeniedError: this user may not read it.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            # Every request reads the file: a pipe would block the second one forever.
            raise ConfigError((f"{name}: {path} is not a regular file; name one",))
        return path.read_bytes()
    except PermissionError as error:
        raise PermissionDeniedError(f"{name}: permission denied: {access.of_denied_read(path)}") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.name == str(path):
            message = (
                f"{name}: there is neither a systemd credential nor a file {path}; only the service has credentials "
                f"(LoadCredential={path}:... in its unit), so elsewhere write the full path"
            )
            raise ConfigError((message,)) from error
        reason = error.strerror or type(error).__name__
        message = f"{name}: cannot read {path}: {reason}; create it or correct the path"
        raise ConfigError((message,)) from error


def authorization(endpoint: Endpoint, environ: Mapping[str, str]) -> Authorization | None:
    """The Authorization header of an endpoint, read from its file now; None if none is configured.

    Sources: RFC 7617 (basic, in UTF-8), RFC 6750 section 2.1 (bearer).

    Raises:
        ConfigError: the file is missing or empty, or does not hold a token.
        PermissionDeniedError: this user may not read the file.
    """
    if endpoint.bearer_token_file is not None:
        name = f"{endpoint.table}.bearer_token_file"
        token = read_secret(name, endpoint.bearer_token_file, environ)
        if not _BEARER_TOKEN.fullmatch(token):
            raise ConfigError((f"{name}: {endpoint.bearer_token_file} is not one line of printable ASCII",))
        text = token.decode("ascii")
        return Authorization(f"Bearer {text}", (text,))
    if endpoint.username is not None and endpoint.password_file is not None:
        password = read_secret(f"{endpoint.table}.password_file", endpoint.password_file, environ)
        encoded = base64.b64encode(endpoint.username.encode() + b":" + password).decode("ascii")
        return Authorization(f"Basic {encoded}", (encoded, password.decode(errors="replace")))
    return None


def read_secret(name: str, file: str, environ: Mapping[str, str]) -> bytes:
    """The secret in the file that the key of this name gives, without the end of its line.

    Raises:
        ConfigError: the file is missing or empty.
        PermissionDeniedError: this user may not read it.
    """
    path = locate(file, environ)
    secret = read_file(name, path).rstrip(b"\r\n")
    if not secret:
        raise ConfigError((f"{name}: {path} is empty; write the secret into it",))
    return secret
