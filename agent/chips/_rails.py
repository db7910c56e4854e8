"""Finds the rails of a chip in sysfs, for `hwmon`: voltages and currents that its driver documents as of one rail.

`_kernel_drivers` lists them. For every chip, a voltage and a current with the same label are of one rail.

Source: kernel documentation, hwmon/sysfs-interface.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent.chips._kernel_drivers import HIGHEST_VOLTS, is_unscaled, rows_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent.chips._kernel_drivers import Labelled

IIO_FOLDERS = "iio:device*"

_LONGEST_BYTES = 256

_DEFAULT_SHUNT_MICROOHMS = 10_000
"""Of ina2xx, ina3221 and ina3221x: INA2XX_RSHUNT_DEFAULT and INA3221_RSHUNT_DEFAULT in their sources."""

_CELL_BYTES = 4
"""A number in a device tree has big-endian cells of 32 bits (Devicetree Specification, section 2.2.4)."""


@dataclass(frozen=True, slots=True)
class Value:
    """A voltage, a current or a power in sysfs."""

    number: int
    label: str | None
    file: Path


@dataclass(frozen=True, slots=True)
class Rail:
    """The voltage and the current of one rail, and its power where the chip measures it."""

    volts: Value
    amperes: Value
    watts: Value | None
    highest_volts: float
    default_shunt_ohms: float | None = None

    @property
    def key(self) -> str:
        """What selects it in a configuration."""
        return f"input = {self.volts.number}" if self.volts.label is None else f'label = "{self.volts.label}"'


def rails(folder: Path, driver: str = "") -> list[Rail]:
    """The rails of a chip in the order of their voltages.

    Args:
        folder: that of its hwmon, or of its IIO device.
        driver: the name of its driver, if that is how it was found.
    """
    volts, amperes, watts = (voltages(folder), _values(folder, "curr"), _values(folder, "power"))
    if _is_iio(folder):
        amperes, watts = _values(folder, "in_current"), []  # its in_power is in milliwatts
    name, *others = _names(folder, driver)
    if is_unscaled(name, others):
        return []
    numbered, labelled = rows_of(name, others)
    current_of, power_of = ({value.number: value for value in values} for values in (amperes, watts))
    found = []
    for value in volts:
        number = numbered.pairs.get(value.number)
        if number in current_of:
            found.append(
                Rail(
                    value,
                    current_of[number],
                    power_of.get(number),
                    numbered.highest_volts,
                    numbered.default_shunt_ohms,
                )
            )
        elif sum(other.label == value.label for other in volts) == 1:  # of two, one is of another rail
            found += _labelled_rail(value, labelled, amperes, watts)
    return found


def why_none(folder: Path) -> str:
    """Why a chip has no rail."""
    name, *others = _names(folder)
    if is_unscaled(name, others):
        return "its driver cannot be told the shunt of the board, so its values are not amperes"
    return "its driver documents no voltage and current of one rail"


def shunt(rail: Rail) -> tuple[float, bool] | None:
    """The shunt that the driver computes with in ohms, and whether it is the default of the driver; None if unknown.

    Sources: kernel documentation, hwmon/ina2xx.rst (shunt_resistor in microohms) and ina3221.rst (shuntN_resistor);
    devicetree bindings hwmon/ti,ina2xx.yaml (shunt-resistor), adi,adm1275.yaml (shunt-resistor-micro-ohms) and others.
    """
    folder = rail.amperes.file.parent
    for name in ("shunt_resistor", f"shunt{rail.amperes.number}_resistor"):
        text = read_text(folder / name)
        if text is not None and text.isdecimal() and text.isascii():
            microohms = int(text)
            return microohms / 1e6, microohms == _DEFAULT_SHUNT_MICROOHMS
    for name in ("shunt-resistor", "shunt-resistor-micro-ohms"):
        try:
            cell = _read_bytes(folder / "device/of_node" / name, _LONGEST_BYTES)
        except OSError:
            continue
        if len(cell) == _CELL_BYTES:
            return int.from_bytes(cell, "big") / 1e6, False
    return None if rail.default_shunt_ohms is None else (rail.default_shunt_ohms, True)


def voltages(folder: Path) -> list[Value]:
    """All voltages of a chip in numerical order."""
    return _values(folder, "in_voltage" if _is_iio(folder) else "in")


def read_text(file: Path) -> str | None:
    """The text of a name or a label; None without one."""
    try:
        return read_file(file, _LONGEST_BYTES).strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def read_file(file: Path, limit_bytes: int) -> str:
    """The start of a file, at once: nothing that waits or never ends is read.

    Raises:
        OSError: it cannot be read, or is a FIFO, a device or a folder.
        UnicodeDecodeError: it is not text.
    """
    return _read_bytes(file, limit_bytes).decode("utf-8")


def _read_bytes(file: Path, limit_bytes: int) -> bytes:
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.read(descriptor, limit_bytes)
    finally:
        os.close(descriptor)


def _names(folder: Path, driver: str = "") -> tuple[str | None, str, str]:
    """The name of a chip, the name of its driver, and the one that is known already."""
    return read_text(folder / "name"), Path(os.path.realpath(folder / "device" / "driver")).name, driver


def _labelled_rail(volts: Value, row: Labelled, amperes: Sequence[Value], watts: Sequence[Value]) -> list[Rail]:
    """The rail of a voltage by the labels of this row; the same label at a current says so for every chip."""
    for of_amperes, of_watts in _labels_of_rail(volts.label or "", row):
        currents = [current for current in amperes if current.label == of_amperes]
        if len(currents) == 1:
            powers = [power for power in watts if power.label == of_watts]
            # The only power of a chip may have no label.
            powers = powers or [power for power in watts if power.label is None and len(watts) == 1]
            return [Rail(volts, currents[0], powers[0] if powers else None, HIGHEST_VOLTS, row.default_shunt_ohms)]
    return []


def _labels_of_rail(label: str, row: Labelled) -> Iterator[tuple[str, str]]:
    """The labels that the current and the power of this voltage may have."""
    if label:
        yield label, label
    for of_volts, of_amperes, of_watts in row.rails:
        prefix, hash_sign, _ = of_volts.partition("#")
        number = label.removeprefix(prefix) if label.startswith(prefix) else "-"
        if (hash_sign and number.isdecimal()) or not number:
            yield of_amperes.replace("#", number), of_watts.replace("#", number)


def _values(folder: Path, kind: str) -> list[Value]:
    """The values of a kind in numerical order; IIO counts them from zero, and here they count from one."""
    found = []
    for file in folder.glob(f"{kind}*_input"):
        number = file.name.removeprefix(kind).removesuffix("_input")
        if number.isdecimal():
            label_file, first = (f"rail_name_{number}", 1) if _is_iio(folder) else (f"{kind}{number}_label", 0)
            found.append(Value(int(number) + first, read_text(folder / label_file), file))
    return sorted(found, key=lambda value: value.number)


def _is_iio(folder: Path) -> bool:
    return folder.name.startswith(IIO_FOLDERS.removesuffix("*"))
