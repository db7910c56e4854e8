"""Whatever happens in whatever order: what was produced is accepted, refused, dropped, undated or in the backlog."""

from __future__ import annotations

import shutil
import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.energy.state import RemoteCounters
from agent.history.samples import ABSENT, VALUE_BYTES
from tests.energy.disks import full
from tests.history.backlogs import OFFSET, Node, sum_of, table_of

if TYPE_CHECKING:
    from agent.history.samples import Frame, Labels

TABLES = (table_of("volts", "amperes", "watts"), table_of("volts", "amperes", "watts", "joules_total"), table_of("up"))


class StrictServer:
    """Takes samples as Prometheus does without an out-of-order window: later ones, and the same again."""

    def __init__(self) -> None:
        self.stored: dict[Labels, dict[int, bytes]] = {}

    def store(self, frame: Frame) -> None:
        assert frame.offset_milliseconds is not None
        width = len(frame.table)
        samples = 0
        for number in range(width * len(frame.times_milliseconds)):
            value = frame.values[number * VALUE_BYTES : (number + 1) * VALUE_BYTES]
            if value == ABSENT:
                continue
            samples += 1
            time = frame.times_milliseconds[number // width] + frame.offset_milliseconds
            series = self.stored.setdefault(frame.table[number % width], {})
            newest = max(series, default=0)
            assert time > newest or series.get(time) == value, "refused: out of order"
            series[time] = value
        assert samples == frame.samples

    def numbers(self) -> list[float]:
        return [
            value
            for series in self.stored.values()
            for bits in series.values()
            for (value,) in [struct.unpack("<d", bits)]
        ]


class Backlogs(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.runs = 0
        self.node = Node(self.root / "history", self.new_runtime_folder())
        self.node.max_bytes = 100_000
        self.server = StrictServer()
        self.unmirrored = 0
        self.boots = 1
        self.right_offset = OFFSET
        self.latest = 0  # Unix time in milliseconds
        self.is_position_old = False  # it could not be written

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def new_runtime_folder(self) -> Path:
        self.runs += 1
        folder = self.root / f"run-{self.runs}"
        folder.mkdir()
        return folder

    @initialize(is_known=st.booleans())
    def begin(self, *, is_known: bool) -> None:
        self.node.dating.offset = OFFSET if is_known else None
        self.backlog = self.node.open()
        self.produced = 0

    def add_rows(self, rows: int, table: Labels | tuple[Labels, ...]) -> None:
        before = self.node.produced
        self.node.add(self.backlog, rows, table)  # type: ignore[arg-type] # one of TABLES
        self.produced += self.node.produced - before

    @rule(rows=st.integers(1, 30), table=st.sampled_from(TABLES))
    def add(self, rows: int, table: tuple[Labels, ...]) -> None:
        self.add_rows(rows, table)

    @rule(rows=st.integers(1, 30), table=st.sampled_from(TABLES))
    def add_with_full_disks(self, rows: int, table: tuple[Labels, ...]) -> None:
        before, counters = self.node.produced, self.backlog.status.counters
        with full():
            self.add_rows(rows, table)
            self.node.pass_seconds(60)
            self.backlog.maintain()
        self.unmirrored += self.node.produced - before
        self.is_position_old |= self.backlog.status.counters != counters

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def wait(self, seconds: int) -> None:
        self.node.pass_seconds(seconds)
        self.backlog.maintain()

    @rule()
    def be_away_for_a_week(self) -> None:
        self.node.pass_seconds(7 * 86400 + 60)
        self.backlog.maintain()

    @rule(seconds=st.sampled_from([-3600, -3, 3, 3600]))
    @precondition(lambda self: self.node.dating.offset is not None)
    def step_the_clock(self, seconds: int) -> None:
        self.node.dating.offset = self.right_offset + seconds * 1000

    @rule()
    def lose_the_clock(self) -> None:
        self.node.dating.offset = None

    @rule()
    @precondition(lambda self: self.node.dating.offset is None)
    def know_the_clock(self) -> None:
        self.node.dating.offset = self.right_offset

    @rule(times=st.integers(1, 5))
    def send(self, times: int) -> None:
        for _ in range(times):
            frame = self.backlog.next()
            if frame is None:
                return
            self.backlog.about_to_send(frame)
            self.server.store(frame)
            self.backlog.count_request(failed=False)
            self.backlog.settle(frame, accepted=frame.samples, refused=0)

    @rule(is_stored=st.booleans())
    def send_without_an_answer(self, *, is_stored: bool) -> None:
        frame = self.backlog.next()
        if frame is None:
            return
        self.backlog.about_to_send(frame)
        if is_stored:
            self.server.store(frame)
        self.backlog.count_request(failed=True)
        assert self.backlog.next() == frame
        assert frame.start < self.backlog.tried_until

    @rule()
    def send_what_is_refused(self) -> None:
        refused = self.backlog.next()
        if refused is None:
            return
        self.backlog.about_to_send(refused)
        following = self.backlog.next(refused)
        if following is None:
            return
        self.backlog.about_to_send(following)
        self.server.store(following)
        self.backlog.settle(refused, accepted=0, refused=refused.samples)
        assert self.backlog.next() == following
        self.backlog.settle(following, accepted=following.samples, refused=0)

    @rule()
    def kill(self) -> None:
        head = None if self.node.dating.offset is None else self.backlog.next()
        if head is not None:
            self.backlog.about_to_send(head)
        counters = self.backlog.status.counters
        self.backlog = self.node.open()
        missing = self.produced - sum_of(self.backlog)
        if self.is_position_old:  # what was counted since may be counted again
            self.produced = sum_of(self.backlog)
            self.unmirrored = 0
            self.is_position_old = False
            return
        dropped = self.backlog.status.counters.dropped - counters.dropped
        assert replace(self.backlog.status.counters, dropped=counters.dropped) == counters
        assert missing >= 0
        assert dropped >= 0
        assert missing + dropped <= self.unmirrored
        self.produced -= missing
        if head is not None and self.unmirrored == 0:
            assert self.backlog.next() == head
        self.unmirrored = 0

    @rule()
    def stop_and_start(self) -> None:
        self.backlog.close()
        self.backlog = self.node.open()

    @rule(is_known=st.booleans())
    def reboot(self, *, is_known: bool) -> None:
        self.backlog.close()
        self.node.saved = self.backlog.status.counters
        self.boot(is_known=is_known)
        assert sum_of(self.backlog) == self.produced

    @rule(is_known=st.booleans())
    def cut_the_power(self, *, is_known: bool) -> None:
        self.node.saved = RemoteCounters()
        self.boot(is_known=is_known)
        self.produced = sum_of(self.backlog)
        assert self.backlog.status.counters == RemoteCounters()

    def boot(self, *, is_known: bool) -> None:
        self.boots += 1
        self.node.runtime = self.new_runtime_folder()
        self.node.dating.boot = f"boot-{self.boots}"
        self.node.dating.now = 10_000
        # Later by more than a step back: what was sent last may be forgotten.
        self.right_offset = self.latest + 3_700_000 - self.node.dating.now
        self.node.dating.offset = self.right_offset if is_known else None
        self.backlog = self.node.open()
        self.unmirrored = 0
        self.is_position_old = False

    @invariant()
    def all_samples_are_accounted_for(self) -> None:
        if hasattr(self, "backlog"):
            self.latest = max(self.latest, self.right_offset + self.node.dating.now)
            if self.node.dating.offset is not None:
                self.latest = max(self.latest, self.node.dating.offset + self.node.dating.now)
            assert sum_of(self.backlog) == self.produced
            status = self.backlog.status
            assert status.backlog_samples >= 0
            assert all(count >= 0 for count in (status.counters.dropped, status.counters.accepted))
            numbers = self.server.numbers()
            assert len(numbers) == len(set(numbers))
            size = sum(path.stat().st_size for path in (self.root / "history").glob("*.v1"))
            assert size <= 100_000 + 10_000


@pytest.mark.reliability(
    12.05,
    "kills, power cuts, full disks, clock steps and answers lost, in any order",
    "accounts for every sample: accepted, refused, dropped, undated or in the backlog",
)
def test_the_sum_holds_through_everything() -> None:
    run_state_machine_as_test(Backlogs, settings=settings(max_examples=60, stateful_step_count=30))


@pytest.mark.long
def test_the_sum_holds_through_long_runs() -> None:
    run_state_machine_as_test(Backlogs, settings=settings(max_examples=1000, stateful_step_count=50))
