"""Every chip that wattpush reads, a file each: registers and what they mean; imported by all to its right.

The name of a file is the chip's name in the configuration. The file offers `OPTIONS`, the configuration keys that the
chip accepts, and `Chip`: an `I2CChip`, or a `KernelChip` if `OPTIONS.addresses` is None. A chip on I2C may also come
from another package: `_third_party.py`.

`__all__` has all that the file of a chip needs, and that of `agent.simulate.chips` all that its simulated twin needs.
Other packages may use these names (docs/adding-a-chip.md); everything else in `agent` may change at any time.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from agent.chips._averaging import COUNTS as AVERAGING_COUNTS
from agent.chips._averaging import Codes as AveragingCodes
from agent.chips._averaging import conversion_seconds
from agent.chips._base import (
    HARDWARE_COUNTER_BITS,
    TEXAS_INSTRUMENTS,
    ComputedRegister,
    ExpectedBits,
    HardwareCounters,
    I2CChip,
    KernelChip,
    Measurement,
    Word,
    signed,
)
from agent.errors import SensorError
from agent.i2c.place import Place
from agent.i2c.transfers import I2C, Register
from agent.settings import CHIP_ALIASES, AveragingChoices, ChipOptions, Device

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence
    from types import ModuleType

__all__ = [
    "AVERAGING_COUNTS",
    "HARDWARE_COUNTER_BITS",
    "I2C",
    "TEXAS_INSTRUMENTS",
    "AveragingChoices",
    "AveragingCodes",
    "ChipOptions",
    "ComputedRegister",
    "Device",
    "ExpectedBits",
    "HardwareCounters",
    "I2CChip",
    "KernelChip",
    "Measurement",
    "Place",
    "Register",
    "SensorError",
    "Word",
    "conversion_seconds",
    "i2c_chip",
    "kernel_chip",
    "names",
    "options",
    "parts",
    "refuse_another_kind",
    "signed",
]


_NOT_ON_I2C = ("hwmon", "rpi-pmic")


class _Options(Mapping[str, ChipOptions]):
    """The options of each chip by its name or alias; a chip's file is imported when its options are asked for."""

    def __getitem__(self, name: str) -> ChipOptions:
        if _is_built_in(name):
            built_in: ChipOptions = _module(name).OPTIONS
            return built_in
        # Imported only for a name that no file here has: looking through the installed packages takes a while.
        from agent.chips import _third_party

        return _third_party.find(name).options

    def __iter__(self) -> Iterator[str]:
        return iter(names())

    def __len__(self) -> int:
        return len(names())


def names() -> tuple[str, ...]:
    """The names of all built-in chips, from the files of this folder, without aliases."""
    return _names_in(tuple(__path__))


@cache  # they are asked for with each device, and a walk through the folder takes as long as an import
def _names_in(folders: tuple[str, ...]) -> tuple[str, ...]:
    modules = (module.name for module in pkgutil.iter_modules(folders))
    return tuple(name.replace("_", "-") for name in modules if not name.startswith("_"))


def options() -> Mapping[str, ChipOptions]:
    """The configuration keys that each chip accepts.

    It iterates over `names()`. As a key it also takes an alias, and the name of a chip that an installed package adds;
    it raises ConfigError if that package cannot be used.
    """
    return _Options()


def parts() -> str:
    """All chips on I2C by their names in the datasheets: `INA219, INA228 and INA260`; it imports no file."""
    *parts, last = (name.upper() for name in names() if name not in _NOT_ON_I2C)
    return f"{', '.join(parts)} and {last}"


def i2c_chip(name: str) -> type[I2CChip]:
    """The class of a chip on I2C. Raises KeyError and ConfigError as `options`."""
    if _is_built_in(name):
        built_in: type[I2CChip] = _module(name).Chip
        return built_in
    from agent.chips import _third_party

    return _third_party.find(name).chip


def kernel_chip(devices: Sequence[Device]) -> KernelChip:
    """The reader of a chip that the kernel or the firmware reads; all devices are of this chip."""
    chip: KernelChip = _module(devices[0].chip).Chip(devices)
    return chip


def refuse_another_kind(chip: I2CChip, names: Container[str] = ()) -> None:
    """For a chip without an ID of its own, just identified: refuse it if it shows the IDs of another kind.

    Args:
        chip: the chip on the bus.
        names: the built-in chips whose IDs it may show, as its own.

    Raises:
        OSError: a transaction failed.
        SensorError: it is another kind of chip.
    """
    # It imports the files of many chips.
    from agent.chips import _signatures

    _signatures.refuse_another_kind(chip, names)


def _is_built_in(name: str) -> bool:
    return CHIP_ALIASES.get(name, name) in names()


def _module(name: str) -> ModuleType:
    """The file of a built-in chip, by its name or alias."""
    return import_module(f"{__name__}.{CHIP_ALIASES.get(name, name).replace('-', '_')}")
