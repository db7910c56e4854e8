"""A simulated /sys/class/hwmon, for chips that the kernel owns."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from agent.simulate.rails import values_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.settings import Device
    from agent.simulate.rails import Rail


_LEGACY_DRIVER = "ina3221x"

# N of the currN of an inN, where they differ: hwmon/adm1177.rst, hwmon/tmp513.rst, and the drivers ltc2991 and ltc2992.
_CURRENTS = {
    **{name: {0: 1} for name in ("adm1177", "tmp512", "tmp513")},
    "ltc2991": {1: 1, 3: 2, 5: 3, 7: 4},
    "ltc2992": {0: 1, 1: 2},
}


class SimulatedHwmon:
    """One folder for each chip, with the files of the kernel's drivers (kernel documentation, hwmon/sysfs-interface).

    ::

        hwmon0/name            ina3221
        hwmon0/in1_label       VDD_IN
        hwmon0/in1_input       5072         mV
        hwmon0/curr1_label     VDD_IN       as real ones have it only where the driver gives labels to currents
        hwmon0/curr1_input     992          mA

    The label at the current says that both are of one rail, whatever the driver.

    The `sensor` ina3221x is NVIDIA's older driver, which counts from zero and has an IIO folder::

        hwmon1/iio:device0/name                 ina3221x
        hwmon1/iio:device0/rail_name_0          POM_5V_IN
        hwmon1/iio:device0/in_voltage0_input    5072         mV
        hwmon1/iio:device0/in_current0_input    992          mA

    Attributes:
        folders: the folder of each `sensor` of the configuration, also of one given as a folder of sysfs.
    """

    def __init__(
        self, devices: Sequence[Device], rails: Mapping[str, Rail], root: Path, now: Callable[[], float]
    ) -> None:
        """Write the tree.

        Args:
            devices: those without a `sensor` are ignored.
            rails: by device name.
            root: an empty folder that stands for /sys/class/hwmon.
            now: the clock of the rails, in seconds.
        """
        self.folders: dict[str, Path] = {}
        self._now = now
        self._inputs: list[tuple[Rail, Path, Path]] = []
        taken = {(device.sensor, device.input) for device in devices}
        for device in devices:
            if device.sensor is None:
                continue
            folder = self._folder(device.sensor, root)
            number = device.input
            if number is None:
                number = next(n for n in count(1) if (device.sensor, n) not in taken)
            taken.add((device.sensor, number))
            name = folder.joinpath("name").read_text(encoding="utf-8").strip()
            label_files, volts_file, amperes_file = _files(folder, name, number)
            label = device.label
            # The INA233 is the one whose driver is of PMBus, which has labels.
            if label is None and (not name.startswith("ina") or name == "ina233"):
                label = f"input {number}"
            for file in label_files if label is not None else ():
                file.write_text(f"{label}\n", encoding="utf-8")
            self._inputs.append((rails[device.name], volts_file, amperes_file))
        self.refresh()

    def _folder(self, sensor: str, root: Path) -> Path:
        if sensor not in self.folders:
            folder = root / f"hwmon{len(self.folders)}"
            if Path(sensor).name == _LEGACY_DRIVER:
                folder /= "iio:device0"
            self.folders[sensor] = folder
            folder.mkdir(parents=True)
            (folder / "name").write_text(f"{Path(sensor).name}\n", encoding="utf-8")
        return self.folders[sensor]

    def refresh(self) -> None:
        """Write the present values."""
        seconds = self._now()
        for rail, voltage_file, current_file in self._inputs:
            volts, amperes = values_at(rail, seconds)
            voltage_file.write_text(f"{round(volts * 1000)}\n", encoding="ascii")
            current_file.write_text(f"{round(amperes * 1000)}\n", encoding="ascii")


def _files(folder: Path, name: str, number: int) -> tuple[tuple[Path, ...], Path, Path]:
    """The files of an input of a chip with this name: its labels, volts and amperes."""
    if folder.name.startswith("iio:"):
        return (
            (folder / f"rail_name_{number - 1}",),
            folder / f"in_voltage{number - 1}_input",
            folder / f"in_current{number - 1}_input",
        )
    of_amperes = _CURRENTS.get(name, {}).get(number, number)
    labels = (folder / f"in{number}_label", folder / f"curr{of_amperes}_label")
    return labels, folder / f"in{number}_input", folder / f"curr{of_amperes}_input"
