"""Averaging, chosen so that a result covers the whole time between two readings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.settings import AveragingChoices

if TYPE_CHECKING:
    from agent.settings import Averaging

COUNTS = (1, 4, 16, 64, 128, 256, 512, 1024)

CHOICES = AveragingChoices(COUNTS, (140e-6, 204e-6, 332e-6, 588e-6, 1.1e-3, 2.116e-3, 4.156e-3, 8.244e-3))
"""Those of the INA226, INA260 and INA3221 (SBOS547; SBOS656 table 5; SBOS576 tables 8 and 9)."""

# A result may take this much longer than the sample interval: some results are then read twice, but none is missed.
_LONGEST_OVERHANG = 1.1


@dataclass(frozen=True, slots=True)
class Codes:
    """The register codes of an averaging, and the time that one result takes."""

    count: int
    voltage: int
    current: int
    conversion_seconds: float


def codes(
    choices: AveragingChoices, chosen: Averaging | None, sample_interval_seconds: float, inputs: int = 1
) -> Codes:
    """The codes of the averaging that the user chose, or for "auto" of the one that covers the sample interval best.

    The chip measures current and voltage in turn, and a burst of the load shows in the current. "auto" therefore takes,
    of all settings whose result takes one sample interval or slightly longer, the one that measures the current for the
    largest share of the time. If none is that close, it takes the shortest that covers the interval, and if none covers
    it, the longest of all.
    """
    if chosen is not None:
        count = choices.counts.index(chosen.count)
        voltage = choices.conversion_seconds.index(chosen.voltage_seconds)
        current = choices.conversion_seconds.index(chosen.current_seconds)
        return _codes(choices, count, voltage, current, inputs)
    every = [
        _codes(choices, count, voltage, current, inputs)
        for count in range(len(choices.counts))
        for voltage in range(len(choices.conversion_seconds))
        for current in range(voltage, len(choices.conversion_seconds))
    ]
    covering = [codes for codes in every if codes.conversion_seconds >= sample_interval_seconds]
    if not covering:
        return max(every, key=lambda codes: codes.conversion_seconds)
    close = [codes for codes in covering if codes.conversion_seconds <= sample_interval_seconds * _LONGEST_OVERHANG]
    if not close:
        return min(covering, key=lambda codes: codes.conversion_seconds)
    return max(close, key=lambda codes: (codes.current - codes.voltage, -codes.conversion_seconds))


def _codes(choices: AveragingChoices, count: int, voltage: int, current: int, inputs: int) -> Codes:
    one_pass_seconds = choices.conversion_seconds[voltage] + choices.conversion_seconds[current]
    return Codes(count, voltage, current, choices.counts[count] * one_pass_seconds * inputs)


def conversion_seconds(choices: AveragingChoices, count: int, voltage: int, current: int, inputs: int = 1) -> float:
    """How long one result takes with these register codes."""
    return _codes(choices, count, voltage, current, inputs).conversion_seconds
