"""The servers and the proxy of these tests do what the tests take for granted."""

from __future__ import annotations

import math
import struct
import time
from typing import TYPE_CHECKING

import cramjam
import pytest

from agent.history.samples import STALE
from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.history.fault_proxy import FaultProxy
from tests.history.remote_read import field, varint

if TYPE_CHECKING:
    from pathlib import Path


(STALE_VALUE,) = struct.unpack("<d", STALE)


def message(name: str, *samples: tuple[int, float]) -> bytes:
    """A request with one series."""
    labels = b"".join(
        field(1, field(1, key.encode()) + field(2, value.encode()))
        for key, value in (("__name__", name), ("job", "test"))
    )
    rows = b"".join(field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + varint(at)) for at, value in samples)
    body = field(1, labels + rows)
    return bytes(cramjam.snappy.compress_raw(body))


@pytest.fixture(params=["prometheus", "victoria-metrics"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    folder = tmp_path / "engine"
    return Prometheus(folder) if request.param == "prometheus" else VictoriaMetrics(folder)


def test_an_engine_keeps_samples_through_a_restart(engine: Engine) -> None:
    now = round(time.time() * 1000)
    samples = [(now - 2000, 1.25), (now - 1000, 2.5), (now, 4.0)]
    key = (("__name__", "made_up"), ("job", "test"))
    with engine:
        status, words = engine.post(message("made_up", *samples))
        assert (status, words) == (204, "")
        assert engine.samples('{job="test"}') == {key: samples}
        engine.stop()
        engine.start()
        assert engine.samples('{job="test"}') == {key: samples}
        assert engine.post(message("made_up", (now + 1000, STALE_VALUE)))[0] == 204
        assert engine.samples('{job="test"}') == {key: samples}
        (((at, value),),) = (series[3:] for series in engine.samples('{job="test"}', with_markers=True).values())
        assert at == now + 1000
        assert math.isnan(value)
        assert engine.over_time("count_over_time", '{job="test"}', seconds=60, until=now / 1000) == {key: 3.0}
        assert engine.over_time("sum_over_time", '{job="test"}', seconds=60, until=now / 1000) == {key: 7.75}


def test_only_a_window_makes_prometheus_take_older_samples(tmp_path: Path) -> None:
    now = round(time.time() * 1000)
    for window, status in ((None, 400), ("1h", 204)):
        with Prometheus(tmp_path / f"window-{window}", window=window) as prometheus:
            assert prometheus.post(message("made_up", (now, 1.0)))[0] == 204
            assert prometheus.post(message("made_up", (now - 60_000, 2.0)))[0] == status


def test_only_dedup_makes_victoria_metrics_store_once(tmp_path: Path) -> None:
    now = round(time.time() * 1000)
    for dedup, times in ((None, 2), ("1ms", 1)):
        with VictoriaMetrics(tmp_path / f"dedup-{dedup}", dedup=dedup) as victoria:
            for _ in range(2):
                assert victoria.post(message("made_up", (now, 1.0)))[0] == 204
                victoria.flush()
            assert [len(samples) for samples in victoria.samples("made_up").values()] == [times]


def test_the_proxy_injects_its_faults_before_a_real_server(tmp_path: Path) -> None:
    now = round(time.time() * 1000)
    with VictoriaMetrics(tmp_path / "engine") as victoria, FaultProxy(victoria.write_url) as proxy:
        through = VictoriaMetrics(tmp_path, port=proxy.port)

        def post(second: int) -> int:
            try:
                return through.post(message("made_up", (now + second, 1.0)))[0]
            except OSError:
                return 0

        assert post(1) == 204
        proxy.faults.retry_after_seconds = 3
        assert post(2) == 429
        proxy.faults.retry_after_seconds = None
        proxy.faults.largest_body_bytes = 10
        assert post(3) == 413
        proxy.faults.largest_body_bytes = None
        proxy.faults.answer = lambda body: ("400 Bad Request", b"no") if b"made_up" in body else None
        assert post(4) == 400
        proxy.faults.answer = None
        proxy.faults.lost_answer_share = 1.0
        assert post(5) == 0
        proxy.faults.busy_share = 1.0
        assert post(6) == 503
        proxy.faults.busy_share = proxy.faults.lost_answer_share = 0.0
        with proxy.outage():
            assert post(7) == 0
        victoria.stop()
        assert post(8) == 502
        victoria.start()
        assert post(9) == 204
        assert [seen.status for seen in proxy.seen] == [204, 429, 413, 400, 0, 503, 502, 204]
        assert [seen.was_passed_on for seen in proxy.seen] == [
            *(True, False, False, False),
            *(True, False, False, True),
        ]
        # The answer was lost, not the sample.
        assert {at - now for series in victoria.samples("made_up").values() for at, _ in series} >= {5, 9}
