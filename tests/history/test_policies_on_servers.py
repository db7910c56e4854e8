"""What real servers refuse, and that nothing is given up for it but what they will never take."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.history.answers import Meaning, Verdict
from agent.history.post import Poster
from agent.history.samples import packed
from agent.history.sender import Sender
from agent.history.write_request import EMPTY_REQUEST, write_request
from agent.settings import RemoteWriteSettings
from tests.history.backlogs import HandDating, Node, table_of
from tests.history.engines import Prometheus, VictoriaMetrics
from tests.history.fault_proxy import FaultProxy
from tests.history.remote_write_message import decoded
from tests.servers import write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.history.engines import Engine


WINDOWED = "Prometheus with a window"
ALL = ("Prometheus", WINDOWED, "VictoriaMetrics")


class Replay:
    """A backlog that began some time ago, and its sender to a real server.

    Args:
        write_url: of the server, or of a proxy before it.
        ago_seconds: before now the first row is taken.
    """

    def __init__(self, write_url: str, ago_seconds: float, hostname: str = "replay", **settings: str) -> None:
        began = round((time.time() - ago_seconds) * 1000)
        self.node = Node(None, None, dating=HandDating(offset=began - 1_000_000))
        self.table = table_of("volts", "amperes", "watts", "joules_total", hostname=hostname)
        self.backlog = self.node.open()
        self.use(write_url, **settings)

    def use(self, write_url: str, **settings: str) -> None:
        """Send to this server from now on, as a new run."""
        self.poster = Poster(RemoteWriteSettings(write_url, **settings), clock=SystemClock(), environ={})  # type: ignore[arg-type] # by name
        self.sender = Sender(
            self.backlog, self.poster.post, self.node.clock, interval_seconds=15.0, catch_up=20.0, random=lambda: 0.5
        )

    def add(self, frames: int = 1, rows: int = 1, every_seconds: float = 15.0) -> None:
        for _ in range(frames):
            times, values = [], b""
            for _ in range(rows):
                self.node.dating.now += round(every_seconds * 1000)
                times.append(self.node.dating.now)
                for _ in self.table:
                    values += packed(float(self.node.produced))
                    self.node.produced += 1
            self.backlog.add(self.table, times, values)

    def run(self, seconds: float = 3600.0) -> None:
        """Step with a clock by hand until nothing waits, or the time is over."""
        ends_at_seconds = self.node.clock.seconds + seconds
        while (wait_seconds := self.sender.step()) < math.inf and self.node.clock.seconds < ends_at_seconds:
            self.node.clock.seconds += wait_seconds
        self.poster.close()

    @property
    def counts(self) -> tuple[int, int, int]:
        """Accepted, refused, and left in the backlog."""
        status = self.backlog.status
        assert status.counters.settled + status.backlog_samples == self.node.produced
        return status.counters.accepted, status.counters.refused, status.backlog_samples


def values_of(engine: Engine, hostname: str = "replay") -> list[float]:
    stored = engine.samples(f'{{hostname="{hostname}"}}')
    return sorted(value for series in stored.values() for _, value in series)


def up_to(produced: int, *lost: int) -> list[float]:
    return [float(number) for number in range(produced) if number not in lost]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Engine]]:
    folder = tmp_path_factory.mktemp("engines")
    with (
        Prometheus(folder / "prometheus") as prometheus,
        Prometheus(folder / "windowed", window="30h") as windowed,
        VictoriaMetrics(folder / "victoria-metrics") as victoria_metrics,
    ):
        yield {"Prometheus": prometheus, WINDOWED: windowed, "VictoriaMetrics": victoria_metrics}


def live_elsewhere(engine: Engine, hostname: str) -> None:
    """Another node sends its newest sample, as in every fleet."""
    other = Replay(engine.write_url, 1.0, hostname=hostname)
    other.add(every_seconds=1.0)
    other.run()
    assert other.counts == (4, 0, 0)


def test_without_a_window_all_but_the_last_hour_of_a_day_is_refused(
    engines: dict[str, Engine],
) -> None:
    prometheus = engines["Prometheus"]
    live_elsewhere(prometheus, "elsewhere-1")
    replay = Replay(prometheus.write_url, 86_400.0, hostname="day-1")
    replay.add(frames=287, rows=5, every_seconds=60.0)
    replay.run(seconds=7200.0)
    accepted, refused, left = replay.counts
    assert left == 0
    assert accepted == len(values_of(prometheus, "day-1")) > 0
    assert accepted + refused == replay.node.produced
    # Nothing newer is refused: the last hour, to within the frame that it divides.
    assert values_of(prometheus, "day-1")[0] <= replay.node.produced - 4 * 50


@pytest.mark.parametrize("kind", ALL[1:])
def test_a_day_replayed_arrives_whole(kind: str, engines: dict[str, Engine]) -> None:
    engine = engines[kind]
    live_elsewhere(engine, "elsewhere-2")
    replay = Replay(engine.write_url, 86_400.0, hostname="day-2")
    replay.add(frames=287, rows=5, every_seconds=60.0)
    replay.run(seconds=7200.0)
    assert replay.counts == (replay.node.produced, 0, 0)
    assert values_of(engine, "day-2") == up_to(replay.node.produced)


def test_what_is_older_than_the_window_ends_after_ten_minutes_of_errors(engines: dict[str, Engine]) -> None:
    """Prometheus answers 500 `too old sample`; 10 of 40 hours are older than its window."""
    windowed = engines[WINDOWED]
    live_elsewhere(windowed, "elsewhere-3")
    replay = Replay(windowed.write_url, 40 * 3600.0, hostname="days")
    replay.add(frames=480, rows=5, every_seconds=60.0)
    replay.run(seconds=7200.0)
    replay.add()
    replay.run()
    accepted, refused, left = replay.counts
    assert left == 0
    assert accepted == len(values_of(windowed, "days"))
    assert 590 * 4 <= refused <= 610 * 4


@pytest.mark.reliability(
    12.07, "one frame is refused for ever, with 400 or with 500", "all the rest arrives; that frame alone is counted"
)
@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
@pytest.mark.parametrize("kind", ALL)
def test_one_frame_that_is_refused_for_ever_is_the_only_loss(
    kind: str,
    status: str,
    engines: dict[str, Engine],
    caplog: pytest.LogCaptureFixture,
    measured: Callable[[str], None],
) -> None:
    engine = engines[kind]
    hostname = f"poison-{status[:3]}"

    def answer(body: bytes) -> tuple[str, bytes] | None:
        is_poison = any(16 <= value < 24 for one in decoded(body) for _, value in one.samples)
        return (status, b"no such thing\n") if is_poison else None

    with FaultProxy(engine.write_url) as proxy:
        proxy.faults.answer = answer
        replay = Replay(proxy.write_url, 300.0, hostname=hostname)
        replay.add(frames=10, rows=2)
        began = replay.node.clock.seconds
        replay.run(seconds=60.0 if status[0] == "4" else 700.0)
        replay.add()
        replay.run()
    assert replay.counts == (replay.node.produced - 8, 8, 0)
    assert values_of(engine, hostname) == up_to(replay.node.produced, *range(16, 24))
    assert replay.node.clock.seconds - began < (120.0 if status[0] == "4" else 800.0)
    told = [record.getMessage() for record in caplog.records if "refused for good" in record.getMessage()]
    assert len(told) == 1
    assert "no such thing" in told[0]
    measured(f"{status[:3]}, {kind}: 8 samples refused, 0 others lost")


@pytest.mark.reliability(
    12.08, "wrong path, receiver off, wrong password", "nothing is dropped; the log names the cure once"
)
@pytest.mark.parametrize(
    ("kind", "cure"),
    [
        ("wrong path of Prometheus", "remote_write.url needs the whole path"),
        ("wrong path of VictoriaMetrics", "remote_write.url needs the whole path"),
        ("receiver off", "--web.enable-remote-write-receiver"),
        ("wrong password", "remote_write.username and password_file"),
    ],
)
def test_a_request_that_is_wrong_loses_nothing(
    kind: str,
    *,
    cure: str,
    tmp_path: Path,
    engines: dict[str, Engine],
    caplog: pytest.LogCaptureFixture,
    measured: Callable[[str], None],
) -> None:
    """For ten minutes; then the configuration is corrected, and all arrives."""
    right = engines["VictoriaMetrics"]
    with contextlib.ExitStack() as stack:
        settings: dict[str, str] = {}
        if kind == "receiver off":
            wrong_url = stack.enter_context(Prometheus(tmp_path / "off", has_receiver=False)).write_url
        elif kind == "wrong password":
            arguments = ("-httpAuth.username=u", "-httpAuth.password=right")
            guarded = VictoriaMetrics(tmp_path / "guarded", arguments=arguments)
            wrong_url = stack.enter_context(guarded).write_url
            settings = {"username": "u", "password_file": write_file(tmp_path / "password", "wrong")}
        else:
            right = engines[kind.removeprefix("wrong path of ")]
            wrong_url = f"{right.url}/api/v1/wrote"
        hostname = kind.replace(" ", "-")
        replay = Replay(wrong_url, 600.0, hostname, **settings)
        replay.add(frames=5)
        replay.run(seconds=600.0)
        assert replay.counts == (0, 0, 20)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert cure in warning
    assert str(replay.sender.failure) in warning
    replay.use(right.write_url)
    replay.run()
    assert values_of(right, hostname) == up_to(20)
    assert replay.counts == (20, 0, 0)
    measured(f"{kind}: 0 of 20 samples lost, 1 warning")


@pytest.mark.reliability(12.08, "a body is too large for the server", "it goes in smaller parts; the log says so once")
def test_a_body_that_is_too_large_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]
) -> None:
    with VictoriaMetrics(tmp_path / "small", arguments=("-maxInsertRequestSize=600",)) as small:
        replay = Replay(small.write_url, 1800.0)
        replay.add(frames=3, rows=40)
        replay.run()
        assert values_of(small) == up_to(480)
    assert replay.counts == (480, 0, 0)
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "-maxInsertRequestSize" in warning
    measured("0 of 480 samples lost")


def test_samples_refused_as_stored_already_are_told_from_those_too_old(engines: dict[str, Engine]) -> None:
    """With the very words of Prometheus."""

    def verdict_of(ago_seconds: float, hostname: str = "words") -> Verdict:
        replay = Replay(engines["Prometheus"].write_url, ago_seconds, hostname)
        replay.add(every_seconds=1.0)
        frame = replay.backlog.next()
        assert frame is not None
        verdict = replay.poster.post(write_request(frame))
        replay.poster.close()
        return verdict

    assert verdict_of(10.0).meaning is Meaning.TAKEN
    older = verdict_of(100.0)
    assert (older.meaning, older.is_stored_already) == (Meaning.REFUSED, True)
    assert "out of order sample" in older.words
    ancient = verdict_of(86_400.0, "other-words")
    assert (ancient.meaning, ancient.is_stored_already) == (Meaning.REFUSED, False)
    assert "out of bounds" in ancient.words
    assert "out_of_order_time_window" in ancient.words


@pytest.mark.parametrize("kind", ALL)
def test_an_empty_request_is_taken(kind: str, engines: dict[str, Engine]) -> None:
    assert engines[kind].post(EMPTY_REQUEST)[0] == 204


@pytest.mark.reliability(
    12.03,
    "an answer is lost after a real server has stored the request",
    "the retry has the same bytes; 0 lost, 0 doubled",
)
@pytest.mark.parametrize("kind", ALL)
def test_lost_answers_lose_and_double_nothing(
    kind: str, engines: dict[str, Engine], measured: Callable[[str], None]
) -> None:
    engine = engines[kind]
    with FaultProxy(engine.write_url, seed=5) as proxy:
        proxy.faults.lost_answer_share = 0.3
        replay = Replay(proxy.write_url, 1200.0, hostname="lost-answers")
        replay.add(frames=20, rows=3)
        replay.run()
        seen = proxy.seen
    assert replay.counts == (240, 0, 0)
    assert values_of(engine, "lost-answers") == up_to(240)
    retries = [(before, after) for before, after in pairwise(seen) if before.status == 0]
    assert len(retries) >= 5
    assert all(before.body == after.body for before, after in retries)
    measured(f"{kind}: 0 lost, 0 doubled")
