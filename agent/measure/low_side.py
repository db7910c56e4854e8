"""Tells a chip that is wired into the ground line: it measures a current, and next to no voltage.

These chips measure the bus voltage against ground: at a pin of its own (VBUS), or at IN- (INA219, INA3221). In the
ground line of the load, or with that pin left at ground, this is 0 V, and so are watts and joules. A rail that is
switched off has no current either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.settings import Device

CURE = "Put it in the supply line, and connect the pin that measures the voltage (VBUS, or IN- on a chip without) there"

_MOST_VOLTS = 0.1
"""Of a rail that is off; such a current cannot flow through it."""

_SHUNT_VOLTS = 0.5e-3
"""More than twice the largest offset of these chips, 200 uV of an INA219 (SBOS448, section 7.5)."""

UNKNOWN_LEAST_AMPERES = 0.5
"""More than the offset of any chip whose shunt we do not know."""


def least_amperes(device: Device) -> float:
    """The current above which a device certainly has a current."""
    return _SHUNT_VOLTS / device.shunt_ohms if device.shunt_ohms else UNKNOWN_LEAST_AMPERES


def lacks_volts(volts: float, amperes: float, least_amperes: float) -> bool:
    """Whether there is a current without a voltage."""
    return abs(amperes) >= least_amperes and has_no_volts(volts)


def has_no_volts(volts: float) -> bool:
    """Whether the voltage is as low as that of a rail that is off."""
    return abs(volts) <= _MOST_VOLTS
