"""`check --gateway` against real gateways and misbehaving servers: each step has its line."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import email.utils
import json
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, SupportsIndex

import pytest
import trustme

from agent.check import Finding, Status
from agent.check.gateway import check_gateway
from agent.clock import SystemClock
from agent.errors import ExitCode
from agent.settings import PushgatewaySettings, Settings
from tests.run.running import CPU, groups_of
from tests.servers import Server, answering, dropping, free_port, proxying, raw, running_pushgateway, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tests.servers import Client

PASSWORD = "correct horse"
# bcrypt of PASSWORD, at the lowest cost: the only kind that the Pushgateway takes.
PASSWORD_BCRYPT = "$2b$04$nQ2MEdOvGgFzNYb/iJ2wPOwWd/n/JyeP2XyoJZcMl9wAJxtA5ahyq"


def check(
    url: str, *, clock: SystemClock | None = None, environ: Mapping[str, str] | None = None, **gateway: Any
) -> dict[str, Finding]:
    settings = PushgatewaySettings(url, **{"job": "check", "timeout_seconds": 20.0, **gateway})
    found = list(check_gateway(Settings("node-17", (CPU,)), settings, clock or SystemClock(), environ or {}))
    by_name = {finding.what: finding for finding in found}
    assert len(by_name) == len(found), found
    return by_name


class Impatient(SystemClock):
    """A clock that fails the test if something waits."""

    @staticmethod
    def sleep(seconds: SupportsIndex | float) -> None:
        pytest.fail(f"waited for {seconds} s")


class Turned(SystemClock):
    """A clock that moves only while something sleeps."""

    def __init__(self) -> None:
        self.slept_seconds = 0.0

    def monotonic(self) -> float:
        return 1000.0 + self.slept_seconds

    def sleep(self, seconds: float) -> None:  # type: ignore[override] # its name differs, and that it is of an instance
        self.slept_seconds += seconds


def statuses(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.status.value for name, finding in found.items() if finding.status is not Status.OK}


def gateway(
    *, version: str = "1.11.0", before: str = "", keeps: bool = True, **answers: str
) -> Callable[[Client], None]:
    """Answers as a Pushgateway does; `answers` are the status lines of PUT, DELETE and GET, by method.

    Without `keeps` it never shows what was pushed.
    """
    kept: set[str] = set()

    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            body = b""
            if request.method == "PUT" and keeps:
                kept.add(request.target)
            if request.method == "DELETE":
                kept.discard(request.target)
            if request.target == "/metrics" and "GET" not in answers:
                devices = [target.split("/")[target.split("/").index("device") + 1] for target in kept]
                shown = [f'push_time_seconds{{device="{device}"}} 1' for device in devices]
                body = "\n".join([f'pushgateway_build_info{{version="{version}"}} 1', *shown]).encode()
            if request.target == "/api/v1/status" and "GET" not in answers:
                body = json.dumps({"status": "success", "data": {"build_information": {"version": version}}}).encode()
            usual = "200 OK" if request.method != "DELETE" else "202 Accepted"
            client.answer(answers.get(request.method, usual), body, *filter(None, [before or _date()]))

    return behave


def _date(seconds: float = 0.0) -> str:
    return f"Date: {email.utils.formatdate(SystemClock.time() + seconds, usegmt=True)}"


def tls_of(ca: trustme.CA, **certificate: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1", **certificate).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA(organization_name="Test Authority")


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> str:
    return write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())


def test_healthy_gateway_has_a_line_for_each_step_and_keeps_nothing(pushgateway_url: str) -> None:
    found = check(pushgateway_url)
    assert [*found] == ["name", "connection", "version", "clock", "push", "delete", "scrape"]
    assert statuses(found) == {"scrape": "note"}
    assert {finding.exit_code for finding in found.values()} == {ExitCode.OK}
    assert "is accepted" in str(found["push"])
    assert found["delete"].text == "accepted, and the group is gone"
    assert "honor_labels: true" in str(found["scrape"])
    assert groups_of(pushgateway_url, "check") == {}


def test_groups_of_the_node_are_left_alone() -> None:
    with Server(gateway()) as server:
        check(server.url)
        paths = {request.target for request in server.requests if request.method in ("PUT", "DELETE")}
    (path,) = paths
    assert path.startswith("/metrics/job/check/device/wattpush-check")
    assert path.endswith("/hostname/node-17")


def test_gateway_with_tls_and_a_password_is_checked(ca: trustme.CA, ca_file: str, tmp_path: Path) -> None:
    server = ca.issue_cert("127.0.0.1")
    web = tmp_path / "web.yml"
    web.write_text(
        json.dumps(
            {
                "tls_server_config": {
                    "cert_file": write_file(tmp_path / "cert.pem", server.cert_chain_pems[0].bytes()),
                    "key_file": write_file(tmp_path / "key.pem", server.private_key_pem.bytes()),
                },
                "basic_auth_users": {"node": PASSWORD_BCRYPT},
            }
        )
    )
    password_file = write_file(tmp_path / "password", f"{PASSWORD}\n")
    (tmp_path / "password").chmod(0o600)
    credentials: dict[str, Any] = {"username": "node", "password_file": password_file, "ca_file": ca_file}
    with running_pushgateway(f"--web.config.file={web}") as url:
        found = check(url.replace("http:", "https:"), **credentials)
        assert statuses(found) == {"scrape": "note"}
        assert str(found["credentials"]) == f"credentials: password of node, from {password_file}"
        assert found["certificate"].text.startswith("by Test Authority, for ")
        assert found["delete"].text == "accepted, and the group is gone"
        write_file(tmp_path / "password", "wrong")
        found = check(url.replace("http:", "https:"), **credentials)
    assert statuses(found) == {"version": "warning", "push": "failed", "delete": "failed", "scrape": "note"}
    assert found["push"].exit_code == ExitCode.PROTOCOL
    assert "with 401 Unauthorized" in str(found["push"])
    assert "check pushgateway.username and password_file" in str(found["push"])


def test_unknown_name_ends_the_check() -> None:
    found = check("http://gateway.invalid:9091", timeout_seconds=1.0)
    assert [*found] == ["gateway", "scrape"]
    assert found["gateway"].exit_code == ExitCode.UNAVAILABLE
    assert str(found["gateway"]).startswith("gateway: gateway.invalid:9091")


def test_refused_connection_is_unreachable() -> None:
    found = check(f"http://127.0.0.1:{free_port()}")
    assert [*found] == ["name", "gateway", "scrape"]
    assert found["gateway"].exit_code == ExitCode.UNAVAILABLE
    assert "refused the connection; is it running?" in str(found["gateway"])


def test_silent_gateway_ends_at_the_timeout() -> None:
    with Server(lambda client: client.hang()) as server:
        found = check(server.url, timeout_seconds=1.0)
    assert found["gateway"].exit_code == ExitCode.UNAVAILABLE
    assert re.search(r"timed out after \d+\.\d s, while waiting for the answer", str(found["gateway"]))


def test_disconnect_without_an_answer_is_explained() -> None:
    with Server(dropping) as server:
        assert "closed the connection without an answer" in str(check(server.url)["gateway"])


@pytest.mark.parametrize(
    ("days", "status", "words"),
    [
        (90, "ok", "by Test Authority, for 90 more days"),
        (15, "ok", "for 15 more days"),
        (13, "warning", "for 13 more days; renew it on the gateway"),
    ],
)
def test_certificate_warning_comes_two_weeks_before_expiry(
    ca: trustme.CA, ca_file: str, days: int, status: str, words: str
) -> None:
    ends = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=days)
    with Server(gateway(), tls_of(ca, not_after=ends)) as server:
        finding = check(server.url, ca_file=ca_file)["certificate"]
    assert (finding.status.value, finding.exit_code) == (status, ExitCode.OK)
    assert words in str(finding)


def test_expired_certificate_is_the_reason_given(ca: trustme.CA, ca_file: str) -> None:
    ended = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    tls = tls_of(ca, not_before=ended - dt.timedelta(days=10), not_after=ended)
    with Server(gateway(), tls) as server:
        found = check(server.url, ca_file=ca_file)
    assert server.requests == []
    assert found["gateway"].exit_code == ExitCode.UNAVAILABLE
    assert "certificate has expired; renew it, or set this machine's clock" in str(found["gateway"])


def test_certificate_is_seen_without_keep_alive(ca: trustme.CA, ca_file: str) -> None:
    def behave(client: Client) -> None:
        if client.read_request() is not None:
            client.answer("200 OK", b"", "Connection: close")

    with Server(behave, tls_of(ca)) as server:
        assert check(server.url, ca_file=ca_file)["certificate"].status is Status.OK


@pytest.mark.parametrize("seconds", [-3600.0, -30.0, 30.0, 3600.0])
def test_clocks_that_disagree_are_a_warning(seconds: float) -> None:
    with Server(gateway(before=_date(seconds))) as server:
        finding = check(server.url)["clock"]
    assert finding.status is Status.WARNING
    assert ("behind the gateway's" if seconds > 0 else "ahead of the gateway's") in str(finding)
    assert "timedatectl" in str(finding)


def test_answer_without_a_date_is_a_warning() -> None:
    with Server(gateway(before="X-No-Date: 1")) as server:
        assert "the answer of the gateway has no date" in str(check(server.url)["clock"])


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ("1.5.1+ds", "ok", "Pushgateway 1.5.1"),
        ("1.4.3", "warning", "1.4.3 cannot read compressed pushes; install 1.5.0 or newer"),
        ("none of yours", "warning", "not shown"),
    ],
)
def test_version_is_shown_and_an_old_one_is_a_warning(version: str, status: str, words: str) -> None:
    with Server(gateway(version=version)) as server:
        finding = check(server.url)["version"]
    assert (finding.status.value, finding.exit_code) == (status, ExitCode.OK)
    assert words in str(finding)


def test_push_is_tried_even_if_a_proxy_hides_the_rest() -> None:
    with Server(gateway(GET="403 Forbidden")) as server:
        found = check(server.url)
    assert statuses(found) == {"version": "warning", "scrape": "note"}
    assert "not shown (GET /api/v1/status: 403)" in str(found["version"])
    assert found["delete"].text == "accepted; that the group is gone cannot be seen from here (GET /metrics: 403)"


def test_server_that_accepts_everything_is_not_a_gateway() -> None:
    def yes(client: Client) -> None:
        while client.read_request() is not None:
            client.answer("200 OK", b"Welcome")

    with Server(yes) as server:
        found = check(server.url, clock=Impatient())
    assert statuses(found) == {"version": "warning", "clock": "warning", "push": "warning", "scrape": "note"}
    assert "is accepted, but GET /metrics does not show the group" in str(found["push"])
    assert "does pushgateway.url lead to a Pushgateway" in str(found["push"])
    assert "the group is gone" not in str(found["delete"])
    assert {finding.exit_code for finding in found.values()} == {ExitCode.OK}


def test_check_waits_one_second_for_a_missing_group() -> None:
    """Two gateways behind one address: one gets the pushes, the other shows its metrics."""
    clock = Turned()
    with Server(gateway(keeps=False)) as server:
        found = check(server.url, clock=clock, timeout_seconds=600.0)
    assert statuses(found) == {"push": "warning", "scrape": "note"}
    assert "always to the same one?" in str(found["push"])
    assert 0.9 < clock.slept_seconds < 1.2


def test_group_that_appears_late_is_ok() -> None:
    behave, looks = gateway(), 0

    class Late:
        """A client that hides the group from the first GET."""

        def __init__(self, client: Client) -> None:
            self._client = client
            self.read_request = client.read_request

        def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
            nonlocal looks
            looks += b"pushgateway_build_info" in body
            self._client.answer(status, body.partition(b"\n")[0] if looks == 1 else body, *headers)

    with Server(lambda client: behave(Late(client))) as server:  # type: ignore[arg-type] # all that it needs
        found = check(server.url, clock=Turned())
    assert statuses(found) == {"scrape": "note"}
    assert found["delete"].text == "accepted, and the group is gone"
    assert looks == 3


def test_refused_push_is_deleted_too() -> None:
    with Server(gateway(PUT="400 Bad Request")) as server:
        found = check(server.url)
        assert [request.method for request in server.requests] == ["GET", "PUT", "DELETE", "GET"]
    assert statuses(found) == {"push": "failed", "scrape": "note"}
    assert found["push"].exit_code == ExitCode.PROTOCOL


def test_failing_push_and_undeleted_group_are_failures() -> None:
    with Server(gateway(PUT="503 Service Unavailable")) as server:
        found = check(server.url, clock=Turned())
    assert found["push"].exit_code == ExitCode.UNAVAILABLE
    kept: list[str] = []

    def keeping(client: Client) -> None:
        while (request := client.read_request()) is not None:
            kept.extend(part for part in request.target.split("/") if part.startswith("wattpush-check"))
            client.answer("200 OK", f'push_time_seconds{{device="{"".join(kept[:1])}"}} 1'.encode())

    with Server(keeping) as server:
        found = check(server.url, clock=Turned())
    assert found["delete"].exit_code == ExitCode.PROTOCOL
    assert "is still there, though the DELETE was accepted" in str(found["delete"])


@pytest.mark.parametrize("content", [None, ""])
def test_nothing_is_sent_without_the_password(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "password"
    if content is not None:
        write_file(file, content)
    with Server(gateway()) as server:
        found = check(server.url, username="node", password_file=str(file))
        assert server.connections == 0
    assert [*found] == ["credentials"]
    assert found["credentials"].exit_code == ExitCode.CONFIG
    assert str(file) in str(found["credentials"])


def test_world_readable_password_is_a_warning(tmp_path: Path) -> None:
    file = write_file(tmp_path / "password", PASSWORD)
    (tmp_path / "password").chmod(0o644)
    with Server(gateway()) as server:
        finding = check(server.url, username="node", password_file=file)["credentials"]
    assert finding.status is Status.WARNING
    assert f"sudo chmod o= {file}" in str(finding)


def test_password_over_plain_http_is_a_warning(tmp_path: Path) -> None:
    file = write_file(tmp_path / "password", PASSWORD)
    (tmp_path / "password").chmod(0o600)
    found = check("http://gateway.invalid:9091", username="node", password_file=file, timeout_seconds=0.5)
    finding = found["credentials"]
    assert finding.status is Status.WARNING
    assert "use https:// in pushgateway.url" in str(finding)


def test_echoed_password_is_masked(tmp_path: Path) -> None:
    file = write_file(tmp_path / "password", PASSWORD)
    encoded = base64.b64encode(f"node:{PASSWORD}".encode()).decode()
    for shown in (PASSWORD, encoded):
        echo = f"400 {shown}"
        for behave in (
            gateway(version=f"1.{shown}", PUT=echo, DELETE=echo),
            gateway(GET=f"404 {shown}", before=f"Date: {shown}"),
            raw(f"{shown}\r\n\r\n".encode()),
        ):
            with Server(behave) as server:
                found = check(server.url, username="node", password_file=file)
            assert {request.headers["authorization"] for request in server.requests} == {f"Basic {encoded}"}
            assert not any(shown in str(finding) for finding in found.values())


def test_proxy_of_the_environment_is_used_and_named(pushgateway_url: str) -> None:
    with Server(proxying()) as proxy:
        environ = {"http_proxy": proxy.url}
        found = check(pushgateway_url, environ=environ)
    assert statuses(found) == {"scrape": "note"}
    assert f"through the proxy 127.0.0.1:{proxy.port}" in str(found["connection"])
    assert str(found["name"]).startswith(f"name: the proxy 127.0.0.1:{proxy.port} is 127.0.0.1")


def test_invalid_proxy_variable_is_a_configuration_error() -> None:
    found = check("http://gateway.invalid", environ={"http_proxy": "socks5://127.0.0.1:1"})
    assert [*found] == ["proxy"]
    assert found["proxy"].exit_code == ExitCode.CONFIG


def test_interrupted_check_deletes_its_group() -> None:
    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            if request.method == "PUT":
                client.answer("503 Service Unavailable")
            else:
                client.answer("200 OK")

    class Interrupted(SystemClock):
        @staticmethod
        def sleep(seconds: SupportsIndex | float) -> None:  # between two attempts
            raise KeyboardInterrupt(f"while waiting for {seconds} s")

    with Server(behave) as server:
        with contextlib.suppress(KeyboardInterrupt):
            check(server.url, clock=Interrupted())
            pytest.fail("was not interrupted")
        assert server.requests[-1].method == "DELETE"


def test_name_shows_all_of_its_addresses() -> None:
    with Server(gateway()) as server:
        found = check(server.url.replace("127.0.0.1", "localhost"))
    addresses = {info[4][0] for info in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)}
    shown = str(found["name"]).partition(" is ")[2].partition(" (")[0]
    assert set(shown.split(", ")) == addresses


@pytest.mark.parametrize(
    ("date", "body"),
    [
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", b"{}"),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999", b"{}"),
        ("", b"[" * 200_000),
        ("yesterday", b"1" * 10_000),
    ],
)
def test_senseless_answers_are_warnings(date: str, body: bytes) -> None:
    with Server(answering("200 OK", body, f"Date: {date}")) as server:
        found = check(server.url)
    assert found["version"].text == "not shown (GET /api/v1/status: 200)"
    assert found["clock"].text == "the answer of the gateway has no date"
