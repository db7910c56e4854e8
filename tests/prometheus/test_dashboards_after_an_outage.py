"""The curves of both dashboards over a time in which nothing arrived, once remote write has caught up."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from agent.history.samples import Frame, count_samples, packed
from agent.history.write_request import write_request
from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.prometheus.test_dashboards import QUERIES, substituted
from tests.prometheus_server import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.history.samples import Labels

# A limit in limits.yml is constant, and recorded only: it says nothing about the past.
CURVES = [
    (name, panel, target)
    for name, panel, target in QUERIES
    if not target["instant"] and not re.match(r"wattpush:device_\w+:(floor|ceiling)", target["expr"])
]
NODE = {"job": "power", "hostname": "node-17"}
VARIABLES = {"job": ".+", "hostname": "node-17", "device": ".+"}
STEP_SECONDS = 15
MINUTES = 10
ENGINES = {"prometheus": Prometheus, "victoria-metrics": VictoriaMetrics}


def raw_series() -> tuple[Labels, ...]:
    """The series that curves are made of, without recorded ones and those of a gateway."""
    text = " ".join(target["expr"] for _, _, target in CURVES)
    names = sorted(set(re.findall(r"\b(?:wattpush|process)_[a-z_]+", text)))
    assert len(names) > 20
    return tuple(
        tuple(sorted({"__name__": name, **NODE, **({"device": "cpu"} if "_device_" in name else {})}.items()))
        for name in names
    )


def replayed(ends_seconds: int) -> Iterator[Frame]:
    """Ten minutes of samples, of which every value rises, a frame each minute."""
    table = raw_series()
    steps_of_frame = 60 // STEP_SECONDS
    for first in range(0, MINUTES * steps_of_frame, steps_of_frame):
        steps = range(first, first + steps_of_frame)
        values = b"".join(packed(1000.0 + step) for step in steps for _ in table)
        begins_seconds = ends_seconds - MINUTES * 60
        times = tuple(1000 * STEP_SECONDS * (step + 1) for step in steps)
        yield Frame(table, "boot", 1000 * begins_seconds, times, values, count_samples(values))


@pytest.fixture(scope="module", params=ENGINES)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, int]]:
    """A server without any rule, to which an outage is replayed; and when that ended, an hour ago."""
    ends_seconds = int(time.time()) - 3600
    folder = tmp_path_factory.mktemp("outage")
    engine = Prometheus(folder, window="2h") if request.param == "prometheus" else VictoriaMetrics(folder)
    with engine:
        for frame in replayed(ends_seconds):
            status, answer = engine.post(write_request(frame))
            assert status in {200, 204}, answer
        engine.flush()
        yield engine, ends_seconds


@pytest.mark.parametrize(
    "target",
    [target for _, _, target in CURVES],
    ids=[f"{name}: {panel['title']} {target['refId']}" for name, panel, target in CURVES],
)
def test_a_curve_has_no_hole_where_nothing_arrived_in_time(target: dict[str, str], server: tuple[Engine, int]) -> None:
    engine, ends_seconds = server
    # Late enough for a whole window before the first point.
    start = ends_seconds - (MINUTES - 2) * 60
    text = re.sub(r"\$__(?:rate_)?interval", "60s", target["expr"])
    expression = substituted(text, VARIABLES)
    data = ask(engine.url, "query_range", query=expression, start=start, end=ends_seconds, step=STEP_SECONDS)
    (series,) = data["result"]
    assert len(series["values"]) == (ends_seconds - start) // STEP_SECONDS + 1
