"""Every chip that wattpush reads, a file each: registers and what they mean; imported by all to its right.

The name of a file is the chip's name in the configuration. The file offers `OPTIONS`, the configuration keys that the
chip accepts, and `Chip`: an `I2CChip`, or a `KernelChip` if `OPTIONS.addresses` is None.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
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
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from agent.settings import ChipOptions, Device

__all__ = [
    "ALIASES",
    "HARDWARE_COUNTER_BITS",
    "ExpectedBits",
    "HardwareCounters",
    "I2CChip",
    "KernelChip",
    "Measurement",
    "PowerRegister",
    "i2c_chip",
    "kernel_chip",
    "names",
    "options",
    "parts",
]


ALIASES = {"ina220": "ina219"}
"""Other names of a chip that has the same registers, and the name of its file."""


class _Options(Mapping[str, "ChipOptions"]):
    """The options of each chip by its name or alias; a chip's file is imported when its options are asked for."""

    def __getitem__(self, name: str) -> ChipOptions:
        options: ChipOptions = _module(name).OPTIONS
        return options

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())


def names() -> tuple[str, ...]:
    """The names of all chips, from the files of this folder, without aliases."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(name.replace("_", "-") for name in modules if not name.startswith("_"))


def options() -> Mapping[str, ChipOptions]:
    """The configuration keys that each chip accepts. It iterates over `names()`, and takes an alias as a key too."""
    return _Options()


def parts() -> str:
    """All chips on I2C by their names in the datasheets: `INA219, INA228 and INA260`."""
    *parts, last = (name.upper() for name, keys in options().items() if keys.addresses is not None)
    return f"{', '.join(parts)} and {last}"


def i2c_chip(name: str) -> type[I2CChip]:
    """The class of a chip on I2C."""
    chip: type[I2CChip] = _module(name).Chip
    return chip


def kernel_chip(devices: Sequence[Device]) -> KernelChip:
    """The reader of a chip that the kernel or the firmware reads; all devices are of this chip."""
    chip: KernelChip = _module(devices[0].chip).Chip(devices)
    return chip


def _module(name: str) -> ModuleType:
    """The file of a chip. Raises KeyError if there is none."""
    name = ALIASES.get(name, name)
    if name not in names():
        raise KeyError(name)
    return import_module(f"{__name__}.{name.replace('-', '_')}")
