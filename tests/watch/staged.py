"""A watch of a fixed scene in the current terminal: `python -m tests.watch.staged SCENE`.

Two things are not real: the clock advances one second for each sweep, and sweeps run in the main thread. After the last
sweep the clock stops, and the file $LAST_SWEEP is made, if that is set; signals and keys still work.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.run.signals import Signals
from agent.run.sweeper import Sweeper
from agent.watch.glyphs import glyphs_for
from agent.watch.history import History
from agent.watch.keyboard import Keyboard
from agent.watch.live import LiveTable, Output, make_console
from agent.watch.watching import Suspension, watch
from tests.bench import Bench, constant, ina260, ina3221, mux

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW = 'averaging = { count = 1024, voltage = "8.244ms", current = "8.244ms" }'
EVERY = 'sample_interval = "1s"\n'

MIXED = (
    mux("m0", 0x70)
    + ina260("cpu", 'mux = "m0", channel = 0')
    + ina260("accelerator", 'mux = "m0", channel = 1')
    + ina3221("radio", 'mux = "m0", channel = 3', 2)
    + ina260("battery", 'mux = "m0", channel = 4')
    + ina260("fan", 'mux = "m0", channel = 5')
    + ina260("disk", 'mux = "m0", channel = 6', more=SLOW)
    + ina260("a name that is far too long for its column", 'mux = "m0", channel = 7')
)
MANY = mux("m0", 0x70) + "".join(
    ina260(f"rail-{number:02d}", f'mux = "m0", channel = {number % 8}', 0x40 + number // 8) for number in range(30)
)


def mixed(bench: Bench, second: int) -> None:
    """Loads that change, one that flows back, a chip that is unplugged, and one that loses power."""
    load = 0.5 + 0.5 * math.sin(second / 7)
    bursts = 8.0 if second % 40 < 5 else 0.0
    loads = {
        "cpu": (5.0, 0.5 + load),
        "accelerator": (12.0, 0.25 + bursts),
        "radio": (3.304, 0.004 + 0.02 * (second % 10 == 0)),
        "battery": (7.4, 1.0 - second / 75),
        "disk": (5.0, 0.4),
        "a name that is far too long for its column": (1.25, 0.01),
    }
    for name, (volts, amperes) in loads.items():
        set_rail(bench, name, volts, amperes)
    if second == 1:
        bench.chip("fan").unplug()
    if second == 146:
        bench.chip("disk").power_loss()


def many(bench: Bench, second: int) -> None:
    """More devices than a small terminal has lines; three of them do not answer."""
    if second == 1:
        for name in ("rail-03", "rail-27", "rail-29"):
            bench.chip(name).unplug()


def set_rail(bench: Bench, name: str, volts: float, amperes: float) -> None:
    rail = constant(bench.rails[name])
    rail.volts, rail.amperes = volts, amperes


def crash(bench: Bench, second: int) -> None:
    """An error of the program itself."""
    if second == 3:
        raise RuntimeError("as staged")


SCENES: dict[str, tuple[str, int, Callable[[Bench, int], None]]] = {
    "mixed": (MIXED, 150, mixed),
    "many": (MANY, 5, many),
    "hang": (MANY, 5, many),
    "crash": (MANY, 5, crash),
}


class HandSweeper(Sweeper):
    """Runs the sweep inside `sweep`."""

    def _begin(self, job: Any) -> None:
        self._run(job)


class Staging(Signals):
    """A wait advances the clock and changes the loads until the last sweep; after that, it waits."""

    def __init__(self, bench: Bench, sweeps: int, change: Callable[[Bench, int], None]) -> None:
        super().__init__()
        self._bench = bench
        self._sweeps = sweeps
        self._change = change
        self._second = 0
        self._is_woken = False
        change(bench, 0)

    def wake(self) -> None:
        self._is_woken = True

    def wait(self, seconds: float) -> None:
        if self._is_woken:
            self._is_woken = False
        elif seconds > 0 and self._second < self._sweeps:
            self._second += 1
            self._bench.clock.sleep(seconds)
            self._change(self._bench, self._second)
        else:
            if self._second == self._sweeps and (end := os.environ.get("LAST_SWEEP")):
                Path(end).touch()
            super().wait(seconds)


def main(scene: str) -> None:
    text, sweeps, change = SCENES[scene]
    bench = Bench.of(text, EVERY)
    with Staging(bench, sweeps, change) as staging, Suspension() as suspension:
        history = History(bench.settings, bench.clock, is_simulated=True)
        output = Output(sys.stdout.fileno(), sys.stdout.encoding, staging, bench.clock)
        keyboard = Keyboard(sys.stdin.fileno(), staging.inputs, staging.stop)
        console = make_console(os.environ)
        glyphs = glyphs_for(sys.stdout.encoding, os.environ)
        watch(
            sample_interval_seconds=1.0,
            sweeper=HandSweeper(bench.new_sweep(), staging.wake),
            history=history,
            display=LiveTable(output, keyboard, console, history, glyphs, bench.clock),
            clock=bench.clock,
            waiting=staging,
            suspension=suspension,
        )


if __name__ == "__main__":
    main(sys.argv[1])
