"""Remote write: bytes and CPU of a sample, the backlog on a disk, and a fleet on one server."""

from __future__ import annotations

import gc
import shutil
import time
from functools import partial
from typing import TYPE_CHECKING, Literal

import cramjam

from agent.history.snappy import compress_in_python
from agent.history.write_request import message
from agent.simulate.clock import HandClock
from bench.measure import Effort, Findings, Goal, Row, Samples, interleaved
from bench.remote_disk import CannotMountError, keep, mounted_disk, opened_backlog, replay, vmagent_bytes_a_day
from bench.remote_fleet import measured_fleet
from bench.remote_frames import INTERVAL_SECONDS, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence, Sized
    from pathlib import Path

    from agent.history.samples import Frame

_UNIX_MILLISECONDS = 1_800_000_000_000
_MEGABYTE = 1e6
_DAY_SECONDS = 86_400.0


def measure(effort: Effort, folder: Path) -> Findings:
    """Measure requests first, then the disk, then the server."""
    try:
        on_disk, text = _disk(effort, folder), ""
    except CannotMountError as error:
        on_disk, text = [], f"Remote write's backlog was not measured on a disk of its own: {error}."
    return Findings((*_requests(effort), *on_disk, *_fleet(effort, folder)), text)


def _requests(effort: Effort) -> list[Row]:
    """Bytes and CPU of a sample on the wire, with `cramjam` (as the stock variant) and without."""
    rows = []
    goals: tuple[tuple[Literal["interval", "sample"], Goal], ...] = (
        ("interval", Goal(17, "B")),
        ("sample", Goal(12.5, "B")),
    )
    for resolution, goal in goals:
        frames = [one.frame(_UNIX_MILLISECONDS) for one in recorded(resolution, 12)[2:]]
        what = f'remote write of 8 devices, `resolution = "{resolution}"`, without `cramjam` to with it'
        taken = interleaved(
            effort.times(11, 3),
            {
                "with": partial(_a_sample, frames, cramjam.snappy.compress_raw),
                "without": partial(_a_sample, frames, compress_in_python),
            },
        )
        with_bytes, with_cpu = taken["with"]
        without_bytes, without_cpu = taken["without"]
        rows += [
            Row(
                f"{what}: bytes of a sample on the wire", Samples(with_bytes, "B"), Samples(without_bytes, "B"), (goal,)
            ),
            Row(f"{what}: CPU of a sample", Samples(with_cpu, "us"), Samples(without_cpu, "us")),
        ]
    return rows


def _a_sample(frames: Sequence[Frame], compress: Callable[[bytes], Sized]) -> tuple[float, float]:
    """Bytes and CPU microseconds of a sample in requests of these frames."""
    gc.collect()
    before = time.thread_time()
    size = sum(len(compress(message(frame))) for frame in frames)
    cpu_seconds = time.thread_time() - before
    samples = sum(frame.samples for frame in frames)
    return size / samples, cpu_seconds / samples * 1e6


def _disk(effort: Effort, folder: Path) -> list[Row]:
    """An outage on a disk of its own, in simulated time; then all of it read again; then vmagent in real time."""
    rows = recorded("sample", effort.times(240, 40))
    clock = HandClock()
    with mounted_disk(folder / "disk") as disk:
        kept_in = disk.folder / "history"
        backlog = opened_backlog(kept_in, clock)
        before = disk.written_bytes()
        keep(rows, backlog, clock)
        backlog.close()
        written = disk.written_bytes() - before
        status = backlog.status
        rates = []
        for _ in range(effort.times(5, 1)):
            # What is settled is removed, so each turn reads a copy.
            shutil.copytree(kept_in, folder / "copy")
            copy = opened_backlog(folder / "copy", clock)
            began = time.thread_time()
            samples, _size = replay(copy)
            rates.append(samples / (time.thread_time() - began))
            copy.close()
            shutil.rmtree(folder / "copy")
            if samples != status.backlog_samples:
                raise RuntimeError(f"{samples} of {status.backlog_samples} samples were read again")
    with mounted_disk(folder / "disk-of-vmagent") as disk:
        vmagent_bytes = vmagent_bytes_a_day(rows, disk, effort.times(20, 4), folder)
    seconds = len(rows) * INTERVAL_SECONDS
    what = "backlog of 8 devices at 1 s in an outage"
    return [
        Row(
            f"{what}: bytes of a sample on disk",
            None,
            Samples((status.backlog_bytes / status.backlog_samples,), "B"),
        ),
        Row(
            f"{what}: written to the device in a day, vmagent's to ours "
            f"(from {seconds / 60:g} simulated minutes; vmagent from {effort.times(20, 4)} s)",
            Samples((vmagent_bytes / _MEGABYTE,), "MB"),
            Samples((written / seconds * _DAY_SECONDS / _MEGABYTE,), "MB"),
            (Goal(35, "MB"),),
        ),
        Row(
            "the same backlog read and encoded again, with `cramjam`: in a second of CPU time",
            None,
            Samples(tuple(rates), "samples"),
        ),
    ]


def _fleet(effort: Effort, folder: Path) -> list[Row]:
    nodes = effort.times(10_000, 1000)
    held = measured_fleet(nodes, effort.times(5, 1), folder)
    rows = []
    for resolution, load in (("interval", held.interval), ("sample", held.sample)):
        what = f'{nodes:,} nodes of 8 on one VictoriaMetrics, `resolution = "{resolution}"`'
        rows += [
            Row(
                f"{what}: samples that it keeps up with",
                None,
                Samples((load.taken_a_second,), "/s"),
                (Goal(round(load.samples_a_second * 0.95), "/s", at_least=True),),
            ),
            Row(f"{what}: its CPU", None, Samples((load.cores,), "cores")),
            Row(f"{what}: its resident memory", None, Samples((load.resident_bytes / _MEGABYTE,), "MB")),
        ]
    return [
        *rows,
        Row(
            f"the most nodes of 8 that it takes every {INTERVAL_SECONDS} s, with the senders on the same machine",
            None,
            Samples((held.most_nodes,), "nodes"),
            (Goal(nodes, "nodes", at_least=True),),
        ),
    ]
