"""Every chip that wattpush reads, a file each: registers and what they mean; imported by all to its right.

A file is found by its name, which is the chip's name in the configuration. It offers `OPTIONS`, what the configuration
may say of the chip, and `Chip`: an `I2CChip`, or, where `OPTIONS.addresses` is None, a `KernelChip`.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING

from agent.chips._base import (
    HARDWARE_COUNTER_BITS,
    ExpectedBits,
    HardwareCounters,
    I2CChip,
    KernelChip,
    Measurement,
)

if TYPE_CHECKING:
    from agent.settings import ChipOptions

__all__ = [
    "HARDWARE_COUNTER_BITS",
    "ExpectedBits",
    "HardwareCounters",
    "I2CChip",
    "KernelChip",
    "Measurement",
    "i2c_chip",
    "names",
    "options",
    "parts",
]


def names() -> tuple[str, ...]:
    """The names of all chips, from the files of this folder."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def options() -> dict[str, ChipOptions]:
    """What the configuration may say of each chip."""
    return {name: import_module(f"{__name__}.{name}").OPTIONS for name in names()}


def parts() -> str:
    """All chips on I2C by the names of their datasheets: `INA219, INA228 and INA260`."""
    *parts, last = (name.upper() for name, of_chip in options().items() if of_chip.addresses is not None)
    return f"{', '.join(parts)} and {last}"


def i2c_chip(name: str) -> type[I2CChip]:
    """The class of a chip on I2C."""
    chip: type[I2CChip] = import_module(f"{__name__}.{name}").Chip
    return chip
