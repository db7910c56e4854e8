"""Which voltages and currents in sysfs are of one rail, for `hwmon`.

The numbers of in* and curr* mean nothing by themselves: on a voltage regulator, in1 is often the input voltage and
curr1 the output current. A voltage and a current are of one rail only if the documentation of the driver says so, by
their numbers (`_NUMBERED`) or by their labels (`_LABELLED`).

Sources: kernel documentation, hwmon/sysfs-interface.rst and the page of each driver.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LEGACY_DRIVER = "ina3221x"
IIO_FOLDERS = "iio:device*"

# Of any chip: even a power supply of a data centre has 400 V.
_HIGHEST_VOLTS = 1000.0


class _Numbered(NamedTuple):
    """Chips whose drivers document the numbers of one rail.

    Attributes:
        names: the hwmon names of the chips, and the names of their drivers.
        pairs: N of inN, and N of the currN and powerN of the same rail.
        highest_volts: the range of the chips.
    """

    names: tuple[str, ...]
    pairs: Mapping[int, int]
    highest_volts: float


class _Labelled(NamedTuple):
    """Chips whose drivers document the labels of one rail.

    Attributes:
        names: the hwmon names of the chips.
        rails: the labels of the volts, amperes and watts; N is the same number in all three, or nothing.
    """

    names: tuple[str, ...]
    rails: tuple[tuple[str, str, str], ...]


_NUMBERED = (
    # in4 to in6 are shunt voltages and in7 is their sum; curr4 is a sum too.
    _Numbered(("ina3221", LEGACY_DRIVER), {1: 1, 2: 2, 3: 3}, highest_volts=26.0),
    # in0 is the shunt voltage.
    _Numbered(("ina209", "ina219", "ina220"), {1: 1}, highest_volts=32.0),
    _Numbered(("ina226", "ina230", "ina231", "ina260", "ina2xx"), {1: 1}, highest_volts=36.0),
    _Numbered(("ina228", "ina237", "ina238", "sq52206"), {1: 1}, highest_volts=85.0),
    # in2 is the pin ADIN.
    _Numbered(("ltc2945",), {1: 1}, highest_volts=80.0),
)
_UNKNOWN = _Numbered((), {}, _HIGHEST_VOLTS)

_LABELLED = (
    # Hot-swap controllers: the current of the output is that of the input. Some have another pin as vout1.
    _Labelled(("adm1272", "adm1273", "adm1276", "adm1278", "adm1281"), (("vin1", "iout1", "pin1"),)),
    _Labelled(("adm1275",), (("vin1", "iout1", ""), ("vout1", "iout1", ""))),
    _Labelled(("adm1293", "adm1294"), (("vin1", "iout1", "pin1"),)),
    _Labelled(("adm1075",), ()),  # its values are not volts and amperes: they need scaling
    # in1 is the supply of the chip itself.
    _Labelled(("ltc2947",), (("VP-VM", "IP-IM", "Power"),)),
)
_NO_LABELS = _Labelled((), ())
# pmbus.rst, for all drivers without a row.
_PMBUS = _Labelled((), (("vinN", "iinN", "pinN"), ("voutN", "ioutN", "poutN")))

_LONGEST_BYTES = 256


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
    name = read_text(folder / "name")
    names = (name, Path(os.path.realpath(folder / "device" / "driver")).name, driver)
    numbered = next((row for known in names for row in _NUMBERED if known in row.names), _UNKNOWN)
    labelled = next((row for row in _LABELLED if name in row.names), _PMBUS if numbered is _UNKNOWN else _NO_LABELS)
    current_of, power_of = ({value.number: value for value in values} for values in (amperes, watts))
    found = []
    for value in volts:
        number = numbered.pairs.get(value.number)
        if number in current_of:
            found.append(Rail(value, current_of[number], power_of.get(number), numbered.highest_volts))
        else:
            found += _labelled_rail(value, labelled, amperes, watts)
    return found


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
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return os.read(descriptor, limit_bytes).decode("utf-8")
    finally:
        os.close(descriptor)


def _labelled_rail(volts: Value, row: _Labelled, amperes: Sequence[Value], watts: Sequence[Value]) -> list[Rail]:
    """The rail of a voltage by the labels of this row; the same label at a current says so for every chip."""
    for of_amperes, of_watts in _labels_of_rail(volts.label or "", row):
        currents = [current for current in amperes if current.label == of_amperes]
        if len(currents) == 1:
            powers = [power for power in watts if power.label == of_watts]
            # The only power of a chip may have no label.
            powers = powers or [power for power in watts if power.label is None and len(watts) == 1]
            return [Rail(volts, currents[0], powers[0] if powers else None, _HIGHEST_VOLTS)]
    return []


def _labels_of_rail(label: str, row: _Labelled) -> Iterator[tuple[str, str]]:
    """The labels that the current and the power of this voltage may have."""
    if label:
        yield label, label
    for of_volts, of_amperes, of_watts in row.rails:
        found = re.fullmatch(of_volts.replace("N", "([0-9]*)"), label)
        if found is not None:
            number = found[1] if found.groups() else ""
            yield of_amperes.replace("N", number), of_watts.replace("N", number)


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
