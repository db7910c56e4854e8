"""A node with history: the real program on simulated chips, killed and started again, and what a server holds of it."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from tests.run.running import Program, ask, samples_of, until, write_config
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from agent.history.samples import Labels
    from tests.history.engines import Stored

DEVICE_MEANS = ("wattpush_device_volts", "wattpush_device_amperes", "wattpush_device_watts")
DEVICE_COUNTERS = (
    "wattpush_device_joules_total",
    "wattpush_device_coulombs_total",
    "wattpush_device_measured_seconds_total",
)
DEVICE_KEYS = (*DEVICE_MEANS, *DEVICE_COUNTERS)
"""Compared between a scrape and the history."""

READINGS = "wattpush_device_readings_total"
"""Tells which interval a row or a scrape is of."""

ENDS = ("accepted", "refused", "dropped", "undated", "backlog")
"""Where a produced sample is."""

REMOTE = {
    "accepted": "wattpush_agent_remote_samples_total",
    "refused": "wattpush_agent_remote_refused_samples_total",
    "dropped": "wattpush_agent_remote_dropped_samples_total",
    "undated": "wattpush_agent_remote_undated_samples_total",
    "backlog": "wattpush_agent_remote_backlog_samples",
}

Interval = dict[tuple[str, str], float]
"""The values of one interval by name and device."""


class Node:
    """A node; use it as a context manager.

    Args:
        folder: of its configuration, state and runtime folder, which outlives the process as systemd's does.
        write_url: where its history goes.
        hostname: of the node; the agent adds "-simulated".
        top: the keys before the first table.
        remote: more keys of `[remote_write]`.
        gateway: the URL of a Pushgateway; None for none.
        devices: their names.
    """

    def __init__(
        self,
        folder: Path,
        write_url: str,
        *,
        top: str = 'interval = "200ms"\nsample_interval = "50ms"',
        remote: str = "",
        gateway: str | None = None,
        devices: tuple[str, ...] = ("cpu", "disk"),
    ) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.scraped: list[Interval] = []
        self.program: Program | None = None
        self._runtime = folder / "runtime"
        self._runtime.mkdir(mode=0o700)
        more = f'[metrics]\ncharge = true\n[serve]\nlisten = "127.0.0.1:{self.port}"\n'
        more += f'[remote_write]\nurl = "{write_url}"\nclock = "system"\n{remote}\n'
        self._config = write_config(folder, gateway, top=top, devices=devices, more=more)
        self._closing = threading.Event()
        self._scraper = threading.Thread(target=self._scrape, daemon=True)

    def __enter__(self) -> Self:
        self._scraper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._scraper.join()
        if self.program is not None:
            self.program.close()

    def start(self) -> None:
        """Start the agent."""
        assert self.program is None
        environ = {**os.environ, "RUNTIME_DIRECTORY": str(self._runtime)}
        self.program = Program("--config", self._config, "--simulate", environ=environ)

    def kill(self) -> None:
        """End the agent with SIGKILL."""
        assert self.program is not None
        self.program.close()
        self.program = None

    def stop(self, number: int = 15) -> float:
        """End the agent with a signal; return the seconds that it took."""
        assert self.program is not None
        code, seconds = self.program.end(number)
        assert code == 0, self.program.stderr
        self.kill()
        return seconds

    def metrics(self) -> Interval:
        """What it answers to a scrape; empty while it is not up."""
        try:
            status, text, _ = ask(f"http://127.0.0.1:{self.port}/metrics")
        except OSError:
            return {}
        if status != 200:
            return {}
        return {
            (name, dict(labels).get("device", "")): value
            for name, series in samples_of(text).items()
            for labels, value in series.items()
        }

    def backlog(self) -> float | None:
        """How many samples wait; None while it is not up."""
        return self.metrics().get((REMOTE["backlog"], ""))

    def is_drained(self) -> bool:
        """Whether no sample waits."""
        return self.backlog() == 0.0

    def _scrape(self) -> None:
        while not self._closing.wait(0.1):
            if interval := self.metrics():
                self.scraped.append(interval)

    def await_samples(self, accepted: float) -> None:
        """Wait until the server has accepted so many samples."""
        until(lambda: self.metrics().get((REMOTE["accepted"], ""), 0.0) >= accepted, f"{accepted:g} accepted samples")


@dataclass(frozen=True, slots=True)
class History:
    """What a server holds of a node.

    Attributes:
        times: of the rows, in Unix milliseconds.
        rows: the values of each by name and device; a stale marker is NaN.
        held_before: how many samples the server holds that are older than each row.
        doubled: samples that it holds more than once.
    """

    times: tuple[int, ...]
    rows: tuple[Interval, ...]
    held_before: tuple[int, ...]
    doubled: int

    @classmethod
    def of(cls, stored: Stored) -> History:
        """Sort the samples, stale markers included, into rows."""
        rows: dict[int, Interval] = {}
        doubled = 0
        for labels, series in stored.items():
            key = _key(labels)
            doubled += sum(times - 1 for times in Counter(at for at, _ in series).values())
            for at, value in series:
                assert key not in rows.get(at, {}) or doubled, (key, at)
                rows.setdefault(at, {})[key] = value
        times = sorted(rows)
        held, held_before = 0, []
        for at in times:
            held_before.append(held)
            held += len(rows[at])
        return cls(tuple(times), tuple(rows[at] for at in times), tuple(held_before), doubled)

    def lost(self) -> list[int]:
        """For each row that says it: how many samples the agent had produced before it that the server does not hold.

        A row is written while the one before it may still be on its way to the backlog: then this is negative.
        """
        return [
            round(sum(row[REMOTE[end], ""] for end in ENDS)) - held
            for row, held in zip(self.rows, self.held_before, strict=True)
            if not math.isnan(row.get((REMOTE["accepted"], ""), math.nan))
        ]

    def last(self, end: str) -> float:
        """The newest value of one of `ENDS`."""
        values = [row.get((REMOTE[end], ""), math.nan) for row in self.rows]
        return next(value for value in reversed(values) if not math.isnan(value))

    def longest_gap_milliseconds(self, *, except_last: int = 0) -> int:
        """The longest time between two rows, the longest ones left out."""
        gaps = sorted(later - earlier for earlier, later in pairwise(self.times))
        return gaps[-1 - except_last]

    def falls(self) -> list[tuple[str, str]]:
        """Counters of devices and the agent that went back anywhere; those of the process start at zero."""
        newest: Interval = {}
        fell = []
        for row in self.rows:
            for key, value in row.items():
                if key[0].startswith("wattpush_") and key[0].endswith("_total") and not math.isnan(value):
                    if value < newest.get(key, -math.inf) * (1 - 1e-12):
                        fell.append(key)
                    newest[key] = value
        return fell

    def unlike(self, scraped: Iterable[Interval]) -> tuple[int, int]:
        """How many scraped intervals of devices are in the history with another value, and how many are not in it."""
        devices = {device for row in self.rows for name, device in row if name == READINGS}
        kept: dict[tuple[str, float], list[Interval]] = {}
        for row in self.rows:
            for device in devices:
                # Intervals without a reading have the number of the one before.
                kept.setdefault((device, row.get((READINGS, device), math.nan)), []).append(row)
        seen = {
            (device, interval[READINGS, device], interval.get((DEVICE_KEYS[0], device))): interval
            for interval in scraped
            for device in devices
            if (READINGS, device) in interval
        }
        wrong = missing = 0
        for (device, readings, _), interval in seen.items():
            rows = kept.get((device, readings), [])
            missing += not rows
            if rows and not any(_is_alike(interval, row, device) for row in rows):
                # While a disk is slow, a scrape gets the means of an interval with the counters of the one before.
                counters_fit = any(_is_alike(interval, row, device, DEVICE_COUNTERS) for row in rows)
                wrong += not (counters_fit and any(_is_alike(interval, row, device, DEVICE_MEANS) for row in self.rows))
        return wrong, missing


def _is_alike(interval: Interval, row: Interval, device: str, names: Sequence[str] = DEVICE_KEYS) -> bool:
    return all(
        math.isclose(row.get((name, device), math.nan), interval[name, device], rel_tol=1e-9)
        for name in names
        if (name, device) in interval
    )


def _key(labels: Labels) -> tuple[str, str]:
    by_name = dict(labels)
    return by_name["__name__"], by_name.get("device", "")
