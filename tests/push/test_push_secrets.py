"""Credentials: read at every use, found where systemd puts them, and never shown."""

from __future__ import annotations

import base64
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import ConfigError, ExitCode, PermissionDeniedError
from tests.push.pushing import TurnedClock, groups, message, push_one, pushgateway_for
from tests.servers import Server, answering, write_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.servers import Client

SECRET = "pässw:rd s3cret"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_password_is_sent_without_the_newline_of_its_file(tmp_path: Path) -> None:
    file = write_file(tmp_path / "password", f"{SECRET}\r\n")
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, username="nöde", password_file=file) as destination,
    ):
        push_one(destination)
    assert server.requests[0].headers["authorization"] == basic("nöde", SECRET)


def test_rotated_password_works_at_once_on_the_kept_connection(tmp_path: Path) -> None:
    file = write_file(tmp_path / "password", "old")
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, username="node", password_file=file) as destination,
    ):
        push_one(destination)
        write_file(tmp_path / "password", "new")
        push_one(destination)
    assert [request.headers["authorization"] for request in server.requests] == [
        basic("node", "old"),
        basic("node", "new"),
    ]
    assert server.connections == 1


def test_bearer_token_is_sent(tmp_path: Path) -> None:
    file = write_file(tmp_path / "token", "abc.DEF-123\n")
    with Server(answering("200 OK")) as server, pushgateway_for(server.url, bearer_token_file=file) as destination:
        push_one(destination)
    assert server.requests[0].headers["authorization"] == "Bearer abc.DEF-123"


def test_bare_name_means_a_systemd_credential(tmp_path: Path) -> None:
    write_file(tmp_path / "token", "from-systemd")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, bearer_token_file="token", environ=environ) as destination,
    ):
        push_one(destination)
    assert server.requests[0].headers["authorization"] == "Bearer from-systemd"


def test_bare_name_without_a_credential_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    write_file(tmp_path / "token", "from-here")
    monkeypatch.chdir(tmp_path)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "empty")}
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, bearer_token_file="token", environ=environ) as destination,
    ):
        push_one(destination)
    assert server.requests[0].headers["authorization"] == "Bearer from-here"


def test_missing_secret_is_named_and_nothing_is_sent(tmp_path: Path) -> None:
    file = str(tmp_path / "absent")
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, clock=TurnedClock(), bearer_token_file=file) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert (result.attempts, server.connections) == (1, 0)
    assert f"pushgateway.bearer_token_file: cannot read {file}: No such file" in message(result)


def test_secret_in_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    """Every push reads it, and a pipe is written once: the second push would hang."""
    os.mkfifo(tmp_path / "token")
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, clock=TurnedClock(), bearer_token_file=str(tmp_path / "token")) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert (result.attempts, server.connections) == (1, 0)
    assert f"pushgateway.bearer_token_file: {tmp_path / 'token'} is not a regular file" in message(result)


@pytest.mark.parametrize("content", ["", "\n", "two\nlines", "tab\tbed", "eur€"])
def test_invalid_token_is_refused_without_showing_it(tmp_path: Path, content: str) -> None:
    file = write_file(tmp_path / "token", content)
    with Server(answering("200 OK")) as server, pushgateway_for(server.url, bearer_token_file=file) as destination:
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert server.connections == 0
    assert file in message(result)
    assert not content.strip() or content not in message(result)


def test_a_bare_name_outside_the_service_asks_for_the_full_path() -> None:
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, bearer_token_file="token-17") as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, ConfigError)
    assert (
        "pushgateway.bearer_token_file: there is neither a systemd credential nor a file token-17; only the service "
        "has credentials (LoadCredential=token-17:... in its unit), so elsewhere write the full path"
    ) in message(result)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_secret_is_a_permission_error(tmp_path: Path) -> None:
    file = write_file(tmp_path / "password", SECRET)
    (tmp_path / "password").chmod(0)
    with (
        Server(answering("200 OK")) as server,
        pushgateway_for(server.url, username="node", password_file=file) as destination,
    ):
        result = push_one(destination)
    assert isinstance(result.error, PermissionDeniedError)
    assert result.error.exit_code == ExitCode.NOPERM
    assert f"may read {file}" in message(result)


def echoing(status: str) -> Callable[[Client], None]:
    """A server that repeats the credentials it receives."""

    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            header = request.headers.get("authorization", "")
            decoded = base64.b64decode(header.partition(" ")[2] + "==") if header.startswith("Basic") else b""
            client.answer(status, header.encode() + b" " + decoded)

    return behave


def echoing_instead_of_http(client: Client) -> None:
    """The same, without knowing HTTP."""
    request = client.read_request()
    if request is not None:  # None: a connection that was opened but not needed
        client.send(request.headers["authorization"].encode() + b"\r\n\r\n")


@pytest.mark.reliability(
    11,
    "a gateway that echoes the credentials, or does not answer in HTTP",
    "credentials are masked in messages, logs and reprs",
)
@pytest.mark.parametrize(
    "talkative",
    [echoing("401 Unauthorized"), echoing("503 Service Unavailable"), echoing_instead_of_http],
    ids=["401", "503", "no HTTP"],
)
def test_no_secret_reaches_a_message_a_log_or_a_repr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, talkative: Callable[[Client], None]
) -> None:
    caplog.set_level(logging.DEBUG)
    password_file = write_file(tmp_path / "password", SECRET)
    token_file = write_file(tmp_path / "token", "t0ken-t0ken")
    shown: list[str] = []
    every_kind: list[dict[str, Any]] = [
        {"username": "node", "password_file": password_file},
        {"bearer_token_file": token_file},
    ]
    for settings in every_kind:
        with Server(talkative) as server, pushgateway_for(server.url, clock=TurnedClock(), **settings) as destination:
            for result in destination.push(groups(3), 3):
                shown += [message(result), repr(result), repr(result.error), repr(destination)]
            connection = destination._idle[0]
            shown += [
                repr(connection),
                repr(connection._route),
                repr(destination._settings),
                repr(destination._client.route),
            ]
    shown.append(caplog.text)
    everything = "\n".join(shown)
    assert "***" in everything, "the server did echo it"
    for secret in (SECRET, basic("node", SECRET).removeprefix("Basic "), "t0ken-t0ken"):
        assert secret not in everything


@pytest.mark.parametrize("cut_at", [298, 299, 300])
def test_a_secret_at_the_cut_of_a_quote_shows_no_beginning(tmp_path: Path, cut_at: int) -> None:
    said = b"x" * (cut_at - len(SECRET) // 2) + SECRET.encode()
    password_file = write_file(tmp_path / "password", SECRET)
    with (
        Server(answering("403 Forbidden", said)) as server,
        pushgateway_for(server.url, username="node", password_file=password_file) as destination,
    ):
        words = message(push_one(destination))
    assert "403 Forbidden: xxx" in words
    assert SECRET[:4] not in words


def test_a_secret_at_the_cut_of_a_broken_answer_shows_no_beginning(tmp_path: Path) -> None:
    token_file = write_file(tmp_path / "token", "t0ken-t0ken")
    with (
        Server(lambda client: client.send(b"x" * 74 + b"t0ken-t0ken\r\n\r\n")) as server,
        pushgateway_for(server.url, clock=TurnedClock(), bearer_token_file=token_file) as destination,
    ):
        words = message(push_one(destination))
    assert "did not answer in HTTP (xxx" in words
    assert "t0ken" not in words
