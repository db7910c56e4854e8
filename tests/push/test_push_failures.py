"""The failures that are retried, and their messages. The clock is set by hand: nothing here waits."""

from __future__ import annotations

import email.utils
import gzip
import socket
from typing import TYPE_CHECKING

import pytest

from agent.errors import ConfigError, ExitCode, RejectedError, UnreachableError
from tests.push.pushing import TurnedClock, group, large_group, message, push_one, pushgateway_for
from tests.servers import Server, answering, dropping, free_port, in_turn, raw, resetting

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Client


def answering_once(status: str, body: bytes = b"", *headers: str) -> Callable[[Client], None]:
    """Answers one request and closes, so that the next one is a new connection with the next behaviour."""
    return answering(status, body, "Connection: close", *headers)


ACCEPTING = answering("200 OK")


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content"])
def test_any_2xx_is_success(status: str) -> None:
    with Server(answering(status)) as server, pushgateway_for(server.url) as destination:
        assert push_one(destination).error is None


@pytest.mark.reliability(
    9.2, "408, 429, 500, 502, 503, resets, no answer, garbage", "retried within the budget of the push"
)
@pytest.mark.parametrize(
    "failing",
    [
        answering_once("500 Internal Server Error"),
        answering_once("502 Bad Gateway"),
        answering_once("503 Service Unavailable"),
        answering_once("408 Request Timeout"),
        answering_once("429 Too Many Requests"),
        resetting,
        dropping,
        raw(b"garbage\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n"),
    ],
    ids=["500", "502", "503", "408", "429", "reset", "no answer", "no HTTP", "broken chunks", "negative chunk"],
)
def test_transient_failure_is_tried_again(failing: Callable[[Client], None]) -> None:
    clock = TurnedClock()
    with Server(in_turn(failing, ACCEPTING)) as server, pushgateway_for(server.url, clock=clock) as destination:
        result = push_one(destination)
    assert (result.attempts, result.error) == (2, None)
    assert 0.5 <= clock.slept[0] <= 1.0


def test_refused_connection_is_retried_with_growing_waits_within_the_budget() -> None:
    clock = TurnedClock()
    port = free_port()
    with pushgateway_for(f"http://127.0.0.1:{port}", clock=clock) as destination:
        result = push_one(destination, budget_seconds=30)
    assert isinstance(result.error, UnreachableError)
    assert result.error.exit_code == ExitCode.UNAVAILABLE
    assert result.attempts >= 4
    assert clock.slept == sorted(clock.slept)
    assert sum(clock.slept) <= 30
    seconds = sum(clock.slept)
    assert message(result) == (
        f"device cpu: 127.0.0.1:{port} refused the connection; is it running? "
        f"({result.attempts} attempts in {seconds:.1f} s)"
    )


def test_ipv6_gateway_is_named_as_in_its_url() -> None:
    port = free_port()
    with pushgateway_for(f"http://[::1]:{port}", clock=TurnedClock()) as destination:
        result = push_one(destination)
    assert isinstance(result.error, UnreachableError)
    assert message(result).startswith(f"device cpu: [::1]:{port}")


def test_refusal_at_the_default_port_hints_at_the_usual_one() -> None:
    def refusing(*_: object, **options: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        return [(socket.AF_INET, options["type"], 0, "", ("127.0.0.1", free_port()))]

    with pushgateway_for("http://gateway.test", clock=TurnedClock(), getaddrinfo=refusing) as destination:
        result = push_one(destination)
    assert "gateway.test:80 refused the connection (pushgateway.url names no port: often 9091)" in message(result)


@pytest.mark.reliability(9.21, "400, 401, 403, 404, 413 and the like", "not retried; the error names a fix")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering("401 Unauthorized"), "check pushgateway.username and password_file"),
        (answering("403 Forbidden", b"not you"), "403 Forbidden: not you; check pushgateway.username"),
        (answering("404 Not Found", b"404 page not found"), "check the path in pushgateway.url"),
        (answering("405 Method Not Allowed"), "has to let PUT and DELETE pass"),
        (answering("413 Payload Too Large"), "client_max_body_size"),
        (answering("415 Unsupported Media Type"), "Pushgateway 1.5.0 or newer is needed"),
        (answering("400 Bad Request", b"text format parsing error in line 1"), "cannot read compressed bodies"),
        (
            answering("400 Bad Request", b"Client sent an HTTP request to an HTTPS server.\n"),
            "this port speaks TLS: write https:// in pushgateway.url",
        ),
        (answering("418 I'm a teapot"), "see the log of the gateway"),
    ],
)
def test_rejection_is_final_and_names_a_fix(answer: Callable[[Client], None], words: str) -> None:
    clock = TurnedClock()
    with Server(answer) as server, pushgateway_for(server.url, clock=clock) as destination:
        result = push_one(destination)
    assert isinstance(result.error, RejectedError)
    assert result.error.exit_code == ExitCode.PROTOCOL
    assert (result.attempts, clock.slept, len(server.requests)) == (1, [], 1)
    assert f"127.0.0.1:{server.port} rejected PUT /metrics/job/power/device/cpu/hostname/node-17" in message(result)
    assert words in message(result)


def test_a_port_that_answers_no_http_may_speak_tls() -> None:
    alert = b"\x15\x03\x01\x00\x02\x02\x46\r\n"
    with Server(raw(alert)) as server, pushgateway_for(server.url, clock=TurnedClock()) as to:
        words = message(push_one(to, budget_seconds=1))
    assert "did not answer in HTTP" in words
    assert "is the port right? If it speaks TLS, write https:// in pushgateway.url" in words
    with Server(resetting) as server, pushgateway_for(server.url, clock=TurnedClock()) as to:
        words = message(push_one(to, budget_seconds=1))
    assert "reset the connection; if it speaks TLS, write https:// in pushgateway.url" in words


def test_early_refusal_of_a_body_shows_the_reason() -> None:
    def refuse_early(client: Client) -> None:
        client.file.readline()
        client.answer("413 Payload Too Large", b"too large")
        client.reset()

    with Server(refuse_early) as server, pushgateway_for(server.url, clock=TurnedClock()) as destination:
        (result,) = destination.push([large_group()], 10)
    assert isinstance(result.error, RejectedError)
    assert "413 Payload Too Large: too large" in message(result)


def test_quoted_answer_is_one_short_printable_line() -> None:
    body = b"first\r\nsecond\x1b[31m \x00third " + b"x" * 100_000
    with Server(answering("400 Bad Request", body)) as server, pushgateway_for(server.url) as destination:
        text = message(push_one(destination))
    assert "400 Bad Request: first second [31m third xxx" in text
    assert text.isprintable()
    assert len(text) < 600


@pytest.mark.reliability(9.22, "a web page as an answer", "the log names its status and title, never its source")
@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (
            b"<html><head><title>Sign in &amp;\nuse Wi-Fi</title><style>p {}",
            "text/html",
            'page, "Sign in & use Wi-Fi"; ',
        ),
        (b"\n<!DOCTYPE HTML><p>no title", "", "404 Not Found: a web page; "),
        (b"\xef\xbb\xbf<html><style>p {}", "", "404 Not Found: a web page; "),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C"><style>p {}', "", "404 Not Found: a web page; "),
        (b"<!-- a proxy --><html><style>p {}", "", "404 Not Found: a web page; "),
        (b"<center><h1>404</h1></center><style>p {}", "", "404 Not Found: a web page; "),
        (b"p {} style", "application/xhtml+xml", "404 Not Found: a web page; "),
        (b"no <html> here", "text/plain", "404 Not Found: no <html> here; "),
        (b"<?xml version='1.0'?><Error>denied</Error>", "", "Found: <?xml version='1.0'?><Error>denied</Error>; "),
    ],
)
def test_a_web_page_is_not_quoted_but_named(
    body: bytes, content_type: str, words: str, measured: Callable[[str], None]
) -> None:
    answer = answering("404 Not Found", body, f"Content-Type: {content_type}")
    with Server(answer) as server, pushgateway_for(server.url) as destination:
        text = message(push_one(destination))
    assert words in text
    assert "style" not in text
    measured("no word of its source in the error")


@pytest.mark.reliability(
    9.25, "a captive portal that accepts every push with a page of its own", "the push has failed, and nothing is lost"
)
@pytest.mark.parametrize("content_type", ["text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml", None])
def test_a_web_page_never_accepts_a_push(content_type: str | None, measured: Callable[[str], None]) -> None:
    headers = [] if content_type is None else [f"Content-Type: {content_type}"]
    page = answering("200 OK", b"<!DOCTYPE html><html><title>Sign in", *headers)
    with Server(page) as server, pushgateway_for(server.url) as destination:
        result = push_one(destination)
    assert isinstance(result.error, RejectedError)
    assert "with a web page; is there a Pushgateway at pushgateway.url, or a captive portal" in message(result)
    measured("refused whatever the type of the page says, and without one")


@pytest.mark.reliability(
    9.23, "102 Processing, 103 Early Hints or an unknown 1xx before the answer", "skipped: the final answer is awaited"
)
@pytest.mark.parametrize(
    "status", ["100 Continue", "102 Processing", "103 Early Hints", "104 Upload Resumption Supported", "199 Unknown"]
)
def test_interim_answers_are_skipped(status: str, measured: Callable[[str], None]) -> None:
    interim = f"HTTP/1.1 {status}\r\nLink: </style.css>; rel=preload\r\n\r\n".encode()

    def behave(client: Client) -> None:
        while client.read_request() is not None:
            client.send(interim + interim)
            client.answer("200 OK")

    with Server(behave) as server, pushgateway_for(server.url) as destination:
        assert [push_one(destination).error for _ in range(2)] == [None, None]
    assert server.connections == 1
    measured("100, 102, 103 and unknown ones, each twice before the answer: no push fails")


def test_redirect_is_not_followed_and_its_target_is_named() -> None:
    location = "Location: https://user:pass@other.example.org:8443/path?token=secret"
    with Server(answering("200 OK")) as elsewhere:
        redirect = answering("301 Moved Permanently", b"", location, f"X-Elsewhere: {elsewhere.url}")
        with Server(redirect) as server, pushgateway_for(server.url) as destination:
            result = push_one(destination)
        with (
            Server(answering("307 Temporary", b"", f"Location: {elsewhere.url}/x")) as server,
            pushgateway_for(server.url) as destination,
        ):
            other = push_one(destination)
        assert elsewhere.connections == 0
    assert isinstance(result.error, RejectedError)
    assert "301 Moved Permanently to https://other.example.org:8443;" in message(result)
    assert "set pushgateway.url" in message(result)
    assert "secret" not in message(result)
    assert f"to {elsewhere.url};" in message(other)


@pytest.mark.parametrize(
    ("headers", "words"),
    [(["Location: /metrics/"], "to another path of http://127.0.0.1:"), ([], "without saying where")],
)
def test_redirect_without_another_host_is_described(headers: list[str], words: str) -> None:
    with (
        Server(answering("308 Permanent Redirect", b"", *headers)) as server,
        pushgateway_for(server.url) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, RejectedError)
    assert f"308 Permanent Redirect {words}" in message(result)


def test_second_disconnect_is_final_and_explained() -> None:
    clock = TurnedClock()
    with Server(dropping) as server, pushgateway_for(server.url, clock=clock) as destination:
        result = push_one(destination, budget_seconds=1000)
    assert (result.attempts, server.connections) == (2, 2)
    assert isinstance(result.error, UnreachableError)
    assert "closed the connection without an answer. Pushgateway 1.11.0 does so" in message(result)


def test_retry_after_in_seconds_is_obeyed() -> None:
    clock = TurnedClock()
    busy = answering_once("429 Too Many Requests", b"", "Retry-After: 7")
    with Server(in_turn(busy, ACCEPTING)) as server, pushgateway_for(server.url, clock=clock) as destination:
        result = push_one(destination)
    assert (result.error, clock.slept) == (None, [7.0])


def test_retry_after_as_a_date_is_obeyed() -> None:
    clock = TurnedClock()
    date = email.utils.formatdate(clock.time() + 6, usegmt=True)
    busy = answering_once("503 Service Unavailable", b"", f"Retry-After: {date}")
    with Server(in_turn(busy, ACCEPTING)) as server, pushgateway_for(server.url, clock=clock) as destination:
        result = push_one(destination)
    assert (result.error, clock.slept) == (None, [6.0])


def test_retry_after_beyond_the_budget_ends_the_attempts() -> None:
    clock = TurnedClock()
    with Server(answering("503 Service Unavailable", b"later", "Retry-After: 120")) as server:
        with pushgateway_for(server.url, clock=clock) as destination:
            result = push_one(destination, budget_seconds=60)
    assert (result.attempts, clock.slept) == (1, [])
    assert isinstance(result.error, UnreachableError)
    assert "503 Service Unavailable: later; it asks to wait 120 s" in message(result)


@pytest.mark.parametrize(
    "senseless",
    [
        "soon",
        "-5",
        "9" * 40,
        "Mon, 99 Foo",
        f"Mon, 01 Jan {'9' * 20} 00:00:00 GMT",
        f"Mon, 01 Jan 2024 00:00:00 +{'9' * 20}",
        "Mon, 01 Jan 0001 00:00:00 +2359",
    ],
)
def test_invalid_retry_after_is_ignored(senseless: str) -> None:
    clock = TurnedClock()
    busy = answering_once("503 Service Unavailable", b"", f"Retry-After: {senseless}")
    with Server(in_turn(busy, ACCEPTING)) as server, pushgateway_for(server.url, clock=clock) as destination:
        assert push_one(destination).error is None
    assert 0.5 <= clock.slept[0] <= 1.0


def test_transient_dns_failure_is_tried_again() -> None:
    clock = TurnedClock()
    asked: list[str] = []

    def flaky(host: str, port: int, **options: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        asked.append(host)
        if len(asked) == 1:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, options["type"], 0, "", ("127.0.0.1", port))]

    with Server(ACCEPTING) as server:
        url = f"http://gateway.test:{server.port}"
        with pushgateway_for(url, clock=clock, getaddrinfo=flaky) as destination:
            result = push_one(destination)
    assert (result.attempts, result.error, asked) == (2, None, ["gateway.test"] * 2)
    assert server.requests[0].headers["host"] == f"gateway.test:{server.port}"


def test_unknown_name_is_final() -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    clock = TurnedClock()
    with pushgateway_for("http://gateway.test", clock=clock, getaddrinfo=unknown) as destination:
        result = push_one(destination)
    assert (result.attempts, clock.slept) == (1, [])
    assert isinstance(result.error, UnreachableError)
    assert "gateway.test:80: there is no host of this name" in message(result)


def test_invalid_host_name_is_a_configuration_error() -> None:
    with pushgateway_for(f"http://{'a' * 70}.test") as destination:
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert "is not a host name" in message(result)


def test_second_address_is_tried_when_the_first_refuses() -> None:
    def two(_host: str, port: int, **options: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        places = [("127.0.0.1", free_port()), ("127.0.0.1", port)]
        return [(socket.AF_INET, options["type"], 0, "", place) for place in places]

    with (
        Server(ACCEPTING) as server,
        pushgateway_for(f"http://gateway.test:{server.port}", getaddrinfo=two) as destination,
    ):
        result = push_one(destination)
    assert (result.attempts, result.error) == (1, None)


def test_exception_in_sleep_ends_the_push() -> None:
    class StopNowError(Exception):
        pass

    def stop(_seconds: float) -> None:
        raise StopNowError

    with pushgateway_for(f"http://127.0.0.1:{free_port()}", sleep=stop) as destination:
        with pytest.raises(StopNowError):
            push_one(destination)
        with pytest.raises(StopNowError):
            destination.push([group("a"), group("b"), group("c")], 10)


def test_an_empty_push_sends_nothing() -> None:
    with pushgateway_for(f"http://127.0.0.1:{free_port()}") as destination:
        assert destination.push([], 10) == ()


def test_requests_have_a_user_agent_and_are_compressed() -> None:
    with Server(ACCEPTING) as server, pushgateway_for(server.url) as destination:
        push_one(destination)
        destination.delete([{"hostname": "node-17"}], 10)
    put, delete = server.requests
    assert put.headers["user-agent"].startswith("wattpush/")
    assert put.headers["content-encoding"] == "gzip"
    assert gzip.decompress(put.body).endswith(b"\ntest_watts 1.5\n")
    assert (delete.method, delete.target, delete.body) == ("DELETE", "/metrics/job/power/hostname/node-17", b"")
