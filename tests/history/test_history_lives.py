"""Random lives of a backlog and its sender before real servers: faults, kills, restarts, outages, changing tables."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.energy.state import RemoteCounters
from agent.history.backlog import Backlog
from agent.history.dating import Dating
from agent.history.post import Poster
from agent.history.samples import ABSENT, Labels, packed
from agent.history.sender import Sender
from agent.settings import RemoteWriteSettings
from agent.simulate.clock import HandClock
from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.history.fault_proxy import FaultProxy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INTERVAL_SECONDS = 15.0
LONG_AGO_SECONDS = 5 * 86_400.0
"""Before now the first life begins: the lives share a server and follow each other."""


@dataclass(slots=True)
class HandTimebase:
    """A synchronised clock by hand."""

    clock: HandClock
    unix_zero: float
    boot: str = "boot"

    def since_boot(self) -> float:
        return self.clock.seconds

    def unix(self) -> float:
        return self.unix_zero + self.clock.seconds

    def is_synchronised(self) -> bool:
        return True


class Life:
    """A node through a random life.

    Attributes:
        produced: every sample of it.
    """

    def __init__(self, folder: Path, proxy: FaultProxy, timebase: HandTimebase, hostname: str, seed: int) -> None:
        self.produced: set[tuple[Labels, int, float]] = set()
        self._folder = folder
        self._proxy = proxy
        self._timebase = timebase
        self._clock = timebase.clock
        self._chance = random.Random(seed)
        self._poster = Poster(RemoteWriteSettings(proxy.write_url), clock=SystemClock(), environ={})
        self._tables = [
            tuple((("__name__", name), ("device", device), ("hostname", hostname)) for name in "abcd"[:width])
            for device in ("cpu", "disk")
            for width in (2, 4)
        ]
        self._table = self._tables[0]
        (folder / "runtime").mkdir(parents=True)
        self._saved = RemoteCounters()
        self._open()

    def _open(self) -> None:
        """As a process that starts."""
        self.backlog = Backlog(
            self._folder / "backlog",
            self._folder / "runtime",
            Dating(self._timebase),
            self._clock,
            max_bytes=10_000_000,
            max_age_seconds=30 * 86_400.0,
            saved=self._saved,
        )
        self._sender = Sender(
            self.backlog,
            self._poster.post,
            self._clock,
            interval_seconds=INTERVAL_SECONDS,
            catch_up=20.0,
            random=self._chance.random,
        )
        self._step_at = self._maintain_at = self._clock.seconds

    def check_invariant(self) -> None:
        """Every sample is somewhere, once."""
        status = self.backlog.status
        ended = status.counters.settled
        assert ended + status.backlog_samples == len(self.produced), (status, len(self.produced))

    def live(self) -> None:
        """Some intervals with whatever happens between them, and then peace until all is sent."""
        for _ in range(self._chance.randrange(40, 120)):
            self._clock.sleep(INTERVAL_SECONDS)
            self._add_rows()
            self._work()
            self._suffer()
            self.check_invariant()
        self._heal()
        for _ in range(2000):
            if not self.backlog.status.backlog_samples:
                break
            self._clock.sleep(1.0)
            self._work()
            self.check_invariant()
        self.backlog.close()
        self._poster.close()

    def send_all_after_an_outage(self, errors: int) -> None:
        """Produce samples until the server has been tried this often, and then send all of them."""
        before = len(self._proxy.seen)
        while len(self._proxy.seen) - before < errors:
            self._clock.sleep(INTERVAL_SECONDS)
            self._add_rows()
            self._work()
        while self.backlog.status.backlog_samples:
            self._clock.sleep(1.0)
            self._work()
        self.backlog.close()
        self._poster.close()

    def _add_rows(self) -> None:
        now = round(self._timebase.since_boot() * 1000)
        times = self._chance.choice([[now], [now - 2000, now - 1000, now]])
        values = []
        for at in times:
            for labels in self._table:
                if self._chance.random() < 0.05:
                    values.append(ABSENT)
                    continue
                value = float(len(self.produced))
                values.append(packed(value))
                self.produced.add((labels, round(self._timebase.unix_zero * 1000) + at, value))
        self.backlog.add(self._table, times, b"".join(values))
        self._step_at = min(self._step_at, self._clock.seconds + INTERVAL_SECONDS * 20)

    def _work(self) -> None:
        if self._clock.seconds >= self._maintain_at:
            self._maintain_at = self._clock.seconds + self.backlog.maintain()
        for _ in range(20):
            if self._clock.seconds < self._step_at:
                return
            self._step_at = self._clock.seconds + min(self._sender.step(), INTERVAL_SECONDS)

    def _suffer(self) -> None:
        faults, chance = self._proxy.faults, self._chance
        match chance.choices(
            ["nothing", "away", "back", "busy", "limit", "table", "kill", "stop", "pause"],
            [70, 3, 4, 5, 2, 4, 6, 2, 3],
        )[0]:
            case "away":
                self._proxy.down()
            case "back":
                self._proxy.down()
                self._proxy.up()
            case "busy":
                faults.busy_share, faults.lost_answer_share = chance.choice(
                    [(0.0, 0.0), (0.3, 0.3), (0.0, 0.5), (0.5, 0.0), (0.1, 0.1)]
                )
            case "limit":
                faults.largest_body_bytes = chance.choice([None, 80, 150, 400])
            case "table":
                self._table = chance.choice(self._tables)
            case "kill":
                self._saved = self.backlog.status.counters
                self._open()
            case "stop":
                self.backlog.close()
                self._saved = self.backlog.status.counters
                self._open()
            case "pause":
                self._clock.sleep(chance.choice([100.0, 700.0, 3000.0]))
            case _:
                pass

    def _heal(self) -> None:
        self._proxy.down()
        self._proxy.up()
        faults = self._proxy.faults
        faults.busy_share = faults.lost_answer_share = 0.0
        faults.largest_body_bytes = None


def live_and_check(engine: Engine, folder: Path, lives: int) -> int:
    """Live some lives before one server; return how many samples were produced."""
    clock = HandClock()
    timebase = HandTimebase(clock, round(time.time() - LONG_AGO_SECONDS - clock.seconds))
    samples = 0
    with engine, FaultProxy(engine.write_url) as proxy:
        for seed in range(lives):
            life = Life(folder / f"life-{seed}", proxy, timebase, f"node-{seed}", seed)
            life.live()
            status = life.backlog.status
            assert status.counters.accepted == len(life.produced), (seed, status)
            stored = engine.samples(f'{{hostname="node-{seed}"}}', seconds=LONG_AGO_SECONDS + 3600.0)
            held = [(labels, at, value) for labels, series in stored.items() for at, value in series]
            assert len(held) == len(set(held)), seed
            assert set(held) == life.produced, seed
            samples += len(held)
        assert sum(seen.status != 204 for seen in proxy.seen) > 10 * lives
    return samples


def test_a_server_that_returns_at_any_moment_gets_everything(tmp_path: Path) -> None:
    """A proxy answers 502 while its server is away; newer samples sent first would shut the older ones out for ever."""
    clock = HandClock()
    timebase = HandTimebase(clock, round(time.time() - LONG_AGO_SECONDS - clock.seconds))
    with Prometheus(tmp_path / "server") as prometheus, FaultProxy(prometheus.write_url) as proxy:
        for errors in range(10, 22):
            before = len(proxy.seen)
            proxy.faults.answer = lambda _, last=before + errors: (
                ("502 Bad Gateway", b"") if len(proxy.seen) < last else None
            )
            life = Life(tmp_path / f"life-{errors}", proxy, timebase, f"node-{errors}", errors)
            life.send_all_after_an_outage(errors)
            stored = prometheus.samples(f'{{hostname="node-{errors}"}}', seconds=LONG_AGO_SECONDS + 3600.0)
            assert {(labels, at, value) for labels, series in stored.items() for at, value in series} == life.produced


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "Prometheus": Prometheus,
    "Prometheus with a window": lambda folder: Prometheus(folder, window="7d"),
    "VictoriaMetrics": VictoriaMetrics,
}

ROW = (
    12.05,
    "Remote write through random lives: 503, lost answers, 413, outages, `kill -9`, restarts, other devices",
    "produced = accepted + refused + dropped + undated + backlog at every step, and the server holds just that",
)


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    return ENGINES[request.param](tmp_path / "engine")


@pytest.mark.reliability(*ROW)
def test_a_random_life_loses_and_doubles_nothing(
    engine: Engine, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    live_and_check(engine, tmp_path, 3)
    measured("0 lost, 0 doubled")


@pytest.mark.long
@pytest.mark.reliability(*ROW)
def test_many_random_lives_lose_and_double_nothing(
    engine: Engine, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    live_and_check(engine, tmp_path, 60)
    measured("0 lost, 0 doubled")
