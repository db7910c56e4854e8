"""The sizes behind the benchmarks of remote write, and that its fleet and its outage are what they claim to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cramjam
import pytest

from agent.history.snappy import compress_in_python
from agent.history.write_request import message
from agent.simulate.clock import HandClock
from bench.remote_disk import keep, opened_backlog, replay
from bench.remote_fleet import Fleet
from bench.remote_frames import INTERVAL_SECONDS, recorded
from tests.history.remote_write_message import decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Sized
    from pathlib import Path

_UNIX_MILLISECONDS = 1_800_000_000_000


@pytest.mark.parametrize("compress", [cramjam.snappy.compress_raw, compress_in_python], ids=["cramjam", "pure"])
def test_a_request_of_all_readings_takes_8_bytes_a_sample(compress: Callable[[bytes], Sized]) -> None:
    frames = [rows.frame(_UNIX_MILLISECONDS) for rows in recorded("sample", 6)]

    sizes = [len(compress(message(frame))) / frame.samples for frame in frames]

    assert max(sizes) < 8


def test_a_request_of_an_interval_takes_3_kilobytes() -> None:
    frames = [rows.frame(_UNIX_MILLISECONDS) for rows in recorded("interval", 6)]

    assert {len(frame.times_milliseconds) for frame in frames} == {1}
    assert max(len(compress_in_python(message(frame))) for frame in frames) < 3000


def test_an_outage_takes_4_bytes_a_sample_on_disk_and_all_comes_back(tmp_path: Path) -> None:
    rows = recorded("sample", 40)
    produced = sum(one.frame(0).samples for one in rows)
    clock = HandClock()
    backlog = opened_backlog(tmp_path / "history", clock)

    keep(rows, backlog, clock)
    backlog.close()

    assert backlog.status.backlog_samples == produced
    assert backlog.status.backlog_bytes / produced < 4
    again = opened_backlog(tmp_path / "history", clock)
    assert replay(again)[0] == produced
    assert again.status.backlog_samples == 0
    again.close()


def test_each_node_of_the_fleet_sends_its_own_series() -> None:
    fleet = Fleet("sample", 10)

    bodies = [decoded(body) for body in fleet.bodies(1, 1_800_000_000.0)]

    for number, series in enumerate(bodies):
        assert {dict(one.labels)["hostname"] for one in series} == {f"node-{number:05}"}
        assert sum(len(one.samples) for one in series) == fleet.samples_a_node
        times = {at for one in series for at, _ in one.samples}
        assert max(times) == _UNIX_MILLISECONDS
        assert len(times) == INTERVAL_SECONDS + 1  # each sweep, and what is sent once an interval
