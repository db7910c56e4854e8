"""TLS: the certificates that we trust and present, as a client and as a server, from the files of the configuration."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

from agent.errors import ConfigError
from agent.http.credentials import locate, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from agent.http.endpoint import Endpoint

Versions = tuple[tuple[int, ...] | None, ...]

_WEAK = ("_TOO_SMALL", "_TOO_WEAK")
"""How OpenSSL's reasons end if a certificate is whole, and its key or its signature is below the system's policy."""


class TlsContexts:
    """Makes the SSLContext, which costs milliseconds, and makes another one when a file has changed."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._current: tuple[Versions, ssl.SSLContext] | None = None
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """The context for a new connection.

        Raises:
            ConfigError: a file is missing or invalid.
            PermissionDeniedError: this user may not read a file.
        """
        files = (self._endpoint.ca_file, self._endpoint.cert_file, self._endpoint.key_file)
        versions = file_versions(files, self._environ)
        with self._lock:  # several threads may open their first connection at once
            if self._current is None or self._current[0] != versions:
                self._current = (versions, self._make())
            return self._current[1]

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        table, ca_file = self._endpoint.table, self._endpoint.ca_file
        if ca_file is None:
            context.load_default_certs()
        else:
            name = f"{table}.ca_file"
            ca_path = _readable(name, ca_file, self._environ)
            try:
                context.load_verify_locations(cafile=ca_path)
            except ssl.SSLError as error:
                message = f"{name}: {ca_path} holds no usable certificate (PEM is expected)"
                raise ConfigError((message,)) from error
        if self._endpoint.cert_file is not None:
            key_file = self._endpoint.key_file or self._endpoint.cert_file
            _load_pair(context, table, self._endpoint.cert_file, key_file, self._environ)
        return context


def server_context(table: str, cert_file: str, key_file: str, environ: Mapping[str, str]) -> ssl.SSLContext:
    """The context of a server that presents the certificate of these two keys of a table.

    Raises:
        ConfigError: a file is missing or invalid, or the key is another certificate's.
        PermissionDeniedError: this user may not read a file.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # OpenSSL 1.1.1 would let a client have handshakes for ever.
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_pair(context, table, cert_file, key_file, environ)
    return context


def file_versions(files: Iterable[str | None], environ: Mapping[str, str]) -> Versions:
    """A value that changes when one of the files does; a missing one is None in it, which reading it reports."""
    return tuple(None if file is None else _version(locate(file, environ)) for file in files)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # Of the same time and size is also a file that was renamed to this name, or copied with its time.
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size


def _load_pair(context: ssl.SSLContext, table: str, cert_file: str, key_file: str, environ: Mapping[str, str]) -> None:
    def refuse_password() -> str:
        """Called for an encrypted key, for which OpenSSL would otherwise ask on the terminal and wait forever."""
        raise ConfigError((f"{table}.key_file: the key is encrypted; store it without a passphrase",))

    cert_path = _readable(f"{table}.cert_file", cert_file, environ)
    key_path = _readable(f"{table}.key_file", key_file, environ)
    try:
        context.load_cert_chain(cert_path, key_path, password=refuse_password)
    except ssl.SSLError as error:
        reason = error.reason or ""
        if reason.endswith(_WEAK):
            words = reason.replace("_", " ").lower()
            message = f"{table}.cert_file: {cert_path}: {words} for OpenSSL; create one with a stronger key and SHA-256"
            raise ConfigError((message,)) from error
        message = (
            f"{table}.cert_file, key_file: {cert_path} and {key_path} are not a certificate and "
            "its own, unencrypted key (PEM is expected)"
        )
        raise ConfigError((message,)) from error


def _readable(name: str, file: str, environ: Mapping[str, str]) -> Path:
    """The path of a file that can be read: OpenSSL's own errors do not name the file."""
    path = locate(file, environ)
    read_file(name, path)
    return path
