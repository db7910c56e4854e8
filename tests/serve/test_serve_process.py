"""The real program with TLS and a password: what stops its start, and reloads."""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.run.running import LONG_SECONDS, PROJECT, ask, program, run, until, write_config
from tests.serve.serving import HOST, trusting, write_pair
from tests.servers import free_port, write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    import trustme


def serve_table(port: int, keys: dict[str, str]) -> str:
    lines = [f'{key} = "{value}"' for key, value in keys.items()]
    return "\n".join(["[serve]", f'listen = "{HOST}:{port}"', *lines, ""])


def status_over_tls(port: int, context: ssl.SSLContext) -> int:
    with closing(HTTPSConnection(HOST, port, timeout=LONG_SECONDS, context=context)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().status


@pytest.mark.parametrize("key", ["cert_file", "key_file", "password_file"])
def test_a_missing_file_is_78_and_names_its_key(ca: trustme.CA, tmp_path: Path, key: str) -> None:
    keys = {**write_pair(tmp_path, ca.issue_cert(HOST)), "username": "node"}
    keys["password_file"] = write_file(tmp_path / "password", "s3cret")
    Path(keys[key]).unlink()
    ended = run("--config", write_config(tmp_path, None, more=serve_table(free_port(), keys)), "--simulate")
    assert ended.returncode == 78, ended.stderr
    assert f"serve.{key}: cannot read {keys[key]}: No such file or directory" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("damage", ["missing", "half"])
def test_pushes_go_on_without_a_certificate_that_comes_later(
    ca: trustme.CA, tmp_path: Path, pushgateway_url: str, damage: str
) -> None:
    port, context = free_port(), trusting(ca)
    keys = write_pair(tmp_path, ca.issue_cert(HOST))
    certificate = Path(keys["cert_file"])
    whole = certificate.read_bytes()
    certificate.write_bytes(whole[: len(whole) // 2])
    if damage == "missing":
        certificate.unlink()
    config = write_config(tmp_path, pushgateway_url, f"without-{damage}", more=serve_table(port, keys))
    with program("--config", config, "--simulate") as running:
        running.logs("; nothing is served until it can be used")
        until(lambda: f"without-{damage}" in ask(f"{pushgateway_url}/metrics")[1], "a push")
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            status_over_tls(port, context)
        assert ask(f"http://{HOST}:{port}/metrics")[0] == 400
        certificate.write_bytes(whole)
        until(lambda: status_over_tls(port, context) == 200, "the page")
        ended = running.end(signal.SIGTERM)
    assert ended[0] == 0
    assert "Traceback" not in running.stderr
    checked = run("check", "--config", config, "--simulate")
    assert checked.returncode == 0, checked.stderr
    certificate.write_bytes(b"")
    assert run("check", "--config", config, "--simulate").returncode == 78


def test_pushes_go_on_without_a_password_that_comes_later(tmp_path: Path, pushgateway_url: str) -> None:
    port, file = free_port(), tmp_path / "password"
    keys = {"username": "node", "password_file": str(file)}
    config = write_config(tmp_path, pushgateway_url, "without-password", more=serve_table(port, keys))
    with program("--config", config, "--simulate") as running:
        running.logs("; every request is refused until then")
        until(lambda: "without-password" in ask(f"{pushgateway_url}/metrics")[1], "a push")
        assert ask(f"http://{HOST}:{port}/metrics")[0] == 503
        write_file(file, "s3cret")
        assert ask(f"http://{HOST}:{port}/metrics")[0] == 401
        assert running.end(signal.SIGTERM)[0] == 0


def another_user() -> Sequence[str]:
    """What makes the program run as a user that a mode can keep from a file."""
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("needs setpriv, to become another user")
    become = [setpriv, "--reuid=65534", "--clear-groups"]
    if subprocess.run([*become, sys.executable, "-c", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"only root may run {sys.executable}: put the interpreter where everybody may")
    return become


@pytest.mark.parametrize("key", ["cert_file", "key_file", "password_file"])
def test_a_file_without_permission_is_77_and_names_its_key(ca: trustme.CA, key: str) -> None:
    become = another_user()
    with TemporaryDirectory() as name:  # not in `tmp_path`, whose parent is closed to other users
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        (folder / "state").chmod(0o777)
        keys = {**write_pair(folder, ca.issue_cert(HOST)), "username": "node"}
        keys["password_file"] = write_file(folder / "password", "s3cret")
        Path(keys[key]).chmod(0)
        config = write_config(folder, None, more=serve_table(free_port(), keys))
        ended = subprocess.run(
            [*become, sys.executable, "-m", "agent", "--config", config, "--simulate"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
            check=False,
        )
    assert ended.returncode == 77, ended.stderr
    assert f"serve.{key}: permission denied: only root may read {keys[key]}; " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_reload_turns_tls_on_and_off_at_the_same_port(ca: trustme.CA, tmp_path: Path) -> None:
    port, context = free_port(), trusting(ca)
    config = write_config(tmp_path, None, more=serve_table(port, {}))
    keys = write_pair(tmp_path, ca.issue_cert(HOST))
    with program("--config", config, "--simulate") as running:
        until(lambda: running.process.poll() is None and "serving http://" in running.stderr, "the start")
        until(lambda: ask(f"http://{HOST}:{port}/metrics")[0] == 200, "a first sweep")
        write_config(tmp_path, None, more=serve_table(port, keys))
        running.process.send_signal(signal.SIGHUP)
        running.logs("configuration reloaded")
        assert status_over_tls(port, context) in (200, 503)
        assert ask(f"http://{HOST}:{port}/metrics")[0] == 400
        write_config(tmp_path, None, more=serve_table(port, {}))
        running.process.send_signal(signal.SIGHUP)
        running.logs("configuration reloaded", times=2)
        assert ask(f"http://{HOST}:{port}/metrics")[0] in (200, 503)
        assert running.end(signal.SIGTERM)[0] == 0


def test_a_reload_with_a_bad_certificate_keeps_the_server(ca: trustme.CA, tmp_path: Path) -> None:
    port, context = free_port(), trusting(ca)
    keys = write_pair(tmp_path, ca.issue_cert(HOST))
    config = write_config(tmp_path, None, more=serve_table(port, keys))
    bad = {**keys, "key_file": write_file(tmp_path / "nonsense.pem", "nonsense")}
    with program("--config", config, "--simulate") as running:
        running.logs("serving https://")
        until(lambda: status_over_tls(port, context) == 200, "a first sweep")
        for wanted in (port, free_port()):
            write_config(tmp_path, None, more=serve_table(wanted, bad))
            running.process.send_signal(signal.SIGHUP)
            running.logs("the configuration is not reloaded; the old one stays in force", times=1 + (wanted != port))
            assert status_over_tls(port, context) in (200, 503)  # before and after the next interval
        assert "serve.cert_file, key_file: " in running.stderr
        assert running.end(signal.SIGTERM)[0] == 0
