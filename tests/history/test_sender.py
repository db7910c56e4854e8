"""The backlog leaves oldest first: the same bytes until they are answered, gently, and each sample once."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from agent.history.answers import Meaning, Verdict
from agent.history.sender import Sender
from tests.history.backlogs import Node, numbers
from tests.history.remote_write_message import decoded
from tests.history.sending import (
    AWAY,
    BAD,
    ERROR,
    LARGE,
    LOST,
    WRONG_PATH,
    Sending,
    Store,
    times_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def test_everything_arrives_once_and_in_order() -> None:
    sending = Sending()
    sending.add(frames=5, rows=3)
    sending.run()
    assert sending.store.values == list(range(60))
    assert sending.store.doubled == 0
    assert [min(times_of(decoded(body))) for body in sending.store.bodies] == [1, 4, 7, 10, 13]
    assert sending.counts == (60, 0, 0)


@pytest.mark.reliability(
    12.03,
    "an answer is lost after the server has stored the request",
    "the retry has the same bytes; newer samples go in a request of their own",
)
@pytest.mark.parametrize("fate", [LOST, ERROR, AWAY])
def test_a_retry_is_identical_to_the_byte(fate: Verdict, measured: Callable[[str], None]) -> None:
    sending = Sending(Store(fates=[fate, fate, fate]))
    sending.add(rows=2)
    for _ in range(3):
        sending.run_requests(1)
        sending.add(rows=2)  # newer data, while the first request fails
    sending.run()
    first, *others = sending.store.bodies
    assert others[:3] == [first] * 3
    assert all(body is first for body in others[:3])  # it is made once
    assert [times_of(decoded(body)) & times_of(decoded(first)) for body in others[3:]] == [set()] * 3
    assert sending.counts == (32, 0, 0)
    assert sending.store.values == list(range(32))
    measured("4 attempts with one body, 0 lost")


def test_samples_of_a_lost_answer_count_as_accepted() -> None:
    """A server without an out-of-order window refuses the retry, as it has these samples."""
    sending = Sending(Store(fates=[LOST]))
    sending.add(frames=2, rows=3)
    sending.run()
    assert sending.counts == (24, 0, 0)
    assert sending.store.values == list(range(24))
    assert len(sending.store.bodies) == 3


def test_samples_of_a_lost_answer_count_as_accepted_in_parts_too() -> None:
    """A proxy finds the retry too large."""
    sending = Sending(Store(fates=[LOST, LARGE]))
    sending.add(rows=4)
    sending.run()
    assert sending.counts == (16, 0, 0)
    assert sending.store.values == list(range(16))


def test_a_killed_run_whose_answer_was_lost_loses_nothing() -> None:
    sending = Sending(Store(fates=[LOST]))
    sending.add(frames=2, rows=3)
    sending.run_requests(1)
    sending.restart()
    sending.run()
    assert sending.counts == (24, 0, 0)
    assert sending.store.values == list(range(24))


@pytest.mark.parametrize("is_order_checked_first", [True, False])
@pytest.mark.parametrize("requests", range(1, 14))
def test_a_kill_in_a_search_counts_and_loses_nothing(requests: int, *, is_order_checked_first: bool) -> None:
    """Whatever part had been taken: row 5 of 8 is bad for ever."""
    store = Store(
        lambda request: BAD if 5 in times_of(request) else None, is_order_checked_first=is_order_checked_first
    )
    sending = Sending(store)
    sending.add(rows=8)
    sending.add()
    sending.run_requests(requests)
    sending.restart()
    sending.run()
    assert sending.counts == (32, 4, 0)
    assert sending.store.values == [number for number in range(36) if not 16 <= number < 20]


@pytest.mark.reliability(12.11, "a backlog after an outage", "it is sent at `catch_up` times real time, in the mean")
def test_a_backlog_is_sent_at_its_rate(measured: Callable[[str], None]) -> None:
    sending = Sending(catch_up=20.0)
    draws = random.Random(1)
    sending.sender._pace._random = draws.random
    sending.add(frames=300, rows=60)
    began = sending.node.clock.seconds
    waits = []
    while sending.counts[2]:
        wait_seconds = sending.sender.step()
        waits.append(wait_seconds)
        sending.node.pass_seconds(wait_seconds)
    seconds = sending.node.clock.seconds - began
    assert seconds == pytest.approx(300 * 60 / 20, rel=0.1)
    assert all(0.5 * 3 <= wait <= 1.5 * 3 for wait in waits[1:])
    measured(f"{300 * 60 / seconds:.0f} times real time at `catch_up = 20`")


def test_failures_back_off_to_five_minutes() -> None:
    sending = Sending(Store(fates=[AWAY] * 14), random=1.0)
    sending.add()
    sending.run_requests(1)
    waits = []
    for _ in range(13):
        began = sending.node.clock.seconds
        sending.run_requests(1)
        waits.append(sending.node.clock.seconds - began)
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert waits[-2:] == [300.0, 300.0]


@pytest.mark.reliability(12.11, "the server answers 429 with Retry-After", "no request is made before that time")
@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
def test_a_retry_waits_as_long_as_the_server_asks(draw: float, measured: Callable[[str], None]) -> None:
    busy = Verdict(Meaning.LATER, "429", retry_after_seconds=120.0)
    sending = Sending(Store(fates=[busy]), random=draw)
    sending.add()
    sending.node.pass_seconds(5.0)
    wait_seconds = sending.sender.step()
    assert 120.0 <= wait_seconds <= 150.0
    sending.node.pass_seconds(wait_seconds - 0.1)
    assert sending.sender.step() == pytest.approx(0.1, abs=0.001)
    assert len(sending.store.bodies) == 1
    measured("asked for 120 s: the next after 120 to 150 s")


def test_an_absurd_retry_after_is_not_obeyed_for_ever() -> None:
    sending = Sending(Store(fates=[Verdict(Meaning.LATER, "429", retry_after_seconds=1e9)]))
    sending.add()
    sending.node.pass_seconds(5.0)
    assert 3600.0 <= sending.sender.step() <= 4500.0


@pytest.mark.reliability(12.11, "200 nodes find their server again at once", "their requests spread over minutes")
@pytest.mark.parametrize("kind", ["away", "asked to wait"])
def test_a_fleet_that_returns_spreads_its_requests(kind: str, measured: Callable[[str], None]) -> None:
    """After an hour's outage the server returns: requests a second, counted over 200 senders."""
    fate = AWAY if kind == "away" else Verdict(Meaning.LATER, "429", retry_after_seconds=600.0)
    seconds_of_requests: Counter[int] = Counter()
    firsts: Counter[int] = Counter()
    draws = random.Random(7)
    returns_at = 1000.0 + 3600.0
    for _ in range(200):
        node = Node(None, None)
        backlog = node.open()
        for _ in range(4):
            node.add(backlog, 15)
        store = Store()
        began = node.clock.seconds = 1000.0
        times: list[float] = []

        def post(body: bytes, node: Node = node, store: Store = store, times: list[float] = times) -> Verdict:
            if node.clock.seconds < returns_at:
                return fate
            times.append(node.clock.seconds)
            return store.post(body)

        sender = Sender(backlog, post, node.clock, interval_seconds=15.0, catch_up=20.0, random=draws.random)
        while len(times) < 4 and node.clock.seconds < began + 36_000:
            node.clock.seconds += max(sender.step(), 0.001)
        seconds_of_requests.update(int(at) for at in times)
        firsts.update([int(times[0])])
        assert store.values == list(range(240))
    assert sum(seconds_of_requests.values()) == 800
    assert max(firsts.values()) <= 8
    assert max(seconds_of_requests.values()) <= 20
    measured(f"at most {max(seconds_of_requests.values())} requests in a second ({kind})")


def test_nodes_that_start_at_once_do_not_send_at_once() -> None:
    draws = random.Random(3)
    waits = []
    for _ in range(200):
        sending = Sending(random=draws.random())
        sending.add()
        sending.restart()
        waits.append(sending.sender.step())
    assert max(Counter(round(wait * 10) for wait in waits).values()) <= 40


def test_once_sends_everything_without_a_pause() -> None:
    sending = Sending()
    sending.add(frames=50)
    began = sending.node.clock.seconds
    assert sending.sender.send_all(began + 10) is None
    assert sending.node.clock.seconds == began
    assert sending.counts == (200, 0, 0)


def test_once_tries_again_while_there_is_time() -> None:
    sending = Sending(Store(fates=[AWAY] * 4))
    sending.add()
    assert sending.sender.send_all(sending.node.clock.seconds + 10) is None
    assert sending.counts == (4, 0, 0)


def test_once_keeps_what_nobody_answers_for() -> None:
    sending = Sending(Store(fates=[AWAY] * 40))
    sending.add()
    began = sending.node.clock.seconds
    error = sending.sender.send_all(began + 10)
    assert error is not None
    assert error.exit_code == 69
    assert sending.node.clock.seconds <= began + 10
    assert sending.counts == (0, 0, 4)


def test_once_without_a_clock_says_why_samples_wait() -> None:
    sending = Sending()
    sending.node.dating.offset = None
    sending.add()
    error = sending.sender.send_all(sending.node.clock.seconds + 10)
    # The caller names the samples: "4 samples kept for the next run: ..."
    assert str(error) == "remote write: their time is not known until the clock is synchronised"


def test_once_ends_at_once_where_a_retry_does_not_help() -> None:
    sending = Sending(Store(fates=[WRONG_PATH] * 40))
    sending.add()
    began = sending.node.clock.seconds
    error = sending.sender.send_all(began + 10)
    assert error is not None
    assert (error.exit_code, str(error)) == (76, WRONG_PATH.words)
    assert sending.node.clock.seconds == began
    assert sending.counts == (0, 0, 4)


def test_once_says_that_samples_are_refused() -> None:
    sending = Sending(Store(lambda request: BAD))
    sending.add()
    error = sending.sender.send_all(sending.node.clock.seconds + 10)
    assert error is not None
    assert error.exit_code == 76
    assert sending.counts == (0, 0, 4)


def test_once_says_that_the_clock_is_not_known() -> None:
    sending = Sending()
    sending.node.dating.offset = None
    sending.add()
    error = sending.sender.send_all(sending.node.clock.seconds + 10)
    assert error is not None
    assert error.exit_code == 69
    assert "clock is synchronised" in str(error)
    assert sending.store.bodies == []


def test_once_tells_how_much_of_an_old_backlog_is_left(caplog: pytest.LogCaptureFixture) -> None:
    sending = Sending()
    sending.add(frames=50)
    inner = sending.store.post

    def slow(body: bytes) -> Verdict:
        sending.node.clock.seconds += 1
        return inner(body)

    sending.sender._post = slow
    assert sending.sender.send_all(sending.node.clock.seconds + 10) is None
    assert sending.counts == (40, 0, 160)
    assert "the rest of the backlog (160 samples)" in caplog.text


def test_nothing_waiting_means_no_next_step() -> None:
    sending = Sending(random=0.0)
    assert sending.sender.step() == float("inf")
    sending.add()
    assert sending.sender.step() == pytest.approx(1 / 20 * 0.5)
    assert numbers([]) == []


def test_samples_dropped_meanwhile_are_not_counted_twice() -> None:
    """The head grows too old while it fails; the rest arrives."""
    sending = Sending(Store(fates=[AWAY] * 3))
    sending.node.max_age_seconds = 100.0
    sending.restart(sending.node.open())
    sending.add(frames=2)
    sending.run_requests(3)
    sending.node.pass_seconds(99.0)
    sending.add()
    sending.run()
    accepted, refused, left = sending.counts
    assert (refused, left) == (0, 0)
    assert accepted == len(sending.store.values) < sending.node.produced
