"""Real agents through outages, lost answers and kills: every sample is on the server, once."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.history.fault_proxy import FaultProxy
from tests.history.node import History, Node
from tests.run.running import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KILLS = 2
JOB = '{job="power"}'


def pause(seconds: float) -> None:
    """The processes run on for a while."""
    threading.Event().wait(seconds)


class Trial:
    """A node whose history goes through a proxy with faults to a real server."""

    def __init__(self, stack: ExitStack, folder: Path, engine: Engine, interval: str) -> None:
        self.engine = stack.enter_context(engine)
        self.proxy = stack.enter_context(FaultProxy(engine.write_url))
        top = f'interval = "{interval}"\nsample_interval = "50ms"'
        self.node = stack.enter_context(Node(folder, self.proxy.write_url, top=top))

    def check(self) -> int:
        """Nothing is lost, doubled or wrong; return how many requests suffered a fault."""
        history = History.of(self.engine.samples(JOB, with_markers=True))
        lost = history.lost()
        assert len(lost) > 20
        assert max(lost) == 0, lost
        assert history.doubled == 0
        assert [history.last(end) for end in ("refused", "dropped", "undated")] == [0.0, 0.0, 0.0]
        assert history.falls() == []
        wrong, missing = history.unlike(self.node.scraped)
        assert wrong == 0
        assert missing <= KILLS  # a kill loses the interval that is being closed
        assert history.longest_gap_milliseconds(except_last=KILLS) < 2000
        seen = self.proxy.seen
        failed = [(request, after) for request, after in pairwise(seen) if request.status != 204]
        # Frozen once tried: what was not taken goes out again as it was.
        assert [after.body == request.body for request, after in failed] == [True] * len(failed)
        return len(failed)


def live(trials: list[Trial], seconds: float) -> None:
    """Some life, a kill, an outage with a kill in it, and some life."""
    for trial in trials:
        trial.node.start()
    for trial in trials:
        trial.node.await_samples(1.0)
    pause(seconds)
    for trial in trials:
        trial.node.kill()
        trial.node.start()
    pause(seconds)
    for trial in trials:
        trial.proxy.down()
    pause(seconds / 2)
    for trial in trials:
        trial.node.kill()
        trial.node.start()
    pause(seconds / 2)
    for trial in trials:
        trial.proxy.up()
    for trial in trials:
        trial.proxy.faults.busy_share = trial.proxy.faults.lost_answer_share = 0.0
        until(trial.node.is_drained, "the backlog is sent")
    pause(1.0)
    for trial in trials:
        assert trial.node.stop() < 2.0


def engines(folder: Path) -> dict[str, Engine]:
    return {
        "Prometheus": Prometheus(folder / "prometheus"),
        "Prometheus with a window": Prometheus(folder / "window", window="1h"),
        "VictoriaMetrics": VictoriaMetrics(folder / "victoria-metrics"),
    }


ROW = (
    12.01,
    "Remote write: 503, answers lost after storing, an outage, two `kill -9` of the agent; on three kinds of server",
    "the same bytes go out again until they are taken: every sample is on the server once, with its value",
)


@pytest.mark.reliability(*ROW)
def test_no_sample_is_lost_doubled_or_wrong(tmp_path: Path, measured: Callable[[str], None]) -> None:
    with ExitStack() as stack:
        trials = [
            Trial(stack, tmp_path / f"node-{number}", engine, "200ms")
            for number, engine in enumerate(engines(tmp_path).values())
        ]
        for trial in trials:
            trial.proxy.faults.busy_share = trial.proxy.faults.lost_answer_share = 0.15
        live(trials, 2.0)
        for trial in trials:
            assert trial.check() > 0
    measured("0 lost, 0 doubled, 0 wrong")


@pytest.mark.long
@pytest.mark.reliability(*ROW)
def test_no_sample_is_lost_in_a_longer_life(tmp_path: Path, measured: Callable[[str], None]) -> None:
    with ExitStack() as stack:
        trials = [
            Trial(stack, tmp_path / f"node-{number}", engine, "200ms")
            for number, engine in enumerate(engines(tmp_path).values())
        ]
        for trial in trials:
            trial.proxy.faults.busy_share = trial.proxy.faults.lost_answer_share = 0.03
        live(trials, 25.0)
        for trial in trials:
            assert trial.check() > 5
    measured("0 lost, 0 doubled, 0 wrong")
