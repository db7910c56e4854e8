"""A day's outage, replayed to real servers beside another node that goes on writing."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.energy.state import RemoteCounters
from agent.errors import RejectedError, UnreachableError
from agent.history.answers import TAKEN, Meaning, Verdict
from agent.history.backlog import Backlog
from agent.history.dating import Dating
from agent.history.samples import Frame, Labels, packed
from agent.history.sender import Sender
from agent.history.write_request import write_request
from agent.simulate.clock import HandClock
from tests.history.engines import Prometheus, VictoriaMetrics
from tests.run.running import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.history.engines import Engine

DEVICES, INTERVAL_SECONDS, DAY_SECONDS = 8, 15, 86_400
NAMES = ("volts", "amperes", "watts", "joules_total", "returned_joules_total", "readings_total", "up", "min_watts")
TABLE: tuple[Labels, ...] = tuple(
    (("__name__", f"wattpush_device_{name}"), ("device", f"d{number}"), ("hostname", "node-17"), ("job", "power"))
    for number in range(DEVICES)
    for name in NAMES
)
NEIGHBOUR: Labels = (("__name__", "wattpush_device_up"), ("hostname", "neighbour"), ("job", "power"))


@dataclass(slots=True)
class DayTimebase:
    """A synchronised clock by hand, whose day ends now."""

    clock: HandClock
    start_unix: float
    boot: str = "boot"

    def since_boot(self) -> float:
        return self.clock.seconds

    def unix(self) -> float:
        return self.start_unix + self.clock.seconds

    def is_synchronised(self) -> bool:
        return True


def row(chance: random.Random, number: int) -> list[float]:
    """Values like those of INA260 in the row with this number."""
    values = []
    for _ in range(DEVICES):
        volts = round(chance.gauss(12.0, 0.02) / 0.00125) * 0.00125
        amperes = round(chance.gauss(0.5, 0.05) / 0.00125) * 0.00125
        joules = 6.0 * INTERVAL_SECONDS * number + chance.random()
        values += [volts, amperes, volts * amperes, joules, 0.0, 15.0 * number, 1.0, 0.9 * volts * amperes]
    return values


class Outage:
    """A node whose server is away for a day.

    Attributes:
        columns: the values of each series of `TABLE`.
        live: when the neighbour has written, in Unix milliseconds.
    """

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.clock = HandClock()
        (folder / "runtime").mkdir()
        timebase = DayTimebase(self.clock, time.time() - self.clock.seconds - DAY_SECONDS)
        self.backlog = Backlog(
            folder / "backlog",
            folder / "runtime",
            Dating(timebase),
            self.clock,
            max_bytes=64_000_000,
            max_age_seconds=7 * 86_400.0,
            saved=RemoteCounters(),
        )
        self.columns: list[list[float]] = [[] for _ in TABLE]
        self.live: list[int] = []
        self._engine = engine
        self._requests = 0
        jitter = random.Random(2).random
        self.sender = Sender(
            self.backlog, self._post, self.clock, interval_seconds=INTERVAL_SECONDS, catch_up=20.0, random=jitter
        )

    def _post(self, body: bytes) -> Verdict:
        if self._engine.process is None:
            return Verdict(Meaning.LATER, "away", error=UnreachableError)
        self._requests += 1
        if self._requests % 20 == 1:
            self.live.append(round(time.time() * 1000))
            frame = Frame((NEIGHBOUR,), "boot", 0, (self.live[-1],), packed(1.0), 1)
            assert self._engine.post(write_request(frame))[0] == 204
        status, words = self._engine.post(body)
        return TAKEN if status == 204 else Verdict(Meaning.REFUSED, words, error=RejectedError)

    def last_a_day(self) -> int:
        """Fill the backlog; return how many samples were produced."""
        chance = random.Random(1)
        step_at = maintain_at = self.clock.seconds
        for number in range(DAY_SECONDS // INTERVAL_SECONDS):
            self.clock.sleep(INTERVAL_SECONDS)
            values = row(chance, number)
            for column, value in zip(self.columns, values, strict=True):
                column.append(value)
            self.backlog.add(TABLE, [round(self.clock.seconds * 1000)], b"".join(map(packed, values)))
            if self.clock.seconds >= maintain_at:
                maintain_at = self.clock.seconds + self.backlog.maintain()
            if self.clock.seconds >= step_at:
                step_at = self.clock.seconds + self.sender.step()
        return len(TABLE) * len(self.columns[0])

    def replay(self) -> float:
        """Send everything; return how long it took by the clock of the node."""
        begun_seconds = self.clock.seconds
        while self.backlog.status.backlog_samples:
            self.clock.sleep(self.sender.step())
        return self.clock.seconds - begun_seconds

    def check(self) -> None:
        """Everything is on the server, with its value."""
        # A busy VictoriaMetrics shows what it has taken a moment later.
        until(lambda: set(self._over_time("count_over_time").values()) == {len(self.columns[0])}, "all are counted")
        sums = self._over_time("sum_over_time")
        assert sums.keys() == set(TABLE)
        for labels, column in zip(TABLE, self.columns, strict=True):
            assert math.isclose(sums[labels], math.fsum(column), rel_tol=1e-9)
        assert [at for at, _ in self._engine.samples('{hostname="neighbour"}')[NEIGHBOUR]] == sorted(set(self.live))

    def _over_time(self, function: str) -> dict[Labels, float]:
        return self._engine.over_time(function, '{hostname="node-17"}', seconds=90_000)


@pytest.mark.parametrize("name", [pytest.param("Prometheus with a window", marks=pytest.mark.long), "VictoriaMetrics"])
@pytest.mark.reliability(
    12.02,
    "A day's outage of the server, 8 devices, replayed beside another node that goes on writing",
    "every sample arrives with its value, and is there after the server's restart",
)
def test_a_whole_day_arrives_beside_live_nodes(name: str, tmp_path: Path, measured: Callable[[str], None]) -> None:
    folder = tmp_path / "server"
    engine = VictoriaMetrics(folder) if name == "VictoriaMetrics" else Prometheus(folder, window="30h")
    outage = Outage(tmp_path, engine)
    produced = outage.last_a_day()
    assert outage.backlog.status.backlog_samples == produced
    with engine:
        # Gently: some 20 times faster than real time, after a last wait for the server.
        assert DAY_SECONDS / 30 < outage.replay() < DAY_SECONDS / 10
        assert len(outage.live) > 20
        assert outage.backlog.status.counters.accepted == produced
        outage.check()
        engine.stop()
        engine.start()
        outage.check()
    measured(f"{produced:,} of {produced:,} samples, with the right sums")
