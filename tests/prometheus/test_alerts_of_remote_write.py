"""The alerts on real servers that get everything by remote write: no scrape, no gateway."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from agent.history.samples import ABSENT, Frame, count_samples, packed
from agent.history.write_request import write_request
from tests.history.engines import Prometheus
from tests.prometheus.conftest import DATABASES
from tests.prometheus.fleet import STALE_SECONDS, prometheus_config
from tests.prometheus_server import ask
from tests.run.running import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEP_SECONDS = 15
ROWS = 41
"""Ten minutes of them."""
LAST = ROWS - 1
"""The row that arrives when the rules have seen the others."""

Values = dict[tuple[str, str], "Callable[[int], float | None]"]
"""The value of a row by the name of the series and the device; no device for a node's own."""


def node(changed: Values, rows: int = ROWS) -> Values:
    """A healthy node with some series changed, and no samples after some rows."""
    healthy: Values = {
        ("wattpush_agent_info", ""): lambda _: 1.0,
        ("wattpush_device_up", "cpu"): lambda _: 1.0,
        ("wattpush_device_measured_seconds_total", "cpu"): lambda row: 15.0 * row,
        ("wattpush_agent_remote_backlog_samples", ""): lambda _: 64.0,
        ("wattpush_agent_remote_refused_samples_total", ""): lambda _: 700.0,
        ("wattpush_agent_remote_dropped_samples_total", ""): lambda _: 700.0,
        ("wattpush_agent_remote_undated_samples_total", ""): lambda _: 700.0,
    }
    return {
        place: lambda row, value=value: value(row) if row < rows else None  # type: ignore[misc]  # of the default
        for place, value in (healthy | changed).items()
    }


NODES = {
    "healthy": node({}),
    "stopped": node({("wattpush_device_up", "cpu"): lambda _: 0.0}, rows=ROWS - 12),
    "down": node({("wattpush_device_up", "cpu"): lambda row: float(row < 9)}),
    "undated": node({("wattpush_agent_remote_backlog_samples", ""): lambda row: 64.0 * (row + 1)}),
    "lossy": node(
        {
            (f"wattpush_agent_remote_{counter}_samples_total", ""): lambda row: 64.0 if row < LAST else 1280.0
            for counter in ("refused", "dropped", "undated")
        }
    ),
}
FIRING = {
    ("WattpushNodeStale", "stopped"),
    ("WattpushDeviceDown", "down"),
    ("WattpushBacklogGrows", "undated"),
    ("WattpushSamplesRefused", "lossy"),
    ("WattpushSamplesDropped", "lossy"),
    ("WattpushSamplesUndated", "lossy"),
}


def frame(ends_seconds: int, rows: range) -> Frame:
    """Some rows of the last ten minutes of all nodes."""
    columns = {
        tuple(
            sorted(
                {
                    "__name__": name,
                    "job": "power",
                    "hostname": hostname,
                    **({"device": device} if device else {}),
                }.items()
            )
        ): value
        for hostname, values in NODES.items()
        for (name, device), value in values.items()
    }
    values = b"".join(
        ABSENT if (number := value(row)) is None else packed(number) for row in rows for value in columns.values()
    )
    begins_seconds = ends_seconds - LAST * STEP_SECONDS
    times = tuple(1000 * STEP_SECONDS * row for row in rows)
    return Frame(tuple(columns), "boot", 1000 * begins_seconds, times, values, count_samples(values))


# On VictoriaMetrics it takes most of a minute until a query finds what a rule has just recorded.
@pytest.mark.parametrize("name", ["prometheus", pytest.param("victoria-metrics", marks=pytest.mark.long)])
def test_each_alert_fires_for_its_node_and_for_no_other(name: str, tmp_path: Path) -> None:
    config = prometheus_config(tmp_path, "", "")
    for file, pattern, new in (
        # The samples get older while the server starts.
        ("limits.yml", rf"vector\({STALE_SECONDS}\)", "vector(90)"),
        ("alerts.yml", r"for: \w+", "for: 1s"),
    ):
        path = tmp_path / "rules" / file
        path.write_text(re.sub(pattern, new, path.read_text()))
    database = DATABASES[name]
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(database.server_of(config))
        port = urlsplit(url).port
        assert port is not None
        until(lambda: ask(url, "query", query="1") is not None, "the server to take requests")
        ends_seconds = int(time.time())

        def post(rows: range) -> None:
            status, answer = Prometheus(tmp_path, port=port).post(write_request(frame(ends_seconds, rows)))
            assert status in {200, 204}, answer

        post(range(LAST))
        if database.rules_of is not None:
            until(lambda: ask(url, "query", query="wattpush_agent_info")["result"], "the samples to be found")
            stack.enter_context(database.rules_of(config, url))

        seen = 'count({__name__=~"wattpush:remote_.+_samples:last"}) == ' + str(3 * len(NODES))
        until(lambda: ask(url, "query", query=seen)["result"], "the counters to be remembered", 120.0)
        post(range(LAST, ROWS))

        def firing() -> set[tuple[str, str]]:
            data = ask(url, "query", query='ALERTS{alertstate="firing"}')
            return {(one["metric"]["alertname"], one["metric"].get("hostname", "")) for one in data["result"]}

        until(lambda: firing() >= FIRING, "all alerts to fire", 60.0)
        assert firing() == FIRING
