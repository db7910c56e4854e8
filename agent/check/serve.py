"""Checks the files that `[serve]` needs: the certificate, its key and the password."""

from __future__ import annotations

import os
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent.check import failed, ok, warning
from agent.check.connection import check_expiry, check_secrecy
from agent.errors import AgentError, ConfigError, one_line
from agent.http.credentials import locate, read_secret
from agent.http.tls import server_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.check import Finding
    from agent.clock import Clock
    from agent.settings import ServeSettings

_OUT_OF_TIME = (9, 10)
"""OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def check_serve(serve: ServeSettings, clock: Clock, environ: Mapping[str, str]) -> Iterator[Finding]:
    """A finding for the certificate and for the password, and one for each secret that others may read.

    A file that this user cannot read is only a warning, because the service may: it runs as another user, and only it
    sees its systemd credentials.
    """
    if serve.cert_file is not None and serve.key_file is not None:
        what = "serve certificate"
        files = [locate(file, environ) for file in (serve.cert_file, serve.key_file)]
        try:
            context = server_context("serve", serve.cert_file, serve.key_file, environ)
        except AgentError as error:
            yield _unusable(what, error, files)
        else:
            yield _validity(what, context, files[0], clock)
            yield from check_secrecy(what, files[1])
    if serve.username is not None and serve.password_file is not None:
        what = "serve password"
        file = locate(serve.password_file, environ)
        try:
            read_secret("serve.password_file", serve.password_file, environ)
        except AgentError as error:
            yield _unusable(what, error, [file])
        else:
            exposed = list(check_secrecy(what, file))
            yield from exposed or [ok(what, f"that of {serve.username}, from {file}")]


def _unusable(what: str, error: AgentError, files: list[Path]) -> Finding:
    if all(os.access(file, os.R_OK) for file in files):
        return failed(what, error)
    text, _, hint = str(error).partition("; ")
    return warning(what, text, hint)


def _validity(what: str, context: ssl.SSLContext, cert_path: Path, clock: Clock) -> Finding:
    try:
        certificate = _as_clients_see_it(context, cert_path)
    except ssl.SSLCertVerificationError as error:
        is_out_of_time = error.verify_code in _OUT_OF_TIME
        hint = "renew it, or set this machine's clock" if is_out_of_time else "clients need one for a server"
        return failed(what, ConfigError((f"serve.cert_file: {cert_path}: {error.verify_message}; {hint}",)))
    except ssl.SSLError as error:  # such as a key on a curve that TLS does not have
        problem = f"serve.cert_file: {cert_path}: a client cannot connect: {_words(error)}"
        return failed(what, ConfigError((f"{problem}; create one with an RSA key, or an EC key on P-256",)))
    hint = "renew it: once it has expired, no client trusts it"
    return check_expiry(what, str(cert_path), certificate, clock, hint)


def _words(error: ssl.SSLError) -> str:
    return one_line((error.reason or str(error)).replace("_", " ").lower())


def _as_clients_see_it(context: ssl.SSLContext, cert_path: Path) -> dict[str, Any]:
    """What the ssl module tells of a certificate, which it does only of a verified one of another side.

    So a client in memory shakes hands with the server. It trusts the certificate itself, whoever issued it, and checks
    its time and its purpose.

    Raises:
        SSLCertVerificationError: it has expired, is not yet valid, or is not for servers.
        SSLError: no client can shake hands with this server.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(cert_path)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server, client):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.getpeercert() or {}
