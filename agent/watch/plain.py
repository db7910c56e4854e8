"""Readings without a terminal: one line of logfmt for each device and sweep, for grep and awk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.log import quoted
from agent.measure.readings import Failure, Reading, Settling
from agent.watch.history import VoltsOnly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.watch.history import History
    from agent.watch.live import Output

_NEEDS_QUOTES = frozenset(' "=\\')


def line(outcome: Outcome | VoltsOnly, joules: float, unix_seconds: float, *, is_simulated: bool) -> str:
    """Format the outcome of one device.

    Args:
        outcome: of the sweep.
        joules: energy delivered since the watch began, minus the energy that flowed back.
        unix_seconds: when the sweep ended; a reading has its own time.
        is_simulated: marks every line, so that no simulated number is mistaken for a measurement.
    """
    match outcome:
        case Reading(volts=volts, amperes=amperes, power_watts=watts, unix_seconds=unix_seconds):
            values = f"volts={volts:.4f} amperes={amperes:.6f} watts={watts:.6f} joules={joules:.3f}"
        case VoltsOnly(volts=volts, unix_seconds=unix_seconds):
            read = "" if volts is None else f"volts={volts:.4f} "
            values = f"{read}error={quoted(outcome.problem)}"
        case Failure(error=error):
            values = f"error={quoted(str(error))}"
        case Settling(power_lost=True):
            values = 'error="its chip lost its power and was configured again"'
        case _:
            values = "converting=true"
    name = quoted(outcome.device) if _NEEDS_QUOTES.intersection(outcome.device) else outcome.device
    return f"ts={_timestamp(unix_seconds)} device={name} {values}{' simulated=true' if is_simulated else ''}\n"


class PlainLines:
    """Writes every sweep as lines; a `watching.Display`."""

    def __init__(self, output: Output, history: History, clock: Clock) -> None:
        self._output = output
        self._history = history
        self._clock = clock

    def open(self) -> None:
        """Nothing to prepare."""

    def show(self, outcomes: Sequence[Outcome | VoltsOnly]) -> None:
        """Write one line for each device."""
        now = self._clock.time()
        self._output.write(
            "".join(
                line(outcome, self._history.joules(outcome.device), now, is_simulated=self._history.is_simulated)
                for outcome in outcomes
            )
        )

    def refresh(self) -> None:
        """Nothing to update: every line belongs to a sweep."""

    def close(self) -> None:
        """Nothing to restore."""

    def sum_up(self) -> None:
        """Nothing: every line has its device's energy, and programs that read them expect no other line."""

    @property
    def is_hidden(self) -> bool:
        """Whether nothing is written now: never."""
        return False


def _timestamp(unix_seconds: float) -> str:
    milliseconds = int(unix_seconds % 1 * 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(unix_seconds))}.{milliseconds:03d}Z"
