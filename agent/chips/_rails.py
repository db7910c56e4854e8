"""Which voltages and currents in sysfs are of one rail, for `hwmon`.

The numbers of in* and curr* mean nothing by themselves: on a voltage regulator, in1 is often the input voltage and
curr1 the output current. A voltage and a current are of one rail only if the documentation of the driver says so, by
their numbers (`_NUMBERED`) or by their labels (`_LABELLED`).

Sources: kernel documentation, hwmon/sysfs-interface.rst and the page of each driver.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agent.i2c.sysfs import LEGACY_IIO_DRIVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

IIO_FOLDERS = "iio:device*"

# Of any chip: even a power supply of a data centre has 400 V.
_HIGHEST_VOLTS = 1000.0


class _Numbered(NamedTuple):
    """Chips whose drivers document the numbers of one rail.

    Attributes:
        names: the hwmon names of the chips, and the names of their drivers.
        pairs: N of inN, and N of the currN and powerN of the same rail.
        highest_volts: the range of the chips.
        default_shunt_ohms: what the driver assumes if neither a file nor the device tree tells it; None if it assumes
            nothing, or shows it in a file.
    """

    names: tuple[str, ...]
    pairs: Mapping[int, int]
    highest_volts: float
    default_shunt_ohms: float | None = None


class _Labelled(NamedTuple):
    """Chips whose drivers document the labels of one rail.

    Attributes:
        names: the hwmon names of the chips.
        rails: the labels of the volts, amperes and watts; # is the same number in all three, or nothing.
        default_shunt_ohms: as for `_Numbered`.
        drivers: the names of their drivers. Chips that a later kernel adds to one of these have the same labels.
    """

    names: tuple[str, ...]
    rails: tuple[tuple[str, str, str], ...]
    default_shunt_ohms: float | None = None
    drivers: tuple[str, ...] = ()


# The numbers are those of the kernel's documentation, hwmon/<driver>.rst; where it is silent, of the driver.
_NUMBERED = (
    # in4 to in6 are shunt voltages and in7 is their sum; curr4 is a sum too.
    _Numbered(("ina3221", LEGACY_IIO_DRIVER), {1: 1, 2: 2, 3: 3}, highest_volts=26.0),
    # in0 is the shunt voltage.
    _Numbered(("ina209",), {1: 1}, highest_volts=32.0),
    _Numbered(("ina219", "ina220"), {1: 1}, highest_volts=32.0),
    _Numbered(
        ("ina226", "ina230", "ina231", "ina232", "ina234", "ina260", "sy24655", "ina2xx"), {1: 1}, highest_volts=36.0
    ),
    _Numbered(("ina700", "ina780"), {1: 1}, highest_volts=85.0),  # their shunts are inside
    _Numbered(("ina228", "ina237", "ina238", "sq52206"), {1: 1}, highest_volts=85.0, default_shunt_ohms=0.01),
    # in2 is the pin ADIN.
    _Numbered(("ltc2945",), {1: 1}, highest_volts=80.0, default_shunt_ohms=0.001),
    _Numbered(("ltc4151",), {1: 1}, highest_volts=80.0, default_shunt_ohms=0.001),
    # in0 and in1 are SENSE1 and SENSE2, the others are pins.
    _Numbered(("ltc2992",), {0: 1, 1: 2}, highest_volts=100.0),
    # The current between V1 and V2, V3 and V4 and so on is there only with a shunt from the device tree; in0 is Vcc.
    _Numbered(("ltc2991",), {1: 1, 3: 2, 5: 3, 7: 4}, highest_volts=6.0),
    # The current is there only with a shunt from the device tree.
    _Numbered(("adm1177",), {0: 1}, highest_volts=26.5),
    # curr1 is the shunt voltage by the shunt; curr2 is the chip's own product, rounded to its calibration.
    _Numbered(("tmp512", "tmp513"), {0: 1}, highest_volts=32.0, default_shunt_ohms=0.001),
)
_UNKNOWN = _Numbered((), {}, _HIGHEST_VOLTS)

# Hot-swap controllers: the current of the output is that of the input. adm1275.rst says vin1 and pin1; a chip with one
# page has labels without a number since pmbus_core knows pages.
_VIN = (("vin#", "iout1", "pin#"),)

_LABELLED = (
    # Some have another pin as vout1.
    _Labelled(
        ("adm1272", "adm1273", "adm1276", "adm1278", "adm1281", "adm1293", "adm1294"),
        _VIN,
        default_shunt_ohms=0.001,
        drivers=("adm1275",),
    ),
    _Labelled(("adm1275",), (("vin#", "iout1", ""), ("vout1", "iout1", "")), default_shunt_ohms=0.001),
    # vmon is the pin VAUX; vout1 has no current of its own.
    _Labelled(
        ("lm25056", "lm25066", "lm5064", "lm5066", "lm5066i"),
        (("vin#", "iin#", "pin#"),),
        default_shunt_ohms=0.001,
        drivers=("lm25066",),
    ),
    # vmon is the shunt voltage; vin and vout1 are both the bus voltage.
    _Labelled(("ina233",), (("vout#", "iout#", "pout#"),), default_shunt_ohms=0.002),
    # in1 is the supply of the chip itself.
    _Labelled(("ltc2947",), (("VP-VM", "IP-IM", "Power"),)),
    # One of the two voltages is enabled, and the power is that of this one. The driver requires a shunt.
    _Labelled(("ltc4282",), (("VSOURCE", "ISENSE", "Power"), ("VDD", "ISENSE", "Power"))),
    # A USB tester. Its other voltages are of pins that carry signals.
    _Labelled(("powerz",), (("VBUS", "IBUS", ""),)),
    # "power total" is not the product of "v_in" and "curr in": one of them is of the output.
    _Labelled(
        ("corsairpsu",),
        tuple((f"v_out +{rail}", f"curr +{rail}", f"power +{rail}") for rail in ("12v", "5v", "3.3v")),
    ),
)
_NO_LABELS = _Labelled((), ())
# pmbus.rst, for all drivers without a row.
_PMBUS = _Labelled((), (("vin#", "iin#", "pin#"), ("vout#", "iout#", "pout#")))

# Their drivers document that their values are for a fixed shunt, mostly of a milliohm, or need to be scaled, and cannot
# be told the board's.
_UNSCALED = ("adm1075", "ltc2990", "ltc4215", "ltc4222", "ltc4245", "ltc4260", "ltc4261", "max16065")

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
    known_as = _names(folder, driver)
    if _is_unscaled(known_as):
        return []
    numbered = next((row for known in known_as for row in _NUMBERED if known in row.names), _UNKNOWN)
    labelled = _labelled_row(known_as) or (_PMBUS if numbered is _UNKNOWN else _NO_LABELS)
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
    if _is_unscaled(_names(folder)):
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


def _is_unscaled(known_as: Sequence[str | None]) -> bool:
    return any(known in _UNSCALED for known in known_as)


def _labelled_row(known_as: Sequence[str | None]) -> _Labelled | None:
    """The row with the name of a chip, or else the one with that of its driver."""
    name, *drivers = known_as
    by_name = (row for row in _LABELLED if name in row.names)
    return next(by_name, next((row for row in _LABELLED if any(known in row.drivers for known in drivers)), None))


def _labelled_rail(volts: Value, row: _Labelled, amperes: Sequence[Value], watts: Sequence[Value]) -> list[Rail]:
    """The rail of a voltage by the labels of this row; the same label at a current says so for every chip."""
    for of_amperes, of_watts in _labels_of_rail(volts.label or "", row):
        currents = [current for current in amperes if current.label == of_amperes]
        if len(currents) == 1:
            powers = [power for power in watts if power.label == of_watts]
            # The only power of a chip may have no label.
            powers = powers or [power for power in watts if power.label is None and len(watts) == 1]
            return [Rail(volts, currents[0], powers[0] if powers else None, _HIGHEST_VOLTS, row.default_shunt_ohms)]
    return []


def _labels_of_rail(label: str, row: _Labelled) -> Iterator[tuple[str, str]]:
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
