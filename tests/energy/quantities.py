"""Energy and charge, which a meter counts by the same rules: tests of these rules run for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from agent.measure.readings import Reading

if TYPE_CHECKING:
    from agent.energy.counters import Counters, LastReading


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity and the rate at which it flows.

    Attributes:
        name: the unit, which names its counters.
    """

    name: str

    def reading(
        self, at_seconds: float, rate: float, window_seconds: float = 0.0, volts: float = 2.0, *, is_new: bool = True
    ) -> Reading:
        """A reading at this rate, of a rail with these volts."""
        amperes = rate if self.name == "coulombs" else rate / volts
        watts = rate if self.name == "joules" else rate * volts
        return Reading("cpu", volts, amperes, watts, at_seconds, 1_700_000_000.0 + at_seconds, window_seconds, is_new)

    def rate(self, reading: Reading) -> float:
        """The rate that a reading shows."""
        return reading.power_watts if self.name == "joules" else reading.amperes

    def delivered(self, counters: Counters) -> float:
        """What flowed to the load."""
        return float(getattr(counters, self.name))

    def returned(self, counters: Counters) -> float:
        """What flowed back."""
        return float(getattr(counters, f"returned_{self.name}"))

    def overcounted(self, last: LastReading | None) -> tuple[float, float]:
        """What was counted too much, to the load and back."""
        assert last is not None
        return getattr(last, f"overcounted_{self.name}"), getattr(last, f"returned_overcounted_{self.name}")


for_each_quantity = pytest.mark.parametrize("of", [Quantity("joules"), Quantity("coulombs")], ids=lambda of: of.name)
