"""Real servers that take remote write: killed and started again on the same port and data, and asked what they hold."""

from __future__ import annotations

import json
import math
import subprocess
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

import pytest

from agent.history.samples import Labels
from tests.history.remote_read import read_all
from tests.prometheus_server import ask, binary
from tests.servers import START_SECONDS, free_port, wait_for_port

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

Stored = dict[Labels, list[tuple[int, float]]]
"""The samples of each series, by time: Unix milliseconds and value."""


@dataclass(slots=True)
class Engine:
    """A server on loopback with its data in a folder; use it as a context manager.

    Attributes:
        folder: of its configuration and data; created, and kept between starts.
        write_path: of the URL that takes remote write.
        ready_path: answers 200 once it takes requests.
        arguments: in addition to the usual ones, such as `-dedup.minScrapeInterval=1ms`.
    """

    folder: Path
    write_path: str
    ready_path: str
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """Its command line."""
        raise NotImplementedError

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def write_url(self) -> str:
        """The whole URL that takes remote write."""
        return self.url + self.write_path

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it takes requests."""
        assert self.process is None
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for_port(self.port, self.process)
        for _ in range(START_SECONDS * 20):
            if self.get(self.ready_path)[0] == 200:
                return
            time.sleep(0.05)
        pytest.fail("the server does not become ready")

    def stop(self) -> None:
        """End it with SIGTERM: it writes everything to disk first."""
        self._end("terminate")

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._end("kill")

    def _end(self, how: Literal["terminate", "kill"]) -> None:
        if self.process is not None:
            getattr(self.process, how)()
            self.process.wait(START_SECONDS)
            self.process = None

    def get(self, path: str, **parameters: str | float) -> tuple[int, str]:
        """The status and the body of a GET request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("GET", f"{path}?{urlencode(parameters)}" if parameters else path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def post(self, body: bytes, **headers: str) -> tuple[int, str]:
        """The answer to a remote write request with this body, already compressed."""
        sent = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", **headers}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            connection.request("POST", self.write_path, body, sent)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def log(self) -> str:
        """What it has written to its log in all runs."""
        return (self.folder / "server.log").read_text(encoding="utf-8")

    def flush(self) -> None:
        """Make everything visible to queries that it has taken."""

    def samples(self, selector: str, *, seconds: float = 172_800.0, with_markers: bool = False) -> Stored:
        """Every stored sample of the series that `selector` matches, up to an hour from now.

        Args:
            selector: a name and matchers of equality, such as `up{job="power"}`.
            seconds: how far back.
            with_markers: stale markers, too, with the value NaN.
        """
        raise NotImplementedError

    def over_time(
        self, function: str, selector: str, *, seconds: float, until: float | None = None
    ) -> dict[Labels, float]:
        """The result of `count_over_time`, `sum_over_time` and their like for every series.

        Args:
            function: its name.
            selector: such as `{job="power"}`.
            seconds: the length of its window.
            until: the end of its window in Unix seconds; now by default.
        """
        self.flush()
        # The results lack the name; one query for each name keeps those of a device apart.
        at = time.time() if until is None else until
        names = sorted({dict(labels)["__name__"] for labels in self._series(selector, at - seconds, at)})
        return {
            _labels({"__name__": name, **one["metric"]}): float(one["value"][1])
            for name in names
            for one in ask(
                self.url,
                "query",
                query=f"{function}({_named(selector, name)}[{round(seconds * 1000)}ms])",
                time=at,
                nocache="1",
            )["result"]
        }

    def instant(self, query: str, at: float | None = None) -> dict[Labels, float]:
        """The result of an instant query for every series."""
        self.flush()
        data = ask(self.url, "query", query=query, time=time.time() if at is None else at, nocache="1")
        return {_labels(one["metric"]): float(one["value"][1]) for one in data["result"]}

    def _series(self, selector: str, start: float, end: float) -> list[Labels]:
        return [_labels(one) for one in ask(self.url, "series", **_matching(selector, start, end))]


@dataclass(slots=True)
class Prometheus(Engine):
    """A Prometheus with its remote write receiver; it scrapes nothing.

    Attributes:
        window: `out_of_order_time_window`, such as "30h"; None takes nothing older than the newest sample of a series.
        has_receiver: False leaves the receiver off, so that it answers 404.
    """

    write_path: str = "/api/v1/write"
    ready_path: str = "/-/ready"
    window: str | None = None
    has_receiver: bool = True

    def command(self) -> list[str]:
        """Its command line; writes its configuration."""
        config = self.folder / "prometheus.yml"
        window = "" if self.window is None else f"storage: {{tsdb: {{out_of_order_time_window: {self.window}}}}}\n"
        config.write_text(f"global: {{scrape_interval: 1h}}\n{window}", encoding="utf-8")
        return [
            binary("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
            *(("--web.enable-remote-write-receiver",) if self.has_receiver else ()),
            *self.arguments,
        ]

    def samples(self, selector: str, *, seconds: float = 172_800.0, with_markers: bool = False) -> Stored:
        """Every stored sample, by remote read."""
        now = time.time()
        found = read_all(self.port, selector, round((now - seconds) * 1000), round((now + 3600.0) * 1000))
        return found if with_markers else _without_markers(found)


@dataclass(slots=True)
class VictoriaMetrics(Engine):
    """A VictoriaMetrics of a single node.

    Attributes:
        dedup: `-dedup.minScrapeInterval`; None keeps what it is sent twice twice.
        retention: `-retentionPeriod`.
    """

    write_path: str = "/api/v1/write"
    ready_path: str = "/health"
    dedup: str | None = "1ms"
    retention: str = "1y"

    def command(self) -> list[str]:
        """Its command line."""
        return [
            binary("victoria-metrics", "victoria-metrics"),
            f"-storageDataPath={self.folder / 'data'}",
            f"-httpListenAddr=127.0.0.1:{self.port}",
            f"-retentionPeriod={self.retention}",
            "-search.latencyOffset=0s",  # show the last half minute, too, although samples of it may still arrive
            "-loggerLevel=WARN",
            *(() if self.dedup is None else (f"-dedup.minScrapeInterval={self.dedup}",)),
            *self.arguments,
        ]

    def flush(self) -> None:
        """It shows what it has taken a second later, unless it is told to show it now."""
        assert self.get("/internal/force_flush")[0] == 200

    def samples(self, selector: str, *, seconds: float = 172_800.0, with_markers: bool = False) -> Stored:
        """Every stored sample, exported; without `dedup` a sample that was stored twice is there twice."""
        self.flush()
        now = time.time()
        status, text = self.get("/api/v1/export", **_matching(selector, now - seconds, now + 3600.0))
        assert status == 200, text
        found: Stored = {}
        for line in text.splitlines():
            one = json.loads(line)
            series = found.setdefault(_labels(one["metric"]), [])
            values = (math.nan if value is None else value for value in one["values"])
            series += zip(one["timestamps"], values, strict=True)
        for series in found.values():
            series.sort()
        return found if with_markers else _without_markers(found)


def _without_markers(found: Stored) -> Stored:
    return {labels: [(at, value) for at, value in series if not math.isnan(value)] for labels, series in found.items()}


def _labels(metric: dict[str, str]) -> Labels:
    return tuple(sorted(metric.items()))


def _named(selector: str, name: str) -> str:
    matchers = selector.partition("{")[2].rpartition("}")[0]
    return f"{name}{{{matchers}}}"


def _matching(selector: str, start: float, end: float) -> dict[str, str | float]:
    return {"match[]": selector, "start": start, "end": end}
