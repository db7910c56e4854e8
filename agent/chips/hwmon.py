"""Chips that the kernel owns: the INA3221 on Jetson modules, `ina2xx` overlays. Read from sysfs, never written.

Source: kernel documentation, hwmon/sysfs-interface: in*_input in millivolts, curr*_input in milliamperes. The older
kernels of NVIDIA (L4T 32, JetPack 4) have a driver ina3221x instead, which uses IIO and counts inputs from zero:
in_voltage*_input in millivolts, in_current*_input in milliamperes, and the label in rail_name_*.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from agent.chips import Measurement
from agent.errors import AgentError, PermissionDeniedError, SensorError
from agent.settings import ChipOptions

if TYPE_CHECKING:
    from agent.settings import Device

OPTIONS = ChipOptions(chip="hwmon", addresses=None, inputs=range(1, 9))

CLASS_FOLDER = Path("/sys/class/hwmon")
DRIVERS_FOLDER = Path("/sys/bus/i2c/drivers")

_LEGACY_DRIVER = "ina3221x"
_IIO_FOLDERS = "iio:device*"

# In the drivers ina3221 (1-3), ina2xx and ina238 (1). in4 to in6 of an INA3221 are shunt voltages, and curr4 is a sum.
_BUS_VOLTAGES = range(1, 4)


@dataclass(frozen=True, slots=True)
class PowerInput:
    """An input whose volts and amperes the kernel measures.

    Attributes:
        name: the name of the chip in hwmon or IIO.
        folder: the stable folder of the chip in sysfs, or that of its hwmon where there is none.
        number: N of inN_input and currN_input.
        label: the board's name for the input; None without one, or if a configuration cannot hold it.
    """

    name: str
    folder: Path
    number: int
    label: str | None


@dataclass(frozen=True, slots=True)
class _Input:
    """An input in sysfs, and its files."""

    number: int
    label: str | None
    volts_file: Path
    amperes_file: Path


def power_inputs(class_folder: Path = CLASS_FOLDER, drivers_folder: Path = DRIVERS_FOLDER) -> tuple[PowerInput, ...]:
    """The inputs of all power monitors of TI with a kernel driver, in the order of their folders.

    Other chips have voltages and currents too, but only a power monitor measures both of one rail.
    """
    power_inputs = []
    by_hwmon = sorted(class_folder.glob("*"), key=lambda folder: (len(folder.name), folder.name))
    for folder in chain(by_hwmon, sorted(drivers_folder.glob(f"{_LEGACY_DRIVER}/*/{_IIO_FOLDERS}"))):
        name = _read_text(folder / "name")
        if name is None or not name.startswith("ina"):
            continue
        stable_folder = _stable(folder)
        power_inputs += [
            PowerInput(
                name, stable_folder, found.number, found.label if found.label and found.label.isprintable() else None
            )
            for found in _inputs(folder)
            if found.number in _BUS_VOLTAGES and found.volts_file.exists() and found.amperes_file.exists()
        ]
    return tuple(power_inputs)


class Chip:
    """One input of a chip under /sys/class/hwmon, found by the chip's name and the input's label or number."""

    def __init__(
        self, device: Device, class_folder: Path = CLASS_FOLDER, drivers_folder: Path = DRIVERS_FOLDER
    ) -> None:
        assert device.sensor is not None  # noqa: S101 - the configuration requires it for this chip
        self._sensor = device.sensor
        self._label = device.label
        self._input = device.input
        self._class_folder = class_folder
        self._drivers_folder = drivers_folder
        self._files: tuple[Path, Path] | None = None

    def read(self) -> Measurement:
        """Read the device. A failure starts a new search, because hwmon numbers change with boots and modules.

        Raises:
            SensorError: no such chip or input, or the kernel cannot read it.
            PermissionDeniedError: its files may not be read.
        """
        try:
            files = self._files or self._find()
            self._files = None  # until both have been read
            volts, amperes = (_read_thousandths(file) for file in files)
        except AgentError:
            raise
        except OSError as error:  # a folder without read permission
            raise SensorError(f"hwmon {self._sensor}: {error}; may this user read sysfs?") from error
        self._files = files
        return Measurement(volts, amperes)

    def where(self) -> str:
        """The files of the last reading."""
        if self._files is None:
            return f"hwmon {self._sensor}"
        volts_file, amperes_file = self._files
        label = f" ({self._label})" if self._label is not None else ""
        return f"{volts_file} and {amperes_file.name}{label}"

    def _find(self) -> tuple[Path, Path]:
        folders = self._folders()
        inputs = [found for folder in folders for found in _inputs(folder)]
        wanted = f'label "{self._label}"' if self._label is not None else f"input {self._input}"
        meant = list(filter(self._is_meant, inputs))
        if len(meant) == 1:
            return meant[0].volts_file, meant[0].amperes_file
        if meant:
            # Their order may change at the next boot.
            places = " and ".join(f"{_stable(found.volts_file.parent)} input {found.number}" for found in meant)
            raise SensorError(
                f"hwmon {self._sensor}: {len(meant)} inputs are {wanted}: {places}; name one by its folder as sensor, "
                "and by its input"
            )
        labels = {found.label for found in inputs if found.label is not None and found.amperes_file.exists()}
        seen = ", ".join(sorted(labels)) or "none"
        raise SensorError(f"hwmon {self._sensor}: no {wanted} (labels there: {seen})")

    def _is_meant(self, found: _Input) -> bool:
        if self._label is None:
            return found.number == self._input
        # A label without a current is a voltage alone, such as the "sum of shunt voltages" of the INA3221 driver.
        return found.label == self._label and found.amperes_file.exists()

    def _folders(self) -> list[Path]:
        if "/" in self._sensor:
            folder = Path(self._sensor)
            if not folder.is_dir():
                raise SensorError(f"hwmon {self._sensor}: no such folder; is its kernel driver loaded?")
            # The stable folder of a chip contains the folder of its hwmon.
            return sorted(folder.glob("hwmon/hwmon*")) or sorted(folder.glob(_IIO_FOLDERS)) or [folder]
        found = [
            folder for folder in sorted(self._class_folder.glob("*")) if _read_text(folder / "name") == self._sensor
        ]
        if not found:
            # By the name of its driver, which on some kernels differs from the name of the hwmon.
            chips = sorted((self._drivers_folder / self._sensor).glob("*-*"))
            found = [
                folder
                for chip in chips
                for folder in sorted(chip.glob("hwmon/hwmon*")) or sorted(chip.glob(_IIO_FOLDERS))
            ]
        if not found:
            names = sorted(filter(None, (_read_text(folder / "name") for folder in self._class_folder.glob("*"))))
            raise SensorError(
                f"no hwmon chip is named {self._sensor} (under {self._class_folder}: {', '.join(names) or 'none'})"
            )
        return found


def _stable(folder: Path) -> Path:
    """The folder of the chip itself, which is the same after every boot, or this one where there is none."""
    device = folder.parent if _is_iio(folder) else folder / "device"
    return device.resolve() if device.exists() else folder


def _is_iio(folder: Path) -> bool:
    return folder.name.startswith(_IIO_FOLDERS.removesuffix("*"))


def _inputs(folder: Path) -> list[_Input]:
    """The inputs of a chip in numerical order, counted from one."""
    if _is_iio(folder):
        return [
            _Input(number + 1, _read_text(folder / f"rail_name_{number}"), file, folder / f"in_current{number}_input")
            for number, file in _numbered(folder, "in_voltage")
        ]
    return [
        _Input(number, _read_text(folder / f"in{number}_label"), file, folder / f"curr{number}_input")
        for number, file in _numbered(folder, "in")
    ]


def _numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    found = []
    for file in folder.glob(f"{prefix}*_input"):
        number = file.name.removeprefix(prefix).removesuffix("_input")
        if number.isdecimal():
            found.append((int(number), file))
    return sorted(found)


def _read_text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _read_thousandths(file: Path) -> float:
    try:
        text = file.read_text(encoding="ascii")
    except PermissionError as error:
        raise PermissionDeniedError(f"{file}: permission denied; sudo chmod a+r {file}") from error
    except (OSError, UnicodeDecodeError) as error:  # an error while reading does not name its file
        reason = getattr(error, "strerror", None) or error
        raise SensorError(f"{file}: {reason}; is the input enabled, and its kernel driver loaded?") from error
    try:
        return int(text) / 1000
    except ValueError as error:
        raise SensorError(f"{file}: {text!r} is not a number; does the kernel own this file?") from error
