"""The scrape server over TLS: real sockets, clients that are slow, silent or wrong, and renewed certificates."""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
import selectors
import shutil
import socket
import ssl
import subprocess
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization
from prometheus_client import CollectorRegistry, Info

from agent.errors import ConfigError, ExitCode
from agent.serve.connections import Limits
from agent.serve.server import ScrapeServer
from agent.settings import ServeSettings
from tests.run.running import LONG_SECONDS, until
from tests.serve.serving import (
    HOST,
    SCRAPE,
    OneGauge,
    Pieces,
    connected,
    everything,
    scrape,
    serving,
    trusting,
    write_pair,
)
from tests.servers import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import trustme

PATIENT = Limits(request_seconds=LONG_SECONDS, answer_seconds=LONG_SECONDS)


@pytest.fixture(scope="module")
def context(ca: trustme.CA) -> ssl.SSLContext:
    return trusting(ca)


@pytest.fixture
def pair(ca: trustme.CA, tmp_path: Path) -> dict[str, Any]:
    return write_pair(tmp_path, ca.issue_cert(HOST))


@pytest.fixture
def server(pair: dict[str, Any]) -> Iterator[ScrapeServer]:
    with serving(limits=PATIENT, **pair) as running:
        yield running


def test_a_scrape_over_tls_is_answered_and_ends_with_notice(
    server: ScrapeServer, context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "agent.serve")
    answer, _ = scrape(server, context)
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"watts 6.0" in answer
    assert "ended early" not in caplog.text


def test_the_log_names_both_addresses_with_https(pair: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.serve")
    with serving(**pair) as running:
        address = f"https://127.0.0.1:{running.address[1]}"
        assert f"serving {address}/metrics, and a live page at {address}/" in caplog.text


def test_curl_trusts_the_certificate_and_reads_the_page(server: ScrapeServer, ca: trustme.CA, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    url = f"https://{HOST}:{server.address[1]}/metrics"
    ended = subprocess.run(
        [curl, "-sS", "--noproxy", "*", "--cacert", str(tmp_path / "ca.pem"), url],
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "watts 6.0" in ended.stdout


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_of_tls_in_use_are_spoken(server: ScrapeServer, ca: trustme.CA, version: ssl.TLSVersion) -> None:
    context = trusting(ca)
    context.minimum_version = context.maximum_version = version
    assert b"watts 6.0" in scrape(server, context)[0]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_older_versions_of_tls_are_refused(server: ScrapeServer, ca: trustme.CA) -> None:
    context = trusting(ca)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # what OpenSSL needs to offer it at all
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        scrape(server, context)


def test_a_handshake_byte_by_byte_delays_nobody(server: ScrapeServer, context: ssl.SSLContext) -> None:
    with connected(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = Pieces(context, sock)
        hello = client.hello()
        for number, byte in enumerate(hello):
            sock.sendall(bytes([byte]))
            if number % 100 == 0:
                assert b"watts 6.0" in scrape(server, context)[0]
        for byte in client.handshake() + client.encrypted(SCRAPE):
            sock.sendall(bytes([byte]))
        assert b"watts 6.0" in client.answer()


def test_a_request_in_several_records_is_answered(server: ScrapeServer, context: ssl.SSLContext) -> None:
    with connected(server) as sock:
        client = Pieces(context, sock)
        sock.sendall(client.hello())
        last = client.handshake()
        pieces = [client.encrypted(SCRAPE[at : at + 7]) for at in range(0, len(SCRAPE), 7)]
        sock.sendall(last + b"".join(pieces))
        assert b"watts 6.0" in client.answer()


def test_the_largest_record_is_read_whole(server: ScrapeServer, context: ssl.SSLContext) -> None:
    """The end of the head is the end of the record: a rest that stays in OpenSSL is seen by no selector."""
    start, end = b"GET /metrics HTTP/1.1\r\nX-Filler: ", b"\r\n\r\n"
    request = start + b"x" * (16 * 1024 - len(start) - len(end)) + end
    assert b"watts 6.0" in scrape(server, context, request)[0]


def test_silent_and_stalled_handshakes_leave_room_for_a_scrape(server: ScrapeServer, context: ssl.SSLContext) -> None:
    with ExitStack() as stack:
        for number in range(100):
            sock = stack.enter_context(connected(server))
            hello = Pieces(context, sock).hello()
            sock.sendall(hello[: (0, 1, 40, len(hello))[number % 4]])
        assert b"watts 6.0" in scrape(server, context)[0]
        assert len(server._connections._open) <= PATIENT.connections


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0], ids=["nothing", "few bytes", "half", "whole hello"])
def test_an_unfinished_handshake_ends_at_its_deadline(
    pair: dict[str, Any], context: ssl.SSLContext, share: float
) -> None:
    with serving(limits=Limits(request_seconds=0.2), **pair) as server, connected(server) as sock:
        hello = Pieces(context, sock).hello()
        sock.sendall(hello[: int(share * len(hello))])
        with suppress(ConnectionResetError):
            everything(sock)
        until(lambda: not server._connections._open, "the end of the connection")


def test_a_client_that_waits_costs_no_time(server: ScrapeServer, context: ssl.SSLContext) -> None:
    """The selector waits for what the client has to send; to wait until one can send would return at once, for ever."""
    with connected(server) as stalled, connected(server) as silent:
        stalled.sendall(Pieces(context, stalled).hello()[:50])
        client = Pieces(context, silent)
        silent.sendall(client.hello())
        silent.sendall(client.handshake() + client.encrypted(SCRAPE[:20]))
        connections, selector = server._connections._open, server._connections._selector
        until(lambda: len(connections) == 2 and any(one.head == SCRAPE[:20] for one in connections), "what was sent")
        until(lambda: {key.events for key in selector.get_map().values()} == {selectors.EVENT_READ}, "the waiting")


def test_a_newer_connection_takes_the_place_of_a_handshake(pair: dict[str, Any], context: ssl.SSLContext) -> None:
    limits = replace(PATIENT, connections=2)
    with serving(registry=large(), limits=limits, **pair) as server, ExitStack() as stack:
        plain = stack.enter_context(connected(server))
        slow = stack.enter_context(context.wrap_socket(plain, server_hostname=HOST))
        slow.sendall(SCRAPE)
        received = len(slow.recv(1))
        stalled = stack.enter_context(connected(server))
        stalled.sendall(Pieces(context, stalled).hello()[:50])
        until(lambda: len(server._connections._open) == 2, "two connections")
        assert scrape(server, context, b"GET / HTTP/1.1\r\n\r\n")[0].startswith(b"HTTP/1.0 200 ")
        assert stalled.recv(1) == b""
        received += len(everything(slow))
        assert received > 16_000_000


def test_a_trickling_handshake_does_not_extend_its_deadline(pair: dict[str, Any], context: ssl.SSLContext) -> None:
    with serving(limits=Limits(request_seconds=0.2), **pair) as server, connected(server) as sock:
        rest = iter(Pieces(context, sock).hello())
        sock.settimeout(0.02)

        def is_cut_off() -> bool:
            try:
                sock.sendall(bytes([next(rest)]))
                return sock.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        until(is_cut_off, "the end of the connection")


def test_garbage_ends_its_own_connection_only(server: ScrapeServer, context: ssl.SSLContext) -> None:
    chance = random.Random(7)
    for _ in range(50):
        with connected(server) as sock, suppress(OSError):
            sock.sendall(b"\x16" + chance.randbytes(chance.randrange(1, 3000)))
            sock.shutdown(socket.SHUT_WR)
            everything(sock)
    for _ in range(50):
        with connected(server) as sock, suppress(OSError):
            sock.sendall(chance.randbytes(chance.randrange(1, 3000)))
            sock.shutdown(socket.SHUT_WR)
            assert everything(sock)[:12] in (b"", b"HTTP/1.0 400")
    with connected(server) as sock:
        damaged = bytearray(Pieces(context, sock).hello())
        damaged[10:40] = bytes(30)
        sock.sendall(damaged)
    assert b"watts 6.0" in scrape(server, context)[0]
    until(lambda: not server._connections._open, "the end of all connections")


def test_bytes_that_break_the_encryption_end_the_connection(server: ScrapeServer, context: ssl.SSLContext) -> None:
    with connected(server) as sock:
        client = Pieces(context, sock)
        sock.sendall(client.hello())
        sock.sendall(client.handshake())
        sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with suppress(ConnectionResetError):
            assert b"HTTP" not in everything(sock)
    until(lambda: not server._connections._open, "the end of the connection")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_plain_http_on_the_port_is_told_so(server: ScrapeServer, method: str) -> None:
    with connected(server, f"{method} /metrics HTTP/1.1\r\nHost: node\r\n\r\n".encode()) as client:
        answer = everything(client)
    assert answer.startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert answer.endswith(b"use https://\n") == (method != "HEAD")
    assert b"watts" not in answer


def test_a_client_that_ends_its_side_gets_its_answer(server: ScrapeServer, context: ssl.SSLContext) -> None:
    with connected(server) as sock:
        client = Pieces(context, sock)
        sock.sendall(client.hello())
        sock.sendall(client.handshake() + client.encrypted(SCRAPE))
        sock.shutdown(socket.SHUT_WR)
        assert b"watts 6.0" in client.answer()


def test_a_client_that_ends_within_the_handshake_is_dropped(server: ScrapeServer, context: ssl.SSLContext) -> None:
    with connected(server) as sock:
        sock.sendall(Pieces(context, sock).hello())
        sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            everything(sock)
        until(lambda: not server._connections._open, "the end of the connection")


def large() -> CollectorRegistry:
    """More than all socket buffers hold."""
    registry = CollectorRegistry()
    Info("test", "large", registry=registry).info({"noise": "x" * 16_000_000})
    return registry


def test_a_large_answer_arrives_whole(pair: dict[str, Any], context: ssl.SSLContext) -> None:
    with serving(registry=large(), limits=PATIENT, **pair) as server:
        assert scrape(server, context)[0].endswith(b'"} 1.0\n')


def test_a_client_that_takes_no_answer_is_cut_off(pair: dict[str, Any], context: ssl.SSLContext) -> None:
    limits = Limits(answer_seconds=0.2)
    with serving(registry=large(), limits=limits, **pair) as server, connected(server) as plain:
        with context.wrap_socket(plain, server_hostname=HOST) as client:
            client.sendall(SCRAPE)
            assert client.recv(1) == b"H"
            until(lambda: not server._connections._open, "the end of the connection")


def test_a_stop_does_not_wait_for_a_handshake(pair: dict[str, Any], context: ssl.SSLContext) -> None:
    with serving(limits=PATIENT, **pair) as server, connected(server) as sock:
        sock.sendall(Pieces(context, sock).hello()[:50])
        until(lambda: server._connections._open, "the connection")
        server.close()
        assert not server._thread.is_alive()


@dataclass(frozen=True, slots=True)
class Site:
    """A server whose certificate is in a folder."""

    server: ScrapeServer
    ca: trustme.CA
    context: ssl.SSLContext
    folder: Path

    def presented(self) -> bytes:
        answer, certificate = scrape(self.server, self.context)
        assert b"watts 6.0" in answer
        return certificate

    def renew(self, folder: Path | None = None) -> bytes:
        """Write a new certificate and key; return the certificate as it will be presented."""
        issued = self.ca.issue_cert(HOST)
        write_pair(folder or self.folder, issued)
        return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


@pytest.fixture
def site(server: ScrapeServer, ca: trustme.CA, context: ssl.SSLContext, tmp_path: Path) -> Site:
    return Site(server, ca, context, tmp_path)


def test_a_renewed_certificate_is_presented_at_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent.serve")
    before = site.presented()
    after = site.renew()
    assert (site.presented(), site.presented()) == (after, after)
    assert before != after
    assert caplog.text.count("the new certificate is in use") == 1


def test_a_renewal_by_rename_with_the_old_time_is_noticed(site: Site) -> None:
    """`cp --preserve` and tools that unpack archives keep the time of a file; its size may be the same as well."""
    site.presented()
    new = site.folder / "new"
    new.mkdir()
    after = site.renew(new)
    for name in ("cert.pem", "key.pem"):
        size = max((site.folder / name).stat().st_size, (new / name).stat().st_size)
        for folder in (site.folder, new):
            file = folder / name
            file.write_bytes(file.read_bytes().ljust(size, b"\n"))
            os.utime(file, ns=(0, 0))
    site.presented()
    for name in ("cert.pem", "key.pem"):
        (new / name).rename(site.folder / name)
    assert site.presented() == after


@pytest.mark.parametrize("file", ["cert.pem", "key.pem"])
@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nhalf", None], ids=["empty", "half", "missing"])
def test_a_broken_renewal_keeps_the_earlier_certificate(
    site: Site, file: str, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    before = site.presented()
    if content is None:
        (site.folder / file).unlink()
    else:
        (site.folder / file).write_text(content)
    assert [site.presented() for _ in range(3)] == [before] * 3
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert warning.startswith("serve.")
    assert warning.endswith("; the earlier certificate stays in use")
    after = site.renew()
    assert site.presented() == after


def test_a_key_that_comes_after_its_certificate_is_taken(site: Site) -> None:
    before = site.presented()
    old_key = (site.folder / "key.pem").read_bytes()
    after = site.renew()
    new_key = (site.folder / "key.pem").read_bytes()
    (site.folder / "key.pem").write_bytes(old_key)
    assert site.presented() == before
    (site.folder / "key.pem").write_bytes(new_key)
    assert site.presented() == after


def encrypted_key(ca: trustme.CA) -> bytes:
    key = serialization.load_pem_private_key(ca.issue_cert(HOST).private_key_pem.bytes(), None)
    kinds = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    return key.private_bytes(*kinds, serialization.BestAvailableEncryption(b"s3cret"))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("cert.pem", lambda _: None, "serve.cert_file: cannot read .*cert.pem: No such file or directory; create it"),
        ("key.pem", lambda _: None, "serve.key_file: cannot read .*key.pem: No such file or directory; create it"),
        ("cert.pem", lambda _: b"nonsense", "serve.cert_file, key_file: .* are not a certificate and its own"),
        ("key.pem", lambda ca: ca.issue_cert(HOST).private_key_pem.bytes(), "are not a certificate and its own"),
        ("key.pem", encrypted_key, "serve.key_file: the key is encrypted; store it without a passphrase"),
    ],
    ids=["no certificate", "no key", "nonsense", "another key", "encrypted key"],
)
def test_files_that_cannot_be_used_stop_the_start(
    ca: trustme.CA, pair: dict[str, Any], file: str, content: Callable[[trustme.CA], bytes | None], words: str
) -> None:
    path = Path(pair[f"{file.removesuffix('.pem')}_file"])
    path.unlink()
    written = content(ca)
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(ConfigError, match=words) as raised:
        ScrapeServer(ServeSettings(HOST, 0, **pair), OneGauge())
    assert raised.value.exit_code == ExitCode.CONFIG


def test_an_expired_certificate_stops_nothing(ca: trustme.CA, context: ssl.SSLContext, tmp_path: Path) -> None:
    """At the start of a node without a battery clock, nobody knows the time; and pushes must go on."""
    ends = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    keys = write_pair(tmp_path, ca.issue_cert(HOST, not_before=ends - dt.timedelta(days=90), not_after=ends))
    with serving(**keys) as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
            scrape(server, context)
        write_pair(tmp_path, ca.issue_cert(HOST))
        assert b"watts 6.0" in scrape(server, context)[0]


def test_a_bare_name_is_a_systemd_credential(ca: trustme.CA, tmp_path: Path, context: ssl.SSLContext) -> None:
    write_pair(tmp_path, ca.issue_cert(HOST))
    write_file(tmp_path / "password", "s3cret\n")
    settings = ServeSettings(HOST, 0, "cert.pem", "key.pem", "node", "password")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    server = ScrapeServer(settings, OneGauge(), environ=environ)
    try:
        assert scrape(server, context)[0].startswith(b"HTTP/1.0 401 Unauthorized")
    finally:
        server.close()
