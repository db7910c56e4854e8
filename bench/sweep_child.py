"""Times sweeps over an emulated /dev/i2c-1: python -m bench.sweep_child FOLDER REPETITIONS SWEEPS; prints JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.energy.meter import EnergyMeters
from agent.i2c.adapters import open_bus
from agent.i2c.bus import Bus
from agent.measure.readings import Reading
from agent.measure.sweep import Sweep
from bench import stock
from bench.bus import MeteredI2CDev
from bench.measure import interleaved
from bench.nodes import SHORT_CONVERSION, configuration, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

_SETTLING_SWEEPS = 5

_SLEEP_SECONDS = 0.05
_SLEEPS = 10


def _timed(dev: MeteredI2CDev, sweeps: int, sweep: Callable[[], object]) -> tuple[float, float]:
    """CPU seconds and system calls of a sweep, in a tight loop."""
    gc.collect()
    calls_before, before = dev.system_calls, _cpu_seconds(dev)
    for _ in range(sweeps):
        sweep()
    return (_cpu_seconds(dev) - before) / sweeps, (dev.system_calls - calls_before) / sweeps


def _timed_after_sleeps(dev: MeteredI2CDev, sweep: Callable[[], object]) -> tuple[float]:
    """CPU seconds of a sweep after a sleep, as a loop does it: the processor's caches hold other data by then."""
    seconds = 0.0
    for _ in range(_SLEEPS):
        time.sleep(_SLEEP_SECONDS)
        before = _cpu_seconds(dev)
        sweep()
        seconds += _cpu_seconds(dev) - before
    return (seconds / _SLEEPS,)


def _cpu_seconds(dev: MeteredI2CDev) -> float:
    return time.process_time() - dev.cpu_seconds


def main() -> None:
    """Make sure that both variants read the same values, then time them."""
    folder, repetitions, sweeps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dev = MeteredI2CDev(folder)
    dev.install()
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
            raise RuntimeError(f"the two variants disagree: {outcome}, stock {volts} V {amperes} A")
    if len({outcome.volts for outcome in outcomes if isinstance(outcome, Reading)}) != len(outcomes):
        raise RuntimeError(f"two channels gave the same chip: {outcomes}")
    meters = EnergyMeters((device.name for device in settings.devices), settings.max_gap_seconds, {})
    sweep_stock = partial(stock.sweep, stock_sensors)

    def sweep_ours() -> None:
        meters.add(sensors.run())

    taken = interleaved(
        repetitions,
        {
            "stock": partial(_timed, dev, sweeps, sweep_stock),
            "ours": partial(_timed, dev, sweeps, sweep_ours),
            "ours, not accounted": partial(_timed, dev, sweeps, sensors.run),
            "stock, after sleeps": partial(_timed_after_sleeps, dev, sweep_stock),
            "ours, after sleeps": partial(_timed_after_sleeps, dev, sweep_ours),
        },
    )
    sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    main()
