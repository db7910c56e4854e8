"""Every chip that wattpush reads, a file each: registers and what they mean; imported by all to its right.

The name of a file is the chip's name in the configuration. The file offers `OPTIONS`, the configuration keys that the
chip accepts, and `Chip`: an `I2CChip`, or a `KernelChip` if `OPTIONS.addresses` is None.
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
    PowerRegister,
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
    "PowerRegister",
    "i2c_chip",
    "names",
    "options",
    "parts",
]


def names() -> tuple[str, ...]:
    """The names of all chips, from the files of this folder."""
    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def options() -> dict[str, ChipOptions]:
    """The configuration keys that each chip accepts, by the name of the chip."""
    return {name: import_module(f"{__name__}.{name}").OPTIONS for name in names()}


def parts() -> str:
    """All chips on I2C by their names in the datasheets: `INA219, INA228 and INA260`."""
    *parts, last = (name.upper() for name, keys in options().items() if keys.addresses is not None)
    return f"{', '.join(parts)} and {last}"


def i2c_chip(name: str) -> type[I2CChip]:
    """The class of a chip on I2C."""
    chip: type[I2CChip] = import_module(f"{__name__}.{name}").Chip
    return chip
