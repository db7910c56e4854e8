"""Chips that the kernel owns: the INA3221 on Jetson modules, `ina2xx` overlays. Read from sysfs, never written.

Source: kernel documentation, hwmon/sysfs-interface: in*_input in millivolts, curr*_input in milliamperes, power*_input
in microwatts. The older kernels of NVIDIA (L4T 32, JetPack 4) have a driver ina3221x instead, which uses IIO and counts
inputs from zero: in_voltage*_input in millivolts, in_current*_input in milliamperes, and the label in rail_name_*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from agent.chips import Measurement, names
from agent.chips._rails import IIO_FOLDERS, rails, read_file, read_text, shunt, voltages, why_none
from agent.errors import AgentError, PermissionDeniedError, SensorError
from agent.i2c import hints
from agent.i2c.sysfs import LEGACY_IIO_DRIVER, owner_of
from agent.settings import CHIP_ALIASES, ChipOptions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent.chips._rails import Rail, Value
    from agent.settings import Device

OPTIONS = ChipOptions(chip="hwmon", addresses=None, inputs=range(65))

CLASS_FOLDER = Path("/sys/class/hwmon")
DRIVERS_FOLDER = Path("/sys/bus/i2c/drivers")

# An input without a load may read a few steps below zero.
_LOWEST_VOLTS = -0.5
_HIGHEST_AMPERES = 10_000.0
_HIGHEST_WATTS = 1e6

# The chip's own power has steps of up to 0.1 W with a shunt of a milliohm, so smaller powers say little.
_COARSE_WATTS = 0.25
# The power of another rail is off by far more: 5 V instead of 3.3 V is 50 %.
_TOLERANCE = 0.25
_ATTEMPTS = 3

_NUMBER = re.compile("-?[0-9]{1,15}")
_LONGEST_BYTES = 32

# A device is named after its chip and label, in at most 200 characters; no real label is nearly as long.
_LONGEST_LABEL_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class PowerInput:
    """An input whose volts and amperes the kernel measures.

    Attributes:
        name: the name of the chip in hwmon or IIO.
        folder: the stable folder of the chip in sysfs, or that of its hwmon where there is none.
        number: N of its inN_input.
        label: the board's name for the input; None without one, or if a configuration cannot hold it.
        is_enabled: whether it is switched on (kernel documentation, ABI/testing/sysfs-class-hwmon: inY_enable).
    """

    name: str
    folder: Path
    number: int
    label: str | None
    is_enabled: bool = True


def power_inputs(class_folder: Path = CLASS_FOLDER, drivers_folder: Path = DRIVERS_FOLDER) -> tuple[PowerInput, ...]:
    """The inputs that can be configured, of all chips with a kernel driver, in the order of their folders."""
    power_inputs = []
    by_hwmon = sorted(class_folder.glob("*"), key=lambda folder: (len(folder.name), folder.name))
    for folder in chain(by_hwmon, sorted(drivers_folder.glob(f"{LEGACY_IIO_DRIVER}/*/{IIO_FOLDERS}"))):
        name = read_text(folder / "name")
        if name is None or not name.isprintable():
            continue
        stable_folder = _stable(folder)
        power_inputs += [
            PowerInput(
                name,
                stable_folder,
                volts.number,
                volts.label if _is_short_and_printable(volts.label or "") else None,
                read_text(folder / f"in{volts.number}_enable") != "0",
            )
            for volts in (rail.volts for rail in rails(folder))
        ]
    return tuple(power_inputs)


def _is_short_and_printable(label: str) -> bool:
    return label.isprintable() and len(label) <= _LONGEST_LABEL_CHARACTERS


class Chip:
    """One input of a chip under /sys/class/hwmon, found by the chip's name and the input's label or number."""

    def __init__(
        self, devices: Sequence[Device], class_folder: Path = CLASS_FOLDER, drivers_folder: Path = DRIVERS_FOLDER
    ) -> None:
        (device,) = devices
        if device.sensor is None:
            raise ValueError("the configuration requires a sensor for this chip")
        self._sensor = device.sensor
        self._label = device.label
        self._input = device.input
        self._class_folder = class_folder
        self._drivers_folder = drivers_folder
        self._rail: Rail | None = None
        self._is_confirmed = False

    def read(self) -> tuple[Measurement]:
        """Read the one device. A failure starts a new search, because hwmon numbers change with boots and modules.

        Raises:
            SensorError: no such chip or input, or the kernel cannot read it.
            PermissionDeniedError: its files may not be read.
        """
        try:
            rail = self._rail or self._find()
            self._rail = None  # until it has been read
            measurement = self._measure(rail)
        except AgentError:
            raise
        except OSError as error:  # a folder without read permission
            raise SensorError(f"hwmon {self._sensor}: {error}; may this user read sysfs?") from error
        self._rail = rail
        return (measurement,)

    def where(self) -> tuple[str]:
        """The files of the last reading, and the shunt that the kernel's driver takes for the board's."""
        if self._rail is None:
            return (f"hwmon {self._sensor}",)
        label = f" ({self._label})" if self._label is not None else ""
        return (f"{self._rail.volts.file} and {self._rail.amperes.file.name}{_of_shunt(self._rail)}{label}",)

    def _measure(self, rail: Rail) -> Measurement:
        """Read both values, and compare them with the chip's own power until it has confirmed them.

        Raises:
            SensorError: a file has no measurement, or the power is that of another rail.
        """
        volts = amperes = watts = 0.0
        for _ in range(_ATTEMPTS):  # the load may change between two files
            volts = _read(rail.volts.file, 1e3, "V", (_LOWEST_VOLTS, rail.highest_volts))
            amperes = _read(rail.amperes.file, 1e3, "A", (-_HIGHEST_AMPERES, _HIGHEST_AMPERES))
            if rail.watts is None or self._is_confirmed:
                return Measurement(volts, amperes)
            watts = _read(rail.watts.file, 1e6, "W", (-_HIGHEST_WATTS, _HIGHEST_WATTS))
            if self._agrees(abs(volts * amperes), abs(watts)):  # some chips measure power without its sign
                return Measurement(volts, amperes)
        raise SensorError(
            f"{rail.volts.file} and {rail.amperes.file.name}: {volts:.3f} V x {amperes:.3f} A are not the "
            f"{watts:.3f} W that the chip itself measures; are they of one rail, and does the driver know this shunt?"
        )

    def _agrees(self, product_watts: float, watts: float) -> bool:
        larger = max(product_watts, watts)
        agrees = abs(product_watts - watts) <= _TOLERANCE * larger + _COARSE_WATTS
        self._is_confirmed = agrees and _TOLERANCE * larger > _COARSE_WATTS
        return agrees

    def _find(self) -> Rail:
        self._is_confirmed = False
        # Without the links of the class folder: a driver that is loaded again may put another chip behind them.
        folders = list(dict.fromkeys(folder.resolve() for folder in self._folders()))
        known = [rail for folder in folders for rail in rails(folder, self._sensor)]
        meant = [rail for rail in known if self._is_meant(rail.volts)]
        if len(meant) == 1:
            return meant[0]
        wanted = f'label "{self._label}"' if self._label is not None else f"input {self._input}"
        if meant:
            # Their order may change at the next boot.
            places = " and ".join(f"{_stable(rail.volts.file.parent)} input {rail.volts.number}" for rail in meant)
            raise SensorError(
                f"hwmon {self._sensor}: {len(meant)} inputs are {wanted}: {places}; name one by its folder as sensor, "
                "and by its input"
            )
        keys = ", ".join(dict.fromkeys(rail.key for rail in known))
        hint = f"can be configured: {keys}" if keys else why_none(folders[0])
        if any(self._is_meant(volts) for folder in folders for volts in voltages(folder)):
            raise SensorError(f"hwmon {self._sensor}: {wanted} is a voltage without the current of that rail; {hint}")
        raise SensorError(f"hwmon {self._sensor}: no {wanted}; {hint}")

    def _is_meant(self, volts: Value) -> bool:
        return volts.number == self._input if self._label is None else volts.label == self._label

    def _folders(self) -> list[Path]:
        if "/" in self._sensor:
            folder = Path(self._sensor)
            if not folder.is_dir():
                raise SensorError(f"hwmon {self._sensor}: no such folder; is its kernel driver loaded?")
            self._refuse_iio([folder.parent if folder.match(IIO_FOLDERS) else folder], is_named=False)
            # The stable folder of a chip contains the folder of its hwmon.
            return _value_folders(folder) or [folder]
        found = [
            folder for folder in sorted(self._class_folder.glob("*")) if read_text(folder / "name") == self._sensor
        ]
        if not found:
            self._refuse_iio(sorted(self._drivers_folder.glob("*/*-*")), is_named=True)
            # By the name of its driver, which on some kernels differs from the name of the hwmon.
            chips = sorted((self._drivers_folder / self._sensor).glob("*-*"))
            found = [folder for chip in chips for folder in _value_folders(chip)]
        if not found:
            present = sorted(filter(None, (read_text(folder / "name") for folder in self._class_folder.glob("*"))))
            raise SensorError(
                f"no hwmon chip is named {self._sensor} (under {self._class_folder}: {', '.join(present) or 'none'}); "
                "is its driver loaded? wattpush scan lists what the kernel reads"
            )
        return found

    def _refuse_iio(self, clients: Iterable[Path], *, is_named: bool) -> None:
        """Raise SensorError if one of these chips belongs to an IIO driver, and `sensor` names it or its driver."""
        for client in clients:
            owner = owner_of(client.resolve())
            if owner is None or not owner.is_unread or (is_named and self._sensor not in (owner.chip, owner.driver)):
                continue
            hint = ""
            if owner.chip in (*names(), *CHIP_ALIASES):
                hint = f'; then chip = "{owner.chip}" reads it, with its bus and address'
            raise SensorError(
                f"hwmon {self._sensor}: {owner.client} belongs to the kernel driver {owner.driver}; "
                f"{hints.of_kernel_owner(owner)}{hint}"
            )


def _value_folders(chip: Path) -> list[Path]:
    """The folders with the values of a chip: those of its hwmon, or of its IIO device."""
    return sorted(chip.glob("hwmon/hwmon*")) or sorted(chip.glob(IIO_FOLDERS))


def _of_shunt(rail: Rail) -> str:
    """For a person to compare with the board: nothing else shows that it is wrong, and all amperes with it."""
    known = shunt(rail)
    if known is None:
        return ""
    ohms, is_default = known
    return f", computed for a shunt of {ohms:g} ohm" + (
        " (the driver's default: compare it with the board)" if is_default else ""
    )


def _stable(folder: Path) -> Path:
    """The folder of the chip itself, which is the same after every boot, or this one where there is none."""
    device = folder.parent if folder.match(IIO_FOLDERS) else folder / "device"
    return device.resolve() if device.exists() else folder


def _read(file: Path, parts: float, unit: str, limits: tuple[float, float]) -> float:
    """A value in volts, amperes or watts, of which the file has this many parts.

    Raises:
        SensorError: it cannot be read, or is no measurement.
        PermissionDeniedError: it may not be read.
    """
    try:
        text = read_file(file, _LONGEST_BYTES).strip(" \n")
    except PermissionError as error:
        raise PermissionDeniedError(f"{file}: permission denied; sudo chmod a+r {file}") from error
    except (OSError, UnicodeDecodeError) as error:  # an error while reading does not name its file
        reason = getattr(error, "strerror", None) or error
        raise SensorError(f"{file}: {reason}; is the input enabled, and its kernel driver loaded?") from error
    if not _NUMBER.fullmatch(text):
        raise SensorError(f"{file}: {text!r} is not a number; does the kernel own this file?")
    value = int(text) / parts
    lowest, highest = limits
    if not lowest <= value <= highest:
        raise SensorError(
            f"{file}: {value:g} {unit} is not in {lowest:g}..{highest:g}, so it is no measurement; "
            "is the driver set up for this chip and its shunt?"
        )
    return value
