"""A real Prometheus or VictoriaMetrics, and the HTTP API that both have."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import pytest

from tests.servers import START_SECONDS, free_port, wait_for_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def binary(name: str, package: str = "prometheus") -> str:
    """The path of a program. If it is missing, the test is skipped, or fails in CI."""
    found = shutil.which(name)
    if found is not None:
        return found
    message = f"needs a real {name}: apt-get install {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


@contextlib.contextmanager
def running_prometheus(folder: Path, target_url: str) -> Iterator[str]:
    """The URL of a Prometheus that scrapes one target every second."""
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        "scrape_configs:\n"
        "  - job_name: gateway\n"
        "    honor_labels: true\n"
        f"    static_configs: [{{targets: ['{urlsplit(target_url).netloc}']}}]\n"
    )
    with prometheus_of(config) as url:
        yield url


@contextlib.contextmanager
def prometheus_of(config: Path) -> Iterator[str]:
    """The URL of a Prometheus with this configuration; its data is in a folder beside the file."""
    port = free_port()
    arguments = (
        f"--config.file={config}",
        f"--storage.tsdb.path={config.parent / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
        "--web.enable-remote-write-receiver",
    )
    with _serving(port, binary("prometheus"), *arguments) as url:
        yield url


@contextlib.contextmanager
def victoria_metrics_of(config: Path) -> Iterator[str]:
    """The URL of a VictoriaMetrics with this Prometheus configuration; `vmalert_of` evaluates its rules."""
    port = free_port()
    database = (
        f"-promscrape.config={config}",
        "-promscrape.config.strictParse=false",
        f"-storageDataPath={config.parent / 'victoria-metrics'}",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-retentionPeriod=2",
        "-search.latencyOffset=0s",  # show the last half minute, too, although samples of it may still arrive
        "-loggerLevel=ERROR",
    )
    with _serving(port, binary("victoria-metrics", "victoria-metrics"), *database) as url:
        yield url


@contextlib.contextmanager
def vmalert_of(config: Path, url: str) -> Iterator[str]:
    """The URL of a vmalert with the rules beside this configuration, for the VictoriaMetrics at `url`."""
    port = free_port()
    arguments = (
        f"-rule={config.parent / 'rules' / '*.yml'}",
        f"-datasource.url={url}",
        f"-remoteWrite.url={url}",
        "-remoteWrite.flushInterval=500ms",
        "-notifier.url=http://127.0.0.1:9",  # required; no alert goes anywhere
        "-evaluationInterval=1s",
        f"-httpListenAddr=127.0.0.1:{port}",
        "-loggerLevel=FATAL",
    )
    with _serving(port, binary("vmalert", "victoria-metrics"), *arguments) as own:
        yield own


@contextlib.contextmanager
def _serving(port: int, *command: str) -> Iterator[str]:
    """Run a server on loopback and give its URL."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(START_SECONDS)
        reader.join(START_SECONDS)
        process.stderr.close()


def ask(url: str, path: str, **parameters: str | float) -> Any:
    """The data of a response of the HTTP API; None while the server is starting."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=START_SECONDS)
    try:
        connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
        answer = connection.getresponse()
        text = answer.read()
    finally:
        connection.close()
    if answer.status == 503:  # still starting; the body is plain text
        return None
    body = json.loads(text)
    assert body["status"] == "success", (parameters, body)
    return body["data"]


def scraped(url: str, selector: str) -> dict[float, float]:
    """Every sample of the one series that `selector` matches, by scrape time; empty if there is no such series."""
    data = ask(url, "query", query=f"{selector}[1h]")
    series = [] if data is None else data["result"]
    assert len(series) <= 1, series
    return {float(at): float(value) for one in series for at, value in one["values"]}
