"""What the kernel's drivers document about the rails of their chips, a row for each kind of chip.

The numbers of in* and curr* mean nothing by themselves: on a voltage regulator, in1 is often the input voltage and
curr1 the output current. A row says which of them are of one rail, by their numbers or by their labels.

Sources: kernel documentation, hwmon/<driver>.rst; where it is silent, the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.i2c.sysfs import LEGACY_IIO_DRIVER

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HIGHEST_VOLTS = 1000.0
"""Of any chip: even a power supply of a data centre has 400 V."""


class Numbered(NamedTuple):
    """Chips whose drivers document the numbers of one rail.

    Attributes:
        names: the hwmon names of the chips, or the names of their drivers.
        pairs: N of inN, and N of the currN and powerN of the same rail.
        highest_volts: the end of the range of the chips.
        default_shunt_ohms: the shunt that the driver assumes if the device tree names none; None if it assumes none, or
            shows it in a file.
    """

    names: tuple[str, ...]
    pairs: Mapping[int, int]
    highest_volts: float
    default_shunt_ohms: float | None = None


class Labelled(NamedTuple):
    """Chips whose drivers document the labels of one rail.

    Attributes:
        names: the hwmon names of the chips.
        rails: the labels of the volts, amperes and watts; # is the same number in all three, or nothing.
        default_shunt_ohms: as for `Numbered`.
        drivers: the names of their drivers. A chip by another name, which a later kernel adds, has the same labels.
    """

    names: tuple[str, ...]
    rails: tuple[tuple[str, str, str], ...]
    default_shunt_ohms: float | None = None
    drivers: tuple[str, ...] = ()


NUMBERED = (
    # in4 to in6 are shunt voltages and in7 is their sum; curr4 is a sum too.
    Numbered(("ina3221", LEGACY_IIO_DRIVER), {1: 1, 2: 2, 3: 3}, highest_volts=26.0),
    # in0 is the shunt voltage.
    Numbered(("ina209",), {1: 1}, highest_volts=32.0),
    Numbered(("ina219", "ina220"), {1: 1}, highest_volts=32.0),
    Numbered(
        ("ina226", "ina230", "ina231", "ina232", "ina234", "ina260", "sy24655", "ina2xx"), {1: 1}, highest_volts=36.0
    ),
    Numbered(("ina700", "ina780"), {1: 1}, highest_volts=85.0),  # their shunts are inside
    Numbered(("ina228", "ina237", "ina238", "sq52206"), {1: 1}, highest_volts=85.0, default_shunt_ohms=0.01),
    # in2 is the pin ADIN.
    Numbered(("ltc2945",), {1: 1}, highest_volts=80.0, default_shunt_ohms=0.001),
    Numbered(("ltc4151",), {1: 1}, highest_volts=80.0, default_shunt_ohms=0.001),
    # in0 and in1 are SENSE1 and SENSE2, the others are pins.
    Numbered(("ltc2992",), {0: 1, 1: 2}, highest_volts=100.0),
    # The current between V1 and V2, V3 and V4 and so on is there only with a shunt from the device tree; in0 is Vcc.
    Numbered(("ltc2991",), {1: 1, 3: 2, 5: 3, 7: 4}, highest_volts=6.0),
    # The current is there only with a shunt from the device tree.
    Numbered(("adm1177",), {0: 1}, highest_volts=26.5),
    # curr1 is the shunt voltage by the shunt; curr2 is the chip's own product, rounded to its calibration.
    Numbered(("tmp512", "tmp513"), {0: 1}, highest_volts=32.0, default_shunt_ohms=0.001),
)
_NO_NUMBERS = Numbered((), {}, HIGHEST_VOLTS)

# Hot-swap controllers: the current of the output is that of the input. adm1275.rst says vin1 and pin1; a chip with one
# page has labels without a number since pmbus_core knows pages.
_VIN = (("vin#", "iout1", "pin#"),)

LABELLED = (
    # Some have another pin as vout1.
    Labelled(
        ("adm1272", "adm1273", "adm1276", "adm1278", "adm1281", "adm1293", "adm1294"),
        _VIN,
        default_shunt_ohms=0.001,
        drivers=("adm1275",),
    ),
    Labelled(("adm1275",), (("vin#", "iout1", ""), ("vout1", "iout1", "")), default_shunt_ohms=0.001),
    # vmon is the pin VAUX; vout1 has no current of its own.
    Labelled(
        ("lm25056", "lm25066", "lm5064", "lm5066", "lm5066i"),
        (("vin#", "iin#", "pin#"),),
        default_shunt_ohms=0.001,
    ),
    # vmon is the shunt voltage; vin and vout1 are both the bus voltage.
    Labelled(("ina233",), (("vout#", "iout#", "pout#"),), default_shunt_ohms=0.002),
    # in1 is the supply of the chip itself.
    Labelled(("ltc2947",), (("VP-VM", "IP-IM", "Power"),)),
    # One of the two voltages is enabled, and the power is that of this one. The driver requires a shunt.
    Labelled(("ltc4282",), (("VSOURCE", "ISENSE", "Power"), ("VDD", "ISENSE", "Power"))),
    # A USB tester. Its other voltages are of pins that carry signals.
    Labelled(("powerz",), (("VBUS", "IBUS", ""),)),
    # "power total" is not the product of "v_in" and "curr in": one of them is of the output.
    Labelled(
        ("corsairpsu",),
        tuple((f"v_out +{rail}", f"curr +{rail}", f"power +{rail}") for rail in ("12v", "5v", "3.3v")),
    ),
)
_NO_LABELS = Labelled((), ())
# pmbus.rst, for all drivers without a row.
_PMBUS = Labelled((), (("vin#", "iin#", "pin#"), ("vout#", "iout#", "pout#")))

_UNSCALED = frozenset(
    ("adm1075", "ltc2990", "ltc4215", "ltc4222", "ltc4245", "ltc4260", "ltc4261", "max16065"),
)
"""Chips whose drivers document that their values need to be scaled, or are for a fixed shunt, mostly of a milliohm."""


def is_unscaled(name: str | None, others: Sequence[str]) -> bool:
    """Whether the currents of a chip are no amperes. The arguments are those of `rows_of`."""
    return not _UNSCALED.isdisjoint((name, *others))


def rows_of(name: str | None, others: Sequence[str]) -> tuple[Numbered, Labelled]:
    """The rows of a chip; each may be empty.

    Args:
        name: its hwmon name.
        others: the names of its driver, which stand for a chip by another name.
    """
    numbered = next((row for known in (name, *others) for row in NUMBERED if known in row.names), _NO_NUMBERS)
    by_name = (row for row in LABELLED if name in row.names)
    by_driver = (row for row in LABELLED if not frozenset(row.drivers).isdisjoint(others))
    without_row = _PMBUS if numbered is _NO_NUMBERS else _NO_LABELS
    return numbered, next(by_name, next(by_driver, without_row))
