"""What a server refuses for ever is found and given up; everything else is kept until it is taken."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.history.backlogs import table_of
from tests.history.remote_write_message import DecodedSeries, decoded
from tests.history.sending import (
    AWAY,
    BAD,
    ERROR,
    LARGE,
    OUT_OF_ORDER,
    WRONG_PATH,
    Sending,
    Store,
    names_of,
    times_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.history.answers import Verdict

WIDE = table_of(*(f"series_{number:02}" for number in range(64)))


def without(produced: int, *lost: int) -> list[float]:
    return [float(number) for number in range(produced) if number not in lost]


def bad_rows(*rows: int) -> Callable[[list[DecodedSeries]], Verdict | None]:
    return lambda request: BAD if times_of(request) & set(rows) else None


def bad_names(*names: str) -> Callable[[list[DecodedSeries]], Verdict | None]:
    return lambda request: BAD if names_of(request) & set(names) else None


@pytest.mark.parametrize("is_in_order", [True, False])
def test_one_frame_that_is_refused_for_ever_is_the_only_loss(
    *, is_in_order: bool, caplog: pytest.LogCaptureFixture
) -> None:
    sending = Sending(Store(bad_rows(2), is_in_order=is_in_order))
    sending.add(frames=4)
    sending.run(seconds=60)
    assert sending.counts == (12, 4, 0)
    assert sending.store.values == without(16, 4, 5, 6, 7)
    told = [record.getMessage() for record in caplog.records if "refused for good" in record.getMessage()]
    assert len(told) == 1
    assert re.search(
        r"4 samples refused for good, .* from 2023-11-14 22:\d\d:\d\d\+00:00 to .*, of 4 series such as "
        r'amperes\{hostname="node", job="power"\}: answered 400: bad',
        told[0],
    )


def test_one_bad_row_of_a_minute_is_the_only_loss() -> None:
    sending = Sending(Store(bad_rows(38)))
    sending.add(rows=60)
    sending.add()
    sending.run(seconds=120)
    assert sending.counts == (240, 4, 0)
    assert sending.store.values == without(244, 148, 149, 150, 151)


@pytest.mark.parametrize("names", [("series_40",), ("series_03", "series_40"), ("series_03", "series_04", "series_63")])
def test_bad_series_are_the_only_loss_and_are_remembered(
    names: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    sending = Sending(Store(bad_names(*names)))
    sending.add(frames=10, rows=4, table=WIDE)
    sending.run()
    sending.add(table=WIDE)
    sending.run()
    bad = len(names)
    assert sending.counts == (41 * (64 - bad), 41 * bad, 0)
    assert len(sending.store.values) == 41 * (64 - bad)
    assert len(sending.store.bodies) <= 75 + 10 * 3
    assert caplog.text.count("refused for good") == 1


def test_a_refusal_waits_for_a_request_that_is_taken_after_it() -> None:
    """What was taken before it shows nothing: the server may have broken since."""
    sending = Sending(Store(bad_rows(2)))
    sending.add(rows=2)
    sending.run(seconds=600)
    assert sending.counts == (0, 0, 8)
    assert sending.store.values == without(4)
    sending.add()
    sending.run()
    assert sending.counts == (8, 4, 0)


def test_a_search_is_bounded() -> None:
    """Half of all series are refused, spread so that every part has some of them."""
    names = {f"series_{number:02}" for number in range(0, 64, 2)}
    sending = Sending(Store(bad_names(*names)))
    sending.add(rows=60, table=WIDE)
    sending.add(table=table_of("good"))
    sending.run()
    assert len(sending.store.bodies) <= 160
    accepted, refused, left = sending.counts
    assert left == 0
    assert accepted == len(sending.store.values)
    assert accepted + refused == sending.node.produced


def test_a_wide_frame_that_is_refused_whole_takes_few_requests() -> None:
    sending = Sending(Store(bad_rows(1)))
    sending.add(table=WIDE)
    sending.run(seconds=1)
    sending.add(table=WIDE)
    sending.run()
    assert sending.counts == (64, 64, 0)
    assert len(sending.store.bodies) <= 1 + 2 + 4 + 8 + 3


def test_a_replay_that_is_too_old_ends_with_the_first_frame_that_is_taken() -> None:
    """As after an outage of Prometheus without an out-of-order window."""
    sending = Sending(Store(lambda request: BAD if min(times_of(request)) <= 270 else None))
    sending.add(frames=288)
    sending.run()
    assert sending.counts == (18 * 4, 270 * 4, 0)
    assert len(sending.store.bodies) <= 288 + 40


def test_a_server_that_refuses_everything_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    is_broken = True
    sending = Sending(Store(lambda request: BAD if is_broken else None))
    with caplog.at_level(logging.INFO):
        for _ in range(200):
            sending.add()
            sending.run(seconds=15)
        assert sending.counts == (0, 0, 800)
        assert len(sending.store.bodies) < 400
        is_broken = False
        for _ in range(80):
            sending.add()
            sending.run(seconds=15)
    assert sending.counts == (1120, 0, 0)
    assert sending.store.values == without(1120)
    assert "refused for good" not in caplog.text
    assert caplog.text.count("the server refuses everything") == 1
    assert caplog.text.count("remote write works again") == 1


@pytest.mark.parametrize("requests", range(1, 15))
@pytest.mark.parametrize("later_requests", [1, 2, 3])
def test_what_was_overtaken_is_not_accepted_after_a_restart(requests: int, later_requests: int) -> None:
    """All of it was refused until the server took a later frame: then it is out of order, and still not stored."""
    sending = Sending(Store(lambda request: BAD))
    sending.add(frames=4)
    sending.run_requests(requests)
    sending.store.rule = lambda request: None
    sending.run_requests(later_requests)
    sending.restart()
    for _ in range(6):
        sending.run()
        sending.add()
    sending.run()
    accepted, refused, left = sending.counts
    assert accepted == len(sending.store.values)
    assert (accepted + refused, left) == (40, 0)


def test_a_server_that_recovers_in_between_gets_all_again() -> None:
    """It refused ten frames and takes the next: what it takes by now is not dropped."""
    refusals = 0

    def rule(request: list[DecodedSeries]) -> Verdict | None:
        nonlocal refusals
        refusals += 1
        return BAD if refusals <= 20 else None

    sending = Sending(Store(rule, is_in_order=False))
    sending.add(frames=20)
    sending.run()
    sending.add()
    sending.run()
    assert sending.store.values == without(84)
    assert sending.counts == (84, 0, 0)


def test_a_server_in_order_that_recovers_gets_all_that_is_left() -> None:
    """It stored a part of the frame; it took the rest later."""
    names = {"watts"}
    store = Store(lambda request: BAD if names_of(request) & names else None, is_order_checked_first=True)
    sending = Sending(store)
    sending.add(rows=4)
    sending.run(seconds=3)
    assert len(store.values) == 12
    names.clear()
    sending.run(seconds=600)
    assert sending.store.values == without(16)
    assert sending.counts == (16, 0, 0)


def test_a_long_backlog_that_a_server_takes_after_all_is_sent_again() -> None:
    """More than is kept in memory for that: all of it is read again."""
    is_broken = [True]
    sending = Sending(Store(lambda request: BAD if is_broken[0] else None, is_in_order=False))
    sending.add(frames=30, rows=60, table=WIDE[:32])
    sending.run(seconds=600)
    assert sending.counts[2] == sending.node.produced
    is_broken[0] = False
    sending.run(seconds=3600)
    assert sending.counts == (sending.node.produced, 0, 0)
    assert sending.store.values == without(sending.node.produced)


def test_a_part_that_a_server_takes_and_refuses_by_turns_does_not_stop_the_rest() -> None:
    turns = 0

    def rule(request: list[DecodedSeries]) -> Verdict | None:
        nonlocal turns
        if 2 not in times_of(request):
            return None
        turns += 1
        return BAD if turns % 2 else None

    sending = Sending(Store(rule, is_in_order=False))
    sending.add(frames=6)
    sending.run()
    assert sending.counts[2] == 0
    assert sending.store.values == without(24)


def test_errors_for_one_frame_stop_the_rest_for_ten_minutes_only() -> None:
    sending = Sending(Store(lambda request: ERROR if 2 in times_of(request) else None))
    sending.add(frames=3)
    sending.run(seconds=590)
    assert sending.counts == (4, 0, 8)
    sending.run(seconds=900)
    sending.add(frames=2)
    sending.run()
    assert sending.counts == (16, 4, 0)
    assert sending.store.values == without(20, 4, 5, 6, 7)


def test_errors_for_some_frames_in_a_row_cost_only_these() -> None:
    """Even where nothing older than the newest is taken."""
    sending = Sending(Store(lambda request: ERROR if times_of(request) & {2, 3} else None))
    sending.add(frames=8)
    sending.run(seconds=900)
    sending.add()
    sending.run()
    assert sending.counts == (28, 8, 0)
    assert sending.store.values == without(36, *range(4, 12))


def test_errors_for_series_are_waited_for_once() -> None:
    sending = Sending(Store(lambda request: ERROR if "watts" in names_of(request) else None, is_in_order=False))
    sending.add(frames=10)
    for _ in range(3):
        sending.run(seconds=600)
        sending.add(table=table_of("volts"))
    sending.run(seconds=600)
    assert sending.counts == (33, 10, 0)
    sending.add(frames=10)
    sending.run(seconds=120)
    assert sending.counts == (63, 20, 0)


def test_a_part_that_is_refused_with_400_and_then_500_does_not_stop_the_rest() -> None:
    answers = [BAD]
    sending = Sending(Store(lambda request: (answers.pop() if answers else ERROR) if 2 in times_of(request) else None))
    sending.add(frames=4, table=table_of("volts"))
    sending.run(seconds=600)
    assert sending.counts == (3, 1, 0)


def test_one_error_of_a_good_part_does_not_lose_it() -> None:
    """While the errors of a frame are found to mean its data, each other part meets an error once."""
    seen = set()

    def rule(request: list[DecodedSeries]) -> Verdict | None:
        if 7 in times_of(request):
            return ERROR
        part = (frozenset(times_of(request)), frozenset(names_of(request)))
        is_first = part not in seen
        seen.add(part)
        return ERROR if is_first else None

    sending = Sending(Store(rule, is_in_order=False))
    sending.add(rows=10)
    sending.add(frames=3)
    sending.run(seconds=7200)
    assert sending.counts == (48, 4, 0)
    assert sending.store.values == without(52, 24, 25, 26, 27)


def test_what_was_overtaken_is_not_counted_as_stored() -> None:
    """It met 500 until a later frame was taken, and is out of order since: it is lost, and counted as refused."""
    store = Store()
    store.rule = lambda request: ERROR if times_of(request) == {2} and len(store.values) < 8 else None
    sending = Sending(store)
    sending.add(frames=3)
    sending.run(seconds=900)
    sending.add()
    sending.run()
    assert sending.store.values == without(16, 4, 5, 6, 7)
    assert sending.counts == (12, 4, 0)


def test_errors_among_other_failures_do_not_mean_the_data() -> None:
    """A server that comes and goes for an hour: nothing newer is tried."""
    sending = Sending(Store(fates=[ERROR, AWAY] * 20))
    sending.add(frames=5)
    sending.run_requests(40)
    assert len(set(sending.store.bodies)) == 1
    sending.run()
    assert sending.counts == (20, 0, 0)


def test_errors_for_one_row_cost_only_that_row() -> None:
    sending = Sending(Store(lambda request: ERROR if 7 in times_of(request) else None, is_in_order=False))
    sending.add(rows=10)
    sending.add(frames=3)
    sending.run(seconds=3600)
    assert sending.counts == (48, 4, 0)
    assert sending.store.values == without(52, 24, 25, 26, 27)


def test_errors_for_a_long_backlog_end_with_the_first_frame_that_is_taken() -> None:
    """As Prometheus answers 500 to what is older than its out-of-order window."""
    sending = Sending(Store(lambda request: ERROR if min(times_of(request)) <= 270 else None, is_in_order=False))
    sending.add(frames=288)
    sending.run(seconds=660)
    assert sending.store.values  # the first that is taken is found in some steps
    sending.run(seconds=3000)
    assert sending.counts == (18 * 4, 270 * 4, 0)


def test_an_hour_of_errors_for_everything_loses_nothing() -> None:
    is_broken = True
    sending = Sending(Store(lambda request: ERROR if is_broken else None))
    for _ in range(240):
        sending.add()
        sending.run(seconds=15)
    assert sending.counts == (0, 0, 960)
    is_broken = False
    sending.run()
    assert sending.counts == (960, 0, 0)
    assert sending.store.values == without(960)


def test_what_is_too_large_goes_in_smaller_parts(caplog: pytest.LogCaptureFixture) -> None:
    sending = Sending(Store(lambda request: LARGE if sum(len(one.samples) for one in request) > 50 else None))
    sending.add(frames=20, rows=60)
    sending.run()
    assert sending.counts == (4800, 0, 0)
    assert sending.store.values == without(4800)
    assert len(sending.store.bodies) <= 20 * 8 + 3 + 3  # a larger one is tried again, ever more seldom
    assert caplog.text.count("answered 413") == 1


def test_requests_grow_again_after_a_limit_that_was_a_mistake() -> None:
    sending = Sending(Store(lambda request: LARGE))
    sending.add(frames=20, rows=60)
    sending.run(seconds=3600)
    assert sending.counts == (0, 0, 4800)
    sending.store.rule = lambda request: None
    before = len(sending.store.bodies)
    sending.run()
    assert sending.counts == (4800, 0, 0)
    assert len(sending.store.bodies) - before < 200


def test_requests_grow_again_after_a_limit_met_out_of_turn() -> None:
    """As after ten minutes of errors later frames are tried."""
    sending = Sending(Store(lambda request: ERROR if 1 in times_of(request) else LARGE))
    sending.add(frames=3, table=table_of("volts"))
    sending.run(seconds=900)
    assert sending.counts == (0, 0, 3)
    sending.store.rule = lambda request: None
    sending.add(frames=20, rows=60)
    before = len(sending.store.bodies)
    sending.run()
    assert sending.counts == (4803, 0, 0)
    assert len(sending.store.bodies) - before < 200


def test_a_limit_that_stays_is_seldom_tried_again() -> None:
    refused = 0

    def rule(request: list[DecodedSeries]) -> Verdict | None:
        nonlocal refused
        is_large = sum(len(one.samples) for one in request) > 50
        refused += is_large
        return LARGE if is_large else None

    sending = Sending(Store(rule))
    sending.add(frames=100, rows=60)
    sending.run(seconds=36_000)
    assert sending.counts == (24_000, 0, 0)
    assert refused < 0.01 * len(sending.store.bodies)


def test_what_was_refused_and_grew_too_old_is_waited_for_no_longer() -> None:
    sending = Sending(Store(lambda request: BAD))
    sending.add(frames=3)
    sending.run(seconds=600)
    assert sending.counts == (0, 0, 12)
    sending.node.pass_seconds(sending.node.max_age_seconds + 60)
    sending.backlog.maintain()
    assert sending.sender.step() == math.inf
    sending.store.rule = lambda request: None
    sending.add()
    sending.run()
    assert sending.counts == (4, 0, 0)


def test_what_grew_too_old_before_it_was_confirmed_is_dropped_not_refused(caplog: pytest.LogCaptureFixture) -> None:
    def rule(request: list[DecodedSeries]) -> Verdict | None:
        if 2 in times_of(request):
            sending.store.fates = [AWAY] * 1000  # before the refused part is sent once more
        return BAD if 1 in times_of(request) else None

    sending = Sending(Store(rule))
    sending.add(frames=2)
    sending.run(seconds=600)
    assert sending.counts == (0, 0, 8)
    assert len(sending.store.bodies) < 60, "a server that is away is asked ever less often, also for this"
    sending.node.pass_seconds(sending.node.max_age_seconds)
    sending.add()
    sending.store.fates = []
    sending.run()
    assert sending.counts == (4, 0, 0)
    assert sending.backlog.status.counters.dropped == 8
    assert "refused for good" not in caplog.text


def test_an_unanswered_part_says_nothing_about_the_next_one() -> None:
    unanswered = replace(AWAY, is_unanswered=True)
    sending = Sending(
        Store(
            lambda request: OUT_OF_ORDER if "watts" in names_of(request) and 1 in times_of(request) else None,
            fates=[LARGE, unanswered],
        )
    )
    sending.add(frames=2)
    sending.run()
    assert sending.counts == (7, 1, 0)


def test_what_a_killed_run_had_taken_ahead_is_accepted() -> None:
    """Row 1 is bad. Rows 2 and 3 are taken while it meets errors, and out of order when they come again."""

    def rule(request: list[DecodedSeries]) -> Verdict | None:
        (row,) = times_of(request)
        if row in seen:
            return OUT_OF_ORDER
        if row == 2:
            sending.store.fates = [ERROR] * 2
        elif row == 3:
            sending.store.fates = [AWAY] * 1000
        if row == 1:
            return BAD
        seen.add(row)
        return None

    seen: set[int] = set()
    sending = Sending(Store(rule))
    sending.add(frames=4)
    sending.run(seconds=60)
    assert seen == {2, 3}
    sending.store.fates = []
    sending.restart()
    sending.run()
    assert sending.counts == (12, 4, 0)


def test_a_server_that_refuses_everything_meets_few_requests() -> None:
    sending = Sending(Store(lambda request: BAD))
    sending.add()
    sending.run(seconds=3600)
    before = len(sending.store.bodies)
    sending.add(frames=100)
    sending.run(seconds=3600)
    assert sending.counts == (0, 0, 404)
    assert len(sending.store.bodies) - before < 60


def test_one_sample_that_is_too_large_is_held() -> None:
    sending = Sending(Store(lambda request: LARGE))
    sending.add()
    sending.run(seconds=3600)
    assert sending.counts == (0, 0, 4)


@pytest.mark.reliability(12.08, "the path is wrong", "nothing is dropped; the log says once what to do")
def test_a_wrong_request_holds_everything(caplog: pytest.LogCaptureFixture, measured: Callable[[str], None]) -> None:
    sending = Sending(Store(fates=[WRONG_PATH] * 20))
    sending.add(frames=5)
    with caplog.at_level(logging.INFO):
        sending.run_requests(20)
        assert sending.counts == (0, 0, 20)
        failures = [str(sending.sender.failure)]
        sending.run()
    failures.append(str(sending.sender.failure))
    assert failures == [WRONG_PATH.words, "None"]
    assert sending.counts == (20, 0, 0)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "check remote_write.url" in told[0]
    assert re.fullmatch(r"remote write works again after \d+ s and 20 failed requests", told[1])
    measured("20 requests failed, 0 samples dropped")


def test_samples_of_another_writer_count_as_refused() -> None:
    """Two nodes under one name: what was never sent before cannot be stored already."""
    sending = Sending(Store(lambda request: OUT_OF_ORDER if 2 in times_of(request) else None))
    sending.add(frames=4)
    sending.run()
    assert sending.counts == (12, 4, 0)


def test_a_server_that_stores_the_rest_of_a_refused_request_loses_nothing() -> None:
    """As Mimir does, which then refuses the parts as out of order."""
    store = Store(is_in_order=True)

    def rule(request: list[DecodedSeries]) -> Verdict | None:
        if "watts" not in names_of(request):
            return None
        for one in request:
            if dict(one.labels)["__name__"] != "watts":
                store.stored.setdefault(one.labels, {}).update(one.samples)
        return BAD

    store.rule = rule
    sending = Sending(store)
    sending.add(rows=8)
    sending.add(table=table_of("volts"))
    sending.run()
    assert sending.counts == (25, 8, 0)
    assert len(store.values) == 25


def test_the_parts_of_a_search_follow_each_other_quickly() -> None:
    sending = Sending(Store(bad_rows(70)), catch_up=1.0)
    sending.add(rows=128)
    sending.add()
    sending.run(seconds=128 + 60)
    assert sending.counts == (512, 4, 0)


def test_a_frozen_part_is_sent_again_to_the_byte() -> None:
    store = Store(bad_rows(5))
    sending = Sending(store)
    sending.add(rows=8)
    sending.add()
    sending.run_requests(3)
    store.fates = [ERROR] * 4
    sending.run_requests(5)
    assert len(set(store.bodies[3:8])) == 1
    assert decoded(store.bodies[3])
