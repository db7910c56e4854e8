"""A backlog costs little: a start reads one segment, a reader each byte once, and the memory holds one frame."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from agent.history.frame_records import frame_record, pack, table_record
from agent.history.samples import Frame, packed
from tests.history.backlogs import OFFSET, Node, table_of

WIDE = table_of(*(f"series_{number}" for number in range(512)))
ROWS = 60
SAMPLES = len(WIDE) * ROWS


def read_bytes() -> int:
    """What this process has read from files, its own reading of /proc included."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return int(lines[0].removeprefix("rchar: "))


@pytest.fixture
def day(tmp_path: Path) -> Node:
    """A node with a backlog of about 77 MB: a day of 64 devices."""
    node = Node(tmp_path / "history", None, max_bytes=100_000_000)
    assert node.folder is not None
    node.folder.mkdir()
    values = b"".join(packed(1.25e-3 * (number * 7919 % 997)) for number in range(SAMPLES))
    times = tuple(range(1000, 1000 + ROWS * 1000, 1000))
    one = pack(Frame(WIDE, "boot-0", OFFSET, times, values, SAMPLES))
    per_segment = 1_000_000 // one.size_bytes
    table = table_record("boot-0", WIDE)
    for segment in range(77):
        records = [table]
        start = segment * per_segment * SAMPLES
        for number in range(per_segment):
            shift = (segment * per_segment + number) * ROWS * 1000
            moved = replace(
                one,
                start=start + number * SAMPLES,
                first_milliseconds=one.first_milliseconds + shift,
                last_milliseconds=one.last_milliseconds + shift,
            )
            records.append(frame_record(moved, 0))
        (node.folder / f"{start:020d}.v1").write_bytes(b"".join(records))
    node.dating.now = 90_000_000
    return node


def test_a_start_reads_the_newest_segment_only(day: Node) -> None:
    before = read_bytes()
    backlog = day.open()
    assert read_bytes() - before < 1_300_000
    assert backlog.status.backlog_bytes > 60_000_000


def test_a_backlog_is_not_loaded_into_memory(day: Node) -> None:
    tracemalloc.start()
    try:
        backlog = day.open()
        frame = backlog.next()
        for _ in range(3):
            assert frame is not None
            frame = backlog.next(frame)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 6_000_000


def test_a_segment_is_read_once_and_then_removed(day: Node) -> None:
    assert day.folder is not None
    first, second = sorted(day.folder.glob("*.v1"))[:2]
    size_bytes = first.stat().st_size
    backlog = day.open()
    before = read_bytes()
    while first.exists():
        frame = backlog.next()
        assert frame is not None
        backlog.settle(frame, accepted=frame.samples, refused=0)
    # Each frame twice: for the time of the oldest sample, and to send it.
    assert read_bytes() - before < 2.1 * size_bytes
    assert second.exists()


def test_the_status_waits_for_no_disk(tmp_path: Path) -> None:
    backlog = Node(tmp_path / "history", None).open()
    seen = []
    with backlog._lock:  # as while a disk hangs
        reader = threading.Thread(target=lambda: seen.append(backlog.status))
        reader.start()
        reader.join(10)
    assert len(seen) == 1
