"""How the checks show what a chip measures, and what looks wrong about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.check import warning
from agent.measure import low_side

if TYPE_CHECKING:
    from agent.check import Finding
    from agent.chips import Measurement
    from agent.settings import Device


def low_side_warning(device: Device, name: str, result: Measurement) -> Finding | None:
    """A warning of a current without a voltage; None if there is a voltage, or no current."""
    if not low_side.is_likely(result.volts, result.amperes, low_side.least_amperes(device)):
        return None
    return warning(device.name, f"{name}: {low_side.describe(result.volts, result.amperes)}", low_side.HINT)


def shown(result: Measurement) -> str:
    """The measurement in volts and amperes."""
    return f"{result.volts:.3f} V, {result.amperes:.3f} A"
