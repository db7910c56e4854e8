"""The CPU time of a sweep through the real /dev/i2c-N code, and the highest steady rate that it allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.measure import Effort, Findings, Goal, Row, Samples
from bench.processes import run_for_json
from bench.rows.bits import bits_of_eight_ina260

if TYPE_CHECKING:
    from pathlib import Path

_STOCK_BITS = 4224
_BUS_HERTZ = 400_000


def measure(effort: Effort, folder: Path) -> Findings:
    """Time sweeps of 8 INA260 in another process, without the time on the wire."""
    arguments = [str(folder), str(effort.times(21, 5)), str(effort.times(500, 200))]
    taken = run_for_json(["-m", "bench.sweep_child", *arguments], {})
    stock_seconds, stock_calls = taken["stock"]
    our_seconds, our_calls = taken["ours"]
    microseconds = {
        variant: Samples(tuple(seconds * 1e6 for seconds in values[0]), "us") for variant, values in taken.items()
    }
    return Findings(
        (
            Row(
                "CPU of a sweep of 8 through /dev/i2c-N, with the energy meter",
                microseconds["stock"],
                microseconds["ours"],
                (Goal(0.15, is_ratio=True),),
                before="0.207 x",
            ),
            Row(
                "the same without the energy meter",
                microseconds["stock"],
                microseconds["ours, not accounted"],
                before="0.143 x",
            ),
            Row(
                "the same as in a loop, each sweep after a sleep",
                microseconds["stock, after sleeps"],
                microseconds["ours, after sleeps"],
                before="0.451 x",
            ),
            Row(
                "system calls on the bus, sweep of 8",
                Samples(stock_calls[:1], "calls"),
                Samples(our_calls[:1], "calls"),
                before="33 calls",
            ),
            Row(
                "highest steady rate, 8 INA260 at 400 kHz",
                _rate(_STOCK_BITS, stock_seconds),
                _rate(bits_of_eight_ina260(), our_seconds),
                (Goal(250, "sweeps/s", at_least=True),),
                before="289 sweeps/s",
            ),
        )
    )


def _rate(bits: int, cpu_seconds: list[float]) -> Samples:
    return Samples(tuple(1 / (bits / _BUS_HERTZ + seconds) for seconds in cpu_seconds), "sweeps/s")
