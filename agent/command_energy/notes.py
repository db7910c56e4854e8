"""What a person should know about the numbers of a measurement, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.command_energy.results import DeviceResult, RunResult

_CONVERSIONS_PER_RUN = 2
"""Of a shorter run no conversion is known that lies in it as a whole."""

_WHOLE_COVERAGE = 0.995
_SPARSE_SHARE = 0.5


def notes(runs: Sequence[RunResult], reading_interval_seconds: float) -> Iterator[str]:
    """One line for each matter, with all devices that it concerns."""
    shortest = min(runs, key=lambda run: run.seconds)
    read = [result for result in shortest.devices if result.window_seconds and result.joules is not None]
    coarse = [result for result in read if shortest.seconds < _CONVERSIONS_PER_RUN * (result.window_seconds or 0.0)]
    if coarse:
        longest = max(result.window_seconds or 0.0 for result in coarse)
        means = "these joules are rough"
        if shortest.seconds < longest:
            means = "these joules are the mean power around it, times its duration"
        yield (
            f"{_names(coarse)}: a reading is the mean of {longest:.2g} s, the command took {shortest.seconds:.2g} s: "
            f"{means}; use a longer command, or set a shorter sample_interval for the service"
        )
    sparse = [result for result in read if (result.window_seconds or 0.0) < _SPARSE_SHARE * reading_interval_seconds]
    if sparse:
        shortest_window = min(result.window_seconds or 0.0 for result in sparse)
        yield (
            f"{_names(sparse)}: a reading covers only {shortest_window * 1000:.2g} ms of every "
            f"{reading_interval_seconds * 1000:.3g} ms; to miss no burst, start the service, which lets chips average"
        )
    partly = {
        result.device: result
        for run in runs
        for result in run.devices
        if result.joules is not None and result.coverage < _WHOLE_COVERAGE
    }
    if partly:
        yield f"{_names(list(partly.values()))}: not measured all the time; the joules are those of the seconds shown"


def _names(results: Sequence[DeviceResult]) -> str:
    return ", ".join(result.device for result in results)
