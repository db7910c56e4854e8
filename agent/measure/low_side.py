"""Recognises a chip that is wired into the ground line: it measures a current, and next to no voltage.

The chips measure the bus voltage against ground: at the pin VBUS, or at IN- on one without, such as an INA219. In the
ground line of the load, or with VBUS left at ground, that is 0 V, and so power and energy are zero. A rail that is
switched off has no current either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.settings import Device

HINT = "Put it in the supply line, and connect the pin that measures the voltage (VBUS, or IN- on a chip without) there"

_MOST_VOLTS = 0.1
"""The highest voltage of a rail that is off."""

_SHUNT_VOLTS = 0.5e-3
"""More than twice the largest offset of these chips, 200 uV of an INA219 (SBOS448, section 7.5)."""

UNKNOWN_LEAST_AMPERES = 0.5
"""More than the offset of any chip whose shunt we do not know."""


def least_amperes(device: Device) -> float:
    """The current in amperes that no offset of the chip explains."""
    return _SHUNT_VOLTS / device.shunt_ohms if device.shunt_ohms else UNKNOWN_LEAST_AMPERES


def is_likely(volts: float, amperes: float, least_amperes: float) -> bool:
    """Whether there is a current without a voltage."""
    return abs(amperes) >= least_amperes and has_no_volts(volts)


def describe(volts: float, amperes: float) -> str:
    """The current without a voltage, and its usual cause; see `HINT`."""
    return f"{amperes:.3g} A at {volts:.3g} V; is the shunt in the ground line of the load?"


def has_no_volts(volts: float) -> bool:
    """Whether the voltage is as low as that of a rail that is off."""
    return abs(volts) <= _MOST_VOLTS
