"""Follows docs/gateway.md from start to end: runs its commands, uses its files, with a real nginx and Pushgateway.

Nothing on this machine changes: /etc and /var are folders of the test, ports are free ones, the gateway's name is
localhost, and commands for packages, services and the firewall are recorded instead of run.
"""

from __future__ import annotations

import base64
import configparser
import contextlib
import http.client
import os
import re
import shlex
import shutil
import ssl
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from agent.errors import UnreachableError
from tests.nginx_server import nginx_command, running_nginx
from tests.push.pushing import PATIENT_SECONDS, TurnedClock, group, groups, message, push_one, pushgateway_for
from tests.run.running import groups_of, run, until
from tests.servers import free_port, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.push.gateway import Pushgateway

PROJECT = Path(__file__).parents[2]
DOCUMENT = (PROJECT / "docs" / "gateway.md").read_text(encoding="utf-8")
SITE = PROJECT / "deploy" / "nginx" / "wattpush.conf"

STAND_INS = {
    "sudo": 'exec "$@"',
    "apt-get": 'echo "apt-get $*" >>"$CALLS"',
    "systemctl": 'echo "systemctl $*" >>"$CALLS"',
    "ufw": 'echo "ufw $*" >>"$CALLS"',
    "chown": 'echo "chown $*" >>"$CALLS"',
    "nginx": 'exec $NGINX_COMMAND "$@"',
    "wattpush": 'exec "$PYTHON" -m agent --config "$WATTPUSH_CONFIG" "$@"',
}


def commands(part: str) -> str:
    without_files = re.sub(r"^```.*?^```", "", part, flags=re.DOTALL | re.MULTILINE)
    return "\n".join(re.findall(r"^    (.+)$", without_files, re.MULTILINE))


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert isinstance(found, str)
    return found


@dataclass
class Site:
    """The site that results from following the document.

    Attributes:
        gateway_url: the Pushgateway itself, which only the machine of the gateway can reach.
        checked: the output of `wattpush check --gateway`, near the end of the document.
        calls: the recorded commands.
        complaints: the log of nginx.
    """

    root: Path
    port: int
    gateway_url: str
    checked: str
    calls: list[str]
    complaints: list[str]

    @property
    def config(self) -> Path:
        return self.root / "etc/wattpush/config.toml"

    @property
    def password(self) -> str:
        return (self.root / "etc/wattpush/password").read_text().strip()

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "CREDENTIALS_DIRECTORY": str(self.root / "etc/wattpush")}

    @contextlib.contextmanager
    def destination(self, **changes: Any) -> Iterator[Pushgateway]:
        settings = {
            "username": "node",
            "password_file": "password",
            "ca_file": str(self.root / "etc/wattpush/ca.pem"),
            "timeout_seconds": PATIENT_SECONDS,
            **changes,
        }
        with pushgateway_for(f"https://localhost:{self.port}/push", environ=self.environ, **settings) as destination:
            yield destination

    def ask(self, method: str, target: str, *, password: str | None = None, body: bytes = b"") -> int:
        """The status of one request, sent verbatim."""
        tls = ssl.create_default_context(cafile=str(self.root / "etc/wattpush/ca.pem"))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=20, context=tls)
        headers = {}
        if password is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(f'node:{password}'.encode()).decode()}"
        try:
            connection.request(method, target, body, headers)
            return connection.getresponse().status
        finally:
            connection.close()


def follow(part: str, folder: Path, environ: Mapping[str, str]) -> str:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands(part)],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("gateway")
    port, gateway_port = free_port(), free_port()
    here = {
        "/etc/": f"{root}/etc/",
        "/var/lib/": f"{root}/var/lib/",
        "push.example.org/": f"localhost:{port}/",
        "push.example.org": "localhost",
        "127.0.0.1:9091": f"127.0.0.1:{gateway_port}",
        "[::]:443": f"[::1]:{port}",
        " 443 ssl": f" 127.0.0.1:{port} ssl",
    }

    def moved(text: str) -> str:
        for there, place in here.items():
            text = text.replace(there, place)
        return text

    if shutil.which("openssl") is None:
        missing = "needs openssl: apt-get install openssl"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    for folder in ("etc/nginx/conf.d", "etc/default", "var/lib/prometheus", "bin", "deploy/nginx"):
        (root / folder).mkdir(parents=True)
    (root / "deploy/nginx" / SITE.name).write_text(_without_ipv6(moved(SITE.read_text(encoding="utf-8"))))
    for name, script in STAND_INS.items():
        (root / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (root / "bin" / name).chmod(0o755)
    command = nginx_command(root / "nginx", root / "etc/nginx/conf.d")
    calls = root / "calls"
    environ = {
        **os.environ,
        "PATH": f"{root / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(PROJECT),
        "PYTHON": sys.executable,
        "NGINX_COMMAND": shlex.join(command),
        "CALLS": str(calls),
        "WATTPUSH_CONFIG": str(root / "etc/wattpush/config.toml"),
        "HOME": str(root),
    }
    at_the_gateway, at_the_node = moved(DOCUMENT).split("\n## Each node\n")
    copying, checking = at_the_node.split("```", 1)[0], at_the_node.rpartition("```")[2]
    follow(at_the_gateway, root, environ)
    (flags,) = shlex.split((root / "etc/default/prometheus-pushgateway").read_text().partition("=")[2])
    listening, keeping = flags.split()
    assert listening == f"--web.listen-address=127.0.0.1:{gateway_port}"
    with contextlib.ExitStack() as stack:
        pushgateway = running_pushgateway(port=gateway_port, persistence_file=keeping.partition("=")[2])
        gateway_url = stack.enter_context(pushgateway)
        complaints = stack.enter_context(running_nginx(command, port))
        shutil.copy(root / "etc/nginx/wattpush/fullchain.pem", root)
        follow(copying, root, environ)
        patient = moved(block("toml")).replace("[pushgateway]\n", '[pushgateway]\ntimeout = "1m"\n')
        (root / "etc/wattpush/config.toml").write_text(patient)
        checked = follow(checking, root, environ)
        yield Site(root, port, gateway_url, checked, calls.read_text().splitlines(), complaints)


def _without_ipv6(text: str) -> str:
    """The site without its line for IPv6 if this machine has no IPv6."""
    if Path("/proc/net/if_inet6").exists() and "lo" in Path("/proc/net/if_inet6").read_text():
        return text
    return re.sub(r".*\[::1\].*\n", "", text)


def test_the_check_at_the_end_of_the_document_passes(site: Site) -> None:
    lines = [line.split()[:2] for line in site.checked.splitlines()]
    assert lines == [
        ["ok", f"{site.config}:"],
        *(["ok", f"{what}:"] for what in ("credentials", "name", "connection", "certificate", "version", "clock")),
        *(["ok", f"{what}:"] for what in ("push", "delete")),
        ["note", "scrape:"],
    ]
    assert "by localhost, for 3650 more days" in site.checked
    until(lambda: groups_of(site.gateway_url, "power") == {}, "nothing is left, once the deletion is done")


def test_the_document_names_every_package_that_it_needs(site: Site) -> None:
    assert site.calls == [
        "apt-get install prometheus-pushgateway nginx openssl",
        "systemctl restart prometheus-pushgateway",
        f"chown root:www-data {site.root}/etc/nginx/wattpush/htpasswd",
        "systemctl reload nginx",
        "ufw allow 443/tcp",
        "systemctl daemon-reload",
        "systemctl enable wattpush",
        "systemctl restart wattpush",
    ]


def test_only_owners_can_read_secrets(site: Site) -> None:
    modes = {
        file: (site.root / file).stat().st_mode & 0o777
        for file in ("password", "etc/wattpush/password", "etc/nginx/wattpush/htpasswd", "etc/nginx/wattpush/key.pem")
    }
    assert modes == dict(zip(modes, (0o600, 0o600, 0o640, 0o600), strict=True))


def test_the_real_agent_pushes_through_the_site(site: Site) -> None:
    ended = run("--config", site.config, "--simulate", "--once", environ=site.environ | _state(site))
    assert ended.returncode == 0, ended.stderr
    found = groups_of(site.gateway_url, "power")
    assert found["cpu"]["wattpush_device_watts"] > 0
    assert found["cpu"]["wattpush_device_up"] == 1
    deleted = run("delete", "--simulate", "--config", site.config, environ=site.environ)
    assert deleted.returncode == 0, deleted.stderr


def _state(site: Site) -> dict[str, str]:
    return {"STATE_DIRECTORY": str(site.root / "state")}


def test_a_wrong_password_ends_in_76_and_delivers_nothing(site: Site, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    (tmp_path / "password").chmod(0o600)
    environ = {**site.environ, "CREDENTIALS_DIRECTORY": str(tmp_path), **_state(site)}
    ended = run("--config", site.config, "--simulate", "--once", environ=environ)
    assert ended.returncode == 76
    assert "401 Unauthorized" in ended.stderr
    checked = run("check", "--config", site.config, "--gateway", environ=environ)
    assert checked.returncode == 76
    assert re.search(r"^failed +push: .*401 Unauthorized.*check pushgateway.username and", checked.stdout, re.MULTILINE)
    until(lambda: groups_of(site.gateway_url, "power") == {}, "nothing is left, once the deletion is done")


@pytest.mark.parametrize("device", ["rack 1/left", "a b", "ä", "100%", "a+b?c#d", "a%2Fb", "@base64"])
def test_any_device_name_arrives_unchanged(site: Site, device: str) -> None:
    with site.destination(job="odd names") as destination:
        assert push_one(destination).error is None
        (result,) = destination.push([group(device)], PATIENT_SECONDS)
        assert result.error is None
        assert set(groups_of(site.gateway_url, "odd names")) == {"cpu", device}
        keys = [{"hostname": "node-17", "device": name} for name in ("cpu", device)]
        assert {result.error for result in destination.delete(keys, PATIENT_SECONDS)} == {None}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/push/metrics/job/power", 403),
        ("GET", "/push/metrics", 403),
        ("GET", "/push/api/v1/metrics", 403),
        ("GET", "/push/", 403),
        ("GET", "/", 403),
        ("GET", "/metrics", 403),
        ("PUT", "/metrics/job/power", 403),
        ("PUT", "/push/api/v1/admin/wipe", 403),
        ("PUT", "/push/metrics/job/../../api/v1/admin/wipe", 403),
        ("PUT", "/push/metrics/job/%2e%2e/%2e%2e/api/v1/admin/wipe", 403),
        ("PUT", "/push/metrics/job/..%2f..%2fapi/v1/admin/wipe", 403),
        ("POST", "/push/-/quit", 403),
        ("GET", "/push/debug/pprof/", 403),
        ("DELETE", "/push/api/v1/status", 403),
        ("GET", "/push/api/v1/status", 200),
        ("PUT", "/push/metrics/job/allowed", 200),
        ("POST", "/push/metrics/job/allowed", 200),
        ("DELETE", "/push/metrics/job/allowed", 202),
    ],
)
def test_the_password_allows_pushing_and_deleting_groups_only(
    site: Site, method: str, target: str, status: int
) -> None:
    assert site.ask(method, target, password=site.password) == status
    assert site.ask(method, target) == (403 if status == 403 else 401)
    assert site.ask(method, target, password="wrong") == (403 if status == 403 else 401)


def test_a_body_larger_than_any_push_is_refused(site: Site) -> None:
    assert site.ask("PUT", "/push/metrics/job/large", password=site.password, body=bytes(2 * 2**20)) == 413


def test_nodes_of_64_devices_behind_one_address_are_not_throttled(site: Site) -> None:
    with site.destination(job="many") as destination:
        for _ in range(4):
            results = destination.push(groups(64), PATIENT_SECONDS)
            assert [(result.attempts, result.error) for result in results] == [(1, None)] * 64
        destination.delete([g.grouping_key for g in groups(64)], PATIENT_SECONDS)


@contextlib.contextmanager
def changed(site: Site, folder: Path, *changes: tuple[str, str]) -> Iterator[Site]:
    """The same site with some lines changed, on another port of another nginx."""
    (folder / "sites").mkdir()
    port = free_port()
    text = (site.root / "etc/nginx/conf.d/wattpush.conf").read_text().replace(f":{site.port} ssl", f":{port} ssl")
    for pattern, replacement in changes:
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    (folder / "sites/wattpush.conf").write_text(text)
    with running_nginx(nginx_command(folder / "nginx", folder / "sites"), port) as complaints:
        yield replace(site, port=port, complaints=complaints)


def test_excessive_requests_get_429_before_the_password_is_checked(site: Site, tmp_path: Path) -> None:
    with changed(site, tmp_path, ("rate=100r/s", "rate=1r/m"), ("burst=1000", "burst=5")) as strict:
        asked = [strict.ask("PUT", "/push/metrics/job/power", password="guessed") for _ in range(10)]
    assert asked == [401] * 6 + [429] * 4


def test_pushes_retry_while_the_pushgateway_is_down(site: Site, tmp_path: Path) -> None:
    closed_port = (r"server 127\.0\.0\.1:\d+;", f"server 127.0.0.1:{free_port()};")
    with changed(site, tmp_path, closed_port) as headless, headless.destination(clock=TurnedClock()) as destination:
        result = push_one(destination)
    assert result.attempts > 1
    assert isinstance(result.error, UnreachableError)
    assert "502 Bad Gateway" in message(result)


def test_nginx_logs_no_complaints(site: Site) -> None:
    assert [line for line in site.complaints if "[emerg]" in line or "[warn]" in line or "[alert]" in line] == []


def test_drop_in_and_configuration_use_the_same_credential_name() -> None:
    unit = configparser.ConfigParser()
    unit.read_string(block("ini"))
    name, _, file = unit["Service"]["LoadCredential"].partition(":")
    assert f'password_file = "{name}"' in block("toml")
    assert f"sudo install -m 600 password {file}" in DOCUMENT


def test_prometheus_accepts_the_configuration_and_keeps_the_labels(tmp_path: Path) -> None:
    (job,) = yaml.safe_load(block("yaml"))["scrape_configs"]
    assert job["honor_labels"] is True
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9091"]}]
    promtool = shutil.which("promtool")
    if promtool is not None:
        file = tmp_path / "prometheus.yml"
        file.write_text(block("yaml"))
        subprocess.run([promtool, "check", "config", str(file)], capture_output=True, timeout=60, check=True)
