"""What was measured: each run of the command, and the means and the spread of several."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """One device in one run. A value that is not known is None.

    Attributes:
        joules: net of what flowed back, in the time that was measured.
        seconds: how much of the run was measured.
        coverage: the same, as a share of the run.
        peak_watts: the highest mean over one conversion of the chip.
        idle_watts: the mean power before the first run; None without `--idle`.
        window_seconds: how long the chip averages; 0 if that is not known.
        is_in_sum: whether another device has this power too; see `Settings.parts_of_sums`.
        error: why it was not read, if it was not read last.
    """

    device: str
    joules: float | None
    seconds: float
    coverage: float
    peak_watts: float | None
    idle_watts: float | None
    window_seconds: float | None
    is_in_sum: bool
    error: str | None

    @property
    def mean_watts(self) -> float | None:
        """The mean power in the time that was measured."""
        return None if self.joules is None else self.joules / self.seconds

    @property
    def net_joules(self) -> float | None:
        """The energy above idle."""
        if self.joules is None or self.idle_watts is None:
            return None
        return self.joules - self.idle_watts * self.seconds


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run of the command, with every device in the order of the configuration."""

    began_unix_seconds: float
    seconds: float
    exit_status: int
    devices: tuple[DeviceResult, ...]

    def total_joules(self) -> float | None:
        """The energy of all devices that were measured; what another device has in its sum counts once."""
        return _sum([result.joules for result in self.devices if not result.is_in_sum])

    def total_net_joules(self) -> float | None:
        """The same, above idle."""
        return _sum([result.net_joules for result in self.devices if not result.is_in_sum])


@dataclass(frozen=True, slots=True)
class Statistic:
    """The mean of several runs and its spread, the sample standard deviation; None for what is not known."""

    mean: float | None
    spread: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Statistic:
        """Those of the values that are known."""
        known = [value for value in values if value is not None]
        return cls(fmean(known) if known else None, stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True, slots=True)
class Row:
    """One device, or all, over all runs that count.

    Attributes:
        peak_watts: the highest of all runs; None for the total, as the peaks of devices are not at the same time.
    """

    device: str
    joules: Statistic
    net_joules: Statistic
    idle_watts: float | None
    mean_watts: float | None
    peak_watts: float | None
    seconds: float
    coverage: float
    window_seconds: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """Everything that was measured.

    Attributes:
        reading_interval_seconds: the intended time between two readings.
        idle_seconds: how long the idle power was measured; None if it was not.
        runs: those that were done.
        notes: what to know about the numbers.
    """

    command: tuple[str, ...]
    hostname: str
    is_simulated: bool
    reading_interval_seconds: float
    idle_seconds: float | None
    runs_requested: int
    runs: tuple[RunResult, ...]
    notes: tuple[str, ...] = ()

    def counted_runs(self) -> tuple[RunResult, ...]:
        """Those in the means: without one that failed, if others did not."""
        return tuple(run for run in self.runs if run.exit_status == 0) or self.runs

    def rows(self) -> list[Row]:
        """One row for each device, in the order of the configuration."""
        runs = self.counted_runs()
        return [_row([run.devices[number] for run in runs]) for number in range(len(runs[0].devices))]

    def total(self) -> Row:
        """The sum of all devices."""
        runs = self.counted_runs()
        rows = [row for row, result in zip(self.rows(), runs[0].devices, strict=True) if not result.is_in_sum]
        return Row(
            "total",
            Statistic.of([run.total_joules() for run in runs]),
            Statistic.of([run.total_net_joules() for run in runs]),
            _sum([row.idle_watts for row in rows]),
            _sum([row.mean_watts for row in rows]),
            None,
            fmean(run.seconds for run in runs),
            min(row.coverage for row in rows),
            None,
            None,
        )


def _row(results: Sequence[DeviceResult]) -> Row:
    last = results[-1]
    measured = [result for result in results if result.joules is not None]
    seconds = sum(result.seconds for result in measured)
    peaks = [result.peak_watts for result in measured if result.peak_watts is not None]
    return Row(
        last.device,
        Statistic.of([result.joules for result in results]),
        Statistic.of([result.net_joules for result in results]),
        last.idle_watts,
        sum(result.joules or 0.0 for result in measured) / seconds if seconds else None,
        max(peaks, default=None),
        seconds / len(measured) if measured else 0.0,
        min(result.coverage for result in results),
        last.window_seconds,
        last.error,
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
