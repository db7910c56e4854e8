"""Real servers on loopback: Pushgateways, with and without TLS, with and without latency, and VictoriaMetrics."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trustme

from bench.processes import MissingToolError, start_python, stop

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority, and a certificate with its key for both server and client."""

    ca_file: str
    cert_file: str
    key_file: str

    @classmethod
    def made_in(cls, folder: Path) -> Certificates:
        """A new authority and a certificate for 127.0.0.1."""
        files = cls(*(str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem")))
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(files.ca_file)
        certificate.cert_chain_pems[0].write_to_path(files.cert_file)
        certificate.private_key_pem.write_to_path(files.key_file)
        return files


@contextlib.contextmanager
def running_pushgateway(*arguments: str, certificates: Certificates | None = None, folder: Path) -> Iterator[int]:
    """Run a real Pushgateway on loopback and give its port.

    Raises:
        MissingToolError: it is not installed.
    """
    binary = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")
    if binary is None:
        raise MissingToolError("a Pushgateway is needed: scripts/servers prometheus-pushgateway, then have it in PATH")
    port = _free_port()
    command = [binary, f"--web.listen-address=127.0.0.1:{port}", *arguments]
    if not any(argument.startswith("--persistence.file") for argument in arguments):
        command.append("--persistence.file=")
    if certificates is not None:
        config = folder / "web.yml"
        config.write_text(
            f"tls_server_config: {{cert_file: {certificates.cert_file}, key_file: {certificates.key_file}}}\n",
            encoding="utf-8",
        )
        command.append(f"--web.config.file={config}")
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield port
    finally:
        stop(process)


@contextlib.contextmanager
def running_victoria_metrics(folder: Path, *arguments: str) -> Iterator[tuple[int, int]]:
    """Run a real VictoriaMetrics on loopback and give its port and its process ID.

    Raises:
        MissingToolError: it is not installed.
    """
    port = _free_port()
    command = [
        debian_binary("victoria-metrics"),
        f"-storageDataPath={folder / 'victoria-metrics'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=1y",
        "-dedup.minScrapeInterval=1ms",
        "-loggerLevel=ERROR",
        *arguments,
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for_port(port, process)
        yield port, process.pid
    finally:
        stop(process)


def debian_binary(name: str, package: str = "victoria-metrics") -> str:
    """The path of a program of a Debian package.

    Raises:
        MissingToolError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise MissingToolError(f"{name} is needed: scripts/servers {package}, then have it in PATH")
    return found


@contextlib.contextmanager
def far_away(port: int, one_way_seconds: float) -> Iterator[int]:
    """A port that forwards to the given one with a latency of `one_way_seconds`."""
    arguments = ["-m", "bench.delay_proxy", str(port), str(one_way_seconds)]
    process = start_python(arguments, {}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        stop(process)
        process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    ended = threading.Event()
    for _ in range(_START_SECONDS * 50):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None:
            break
        ended.wait(0.02)
    raise RuntimeError(f"{process.args!r}: does not listen on port {port}, exit code {process.poll()}")
