"""`check --gateway` on [remote_write]: real servers in good and bad shape, and what it says of each."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from agent.check import Finding, Status
from agent.check.remote_write import check_remote_write
from agent.clock import SystemClock
from agent.errors import ExitCode
from agent.history.dating import Dating
from agent.settings import RemoteWriteSettings, Settings
from tests.history.engines import Prometheus, VictoriaMetrics
from tests.history.test_dating import HandTimebase
from tests.run.running import CPU
from tests.servers import Server, answering, free_port, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.servers import Client

DAY = 86400.0
EXPLAINED = {
    "wrong path": "the whole path: /api/v1/write for VictoriaMetrics and Prometheus",
    "receiver off": "start Prometheus with --web.enable-remote-write-receiver",
    "password": "check remote_write.username and password_file",
    "413": "the limit of the server",
}


def check(
    url: str, *, is_clock_known: bool = True, environ: Mapping[str, str] | None = None, **remote_write: Any
) -> dict[str, Finding]:
    """The findings by what they are about, without `remote_write` before it."""
    settings = RemoteWriteSettings(url, **{"timeout_seconds": 20.0, **remote_write})
    dating = Dating(HandTimebase(synchronised=is_clock_known))
    node = Settings("node-17", (CPU,), remote_write=settings)
    found = list(check_remote_write(node, settings, SystemClock(), environ or {}, dating))
    by_name = {finding.what.removeprefix("remote_write "): finding for finding in found}
    assert len(by_name) == len(found), found
    return by_name


def troubles(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.status.value for name, finding in found.items() if finding.status is not Status.OK}


class TlsPrometheus(Prometheus):
    """Ready when it answers at all: a request without TLS gets 400."""

    def get(self, path: str, **parameters: str | float) -> tuple[int, str]:
        status, text = super().get(path, **parameters)
        return (200 if status == 400 else status), text


@pytest.fixture(scope="module")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    with VictoriaMetrics(tmp_path_factory.mktemp("vm"), retention="30d") as server:
        yield server


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("prometheus"), window="30h") as server:
        yield server


@pytest.fixture(scope="module")
def plain_prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with Prometheus(tmp_path_factory.mktemp("plain"), has_receiver=False) as server:
        yield server


def test_a_good_victoria_metrics_has_a_line_for_each_step(victoria_metrics: VictoriaMetrics) -> None:
    found = check(victoria_metrics.write_url)

    assert [*found] == ["name", "connection", "request", "clock", "server"]
    assert troubles(found) == {}
    assert "-dedup.minScrapeInterval=1ms -retentionPeriod=30d" in found["server"].text
    assert victoria_metrics.samples('{__name__!=""}') == {}


def test_a_retention_shorter_than_max_age_is_warned_about(victoria_metrics: VictoriaMetrics) -> None:
    found = check(victoria_metrics.write_url, max_age_seconds=31 * DAY)

    assert troubles(found) == {"max_age": "warning"}
    assert "drops what is older than 30d, and max_age is 31d" in str(found["max_age"])


@pytest.mark.parametrize(
    ("dedup", "words"),
    [
        (None, "stores a request twice if its answer was lost"),
        ("0s", "stores a request twice if its answer was lost"),
        ("1m30s", "keeps one sample in 90s, and those of this node are 15s apart"),
    ],
)
def test_a_victoria_metrics_with_bad_deduplication_gets_the_cure(dedup: str | None, words: str, tmp_path: Path) -> None:
    with VictoriaMetrics(tmp_path, dedup=dedup, retention="1") as server:
        found = check(server.write_url)

    assert troubles(found) == {"server": "warning"}
    assert words in found["server"].text
    assert found["server"].hint == "start it with -dedup.minScrapeInterval=1ms"


def test_deduplication_is_compared_with_the_samples_that_are_sent(tmp_path: Path) -> None:
    with VictoriaMetrics(tmp_path, dedup="1s", retention="1y") as server:
        assert troubles(check(server.write_url)) == {}
        found = check(server.write_url, resolution="sample")

    assert "keeps one sample in 1s, and those of this node are 1s apart" in found["server"].text


def test_a_prometheus_whose_window_fits_is_ok(prometheus: Prometheus) -> None:
    found = check(prometheus.write_url, max_age_seconds=30 * 3600.0)

    assert [*found] == ["name", "connection", "request", "clock", "server"]
    assert troubles(found) == {}


def test_a_window_shorter_than_max_age_is_warned_about(prometheus: Prometheus) -> None:
    found = check(prometheus.write_url, max_age_seconds=7 * DAY)

    assert troubles(found) == {"max_age": "warning"}
    assert "refuses what is older than 30h, and max_age is 7d" in str(found["max_age"])


def test_a_prometheus_without_a_window_gets_the_lines_to_write(tmp_path: Path) -> None:
    with Prometheus(tmp_path) as server:
        found = check(server.write_url)

    assert troubles(found) == {"server": "warning"}
    assert "out_of_order_time_window in prometheus.yml to max_age, 7d" in str(found["server"])


@pytest.mark.reliability(
    12.08,
    "wrong path, receiver off, wrong password, 413",
    "`check --gateway` tells the cure before the first run",
)
def test_a_receiver_that_is_off_is_named(plain_prometheus: Prometheus, measured: Callable[[str], None]) -> None:
    found = check(plain_prometheus.write_url)

    assert troubles(found) == {"request": "failed", "server": "warning"}
    assert found["request"].exit_code == ExitCode.PROTOCOL
    assert EXPLAINED["receiver off"] in str(found["request"])
    measured("receiver off: 404, exit code 76")


@pytest.mark.reliability(
    12.08,
    "wrong path, receiver off, wrong password, 413",
    "`check --gateway` tells the cure before the first run",
)
@pytest.mark.parametrize("path", ["/api/v1/push", "/wrong", "/api/v1/writ"])
def test_a_wrong_path_is_named(
    path: str, prometheus: Prometheus, victoria_metrics: VictoriaMetrics, measured: Callable[[str], None]
) -> None:
    for server in (prometheus, victoria_metrics):
        found = check(server.url + path)

        assert troubles(found) == {"request": "failed"}
        assert found["request"].exit_code == ExitCode.PROTOCOL
        assert EXPLAINED["wrong path"] in str(found["request"])
    measured("wrong path: 404 of Prometheus, 400 of VictoriaMetrics, exit code 76")


@pytest.mark.reliability(
    12.08,
    "wrong path, receiver off, wrong password, 413",
    "`check --gateway` tells the cure before the first run",
)
def test_a_wrong_password_is_named(tmp_path: Path, measured: Callable[[str], None]) -> None:
    arguments = ("-httpAuth.username=node", "-httpAuth.password=right")
    password = write_file(tmp_path / "password", "right\n")
    (tmp_path / "password").chmod(0o600)
    with VictoriaMetrics(tmp_path / "vm", arguments=arguments) as server:
        assert troubles(check(server.write_url, username="node", password_file=password)) == {}
        write_file(tmp_path / "password", "battery staple\n")
        found = check(server.write_url, username="node", password_file=password)

    assert troubles(found) == {"request": "failed"}
    assert found["request"].exit_code == ExitCode.PROTOCOL
    assert EXPLAINED["password"] in str(found["request"])
    assert "battery" not in "".join(map(str, found.values()))
    measured("wrong password: 401, exit code 76")


def test_http_to_a_port_that_speaks_tls_gets_the_cure(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "web.yml").write_text(
        f"tls_server_config: {{cert_file: {tmp_path / 'cert.pem'}, key_file: {tmp_path / 'key.pem'}}}\n"
    )
    server = TlsPrometheus(tmp_path / "prometheus", arguments=(f"--web.config.file={tmp_path / 'web.yml'}",))
    with server:
        found = check(server.write_url)

    assert troubles(found)["request"] == "failed"
    assert found["request"].exit_code == ExitCode.PROTOCOL
    assert "this port speaks TLS: write https:// in remote_write.url" in str(found["request"])


@pytest.mark.parametrize(
    ("status", "code"),
    [("413 Too Large", ExitCode.PROTOCOL), ("503 Service Unavailable", ExitCode.UNAVAILABLE)],
)
def test_another_answer_fails_with_the_servers_words(status: str, code: ExitCode) -> None:
    with Server(answering(status, b"so it is")) as server:
        found = check(f"{server.url}/api/v1/write")

    assert troubles(found)["request"] == "failed"
    assert found["request"].exit_code == code
    assert "so it is" in str(found["request"])


def test_a_refused_connection_is_unreachable() -> None:
    found = check(f"http://127.0.0.1:{free_port()}/api/v1/write")

    assert [*found] == ["name", "remote_write"]
    assert found["remote_write"].exit_code == ExitCode.UNAVAILABLE


def test_unreadable_credentials_end_the_check(tmp_path: Path) -> None:
    found = check("http://127.0.0.1:9/api/v1/write", username="a", password_file=str(tmp_path / "none"))

    assert [*found] == ["credentials"]
    assert found["credentials"].exit_code == ExitCode.CONFIG


def test_a_password_in_plain_text_is_warned_about(tmp_path: Path) -> None:
    password = write_file(tmp_path / "password", "secret")
    (tmp_path / "password").chmod(0o600)
    found = check("http://vm.invalid/api/v1/write", username="a", password_file=password, timeout_seconds=1.0)

    assert found["credentials"].status is Status.WARNING
    assert str(found["credentials"]).endswith("is sent in plain text; use https:// in remote_write.url")


def test_a_server_that_shows_nothing_gets_a_note() -> None:
    with Server(answering("204 No Content", b"")) as server:
        found = check(f"{server.url}/api/v1/push", headers=(("X-Scope-OrgID", "lab"),))
        (request,) = server.requests

    assert (found["request"].status, found["server"].status) == (Status.OK, Status.NOTE)
    assert "docs/history.md" in found["server"].hint
    assert (request.method, request.target, request.body) == ("POST", "/api/v1/push", b"\x00")
    assert request.headers["x-scope-orgid"] == "lab"
    assert request.headers["content-encoding"] == "snappy"


def dated(seconds: float) -> Callable[[Client], None]:
    """Answers 204 with a Date that is this much ahead."""

    def behave(client: Client) -> None:
        while client.read_request() is not None:
            date = email.utils.formatdate(SystemClock.time() + seconds, usegmt=True)
            client.answer("204 No Content", b"", f"Date: {date}")

    return behave


def test_an_unsynchronised_clock_is_warned_about(victoria_metrics: VictoriaMetrics) -> None:
    found = check(victoria_metrics.write_url, is_clock_known=False)

    assert troubles(found) == {"clock": "warning"}
    assert "samples wait: the clock has not been synchronised since boot" in found["clock"].text
    assert 'clock = "system"' in found["clock"].hint


@pytest.mark.parametrize(
    ("is_clock_known", "harm"),
    [
        (True, "one from the future makes Prometheus refuse"),
        (False, "samples wait until this machine's clock is synchronised"),
    ],
)
def test_a_clock_that_differs_from_the_servers_is_told(*, is_clock_known: bool, harm: str) -> None:
    with Server(dated(-3600.0)) as server:
        found = check(f"{server.url}/api/v1/write", is_clock_known=is_clock_known)

    assert found["clock"].status is Status.WARNING
    assert "3600 s ahead of the server's" in found["clock"].text
    assert harm in found["clock"].text


ODD_FLAGS = [
    b'-remoteWrite.url="secret"',
    b"-",
    b"<html>",
    b'-retentionPeriod="forever"\n-dedup.minScrapeInterval="soon"',
    b"\xff" * 100,
]


@pytest.mark.parametrize("body", ODD_FLAGS)
def test_odd_flags_of_a_server_do_no_harm(body: bytes) -> None:
    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            is_write = request.method == "POST"
            client.answer("204 No Content" if is_write else "200 OK", b"" if is_write else body, "X-Server-Hostname: v")

    with Server(behave) as server:
        found = check(f"{server.url}/api/v1/write")

    assert found["server"].status in (Status.OK, Status.NOTE)


def test_a_victoria_metrics_without_any_flag_has_the_defaults() -> None:
    """It shows an empty list, and keeps duplicates, and a month."""

    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            client.answer("204 No Content" if request.method == "POST" else "200 OK", b"", "X-Server-Hostname: v")

    with Server(behave) as server:
        found = check(f"{server.url}/api/v1/write", max_age_seconds=32 * DAY)

    assert "twice if its answer was lost" in found["server"].text
    assert "older than 31d" in found["max_age"].text


ODD_STATUS = [
    b"[]",
    b"{",
    b'{"data": 3}',
    b'{"data": {"web.enable-remote-write-receiver": [], "yaml": 3}}',
    b"[" * 10**5,
]


@pytest.mark.parametrize("body", ODD_STATUS)
def test_an_odd_status_of_a_server_does_no_harm(body: bytes) -> None:
    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            is_write = request.method == "POST"
            client.answer("204 No Content" if is_write else "200 OK", b"" if is_write else body)

    with Server(behave) as server:
        found = check(f"{server.url}/api/v1/write")

    assert found["server"].status in (Status.OK, Status.NOTE)
