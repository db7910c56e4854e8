"""How the gateway is trusted and how we prove who we are: one SSLContext for as long as its files stay the same."""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING

from agent.errors import ConfigError
from agent.http.credentials import locate, read_file
from agent.http.deadline import BoundedTlsContext

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.settings import PushgatewaySettings

_Versions = tuple[tuple[int, int] | None, ...]


class TlsContexts:
    """Makes the SSLContext, which costs milliseconds, and makes it anew when one of its files has changed."""

    def __init__(self, settings: PushgatewaySettings, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._environ = environ
        self._current: tuple[_Versions, BoundedTlsContext] | None = None
        self._lock = threading.Lock()

    def context(self) -> BoundedTlsContext:
        """The context for a new connection.

        Raises:
            ConfigError: a file is missing or is not what it should be.
            PermissionDeniedError: a file may not be read.
        """
        files = (self._settings.ca_file, self._settings.cert_file, self._settings.key_file)
        versions = tuple(None if file is None else _version(locate(file, self._environ)) for file in files)
        with self._lock:  # several threads want their first connection at once
            if self._current is None or self._current[0] != versions:
                self._current = (versions, self._make())
            return self._current[1]

    def _make(self) -> BoundedTlsContext:
        context = BoundedTlsContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._settings.ca_file is None:
            context.load_default_certs()
        else:
            ca_path = self._readable("ca_file", self._settings.ca_file)
            try:
                context.load_verify_locations(cafile=ca_path)
            except ssl.SSLError as error:
                message = f"pushgateway.ca_file: {ca_path} holds no usable certificate (PEM is expected)"
                raise ConfigError((message,)) from error
        if self._settings.cert_file is not None:
            cert_path = self._readable("cert_file", self._settings.cert_file)
            key_path = self._readable("key_file", self._settings.key_file or self._settings.cert_file)
            try:
                context.load_cert_chain(cert_path, key_path, password=_refuse_password)
            except ssl.SSLError as error:
                message = (
                    f"pushgateway.cert_file, key_file: {cert_path} and {key_path} are not a certificate and its own, "
                    "unencrypted key (PEM is expected)"
                )
                raise ConfigError((message,)) from error
        return context

    def _readable(self, key: str, file: str) -> Path:
        """The path, once it is certain that it can be read: OpenSSL's own errors do not name the file."""
        path = locate(file, self._environ)
        read_file(key, path)
        return path


def _version(path: Path) -> tuple[int, int] | None:
    """What changes when the file does; None if it is not there, which is said when it is read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def _refuse_password() -> str:
    """Called for an encrypted key; without it OpenSSL would ask on the terminal and wait for ever."""
    raise ConfigError(("pushgateway.key_file: the key is encrypted; store it without a passphrase",))
