"""The process in which sweeps over /dev/i2c-1 are timed: python -m bench.sweep_child REPETITIONS SWEEPS; prints JSON.

It needs the emulated device file (bench/i2c_dev.c) below it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.energy.meter import EnergyMeters
from agent.i2c.adapters import open_bus
from agent.i2c.bus import Bus
from agent.measure.readings import Reading
from agent.measure.sweep import Sweep
from bench import stock
from bench.measure import interleaved
from bench.nodes import SHORT_CONVERSION, configuration, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

_SETTLING_SWEEPS = 5

_SLEEP_SECONDS = 0.05
_SLEEPS = 10


def _timed(sweep: Callable[[], object], sweeps: int) -> Callable[[], tuple[float, float]]:
    calls = ctypes.c_uint64.in_dll(ctypes.CDLL(None), "i2c_dev_system_calls")

    def measure() -> tuple[float, float]:
        gc.collect()
        calls_before, before = calls.value, time.process_time()
        for _ in range(sweeps):
            sweep()
        seconds = time.process_time() - before
        return seconds / sweeps, (calls.value - calls_before) / sweeps

    return measure


def _timed_after_sleeps(sweep: Callable[[], object]) -> Callable[[], tuple[float]]:
    """A loop sweeps after a sleep, when the processor's caches hold other things."""

    def measure() -> tuple[float]:
        seconds = 0.0
        for _ in range(_SLEEPS):
            time.sleep(_SLEEP_SECONDS)
            before = time.process_time()
            sweep()
            seconds += time.process_time() - before
        return (seconds / _SLEEPS,)

    return measure


def main() -> None:
    """Make sure that both ways read the same, then time them."""
    repetitions, sweeps = int(sys.argv[1]), int(sys.argv[2])
    settings = settings_of(configuration(8, each=SHORT_CONVERSION))
    clock = SystemClock()
    sensors = Sweep(settings, [Bus(1, settings.muxes, open_bus, clock)], clock)
    for _ in range(_SETTLING_SWEEPS):
        sensors.run()
        time.sleep(0.01)  # longer than a conversion
    outcomes = sensors.run()
    stock_sensors = stock.open_sensors(stock.NumberedI2C(1))
    for outcome, (volts, amperes, _) in zip(outcomes, stock.sweep(stock_sensors), strict=True):
        if not isinstance(outcome, Reading) or abs(outcome.volts - volts) + abs(outcome.amperes - amperes) > 1e-6:
            raise RuntimeError(f"the two ways disagree: {outcome}, stock {volts} V {amperes} A")
    if len({outcome.volts for outcome in outcomes if isinstance(outcome, Reading)}) != len(outcomes):
        raise RuntimeError(f"two channels gave the same chip: {outcomes}")
    meters = EnergyMeters((device.name for device in settings.devices), settings.max_gap_seconds, {})
    taken = interleaved(
        repetitions,
        {
            "stock": _timed(lambda: stock.sweep(stock_sensors), sweeps),
            "ours": _timed(lambda: meters.add(sensors.run()), sweeps),
            "ours, not accounted": _timed(sensors.run, sweeps),
            "stock, after sleeps": _timed_after_sleeps(lambda: stock.sweep(stock_sensors)),
            "ours, after sleeps": _timed_after_sleeps(lambda: meters.add(sensors.run())),
        },
    )
    sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    main()
