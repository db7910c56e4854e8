"""A fleet in miniature: real agents on simulated chips, a Pushgateway, and a Prometheus with the rules of deploy/.

It has every kind of node: node-d pushes a group for each device, node-n one group for all, node-s is scraped, and
node-x pushed once and then stopped. All have the same three devices, whose power is known.

The same series arrive in the database on one of two ways: it scrapes the gateway and node-s, or every node sends them
by remote write and nothing is scraped. On the first way, too, the agents keep history, in another server.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from tests.history.engines import VictoriaMetrics
from tests.prometheus_server import ask
from tests.run.running import PROJECT, Program, program, run, until, write_config
from tests.servers import free_port, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

DEPLOYED = PROJECT / "deploy" / "prometheus"

VOLTS_AND_AMPERES = {"cpu": (5.0, 2.0), "disk": (12.0, 0.5), "battery": (12.0, -1.0)}
WATTS = {device: volts * amperes for device, (volts, amperes) in VOLTS_AND_AMPERES.items()}
JOBS = {
    "node-d-simulated": "power",
    "node-n-simulated": "power",
    "node-s-simulated": "wattpush",
    "node-x-simulated": "power",
}
ALIVE = ("node-d-simulated", "node-n-simulated", "node-s-simulated")

STALE_SECONDS = 8
FLOOR_VOLTS = 12.5
CEILING_WATTS = 15.0
"""Limits of a disk, whose voltage is lower, and of a CPU, whose power is not higher."""
LIMITS = (
    "      # The highest power",
    f"""
      - {{record: "wattpush:device_volts:min_allowed", expr: vector({FLOOR_VOLTS}), labels: {{device: disk}}}}
      - {{record: "wattpush:device_watts:max_allowed", expr: vector({CEILING_WATTS}), labels: {{device: cpu}}}}
      # The highest power""",
)
READY_SECONDS = 300.0
Way = Literal["scrape", "remote write"]
Series = dict[tuple[tuple[str, str], ...], float]
"""Values by labels, without the metric name."""


@dataclass(frozen=True, slots=True)
class Database:
    """A kind of database.

    Attributes:
        server_of: a server with this configuration; gives its URL.
        rules_of: what evaluates the rules beside the configuration for a server; None if that does it itself.
    """

    server_of: Callable[[Path], AbstractContextManager[str]]
    rules_of: Callable[[Path, str], AbstractContextManager[str]] | None


@dataclass(frozen=True, slots=True)
class Fleet:
    """The state of the fleet in a database at one moment, at which all queries are evaluated.

    Attributes:
        way: how the series arrive.
        times_alerts: whether every alert says since when it fires: an older vmalert does not of those without `for`.
        counts_stopped: whether counters of the stopped node have an increase, of zero: a gateway repeats its one
            sample, and one sample is enough for VictoriaMetrics.
        url: of the database.
        at_seconds: the moment, as Unix time.
        lived_seconds: an upper bound of how long it had been running by then.
    """

    way: Way
    times_alerts: bool
    counts_stopped: bool
    url: str
    at_seconds: float
    lived_seconds: float

    def query(self, expression: str) -> Series:
        """The values that a table or a number shows."""
        data = ask(self.url, "query", query=expression, time=self.at_seconds)
        if data["resultType"] == "scalar":
            return {(): float(data["result"][1])}
        return {_labels(one["metric"]): float(one["value"][1]) for one in data["result"]}

    def last_of_range(self, expression: str) -> Series:
        """The right end of a time series: points one second apart, the last one at this moment."""
        data = ask(self.url, "query_range", query=expression, start=self.at_seconds - 3, end=self.at_seconds, step=1)
        return {
            _labels(one["metric"]): float(one["values"][-1][1])
            for one in data["result"]
            if float(one["values"][-1][0]) > self.at_seconds - 0.5
        }

    def label_values(self, series: str, label: str) -> set[str]:
        """The values of `label_values(series, label)`, as a dashboard variable gets them."""
        asked: dict[str, str | float] = {"match[]": series, "start": self.at_seconds - 60, "end": self.at_seconds}
        found = ask(self.url, "series", **asked)
        return {one[label] for one in found if label in one}


def _labels(metric: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in metric.items() if name != "__name__"))


@contextlib.contextmanager
def running_fleet(folder: Path, database: Database, way: Way) -> Iterator[Fleet]:
    """A fleet that has run long enough for every query, and the database with its series."""
    begun_seconds = time.time()
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(running_pushgateway())
        listen = f"127.0.0.1:{free_port()}"
        if way == "scrape":
            config = prometheus_config(folder, f'"{urlsplit(gateway).netloc}"', f'"{listen}"')
            history = stack.enter_context(VictoriaMetrics(folder / "history")).url
        else:
            config = prometheus_config(folder, "", "")
            history = stack.enter_context(database.server_of(config))
        dead = _node(folder, "node-x-simulated", gateway, history, push='group_by = "device"\ntimeout = "1m"')
        once = run("--config", dead, "--once", *_traces(folder))
        assert once.returncode == 0, once.stderr
        serve = f'[serve]\nlisten = "{listen}"\n'
        nodes = [
            _node(folder, "node-d-simulated", gateway, history, push='group_by = "device"\ntimeout = "1m"'),
            _node(folder, "node-n-simulated", gateway, history, push='group_by = "node"\ntimeout = "1m"'),
            _node(folder, "node-s-simulated", None, history, more=serve),
        ]
        running: list[Program] = [stack.enter_context(program("--config", node, *_traces(folder))) for node in nodes]
        # Started after the agents, so that every scrape finds all of them.
        url = stack.enter_context(database.server_of(config)) if way == "scrape" else history
        if database.rules_of is not None:
            # An empty VictoriaMetrics 1.79.5 that is asked for a series every second may not find it for a minute.
            until(lambda: _all_devices_arrived(url), "the series of all devices", READY_SECONDS)
            stack.enter_context(database.rules_of(config, url))
        counts_stopped = way == "scrape" or database.rules_of is not None
        at_seconds: float = until(
            lambda: _ready(url, way, counts_stopped=counts_stopped),
            "all series that the fleet is to have",
            READY_SECONDS,
        )
        for agent in running:
            assert agent.end(signal.SIGTERM)[0] == 0
        yield Fleet(way, database.rules_of is None, counts_stopped, url, at_seconds, at_seconds - begun_seconds)


def _node(folder: Path, name: str, gateway: str | None, history: str, *, push: str = "", more: str = "") -> Path:
    home = folder / name
    home.mkdir()
    # The machine of the tests may have no time server.
    remote_write = f'url = "{history}/api/v1/write"\njob = "{JOBS[name]}"\nclock = "system"\n'
    config = write_config(
        home,
        gateway,
        devices=tuple(WATTS),
        top='interval = "1s"\nsample_interval = "200ms"',
        push=push,
        more=f"[metrics]\ncharge = true\nina260_names = true\n[remote_write]\n{remote_write}{more}",
    )
    config.write_text(config.read_text().replace('"node-17"', f'"{name}"'))
    return config


def _traces(folder: Path) -> list[str]:
    arguments = []
    for device, (volts, amperes) in VOLTS_AND_AMPERES.items():
        recording = folder / f"{device}.csv"
        recording.write_text(f"seconds,volts,amperes\n0,{volts},{amperes}\n")
        arguments += ["--trace", f"{device}={recording}"]
    return arguments


def prometheus_config(folder: Path, gateways: str, nodes: str) -> Path:
    """The files of deploy/, sped up: other targets, and seconds instead of minutes and days."""
    shutil.copytree(DEPLOYED / "rules", folder / "rules")
    config = folder / "prometheus.yml"
    config.write_text(
        _replaced(
            (DEPLOYED / "prometheus.yml").read_text(),
            ("targets: []", f"targets: [{nodes}]"),
            ('"pushgateway:9091"', gateways),
            ('"alertmanager:9093"', ""),
            ("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s"),
            ("evaluation_interval: 15s", "evaluation_interval: 1s"),
        )
    )
    for name, *changes in (
        ("limits.yml", ("vector(45)", f"vector({STALE_SECONDS})"), LIMITS),
        ("recordings.yml", ("interval: 2m", "interval: 1s"), ("interval: 10m", "interval: 1s")),
    ):
        path = folder / "rules" / name
        path.write_text(_replaced(path.read_text(), *changes))
    return config


def _replaced(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


_COUNTS = {
    # Every device of the three running nodes, and no others.
    "count(wattpush:device_watts:fresh)": 9,
    "count(wattpush:device_age:seconds)": 12,
    "count(wattpush:device_kwh:increase30d)": 12,
    "count(wattpush:device_cost:increase30d)": 12,
    "count(wattpush:node_age:fresh)": 3,
    "count(wattpush:node_age:seconds)": 4,
    # All targets answered the last scrape: the rules may still hold old values of one that did not.
    "count(wattpush_device_watts)": 12,
    # More energy than in the four seconds that tests use, in the counters and in the recorded series.
    "count(increase(wattpush_device_measured_seconds_total[1h]) > 5)": 9,
    "count(wattpush:device_kwh:increase1d{device='disk'} * 3.6e6 > 5 * 6)": 3,
    "count(wattpush:device_kwh:increase30d{device='disk'} * 3.6e6 > 5 * 6)": 3,
    # Enough samples of everything for the shortest window.
    "count(rate(wattpush_device_measured_seconds_total[8s]) > 0)": 9,
    "count(rate(process_cpu_seconds_total{hostname=~'node-[dns]-simulated'}[8s]) > 0)": 3,
    "count(wattpush_agent_push_seconds)": 2,
    "count(wattpush_agent_remote_samples_total{hostname=~'node-[dns]-simulated'} > 0)": 3,
    "count(rate(wattpush_agent_remote_samples_total[8s]) > 0)": 3,
    "count(ALERTS{alertname='WattpushSimulated', alertstate='firing'})": 3,
    "count(ALERTS{alertname='WattpushUnderVoltage', alertstate='firing'})": 3,
    "count(wattpush:device_volts:floor)": 4,
    "count(wattpush:device_watts:ceiling)": 4,
    # Only samples after the first seconds, in which a rate may still start at its first sample.
    "count(wattpush_device_measured_seconds_total offset 9s > 0)": 9,
}


def _all_devices_arrived(url: str) -> bool:
    data: Any = ask(url, "query", query="count(wattpush_device_watts)")
    return data is not None and bool(data["result"]) and float(data["result"][0]["value"][1]) == len(JOBS) * len(WATTS)


def _ready(url: str, way: Way, *, counts_stopped: bool) -> float | None:
    """A moment at which all data is complete, or None."""
    counts = {**_COUNTS, "count(wattpush:device_kwh:increase1d)": 12 if counts_stopped else 9}
    if way == "scrape":
        counts["count(rate(process_cpu_seconds_total{hostname!=''}[8s]))"] = 4
    # Younger samples may still be on their way into the storage, and change the answer.
    at_seconds = round(time.time() - 3, 3)
    for expression, count in counts.items():
        data: Any = ask(url, "query", query=expression, time=at_seconds)
        if data is None or not data["result"] or float(data["result"][0]["value"][1]) != count:
            return None
    return at_seconds
