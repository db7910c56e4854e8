"""Basic authentication of the scrape server: who is let in, what the others get, and what the log says."""

from __future__ import annotations

import base64
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import ConfigError, ExitCode
from agent.serve.authentication import Authentication
from agent.serve.server import ScrapeServer
from agent.settings import ServeSettings
from tests.run.running import ask
from tests.serve.serving import HOST, OneGauge, connected, everything, serving
from tests.servers import write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "pässw:rd s3cret"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    write_file(tmp_path / "password", f"{PASSWORD}\n")
    return tmp_path / "password"


@pytest.fixture
def server(password_file: Path) -> Iterator[ScrapeServer]:
    with serving(username="nöde", password_file=str(password_file)) as running:
        yield running


@pytest.fixture
def url(server: ScrapeServer) -> str:
    return f"http://{HOST}:{server.address[1]}"


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/nothing", "//metrics", "/metrics?x=1"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "OPTIONS", "WATTS"])
def test_no_page_is_shown_without_a_password(url: str, path: str, method: str) -> None:
    status, body, headers = ask(url + path, method)
    assert status == 401
    assert headers["WWW-Authenticate"] == 'Basic realm="wattpush", charset="UTF-8"'
    assert body == ("" if method == "HEAD" else "user and password, please\n")


def test_the_right_user_and_password_open_every_page(url: str) -> None:
    for path in ("/", "/metrics", "/-/healthy"):
        assert ask(url + path, Authorization=basic("nöde", PASSWORD))[0] == 200
    scheme_in_capitals = basic("nöde", PASSWORD).replace("Basic", "BASIC")
    assert "watts 6.0" in ask(f"{url}/metrics", Authorization=scheme_in_capitals)[1]


@pytest.mark.parametrize(
    "authorization",
    [
        basic("nöde", "wrong"),
        basic("nöde", ""),
        basic("other", PASSWORD),
        basic("", ""),
        basic("nöde", PASSWORD + "\n"),
        basic("nöde", PASSWORD[:-1]),
        basic("nöde", PASSWORD).replace("Basic bs", "Basic b%s"),
        basic("nöde", PASSWORD).replace("Basic ", "Bearer "),
        basic("nöde", PASSWORD).replace("Basic ", ""),
        "Basic",
        "Basic \xff\xfe",
        "",
    ],
)
def test_anything_else_is_refused(url: str, authorization: str) -> None:
    assert ask(f"{url}/metrics", Authorization=authorization)[0] == 401


@given(head=st.binary(max_size=300), header=st.binary(max_size=60))
def test_no_bytes_but_the_password_are_let_in(
    head: bytes, header: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = write_file(tmp_path_factory.getbasetemp() / "password-of-bytes", PASSWORD)
    authentication = Authentication("node", file, {})
    for request in (head, head + b"\nAuthorization: Basic " + header + b"\r\n\r\n"):
        answer = authentication.refuse(request, HOST)
        assert answer is not None
        assert answer.startswith(b"HTTP/1.0 401 ")


def test_a_request_with_too_many_headers_is_refused(server: ScrapeServer) -> None:
    headers = b"".join(b"X-%d: x\r\n" % number for number in range(500))
    request = b"GET /metrics HTTP/1.1\r\n" + headers + b"Authorization: " + basic("nöde", PASSWORD).encode()
    with connected(server, request + b"\r\n\r\n") as client:
        assert everything(client).startswith(b"HTTP/1.0 401 ")


def test_a_header_behind_the_empty_line_counts_for_nothing(server: ScrapeServer) -> None:
    authorization = b"Authorization: " + basic("nöde", PASSWORD).encode()
    with connected(server, b"GET /metrics HTTP/1.1\r\n\r\n" + authorization + b"\r\n\r\n") as client:
        assert everything(client).startswith(b"HTTP/1.0 401 ")


def test_a_changed_password_counts_from_the_next_request_on(url: str, password_file: Path) -> None:
    assert ask(f"{url}/metrics", Authorization=basic("nöde", PASSWORD))[0] == 200
    write_file(password_file, "new")
    assert ask(f"{url}/metrics", Authorization=basic("nöde", PASSWORD))[0] == 401
    assert ask(f"{url}/metrics", Authorization=basic("nöde", "new"))[0] == 200


@pytest.mark.parametrize("content", [None, "", "\n"], ids=["missing", "empty", "empty line"])
def test_without_a_password_to_compare_nobody_is_let_in(
    url: str, password_file: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent.serve")
    if content is None:
        password_file.unlink()
    else:
        write_file(password_file, content)
    for given_password in (PASSWORD, "", content or ""):
        for authorization in (basic("nöde", given_password), ""):
            status, body, _ = ask(f"{url}/metrics", Authorization=authorization)
            assert (status, body) == (503, "the password of this server cannot be read; its log says why\n")
    assert caplog.text.count("every request is refused until then") == 1
    assert "serve.password_file: " in caplog.text
    write_file(password_file, PASSWORD)
    assert ask(f"{url}/metrics", Authorization=basic("nöde", PASSWORD))[0] == 200
    assert caplog.text.count("serve.password_file: can be read again") == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot read .*password: No such file or directory; create it"), ("\n", "is empty; write the secret into")],
    ids=["missing", "empty"],
)
def test_a_start_without_a_password_is_refused(password_file: Path, content: str | None, words: str) -> None:
    if content is None:
        password_file.unlink()
    else:
        write_file(password_file, content)
    settings = ServeSettings(HOST, 0, username="node", password_file=str(password_file))
    with pytest.raises(ConfigError, match=f"serve.password_file: .*{words}") as raised:
        ScrapeServer(settings, OneGauge())
    assert raised.value.exit_code == ExitCode.CONFIG


def test_the_log_shows_neither_passwords_nor_attempts(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    attempts = [basic("nöde", PASSWORD), basic("nöde", "guess-1"), basic("guess-2", "guess-3")]
    for authorization in attempts:
        ask(f"{url}/metrics", Authorization=authorization)
    assert f"scrape from {HOST}: wrong user or password" in caplog.text
    for secret in (PASSWORD, "guess", *(attempt.removeprefix("Basic ") for attempt in attempts)):
        assert secret not in caplog.text
