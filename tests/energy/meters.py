"""Meters that have been given outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.energy.meter import EnergyMeter

if TYPE_CHECKING:
    from agent.measure.readings import Outcome


def meter_of(*outcomes: Outcome, max_gap_seconds: float = 600.0) -> EnergyMeter:
    """The meter of the device "cpu" after these outcomes."""
    made = EnergyMeter("cpu", max_gap_seconds)
    for outcome in outcomes:
        made.add(outcome)
    return made
