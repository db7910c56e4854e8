"""Nodes whose clock is wrong, or is stepped, and what real servers hold of them in the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.energy.state import RemoteCounters
from agent.history.answers import Meaning
from agent.history.backlog import Backlog
from agent.history.dating import Dating
from agent.history.post import Poster
from agent.history.samples import packed
from agent.history.sender import Sender
from agent.settings import RemoteWriteSettings
from agent.simulate.clock import HandClock
from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.history.test_dating import HandTimebase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.history.answers import Verdict
    from agent.history.samples import Labels

DAY = 86400.0
TABLE: tuple[Labels, ...] = ((("__name__", "true_seconds"), ("hostname", "node-17"), ("job", "power")),)
"""The value of each sample is the true time of its row, which tells whether its timestamp is right."""


class Node:
    """A node with one series; each row holds the true time, whatever its clock shows.

    Attributes:
        true: the true time of every row that was added, in Unix seconds.
        requests: how many were made.
    """

    def __init__(self, folder: Path, engine: Engine, base: HandTimebase) -> None:
        self.base = base
        self.true: list[float] = []
        self.requests = 0
        self._folder = folder
        self._poster = Poster(RemoteWriteSettings(engine.write_url), clock=SystemClock(), environ={})
        self._clock = HandClock()
        self.start()

    def start(self, saved: RemoteCounters | None = None) -> None:
        """Start the agent: at first, or after a boot."""
        runtime_folder = self._folder / self.base.boot
        runtime_folder.mkdir()
        self.backlog = Backlog(
            self._folder / "history",
            runtime_folder,
            Dating(self.base),
            self._clock,
            max_bytes=64_000_000,
            max_age_seconds=7 * DAY,
            saved=saved or RemoteCounters(),
        )
        self._sender = Sender(
            self.backlog, self._post, self._clock, interval_seconds=1.0, catch_up=1000.0, random=lambda: 0.5
        )

    def reboot(self, boot: str, *, wrong_by: float) -> None:
        """Stop cleanly, and boot with a wrong clock."""
        self.backlog.close()
        saved = self.backlog.status.counters
        self.pass_seconds(30.0)
        self.base = HandTimebase(boot, true=self.base.true, booted_at=self.base.true - 5.0, wrong_by=wrong_by)
        self.start(saved)

    def pass_seconds(self, seconds: float) -> None:
        """Nothing happens for a time."""
        self.base.true += seconds
        self._clock.sleep(seconds)

    def run(self, rows: int, *, every_seconds: float) -> None:
        """Add rows, and send what can be sent."""
        for _ in range(rows):
            self.pass_seconds(every_seconds)
            self.true.append(self.base.true)
            self.backlog.add(TABLE, [round(1000 * self.base.since_boot())], packed(self.base.true))
            self.backlog.maintain()
            self._sender.step()

    def drain(self) -> None:
        """Send all that is left."""
        for _ in range(10_000):
            if not self.backlog.status.backlog_samples:
                return
            self._clock.sleep(min(self._sender.step(), 1.0))
        pytest.fail(f"{self.backlog.status} is left")

    def _post(self, body: bytes) -> Verdict:
        self.requests += 1
        verdict = self._poster.post(body)
        assert verdict.meaning is Meaning.TAKEN, verdict
        return verdict

    def close(self) -> None:
        self.backlog.close()
        self._poster.close()


Start = Callable[[HandTimebase], Node]


def stored(engine: Engine) -> list[tuple[int, float]]:
    """The samples that the server holds."""
    return engine.samples('true_seconds{job="power"}', seconds=30 * DAY).get(TABLE[0], [])


@pytest.fixture(params=[Prometheus, VictoriaMetrics], ids=["Prometheus", "VictoriaMetrics"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """A Prometheus without a window refuses what does not rise."""
    with request.param(tmp_path / "engine") as server:
        yield server


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Iterator[Start]:
    """Starts a node, and closes it at the end also of a test that fails."""
    with contextlib.ExitStack() as stack:

        def started(base: HandTimebase) -> Node:
            node = Node(tmp_path, engine, base)
            stack.callback(node.close)
            return node

        yield started


@pytest.mark.reliability(
    12.06,
    "boots at 1970, at last month (a saved clock) and a year ahead, synchronised later",
    "no sample has a date before the clock is synchronised; then all have the right one",
)
def test_three_boots_with_wrong_clocks_arrive_with_true_times(
    engine: Engine, start: Start, measured: Callable[[str], None]
) -> None:
    now = int(time.time()) - 1800.0
    node = start(HandTimebase("boot-1", true=now, booted_at=now - 5.0, wrong_by=-now))
    for number, wrong_by in enumerate((None, -31 * DAY, 365 * DAY), start=1):
        if wrong_by is not None:
            node.reboot(f"boot-{number}", wrong_by=wrong_by)
        requests, held = node.requests, len(stored(engine))
        node.run(20, every_seconds=15.0)
        assert (node.requests, len(stored(engine))) == (requests, held), "sent before the clock was known"
        node.base.synchronise()
        node.run(5, every_seconds=15.0)
        node.drain()
    node.close()

    samples = stored(engine)
    assert [value for _, value in samples] == node.true
    assert max(abs(at / 1000 - value) for at, value in samples) <= 0.001
    counters = node.backlog.status.counters
    assert (counters.accepted, counters.settled) == (75, 75)
    measured("3 boots, 75 rows: none sent before, all within 1 ms after, nothing refused")


def test_a_boot_without_a_clock_is_counted_as_undated(engine: Engine, start: Start) -> None:
    now = int(time.time()) - 900.0
    node = start(HandTimebase("boot-1", true=now, booted_at=now - 5.0, wrong_by=-DAY))
    node.run(10, every_seconds=15.0)
    node.reboot("boot-2", wrong_by=0.0)
    node.base.synchronise()
    node.run(5, every_seconds=15.0)
    node.drain()
    node.close()

    assert [value for _, value in stored(engine)] == node.true[10:]
    counters = node.backlog.status.counters
    assert (counters.accepted, counters.undated, counters.settled) == (5, 10, 15)


@pytest.mark.reliability(
    12.06, "the clock is stepped back by 3 s and by 1 h", "timestamps rise, and nothing is refused"
)
@pytest.mark.parametrize(("step_seconds", "every_seconds"), [(3.0, 1.0), (3600.0, 60.0)])
def test_timestamps_rise_when_the_clock_is_set_back(
    step_seconds: float, every_seconds: float, engine: Engine, start: Start, measured: Callable[[str], None]
) -> None:
    """A time server was wrong, and ahead, and is right again; what would be doubly dated is dropped and counted."""
    now = int(time.time()) - 120 * every_seconds - step_seconds
    base = HandTimebase("boot-1", true=now, booted_at=now - 5.0, wrong_by=step_seconds, synchronised=True)
    node = start(base)
    node.run(20, every_seconds=every_seconds)
    node.drain()
    node.base.synchronise()
    node.run(80, every_seconds=every_seconds)
    node.drain()
    node.close()

    samples = stored(engine)
    times = [at for at, _ in samples]
    assert times == sorted(set(times))
    overlap = round(step_seconds / every_seconds)
    counters = node.backlog.status.counters
    assert (counters.accepted, counters.refused, counters.dropped) == (100 - overlap, 0, overlap)
    assert [value for _, value in samples] == node.true[:20] + node.true[20 + overlap :]
    assert all(abs(at / 1000 - value) <= 0.001 for at, value in samples[20:])
    measured("3 s and 1 h: the rows of the repeated time are dropped and counted, the others are taken")


def test_timestamps_rise_over_a_reboot_that_corrects_the_clock(engine: Engine, start: Start) -> None:
    now = int(time.time()) - 1800.0
    base = HandTimebase("boot-1", true=now, booted_at=now - 5.0, wrong_by=150.0, synchronised=True)
    node = start(base)
    node.run(5, every_seconds=15.0)
    node.drain()
    node.reboot("boot-2", wrong_by=0.0)
    node.base.synchronise()
    node.run(20, every_seconds=15.0)
    node.drain()
    node.close()

    times = [at for at, _ in stored(engine)]
    assert times == sorted(set(times))
    counters = node.backlog.status.counters
    assert (counters.accepted, counters.refused, counters.dropped) == (25 - 8, 0, 8)


def test_an_outage_of_days_without_a_time_server_is_dated(engine: Engine, start: Start) -> None:
    """The kernel calls the clock unsynchronised some nine hours after the network has gone."""
    now = int(time.time()) - 3 * DAY
    base = HandTimebase("boot-1", true=now, booted_at=now - 5.0, synchronised=True)
    node = start(base)
    node.run(2, every_seconds=3600.0)
    node.base.synchronised = False
    node.run(68, every_seconds=3600.0)
    node.drain()
    node.close()

    samples = stored(engine)
    assert [value for _, value in samples] == node.true
    assert all(abs(at / 1000 - value) <= 0.001 for at, value in samples)
