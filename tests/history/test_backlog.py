"""Frames wait in memory, go to disk in an outage, and leave in order, however the process ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.energy.state import RemoteCounters
from tests.energy.disks import full
from tests.history.backlogs import OFFSET, TABLE, Node, drained, files, numbers, sum_of, synced_files, table_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "run").mkdir()
    return Node(tmp_path / "history", tmp_path / "run")


def test_nothing_reaches_the_disk_while_the_server_answers(node: Node, tmp_path: Path) -> None:
    backlog = node.open()
    for _ in range(50):
        node.add(backlog, 15)
        drained(backlog)
        backlog.maintain()
    assert files(tmp_path / "history") == []
    assert sum(path.stat().st_size for path in (tmp_path / "run").glob("*.v1")) == 0
    backlog.close()
    assert files(tmp_path / "history") == ["position.json"]
    assert backlog.status.counters.accepted == node.produced == 50 * 15 * 4


def test_a_run_that_needs_no_disk_syncs_none(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = synced_files(monkeypatch)
    for _ in range(3):
        backlog = node.open()
        node.add(backlog, 15)
        drained(backlog)
        backlog.close()
    assert synced == []
    written = (tmp_path / "history" / "position.json").stat()
    backlog = node.open()
    backlog.count_request(failed=True)
    backlog.close()
    assert (tmp_path / "history" / "position.json").stat() == written


def test_what_a_power_cut_must_leave_is_synced(node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = synced_files(monkeypatch)
    backlog = node.open()
    node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    segment, folder = tmp_path / "history" / f"{0:020d}.v1", tmp_path / "history"
    # The folder's own name, the segment, and its name: a segment without a name is lost.
    assert synced == [tmp_path, segment, folder]
    node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    assert synced[3:] == [segment]
    drained(backlog)
    backlog.close()
    # Else the segment that was removed may come back, and be sent once more.
    assert synced[4:] == [folder / "position.new", folder]


def test_frames_leave_in_order_and_keep_their_rows(node: Node) -> None:
    backlog = node.open()
    for _ in range(10):
        node.add(backlog, 3)
    frames = drained(backlog)
    assert numbers(frames) == list(range(node.produced))
    assert [frame.table for frame in frames] == [TABLE] * 10
    assert frames[0].times_milliseconds == (1_001_000, 1_002_000, 1_003_000)
    assert {frame.offset_milliseconds for frame in frames} == {OFFSET}


def test_an_outage_goes_to_disk_once_a_minute(node: Node, tmp_path: Path) -> None:
    backlog = node.open()
    sizes = []
    for _ in range(40):
        node.add(backlog, 15)
        backlog.maintain()
        sizes.append(sum(path.stat().st_size for path in (tmp_path / "history").glob("*.v1")))
    assert len(set(sizes)) == 1 + 40 // 5
    assert numbers(drained(backlog)) == list(range(node.produced))
    assert files(tmp_path / "history") == ["position.json"]


def test_a_killed_run_loses_nothing_that_was_added(node: Node) -> None:
    for _ in range(30):
        backlog = node.open()
        node.add(backlog, 15)
        backlog.maintain()
    assert numbers(drained(node.open())) == list(range(node.produced))


def test_a_power_cut_loses_only_what_was_in_memory(node: Node, tmp_path: Path) -> None:
    backlog = node.open()
    for _ in range(4):
        node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    on_disk = node.produced
    node.add(backlog, 15)
    node.runtime = tmp_path / "run2"
    node.runtime.mkdir()
    node.dating.boot = "boot-2"
    backlog = node.open()
    frames = drained(backlog)
    assert numbers(frames) == list(range(on_disk))
    assert all(frame.boot == "boot-1" for frame in frames)


def test_a_clean_stop_keeps_everything_over_a_reboot(node: Node, tmp_path: Path) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    backlog.close()
    node.saved = backlog.status.counters
    node.runtime = None
    node.dating.boot = "boot-2"
    assert numbers(drained(node.open())) == list(range(node.produced))


def test_a_tried_frame_is_the_same_for_ever(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    first = backlog.next()
    assert first is not None
    assert first.start >= backlog.tried_until
    backlog.about_to_send(first)
    for _ in range(10):
        node.add(backlog, 15)
        backlog.maintain()
        assert backlog.next() == first
    backlog = node.open()
    assert backlog.next() == first
    assert first.start < backlog.tried_until
    second = backlog.next(first)
    assert second is not None
    assert second.start >= backlog.tried_until


def test_a_frame_that_a_killed_run_tried_is_not_merged(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    first = backlog.next()
    assert first is not None
    backlog.about_to_send(first)
    backlog = node.open()
    for _ in range(10):
        node.add(backlog, 15)
    backlog.maintain()
    assert backlog.next() == first


def test_a_kill_between_disk_and_mirror_doubles_nothing(node: Node, tmp_path: Path) -> None:
    backlog = node.open()
    for _ in range(5):
        node.add(backlog, 15)
    mirror = next((tmp_path / "run").glob("*.v1"))
    before = mirror.read_bytes()
    backlog.maintain()
    assert mirror.read_bytes() == b""
    mirror.write_bytes(before)
    backlog = node.open()
    on_disk = sum(path.stat().st_size for path in (tmp_path / "history").glob("*.v1"))
    assert backlog.status.backlog_bytes == on_disk
    node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    assert numbers(drained(backlog)) == list(range(node.produced))


def test_the_place_of_a_lost_frame_is_not_used_again(node: Node) -> None:
    backlog = node.open()
    with full():
        node.add(backlog, 15)
    lost = backlog.next()
    assert lost is not None
    backlog.about_to_send(lost)
    backlog = node.open()
    node.add(backlog, 15)
    following = backlog.next()
    assert following is not None
    assert following.start == lost.end
    assert following.start >= backlog.tried_until
    assert backlog.status.counters == RemoteCounters(dropped=lost.samples)


def test_a_lost_frame_is_counted_before_a_reboot(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    with full():
        node.add(backlog, 15)
    node.add(backlog, 15)
    backlog = node.open()
    first = backlog.next()
    assert first is not None
    backlog.settle(first, accepted=60, refused=0)
    backlog.close()
    assert backlog.status.counters == RemoteCounters(accepted=60, dropped=60)
    assert backlog.status.backlog_samples == 60


def test_a_frame_lost_to_a_power_cut_leaves_no_trace(node: Node) -> None:
    node.runtime = None
    backlog = node.open()
    node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    node.add(backlog, 15)
    on_disk = backlog.next()
    assert on_disk is not None
    backlog.about_to_send(on_disk)
    in_memory = backlog.next(on_disk)
    assert in_memory is not None
    backlog.about_to_send(in_memory)
    node.dating.boot = "boot-2"
    node.dating.offset = OFFSET - 15_000  # the new frame has the times of the lost one
    backlog = node.open()
    drained(backlog)
    node.add(backlog, 15)
    assert backlog.next() is None
    assert backlog.status.counters == RemoteCounters(accepted=60, dropped=60)


def test_a_frame_handed_out_is_not_merged(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    first = backlog.next()
    for _ in range(10):
        node.add(backlog, 15)
    backlog.maintain()
    assert backlog.next() == first


def test_frames_are_dated_once_the_clock_is_known(node: Node) -> None:
    node.dating.offset = None
    backlog = node.open()
    for _ in range(10):
        node.add(backlog, 15)
        backlog.maintain()
    assert backlog.next() is None
    assert backlog.status.oldest_seconds is None
    node.dating.offset = OFFSET + 5
    first = backlog.next()
    assert first is not None
    assert first.offset_milliseconds == OFFSET + 5
    node.dating.offset = OFFSET + 900
    backlog = node.open()
    assert {frame.offset_milliseconds for frame in drained(backlog)} == {OFFSET + 5}
    assert backlog.status.counters.accepted == node.produced


def test_frames_of_a_boot_without_a_clock_are_undated(node: Node, tmp_path: Path) -> None:
    node.dating.offset = None
    backlog = node.open()
    node.add(backlog, 15)
    backlog.close()
    undated = node.produced
    node.dating.boot, node.dating.offset = "boot-2", OFFSET
    backlog = node.open()
    node.add(backlog, 15)
    assert numbers(drained(backlog)) == list(range(undated, node.produced))
    assert backlog.status.counters == RemoteCounters(accepted=node.produced - undated, undated=undated)


def test_times_only_rise_when_the_clock_is_stepped_back(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 10)
    drained(backlog)
    node.dating.offset = OFFSET - 3000
    node.add(backlog, 10)
    frame = backlog.next()
    assert frame is not None
    assert len(frame.times_milliseconds) == 7
    backlog.about_to_send(frame)
    assert backlog.next() == frame
    assert node.open().next() == frame
    backlog.settle(frame, accepted=frame.samples, refused=0)
    assert backlog.status.counters == RemoteCounters(accepted=17 * 4, dropped=3 * 4)


def test_times_rise_over_a_power_cut_after_a_step_back(node: Node, tmp_path: Path) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    sent = drained(backlog)
    node.dating.offset = OFFSET - 10_000
    node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    node.dating.boot = "boot-2"
    node.runtime = tmp_path / "run2"
    node.runtime.mkdir()
    left = drained(node.open())
    assert numbers(left) == list(range(node.produced - 5 * 4, node.produced))
    assert left[0].times_milliseconds[0] - 10_000 > sent[0].times_milliseconds[-1]


def test_a_clock_that_was_a_year_ahead_stops_nothing(node: Node) -> None:
    """A time server, or the clock that `clock = "system"` trusts, was wrong for a moment."""
    year_milliseconds = 365 * 86_400_000
    backlog = node.open()
    node.add(backlog, 10)
    node.dating.offset = OFFSET + year_milliseconds
    backlog.maintain()
    node.add(backlog, 10)
    assert sum(len(frame.times_milliseconds) for frame in drained(backlog)) == 20
    node.dating.offset = OFFSET
    backlog = node.open()
    node.add(backlog, 10)
    frame = backlog.next()
    assert frame is not None
    assert len(frame.times_milliseconds) == 10
    backlog.about_to_send(frame)
    assert node.open().next() == frame
    backlog.settle(frame, accepted=frame.samples, refused=0)
    assert backlog.status.counters == RemoteCounters(accepted=30 * 4)
    assert backlog.status.accepted_seconds == (frame.times_milliseconds[-1] + OFFSET) / 1000


def test_the_oldest_is_dropped_beyond_the_bound(node: Node, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node.max_bytes = 100_000
    backlog = node.open()
    table = table_of(*(f"series_{number}" for number in range(64)))
    for _ in range(40):
        node.add(backlog, 61, table)
        backlog.maintain()
        assert sum_of(backlog) == node.produced
    size = sum(path.stat().st_size for path in (tmp_path / "history").glob("*.v1"))
    assert 60_000 < size <= 100_000
    left = numbers(drained(backlog))
    assert left == list(range(node.produced - len(left), node.produced))
    assert backlog.status.counters.dropped == node.produced - len(left)
    assert len([record for record in caplog.records if "max_backlog" in record.message]) == 1


def test_what_is_too_old_is_dropped(node: Node) -> None:
    node.max_age_seconds = 3600.0
    backlog = node.open()
    node.add(backlog, 15)
    node.pass_seconds(3700)
    node.add(backlog, 15)
    backlog.maintain()
    assert backlog.status.counters.dropped == 60
    assert numbers(drained(backlog)) == list(range(60, 120))


def test_what_is_too_old_is_dropped_after_a_reboot_too(node: Node) -> None:
    node.max_age_seconds = 3600.0
    backlog = node.open()
    node.add(backlog, 15)
    backlog.close()
    node.dating.boot = "boot-2"
    node.dating.now = 5000
    node.dating.offset = None
    backlog = node.open()
    backlog.maintain()
    assert backlog.status.counters.dropped == 0
    node.dating.offset = OFFSET + 1_015_000 + 3_600_000 - 5000
    backlog.maintain()
    assert backlog.status.counters.dropped == 0
    node.pass_seconds(1)
    backlog.maintain()
    assert backlog.status.counters.dropped == 60


def test_a_clock_that_is_wrong_for_a_moment_costs_nothing(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    node.dating.offset = OFFSET + 366 * 86_400_000
    backlog.maintain()
    node.dating.offset = OFFSET
    assert numbers(drained(backlog)) == list(range(node.produced))


def test_old_frames_keep_their_labels(node: Node) -> None:
    backlog = node.open()
    for hostname in ("old", "new"):
        node.add(backlog, 40, table_of("volts", hostname=hostname))
    backlog.maintain()
    backlog = node.open()
    assert [dict(frame.table[0])["hostname"] for frame in drained(backlog)] == ["old", "new"]


def test_refused_and_accepted_samples_are_counted(node: Node) -> None:
    backlog = node.open()
    for _ in range(3):
        node.add(backlog, 10)
    backlog.next()
    second = backlog.next(backlog.next())
    assert second is not None
    backlog.settle(second, accepted=60, refused=15)
    assert backlog.status.counters == RemoteCounters(accepted=60, refused=15, dropped=5)
    assert sum_of(backlog) == node.produced


def test_counters_continue_after_a_kill(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 10)
    drained(backlog)
    backlog.count_request(failed=True)
    counters = backlog.status.counters
    assert node.open().status.counters == counters == RemoteCounters(accepted=40, requests=1, request_failures=1)


def test_carried_counters_are_taken_off(node: Node) -> None:
    node.saved = RemoteCounters(accepted=100, requests=3)
    backlog = node.open()
    node.add(backlog, 10)
    drained(backlog)
    backlog.forget(RemoteCounters(accepted=100, requests=3))
    assert backlog.status.counters == RemoteCounters(accepted=40)
