"""Disks that are full, read-only or damaged, and files of newer versions."""

from __future__ import annotations

import logging
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from agent.energy.state import RemoteCounters
from agent.errors import ConfigError
from agent.history import backlog as backlogs
from tests.energy.disks import Disk, disk
from tests.history.backlogs import Node, drained, files, numbers, sum_of, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WIDE = table_of(*(f"series_{number}" for number in range(64)))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Disk]:
    with disk(tmp_path / "disk", "300k") as made:
        if not made.is_mounted:
            pytest.skip("needs root, to mount a file system")
        yield made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "run").mkdir()
    return Node(tmp_path / "history", tmp_path / "run")


def on(node: Node, small_disk: Disk) -> Node:
    node.folder = small_disk.folder / "history"
    return node


def fill(disk: Disk) -> Path:
    path = disk.folder / "filler"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


def test_a_full_disk_keeps_samples_in_memory_until_there_is_room(
    node: Node, small_disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    backlog = on(node, small_disk).open()
    filler = fill(small_disk)
    for _ in range(12):
        node.add(backlog, 61, WIDE)
        node.pass_seconds(60)
        backlog.maintain()
    assert sum_of(backlog) == node.produced
    filler.unlink()
    node.pass_seconds(60)
    backlog.maintain()
    assert numbers(drained(backlog)) == list(range(node.produced))
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "No space left on device" in messages[0]
    assert "can be written again" in messages[1]


def test_a_full_disk_tears_no_frame(node: Node, small_disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    backlog = on(node, small_disk).open()
    while not caplog.records:
        node.add(backlog, 61, WIDE)
        node.pass_seconds(60)
        backlog.maintain()
    assert "No space left on device" in caplog.records[0].message
    caplog.clear()
    backlog = node.open()
    assert caplog.records == []
    assert numbers(drained(backlog)) == list(range(node.produced))
    assert backlog.status.counters == RemoteCounters(accepted=node.produced)


@pytest.mark.reliability(
    12.05, "the disk of the backlog stays full in an outage", "goes on, keeps the newest samples, counts the others"
)
def test_a_disk_that_stays_full_costs_the_oldest(
    node: Node, small_disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backlogs, "MOST_IN_MEMORY_BYTES", 50_000)
    backlog = on(node, small_disk).open()
    for _ in range(40):
        node.add(backlog, 61, WIDE)
        backlog.maintain()
        assert sum_of(backlog) == node.produced
    left = numbers(drained(backlog))
    assert len(left) > node.produced / 10
    assert left == list(range(node.produced - len(left), node.produced))
    assert backlog.status.counters == RemoteCounters(accepted=len(left), dropped=node.produced - len(left))
    assert len([record for record in caplog.records if "drops samples" in record.message]) == 1


@pytest.mark.reliability(
    12.05, "the disk of the backlog becomes read-only in an outage", "keeps what is on it and the newest in memory"
)
def test_a_read_only_disk_costs_no_more_than_does_not_fit_into_memory(
    node: Node, small_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlogs, "MOST_IN_MEMORY_BYTES", 50_000)
    backlog = on(node, small_disk).open()
    node.add(backlog, 61, WIDE)
    node.pass_seconds(60)
    backlog.maintain()
    on_disk = node.produced
    backlog.close()
    backlog = node.open()
    with small_disk.read_only():
        for _ in range(20):
            node.add(backlog, 61, WIDE)
            backlog.maintain()
            assert sum_of(backlog) == node.produced
        assert backlog.status.counters.dropped > 0
        backlog = node.open()
        assert sum_of(backlog) == node.produced
        left = numbers(drained(backlog))
    assert left[:on_disk] == list(range(on_disk))
    newest = left[on_disk:]
    assert newest == list(range(node.produced - len(newest), node.produced))
    assert backlog.status.counters == RemoteCounters(accepted=len(left), dropped=node.produced - len(left))


def three_segments(node: Node) -> list[Path]:
    node.max_bytes = 100_000
    backlog = node.open()
    assert node.folder is not None
    while len(list(node.folder.glob("*.v1"))) < 3:
        node.add(backlog, 1, WIDE)
        node.pass_seconds(60)
        backlog.maintain()
    backlog.close()
    return sorted(node.folder.glob("*.v1"))


def test_a_disk_that_stalls_keeps_nothing_from_the_runtime_folder(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    stalls, is_well = threading.Event(), threading.Event()

    def fdatasync(_: int) -> None:
        stalls.set()
        is_well.wait(60.0)

    backlog = node.open()
    node.add(backlog, 10)
    node.pass_seconds(backlogs.LONGEST_IN_MEMORY_SECONDS)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    other = threading.Thread(target=backlog.maintain)
    other.start()
    try:
        assert stalls.wait(60.0)
        node.add(backlog, 10)
        killed = node.open()
        assert sum_of(killed) == 20 * 4, "as the next run finds it, if this one is killed"
    finally:
        is_well.set()
        other.join(60.0)
    assert numbers(drained(backlog)) == list(range(20 * 4))


def test_a_disk_that_stalls_for_hours_costs_no_more_memory(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlogs, "_MOST_WHILE_DISK_STALLS_BYTES", 20_000)
    backlog = node.open()
    with backlog._lock:
        for _ in range(30):
            node.add(backlog, 60, WIDE)
    assert backlog._memory.size_bytes < 30_000
    frames = drained(backlog)
    assert 0 < len(frames) < 30
    assert backlog.status.counters == RemoteCounters(
        accepted=sum(frame.samples for frame in frames), dropped=node.produced - sum(frame.samples for frame in frames)
    )


def test_a_damaged_record_costs_the_rest_of_its_segment(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    _, second, third = three_segments(node)
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    backlog = node.open()
    left = numbers(drained(backlog))
    missing = sorted(set(range(node.produced)) - set(left))
    assert missing == list(range(missing[0], int(third.name[:20])))
    assert int(second.name[:20]) < missing[0]
    assert backlog.status.counters == RemoteCounters(accepted=len(left), dropped=len(missing))
    assert len([record for record in caplog.records if str(second) in record.message]) == 1


def test_a_segment_that_was_removed_is_counted(node: Node) -> None:
    _, second, third = three_segments(node)
    second.unlink()
    backlog = node.open()
    drained(backlog)
    missing = int(third.name[:20]) - int(second.name[:20])
    assert backlog.status.counters == RemoteCounters(accepted=node.produced - missing, dropped=missing)


@pytest.mark.parametrize("cut_bytes", [1, 9, 40, 100])
def test_only_the_torn_tail_is_cut(node: Node, cut_bytes: int, caplog: pytest.LogCaptureFixture) -> None:
    newest = three_segments(node)[-1]
    data = newest.read_bytes()
    frames = drained(node.open())
    node.runtime = None
    node.dating.boot = "boot-2"
    for path in sorted(node.folder.iterdir()) if node.folder else []:
        path.unlink()
    newest.write_bytes(data[:-cut_bytes])
    backlog = node.open()
    start = int(newest.name[:20])
    assert numbers(drained(backlog)) == list(range(start, node.produced - frames[-1].samples))
    assert len([record for record in caplog.records if "cut off" in record.message]) == 1


def test_the_torn_tail_leaves_the_file(node: Node) -> None:
    newest = three_segments(node)[-1]
    size_bytes = newest.stat().st_size
    with newest.open("ab") as file:
        file.write(bytes(1000))
    node.open()
    assert newest.stat().st_size == size_bytes


def test_what_follows_a_damaged_record_has_a_segment_of_its_own(node: Node) -> None:
    backlog = node.open()
    for _ in range(2):
        node.add(backlog, 15)
        node.pass_seconds(60)
        backlog.maintain()
    lost = node.produced
    assert node.folder is not None
    (segment,) = node.folder.glob("*.v1")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    first = backlog.next()
    assert first is not None
    backlog.settle(first, accepted=first.samples, refused=0)
    node.add(backlog, 15)
    node.pass_seconds(60)
    backlog.maintain()
    assert numbers(drained(backlog)) == list(range(lost, node.produced))
    assert backlog.status.counters == RemoteCounters(accepted=120, dropped=60)


def test_files_of_a_newer_version_are_left_alone(node: Node) -> None:
    assert node.folder is not None
    node.folder.mkdir()
    newer = node.folder / "00000000000000000000.v2"
    newer.write_bytes(b"of the future")
    with pytest.raises(ConfigError, match=r"\.v2: written by a newer version of wattpush"):
        node.open()
    assert files(node.folder) == [newer.name]
    assert newer.read_bytes() == b"of the future"


def test_a_position_of_a_newer_version_is_left_alone(node: Node) -> None:
    assert node.folder is not None
    node.folder.mkdir()
    path = node.folder / "position.json"
    path.write_text('{"format": 2}')
    with pytest.raises(ConfigError, match=r"position\.json: written by a newer version of wattpush"):
        node.open()
    assert path.read_text() == '{"format": 2}'


def test_a_damaged_position_sends_everything_again(node: Node) -> None:
    backlog = node.open()
    node.add(backlog, 15)
    backlog.close()
    assert node.runtime is not None
    assert node.folder is not None
    for path in (*node.runtime.glob("*.json"), node.folder / "position.json"):
        path.write_bytes(path.read_bytes().replace(b'"cursor": 0', b'"cursor": 9'))
    backlog = node.open()
    frame = backlog.next()
    assert frame is not None
    assert frame.start < backlog.tried_until
    assert numbers(drained(backlog)) == list(range(60))


def test_a_runtime_folder_that_fails_counts_nothing_twice(node: Node) -> None:
    """It was removed, or is full; then a run is killed while it drains."""
    runtime = node.runtime
    assert runtime is not None
    backlog = node.open()
    for _ in range(10):
        node.add(backlog, 30)
        backlog.maintain()
    node.pass_seconds(61)
    backlog.maintain()
    for _ in range(3):
        frame = backlog.next()
        assert frame is not None
        backlog.about_to_send(frame)
        backlog.settle(frame, accepted=frame.samples, refused=0)
    away = runtime.rename(runtime.with_name("away"))
    tried = backlog.next()
    assert tried is not None
    backlog.about_to_send(tried)
    node.saved = backlog.status.counters

    for is_back in (False, True):  # with what was written before it failed
        if is_back:
            away.rename(runtime)
        backlog = node.open()
        assert sum_of(backlog) == node.produced
        assert backlog.next() == tried
        assert tried.start < backlog.tried_until
