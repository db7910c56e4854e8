"""Follows "Scrape over TLS, with a password" of docs/prometheus.md: the real program, curl and a real Prometheus."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.prometheus_server import ask, binary, prometheus_of
from tests.run.running import LONG_SECONDS, PROJECT, program, run, until
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.run.running import Program

(SECTION,) = re.findall(
    r"^## Scrape over TLS, with a password\n(.*?)^## ",
    (PROJECT / "docs" / "prometheus.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)
STAND_INS = {
    "sudo": 'exec "$@"',
    "chown": "true",
    "install": 'for folder; do :; done; mkdir -p "$folder"; chmod 750 "$folder"',  # there is no such user here
}


@dataclass(frozen=True, slots=True)
class Followed:
    """A node as the section sets it up, and what it says about Prometheus, all in one folder."""

    folder: Path
    port: int
    running: Program

    def here(self, text: str) -> str:
        return moved(text, self.folder, self.port)


def moved(text: str, folder: Path, port: int) -> str:
    """The text with the places of this machine."""
    changes = {
        "/etc/wattpush": str(folder / "wattpush"),
        "/etc/prometheus/node-17": str(folder / "wattpush/serve"),
        "/var/lib/wattpush": str(folder / "state"),
        "node-17:9812": f"localhost:{port}",
        "CN=node-17": "CN=localhost",
        "DNS:node-17": "DNS:localhost",
        '":9812"': f'":{port}"',
    }
    for there, place in changes.items():
        text = text.replace(there, place)
    return text


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert isinstance(found, str)
    return found


def shell(script: str, folder: Path) -> str:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": f"{folder / 'bin'}:/usr/local/bin:/usr/bin:/bin", "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    binary("openssl", "openssl")
    folder = tmp_path_factory.mktemp("node")
    (folder / "bin").mkdir()
    for name, script in STAND_INS.items():
        (folder / "bin" / name).write_text(f"#!/bin/bash\n{script}\n")
        (folder / "bin" / name).chmod(0o755)
    port = free_port()
    commands = re.findall(r"^    (\S.+)$", SECTION.partition("```")[0], re.MULTILINE)
    assert len(commands) == 5
    shell(moved("\n".join(commands), folder, port), folder)
    config = folder / "config.toml"
    quick = 'interval = "200ms"\nsample_interval = "50ms"\n'
    config.write_text(quick + moved(block("toml"), folder, port))
    with program("--config", config, "--simulate", "--log-level", "debug") as running:
        running.logs("serving https://")
        yield Followed(folder, port, running)


def test_the_check_finds_nothing_wrong(followed: Followed) -> None:
    ended = run("check", "--config", followed.folder / "config.toml")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert [line.split(":")[0] for line in ended.stdout.splitlines()[1:]] == [
        "ok       serve certificate",
        "ok       serve password",
    ]
    assert "for 3650 more days" in ended.stdout


def test_prometheus_scrapes_with_the_documented_job(followed: Followed) -> None:
    config = followed.folder / "prometheus.yml"
    config.write_text("global: {scrape_interval: 1s, scrape_timeout: 1s}\n" + followed.here(block("yaml")))
    subprocess.run([binary("promtool"), "check", "config", str(config)], capture_output=True, timeout=60, check=True)
    with prometheus_of(config) as url:

        def watts() -> list[str]:
            data = ask(url, "query", query="wattpush_device_watts")
            return [] if data is None else [one["value"][1] for one in data["result"]]

        assert until(watts, "a scrape over TLS with the password")
        (target,) = ask(url, "targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")


def test_prometheus_without_the_password_says_why(followed: Followed) -> None:
    config = followed.folder / "no-password" / "prometheus.yml"
    config.parent.mkdir()
    job = re.sub(r"    basic_auth:\n      .*\n      .*\n", "", followed.here(block("yaml")))
    config.write_text("global: {scrape_interval: 1s, scrape_timeout: 1s}\n" + job)
    with prometheus_of(config) as url:

        def error() -> str:
            targets = (ask(url, "targets") or {"activeTargets": []})["activeTargets"]
            return str(targets[0]["lastError"]) if targets else ""

        assert until(error, "the error of a scrape") == "server returned HTTP status 401 Unauthorized"


def test_a_health_probe_passes_with_the_password(followed: Followed) -> None:
    binary("curl", "curl")
    (command,) = re.findall(r"^      (curl .+)$", SECTION, re.MULTILINE)
    serve = followed.folder / "wattpush/serve"
    password = (serve / "password").read_text().strip()
    (serve / "netrc").write_text(f"machine localhost login prometheus password {password}\n")
    command = followed.here(command).replace("curl ", "curl --silent --show-error --noproxy '*' ")
    until(lambda: "healthy" in _output(command, serve), "a first sweep")
    without = re.sub(r"--netrc-file \S+ ", "", command)
    ended = subprocess.run(shlex.split(without), cwd=serve, capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "401" in ended.stderr
    assert password not in followed.running.stderr


def _output(command: str, folder: Path) -> str:
    return subprocess.run(shlex.split(command), cwd=folder, capture_output=True, text=True, check=False).stdout
