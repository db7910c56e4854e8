"""Over TLS: the certificates that are trusted, and the messages about others."""

from __future__ import annotations

import datetime as dt
import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from agent.errors import ConfigError, ExitCode, PermissionDeniedError, UnreachableError
from tests.push.pushing import TurnedClock, addresses, message, push_one, push_until_error_matches, pushgateway_for
from tests.servers import Server, answering, trickling, write_file

if TYPE_CHECKING:
    from pathlib import Path

EXPIRED = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    return write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())


def server_context(cert: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert.configure_cert(context)
    return context


def test_pushes_over_tls_share_one_connection(ca: trustme.CA, ca_file: str) -> None:
    tls = server_context(ca.issue_cert("127.0.0.1"))
    with Server(answering("200 OK"), tls) as server, pushgateway_for(server.url, ca_file=ca_file) as destination:
        for _ in range(10):
            assert push_one(destination).error is None
    assert (server.connections, len(server.requests)) == (1, 10)


def test_trickling_tls_answer_ends_at_the_timeout(ca: trustme.CA, ca_file: str) -> None:
    slow = trickling(b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n")
    with (
        Server(slow, server_context(ca.issue_cert("127.0.0.1"))) as server,
        pushgateway_for(server.url, ca_file=ca_file, timeout_seconds=0.5) as destination,
    ):
        push_until_error_matches(r"timed out after \d+\.\d s, while waiting for the answer", destination, 0.5)


def test_certificate_is_verified_against_the_host_name(ca: trustme.CA, ca_file: str) -> None:
    tls = server_context(ca.issue_cert("gateway.test"))
    with Server(answering("200 OK"), tls) as server:
        url = f"https://gateway.test:{server.port}"
        with pushgateway_for(url, ca_file=ca_file, getaddrinfo=addresses(server.port)) as destination:
            assert push_one(destination).error is None


@pytest.mark.reliability(
    9.24,
    "a certificate that has expired, or is for another name",
    "refused without a retry; the error names the reason",
)
@pytest.mark.parametrize(
    ("identity", "expires", "words"),
    [
        ("127.0.0.1", EXPIRED, "certificate has expired; renew it, or set this machine's clock"),
        ("other.test", None, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
    ],
)
def test_bad_certificate_is_refused_once_and_explained(
    ca: trustme.CA, ca_file: str, identity: str, expires: dt.datetime | None, words: str
) -> None:
    clock = TurnedClock()
    begins = None if expires is None else expires - dt.timedelta(days=10)
    tls = server_context(ca.issue_cert(identity, not_before=begins, not_after=expires))
    with (
        Server(answering("200 OK"), tls) as server,
        pushgateway_for(server.url, clock=clock, ca_file=ca_file) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, UnreachableError)
    assert result.error.exit_code == ExitCode.UNAVAILABLE
    assert (result.attempts, clock.slept, server.requests) == (1, [], [])
    assert words in message(result)


def test_unknown_ca_is_refused(ca: trustme.CA) -> None:
    tls = server_context(ca.issue_cert("127.0.0.1"))
    with Server(answering("200 OK"), tls) as server, pushgateway_for(server.url) as destination:
        result = push_one(destination)
    assert (result.attempts, server.requests) == (1, [])
    assert "pushgateway.ca_file" in message(result)


def test_gateway_that_does_not_speak_tls_is_named(pushgateway_url: str) -> None:
    with pushgateway_for(pushgateway_url.replace("http:", "https:"), clock=TurnedClock()) as destination:
        result = push_one(destination)
    assert result.attempts == 1
    assert "does not speak TLS; use http://" in message(result)


def test_client_certificate_is_shown_when_configured(ca: trustme.CA, ca_file: str, tmp_path: Path) -> None:
    tls = server_context(ca.issue_cert("127.0.0.1"))
    tls.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(tls)
    client = ca.issue_cert("node-17")
    files: dict[str, Any] = {
        "cert_file": write_file(tmp_path / "cert.pem", b"".join(blob.bytes() for blob in client.cert_chain_pems)),
        "key_file": write_file(tmp_path / "key.pem", client.private_key_pem.bytes()),
    }
    with (
        Server(answering("200 OK"), tls) as server,
        pushgateway_for(server.url, ca_file=ca_file, **files) as destination,
    ):
        assert push_one(destination).error is None
    with (
        Server(answering("200 OK"), tls) as server,
        pushgateway_for(server.url, clock=TurnedClock(), ca_file=ca_file) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, UnreachableError)
    assert server.requests == []


def test_tls_context_is_made_again_only_when_a_file_changes(ca: trustme.CA, ca_file: str, tmp_path: Path) -> None:
    other_ca = trustme.CA()
    with (
        Server(answering("200 OK"), server_context(ca.issue_cert("127.0.0.1"))) as server,
        pushgateway_for(server.url, clock=TurnedClock(), ca_file=ca_file) as destination,
    ):
        push_one(destination)
        first = destination._client._tls_contexts.context()
        assert destination._client._tls_contexts.context() is first
        write_file(tmp_path / "ca.pem", other_ca.cert_pem.bytes() + b"\n")
        destination.close()
        assert "ca_file" in message(push_one(destination)), "the old CA is no longer trusted"
        write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())
        assert push_one(destination).error is None


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
@pytest.mark.parametrize("content", [None, "", "not a certificate"], ids=["absent", "empty", "no PEM"])
def test_unusable_tls_file_is_a_configuration_error(
    ca: trustme.CA, ca_file: str, tmp_path: Path, key: str, content: str | None
) -> None:
    client = ca.issue_cert("node-17")
    files: dict[str, Any] = {
        "ca_file": ca_file,
        "cert_file": write_file(tmp_path / "cert.pem", client.cert_chain_pems[0].bytes()),
        "key_file": write_file(tmp_path / "key.pem", client.private_key_pem.bytes()),
    }
    files[key] = str(tmp_path / "bad.pem")
    if content is not None:
        write_file(tmp_path / "bad.pem", content)
    with pushgateway_for("https://127.0.0.1:1", clock=TurnedClock(), **files) as destination:
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert result.attempts == 1
    assert files[key] in message(result)
    assert key in message(result)


def test_encrypted_key_is_refused_without_asking_on_the_terminal(ca: trustme.CA, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    client = ca.issue_cert("node-17")
    key = load_pem_private_key(client.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    files: dict[str, Any] = {
        "cert_file": write_file(tmp_path / "cert.pem", client.cert_chain_pems[0].bytes()),
        "key_file": write_file(tmp_path / "key.pem", encrypted),
    }
    with pushgateway_for("https://127.0.0.1:1", **files) as destination:
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert "the key is encrypted" in message(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_key_is_a_permission_error(ca: trustme.CA, tmp_path: Path) -> None:
    client = ca.issue_cert("node-17")
    files: dict[str, Any] = {
        "cert_file": write_file(tmp_path / "cert.pem", client.cert_chain_pems[0].bytes()),
        "key_file": write_file(tmp_path / "key.pem", client.private_key_pem.bytes()),
    }
    (tmp_path / "key.pem").chmod(0)
    with pushgateway_for("https://127.0.0.1:1", **files) as destination:
        result = push_one(destination)
    assert isinstance(result.error, PermissionDeniedError)
