"""What becomes of a request over a real socket: every answer and failure has its meaning, its words and its cure."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.errors import ConfigError, RejectedError, UnreachableError
from agent.history.answers import Meaning, Verdict
from agent.history.post import Poster
from agent.settings import RemoteWriteSettings
from tests.nginx_server import nginx_command, running_nginx
from tests.run.running import until
from tests.servers import Server, answering, dropping, free_port, hanging, in_turn, resetting, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

from tests.servers import Client

BODY = b"\x00"


def poster_for(url: str, timeout_seconds: float = 30.0, **settings: object) -> Poster:
    keys = {"timeout_seconds": timeout_seconds, **settings}
    return Poster(RemoteWriteSettings(f"{url}/api/v1/write", **keys), clock=SystemClock(), environ={})  # type: ignore[arg-type] # by name


def answer_to(status: str, body: bytes = b"", *headers: str) -> Verdict:
    with Server(answering(status, body, *headers)) as server:
        poster = poster_for(server.url)
        verdict = poster.post(BODY)
        poster.close()
        return verdict


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_a_success_is_taken(status: str) -> None:
    verdict = answer_to(status)
    assert verdict == Verdict(Meaning.TAKEN)
    assert verdict.as_error() is None


@pytest.mark.parametrize(
    "said",
    [
        b"Client sent an HTTP request to an HTTPS server.\n",
        b"<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
    ],
    ids=["Go", "nginx"],
)
def test_a_port_that_speaks_tls_means_the_request(said: bytes) -> None:
    verdict = answer_to("400 Bad Request", said)
    assert (verdict.meaning, verdict.error) == (Meaning.HOLD, RejectedError)
    assert verdict.words.endswith("this port speaks TLS: write https:// in remote_write.url")


@pytest.mark.parametrize("status", ["408 Request Timeout", "425 Too Early", "429 Too Many", "500 Oops", "503 Busy"])
def test_not_now_is_tried_again_later(status: str) -> None:
    verdict = answer_to(status, b"try later\n", "Retry-After: 17")
    assert (verdict.meaning, verdict.error, verdict.retry_after_seconds) == (Meaning.LATER, UnreachableError, 17.0)
    assert f"answered POST /api/v1/write with {status}: try later; it asks to wait 17 s" in verdict.words
    assert verdict.is_unanswered is (status >= "5")


@pytest.mark.parametrize(
    ("status", "may_mean_data"), [("500 Oops", True), ("502 Bad Gateway", False), ("503 Busy", False)]
)
def test_only_an_error_of_the_server_itself_may_mean_the_data(status: str, *, may_mean_data: bool) -> None:
    assert answer_to(status).is_server_error is may_mean_data


@pytest.mark.parametrize(
    ("status", "said", "cure"),
    [
        ("401 Unauthorized", b"", "check remote_write.username and password_file, or bearer_token_file"),
        ("401 Unauthorized", b"no org id", "the tenant in remote_write.headers"),
        ("403 Forbidden", b"", "may this user write?"),
        ("404 Not Found", b"404 page not found", "remote_write.url needs the whole path"),
        ("404 Not Found", b"remote write receiver needs to be enabled", "--web.enable-remote-write-receiver"),
        ("405 Method Not Allowed", b"", "has to let POST pass"),
        ("407 Proxy Authentication Required", b"", "proxy variable of the environment"),
        ("410 Gone", b"", "see the log of the server"),
        ("415 Unsupported Media Type", b"", "remote write 1.0"),
        ("400 Bad Request", b'unsupported path requested: "/x"', "remote_write.url needs the whole path"),
        ("400 Bad Request", b'missing route for "/api/v1/write"', "remote_write.url needs the whole path"),
    ],
)
def test_a_wrong_request_holds_everything_and_names_the_cure(status: str, said: bytes, cure: str) -> None:
    verdict = answer_to(status, said)
    assert (verdict.meaning, verdict.error) == (Meaning.HOLD, RejectedError)
    assert status in verdict.words
    assert cure in verdict.words
    assert verdict.words.startswith("127.0.0.1:")


@pytest.mark.parametrize(
    ("status", "said", "is_stored"),
    [
        ("400 Bad Request", b"out of order sample", True),
        ("400 Bad Request", b"duplicate sample for timestamp", True),
        ("400 Bad Request", b"failed pushing: user=1: err-mimir-sample-out-of-order ...", True),
        ("400 Bad Request", b"err-mimir-sample-duplicate-timestamp", True),
        ("409 Conflict", b"forwarding request to endpoint: conflict", True),
        ("400 Bad Request", b"out of bounds", False),
        ("400 Bad Request", b"err-mimir-sample-timestamp-too-old", False),
        ("422 Unprocessable Entity", b"label value too long", False),
        ("400 Bad Request", b"", False),
    ],
)
def test_a_refusal_may_mean_the_data(status: str, said: bytes, *, is_stored: bool) -> None:
    verdict = answer_to(status, said)
    assert (verdict.meaning, verdict.is_stored_already, verdict.is_unanswered) == (Meaning.REFUSED, is_stored, False)
    assert said.decode() in verdict.words


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("413 Request Entity Too Large", b""),
        ("400 Bad Request", b"too big packed request; mustn't exceed `-maxInsertRequestSize=100` bytes"),
        ("400 Bad Request", b"err-mimir-distributor-max-write-message-size"),
    ],
)
def test_too_large_is_sent_in_smaller_parts(status: str, said: bytes) -> None:
    assert answer_to(status, said).meaning is Meaning.TOO_LARGE


def test_a_captive_portal_takes_nothing() -> None:
    verdict = answer_to("200 OK", b"<!doctype html><title>Welcome to the hotel</title>")
    assert (verdict.meaning, verdict.error) == (Meaning.HOLD, RejectedError)
    assert "captive portal" in verdict.words


def test_a_web_page_of_an_error_is_no_refusal_of_data() -> None:
    assert answer_to("400 Bad Request", b"<html><title>The plain HTTP request</title></html>").meaning is Meaning.HOLD


def test_a_redirect_is_not_followed_and_shows_no_path() -> None:
    verdict = answer_to("308 Permanent Redirect", b"", "Location: https://other.example/secret-token/write")
    assert verdict.meaning is Meaning.HOLD
    assert "set remote_write.url to where the server is" in verdict.words
    assert "https://other.example" in verdict.words
    assert "secret-token" not in verdict.words


def test_a_refused_connection_leaves_nothing_stored() -> None:
    verdict = poster_for(f"http://127.0.0.1:{free_port()}").post(BODY)
    assert (verdict.meaning, verdict.is_unanswered, verdict.is_server_error) == (Meaning.LATER, False, False)
    assert "refused the connection" in verdict.words


@pytest.mark.parametrize("behave", [dropping, resetting, hanging])
def test_without_an_answer_the_request_may_be_stored(behave: Callable[[Client], None]) -> None:
    with Server(behave) as server:
        verdict = poster_for(server.url, timeout_seconds=0.3 if behave is hanging else 30.0).post(BODY)
    assert (verdict.meaning, verdict.error, verdict.is_unanswered) == (Meaning.LATER, UnreachableError, True)


def test_a_request_sent_twice_over_a_dropped_connection_may_be_stored() -> None:
    """The server stored the first and dropped the idle connection; then it refuses the second as a duplicate."""

    def first(client: Client) -> None:
        client.read_request()
        client.answer("204 No Content")
        client.read_request()  # and no answer

    with Server(in_turn(first, answering("400 Bad Request", b"out of order sample"))) as server:
        poster = poster_for(server.url)
        assert poster.post(BODY).meaning is Meaning.TAKEN
        verdict = poster.post(BODY)
        assert (verdict.meaning, verdict.is_stored_already, verdict.is_unanswered) == (Meaning.REFUSED, True, True)
        verdict = poster.post(BODY)
        assert verdict.is_unanswered is False
        assert [request.body for request in server.requests] == [BODY] * 4
        poster.close()


def test_a_request_sent_before_the_server_went_may_be_stored() -> None:
    """On a connection that was open; the next one was refused."""

    def behave(client: Client) -> None:
        client.read_request()
        client.answer("204 No Content")
        client.read_request()
        client.server.stop_listening()

    with Server(behave) as server:
        poster = poster_for(server.url)
        poster.post(BODY)
        verdict = poster.post(BODY)
        assert "refused the connection" in verdict.words
        assert verdict.is_unanswered


def test_a_connection_is_kept_for_the_next_request() -> None:
    with Server(answering("204 No Content")) as server:
        poster = poster_for(server.url)
        for _ in range(5):
            poster.post(BODY)
        assert server.connections == 1
        poster.close()


def test_the_request_is_remote_write_with_credentials_and_headers(tmp_path: Path) -> None:
    password_file = write_file(tmp_path / "password", "secret\n")
    headers = (("X-Scope-OrgID", "tenant"), ("Content-Encoding", "gzip"))
    with Server(answering("204 No Content")) as server:
        poster = poster_for(server.url, username="u", password_file=password_file, headers=headers)
        poster.post(BODY)
        poster.close()
        [request] = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/api/v1/write", BODY)
    assert request.headers["x-scope-orgid"] == "tenant"
    assert request.headers["content-encoding"] == "snappy"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-prometheus-remote-write-version"] == "0.1.0"
    assert request.headers["authorization"].startswith("Basic ")
    assert request.headers["user-agent"].startswith("wattpush/")


def test_a_password_at_the_cut_of_a_quote_shows_no_beginning(tmp_path: Path) -> None:
    password_file = write_file(tmp_path / "password", "hunter2 hunter2")
    with Server(answering("400 Bad Request", b"x" * 290 + b"hunter2 hunter2")) as server:
        poster = poster_for(server.url, username="u", password_file=password_file)
        words = poster.post(BODY).words
        poster.close()
    assert "400 Bad Request: xxx" in words
    assert "hunter" not in words


def test_a_password_that_cannot_be_read_holds_everything(tmp_path: Path) -> None:
    poster = poster_for("http://127.0.0.1:9", username="u", password_file=str(tmp_path / "missing"))
    verdict = poster.post(BODY)
    assert (verdict.meaning, verdict.error) == (Meaning.HOLD, ConfigError)
    assert "remote_write.password_file" in str(verdict.as_error())


def test_stop_ends_a_request_within_moments() -> None:
    with Server(hanging) as server:
        poster = poster_for(server.url, timeout_seconds=600.0)
        verdicts: list[Verdict] = []
        thread = threading.Thread(target=lambda: verdicts.append(poster.post(BODY)))
        thread.start()
        until(lambda: server.connections == 1, "the request arrives")
        poster.stop()
        thread.join(30.0)
        assert not thread.is_alive()
        assert [(verdict.meaning, verdict.is_unanswered) for verdict in verdicts] == [(Meaning.LATER, True)]


def test_the_limit_of_nginx_is_too_large(tmp_path: Path) -> None:
    port, sites = free_port(), tmp_path / "sites"
    sites.mkdir()
    write_file(
        sites / "one.conf",
        f"server {{ listen 127.0.0.1:{port}; client_max_body_size 1k; location / {{ return 204; }} }}",
    )
    with running_nginx(nginx_command(tmp_path / "nginx", sites), port):
        poster = poster_for(f"http://127.0.0.1:{port}")
        assert poster.post(BODY).meaning is Meaning.TAKEN
        verdict = poster.post(b"x" * 100_000)
        assert verdict.meaning is Meaning.TOO_LARGE
        assert "client_max_body_size" in verdict.words
        poster.close()
