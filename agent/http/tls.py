"""TLS: the certificates that we trust and present; one SSLContext for as long as its files stay the same."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

from agent.errors import ConfigError
from agent.http.credentials import locate, read_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.http.endpoint import Endpoint

_Versions = tuple[tuple[int, int] | None, ...]


class TlsContexts:
    """Makes the SSLContext, which costs milliseconds, and makes another one when a file has changed."""

    def __init__(self, endpoint: Endpoint, environ: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        self._environ = environ
        self._current: tuple[_Versions, ssl.SSLContext] | None = None
        self._lock = threading.Lock()

    def context(self) -> ssl.SSLContext:
        """The context for a new connection.

        Raises:
            ConfigError: a file is missing or invalid.
            PermissionDeniedError: this user may not read a file.
        """
        files = (self._endpoint.ca_file, self._endpoint.cert_file, self._endpoint.key_file)
        versions = tuple(None if file is None else _version(locate(file, self._environ)) for file in files)
        with self._lock:  # several threads may open their first connection at once
            if self._current is None or self._current[0] != versions:
                self._current = (versions, self._make())
            return self._current[1]

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._endpoint.ca_file is None:
            context.load_default_certs()
        else:
            ca_path = self._readable("ca_file", self._endpoint.ca_file)
            try:
                context.load_verify_locations(cafile=ca_path)
            except ssl.SSLError as error:
                message = f"{self._endpoint.table}.ca_file: {ca_path} holds no usable certificate (PEM is expected)"
                raise ConfigError((message,)) from error
        if self._endpoint.cert_file is not None:
            cert_path = self._readable("cert_file", self._endpoint.cert_file)
            key_path = self._readable("key_file", self._endpoint.key_file or self._endpoint.cert_file)
            try:
                context.load_cert_chain(cert_path, key_path, password=self._refuse_password)
            except ssl.SSLError as error:
                message = (
                    f"{self._endpoint.table}.cert_file, key_file: {cert_path} and {key_path} are not a certificate and "
                    "its own, unencrypted key (PEM is expected)"
                )
                raise ConfigError((message,)) from error
        return context

    def _readable(self, key: str, file: str) -> Path:
        """The path of a file that can be read: OpenSSL's own errors do not name the file."""
        path = locate(file, self._environ)
        read_file(self._endpoint, key, path)
        return path

    def _refuse_password(self) -> str:
        """Called for an encrypted key, for which OpenSSL would otherwise ask on the terminal and wait forever."""
        raise ConfigError((f"{self._endpoint.table}.key_file: the key is encrypted; store it without a passphrase",))


def _version(path: Path) -> tuple[int, int] | None:
    """A value that changes when the file does; None if it is missing, which reading it reports."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
