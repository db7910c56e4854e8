"""The benchmarks, one file for each subject, by their name in `python -m bench NAME`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.rows import bits, energy, fleet, history, loop, push, start, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.measure import Effort, Findings

ALL: Mapping[str, Callable[[Effort, Path], Findings]] = {
    "bits": bits.measure,
    "sweep": sweep.measure,
    "push": push.measure,
    "start": start.measure,
    "loop": loop.measure,
    "energy": energy.measure,
    "fleet": fleet.measure,
    "history": history.measure,
}
