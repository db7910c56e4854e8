"""The real program with a password: where it shows it, and to which host it sends it."""

from __future__ import annotations

import base64
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.run.running import ask, has_grown, program, run, until, write_config
from tests.servers import Server, answering, free_port, write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Client

PASSWORD = "s3cret-w0rd"
TOKEN = "t0ken.t0ken"
BASIC = base64.b64encode(f"node:{PASSWORD}".encode()).decode()
API_KEY = "k3y-of-a-proxy"
SECRETS = (PASSWORD, TOKEN, BASIC, API_KEY)


def talkative(status: str) -> Callable[[Client], None]:
    """Answers with the credentials of the request."""

    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            given = request.headers.get("authorization", "")
            decoded = base64.b64decode(given.removeprefix("Basic ")) if given.startswith("Basic ") else b""
            key = request.headers.get("x-api-key", "").encode()
            client.answer(status, b" ".join((given.encode(), decoded, key)))

    return behave


def credentials(kind: str, folder: Path, timeout: str) -> str:
    if kind == "password":
        file = write_file(folder / "password", PASSWORD)
        return f'timeout = "{timeout}"\nusername = "node"\npassword_file = "{file}"'
    return f'timeout = "{timeout}"\nbearer_token_file = "{write_file(folder / "token", TOKEN)}"'


@pytest.mark.reliability(
    11,
    "a gateway that echoes the credentials, with debug logs as text and as JSON",
    "no secret in a log line, an error, `--dry-run`, the process list, a metric or the state",
)
@pytest.mark.parametrize("kind", ["password", "token"])
@pytest.mark.parametrize("status", ["401 Unauthorized", "503 Busy", "200 OK"])
def test_a_running_agent_shows_its_secrets_nowhere(
    kind: str, status: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    shown: list[str] = []
    port = free_port()
    serve = f'[serve]\nlisten = "127.0.0.1:{port}"\n'
    with Server(talkative(status)) as server:
        config = write_config(tmp_path, server.url, push=credentials(kind, tmp_path, "500ms"), more=serve)
        for form in ("text", "json"):
            with program("--config", config, "--simulate", "--log-level", "debug", "--log-format", form) as running:
                until(partial(has_grown, lambda: len(server.requests), len(server.requests) + 3), "pushes")
                until(lambda: ask(f"http://127.0.0.1:{port}/metrics")[0] == 200, "a first sweep")
                shown += ask(f"http://127.0.0.1:{port}/metrics")[1:2] + ask(f"http://127.0.0.1:{port}/")[1:2]
                process = Path("/proc") / str(running.process.pid)
                for file in ("cmdline", "environ", "status", "comm"):
                    shown.append((process / file).read_text(errors="replace"))
                config.touch()
                running.process.send_signal(signal.SIGHUP)
                running.logs("reloaded")
                assert running.end(signal.SIGTERM)[0] == 0
                shown.append(running.stderr)
        for arguments in (["--once", "--simulate"], ["--once", "--simulate", "--dry-run"], ["check"], ["delete"]):
            ended = run("--config", config, "--log-level", "debug", *arguments)
            shown += [ended.stdout, ended.stderr]
        assert {request.headers["authorization"] for request in server.requests} == {
            f"Basic {BASIC}" if kind == "password" else f"Bearer {TOKEN}"
        }
    shown += [file.read_text() for file in (tmp_path / "state").iterdir()]
    everything = "\n".join(shown)
    assert "wattpush_device_watts" in everything
    assert ("***" in everything) == (not status.startswith("200"))
    for secret in SECRETS:
        assert secret not in everything
    measured("no secret in anything written, shown, served, saved or visible in /proc")


@pytest.mark.reliability(
    11,
    "a remote write server that echoes the credentials",
    "no secret in a log line, an error, a check, the state or the backlog",
)
@pytest.mark.parametrize("kind", ["password", "token"])
@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "503 Busy"])
def test_history_shows_its_secrets_nowhere(
    kind: str, status: str, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    shown: list[str] = []
    with Server(talkative(status)) as server:
        keys = f'url = "{server.url}/api/v1/write"\nclock = "system"\n{credentials(kind, tmp_path, "500ms")}'
        keys += '\nheaders = { X-Scope-OrgID = "tenant-of-lab", X-Api-Key = "${KEY}" }'
        config = write_config(tmp_path, None, more=f"[remote_write]\n{keys}\n")
        for arguments in (["--once", "--simulate"], ["--once", "--simulate", "--dry-run"], ["check", "--gateway"]):
            environ = {**os.environ, "KEY": API_KEY}
            ended = run("--config", config, "--log-level", "debug", *arguments, environ=environ)
            shown += [ended.stdout, ended.stderr]
        assert {request.headers["x-api-key"] for request in server.requests} == {API_KEY}
        assert {request.headers["authorization"] for request in server.requests} == {
            f"Basic {BASIC}" if kind == "password" else f"Bearer {TOKEN}"
        }
    shown += [file.read_text(errors="replace") for file in (tmp_path / "state").rglob("*") if file.is_file()]
    everything = "\n".join(shown)
    assert "***" in everything, "the words of the server are shown"
    for secret in SECRETS:
        assert secret not in everything
    measured("no secret in anything written, shown or saved")


@pytest.mark.reliability(
    11, "a gateway that redirects to another host", "the push fails; no other host gets the credentials"
)
@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent"])
@pytest.mark.parametrize("kind", ["password", "token"])
def test_credentials_are_never_sent_to_another_host(kind: str, status: str, tmp_path: Path) -> None:
    with (
        Server(answering("200 OK")) as elsewhere,
        Server(answering(status, b"", f"Location: {elsewhere.url}/metrics/job/power")) as server,
    ):
        config = write_config(tmp_path, server.url, push=credentials(kind, tmp_path, "1m"))
        ended = run("--config", config, "--simulate", "--once")
        assert ended.returncode == 76
        assert all("authorization" in request.headers for request in server.requests)
        assert server.requests
        assert elsewhere.connections == 0
    assert elsewhere.url in ended.stderr
    assert not any(secret in ended.stderr for secret in SECRETS)
