"""Backlogs with clocks set by hand, and rows for them."""

from __future__ import annotations

import os
import random
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.energy.state import RemoteCounters
from agent.history.backlog import Backlog
from agent.history.samples import packed
from agent.simulate.clock import HandClock

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from agent.history.samples import Frame, Labels

_random = random.Random(1)

OFFSET = 1_700_000_000_000


@dataclass
class HandDating:
    """Dating by hand."""

    boot: str = "boot-1"
    now: int = 1_000_000
    offset: int | None = OFFSET

    def now_milliseconds(self) -> int:
        return self.now

    def offset_milliseconds(self) -> int | None:
        return self.offset


def table_of(*names: str, hostname: str = "node") -> tuple[Labels, ...]:
    return tuple((("__name__", name), ("hostname", hostname), ("job", "power")) for name in names)


TABLE = table_of("volts", "amperes", "watts", "joules_total")


@dataclass
class Node:
    """A node whose backlog is opened, killed and opened again."""

    folder: Path | None
    runtime: Path | None
    dating: HandDating = field(default_factory=HandDating)
    clock: HandClock = field(default_factory=HandClock)
    max_bytes: int = 64_000_000
    max_age_seconds: float = 604_800.0
    saved: RemoteCounters = field(default_factory=RemoteCounters)
    produced: int = 0

    def open(self) -> Backlog:
        dating: Any = self.dating
        return Backlog(
            self.folder,
            self.runtime,
            dating,
            self.clock,
            max_bytes=self.max_bytes,
            max_age_seconds=self.max_age_seconds,
            saved=self.saved,
        )

    def pass_seconds(self, seconds: float) -> None:
        self.clock.seconds += seconds
        self.dating.now += round(seconds * 1000)

    def add(self, backlog: Backlog, rows: int = 1, table: tuple[Labels, ...] = TABLE) -> None:
        """Rows of a second each: the value of each sample is its number, and a fraction that is hard to compress."""
        times = []
        values = b""
        for _ in range(rows):
            self.pass_seconds(1)
            times.append(self.dating.now)
            for _ in table:
                values += packed(self.produced + _random.random() / 2)
                self.produced += 1
        backlog.add(table, times, values)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def drained(backlog: Backlog) -> list[Frame]:
    """All frames, taken by a server one after another."""
    frames = []
    while (frame := backlog.next()) is not None:
        backlog.about_to_send(frame)
        backlog.settle(frame, accepted=frame.samples, refused=0)
        frames.append(frame)
    return frames


def numbers(frames: list[Frame]) -> list[int]:
    """The numbers of the samples, in the order in which they would be sent."""
    return [int(value) for frame in frames for (value,) in struct.iter_unpack("<d", frame.values)]


def sum_of(backlog: Backlog) -> int:
    """What was produced, by the status."""
    return backlog.status.counters.settled + backlog.status.backlog_samples


def synced_files(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files and folders that this process syncs from now on, one after another."""
    synced: list[Path] = []

    def noting(sync: Callable[[int], None]) -> Callable[[int], None]:
        def note(file: int) -> None:
            synced.append(Path(f"/proc/self/fd/{file}").readlink())
            sync(file)

        return note

    monkeypatch.setattr(os, "fsync", noting(os.fsync))
    monkeypatch.setattr(os, "fdatasync", noting(os.fdatasync))
    return synced
