"""Renders the tables of chips and muxes in README.md and docs/chips.md.

Ranges, addresses and averages are the numbers that the drivers decode with. Accuracy is in no driver: it stands here,
with the datasheet that it is from.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent import chips
from agent.chips import I2CChip, _kernel_drivers
from agent.i2c.muxes import MUX_KINDS, lookalikes, mux_names
from agent.settings import CHIP_ALIASES, runs
from scripts.blocks import with_blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.settings import ChipOptions

SHUNTS_OHMS = {"R100": 0.1, "R010": 0.01, "R002": 0.002}
"""By the print on the resistor (IEC 60062: the letter stands where the decimal point is)."""

EXAMPLE_AMPERES = 0.5
EXAMPLE_OHMS = 0.1

# Chip, what it measures, and where its shunt is.
_KERNEL_ROWS: Mapping[str, tuple[str, str, str]] = {
    "hwmon": ("owned by the kernel", "depends on the kernel's driver", "known to the kernel"),
    "rpi-pmic": ("Raspberry Pi 5 itself", "its own rails, without USB ports and HATs", "on the board"),
}


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The largest errors of a chip at 25 degrees Celsius, in both directions; None for what we have not found.

    Attributes:
        current_percent: of the shunt voltage, or of the current of a chip with its shunt inside.
        offset_volts: of the shunt voltage.
        offset_amperes: of the current of a chip with its shunt inside.
        voltage_percent: of the bus voltage.
        voltage_offset_volts: of the bus voltage; 0 if the datasheet gives one error for both.
        source: datasheet and section.
    """

    source: str
    current_percent: float | None = None
    offset_volts: float | None = None
    offset_amperes: float | None = None
    voltage_percent: float | None = None
    voltage_offset_volts: float | None = None

    def current_error_amperes(self, amperes: float, shunt_ohms: float) -> float | None:
        """The largest error at this current, apart from that of the shunt."""
        if self.current_percent is None:
            return None
        if self.offset_amperes is not None:
            return amperes * self.current_percent / 100 + self.offset_amperes
        return (
            None if self.offset_volts is None else amperes * self.current_percent / 100 + self.offset_volts / shunt_ohms
        )


ACCURACY: Mapping[str, Accuracy] = {
    # Grade A, at the range of 320 mV that wattpush sets; grade B has 0.3 % and 100 uV.
    "ina219": Accuracy("SBOS448G, 7.5, grade A", 0.5, 200e-6, voltage_percent=0.5, voltage_offset_volts=0.0),
    "ina226": Accuracy("SBOS547B, 5.5", 0.1, 10e-6, voltage_percent=0.1, voltage_offset_volts=7.5e-3),
    "ina228": Accuracy("SLYS021, 1 and 6.5", 0.05, 1e-6, voltage_percent=0.05),
    "ina230": Accuracy("SBOS601 of 2012", 0.5, 50e-6, voltage_percent=0.5, voltage_offset_volts=30e-3),
    "ina231": Accuracy("SBOS644 of 2013", 0.5, 50e-6),
    "ina232": Accuracy("SBOSAA2"),
    "ina234": Accuracy("SBOS844C, 6.5 and 7.3.1", 0.5, 100e-6, voltage_offset_volts=15e-3),
    "ina236": Accuracy("SBOSA81D, 1", 0.1, 5e-6),
    "ina237": Accuracy("SBOSA27A, 1 (INA237-Q1)", 0.3, 50e-6),
    "ina238": Accuracy("INA238-Q1, 6.5", 0.1, 5e-6, voltage_percent=0.1, voltage_offset_volts=5e-3),
    "ina260": Accuracy("SBOS656C, 7.5", 0.15, offset_amperes=5e-3, voltage_percent=0.1),
    "ina3221": Accuracy("SBOS576A", 0.25, 80e-6, voltage_percent=0.25, voltage_offset_volts=16e-3),
}


def readme() -> str:
    """The whole README.md, with its table."""
    return with_blocks("README.md", {"chips": _overview})


def page() -> str:
    """The whole docs/chips.md, with its tables."""
    return with_blocks(
        "docs/chips.md", {"ranges": _ranges, "accuracy": _accuracy, "muxes": _muxes, "drivers": _drivers}
    )


def declarations() -> str:
    """The whole docs/adding-a-chip.md, with what a chip declares, from the base class of all chips."""
    return with_blocks("docs/adding-a-chip.md", {"declarations": _declarations})


DECLARED = (
    *("options", "ids", "signature_names", "highest_volts", "full_scale_amperes", "full_scale_shunt_volts", "results"),
    *("status", "new_result", "scales", "configuration_words", "decode", "computed", "adopt"),
)
"""What the class of a chip may declare; other packages may rely on it."""


def _declarations() -> str:
    _, _, attributes = (inspect.getdoc(I2CChip) or "").partition("Attributes:\n")
    texts = {
        name: " ".join(text.split())
        for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    }
    for name in DECLARED:
        if name not in texts:
            texts[name] = " ".join((inspect.getdoc(getattr(I2CChip, name)) or "").split("\n\n")[0].split())
    return _table(("declaration", "meaning"), ((f"`{name}`", texts[name]) for name in DECLARED))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    first, *others = ("|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|" for row in (head, *rows))
    return "\n".join([first, "|---" * len(head) + "|", *others])


def _overview() -> str:
    head = ("chip", "`chip =`", "measures", "shunt", "address", "longest average", "energy")
    names_of: dict[tuple[str, ...], list[str]] = {}
    for name in _on_i2c():
        names_of.setdefault(_overview_cells(chips.options()[name]), []).append(name)
    rows: list[Sequence[str]] = []
    for cells, names in names_of.items():
        every = [*names, *(alias for alias, name in CHIP_ALIASES.items() if name in names)]
        rows.append((", ".join(map(str.upper, every)), _in_code(every), *cells))
    for name in chips.names():
        if chips.options()[name].addresses is None:
            part, measures, shunt = _KERNEL_ROWS[name]
            rows.append((part, f"`{name}`", measures, shunt, "", "", "from snapshots"))
    addresses = {address for kind in MUX_KINDS.values() for address in kind.addresses}
    parts = ", ".join(name.upper() for name in mux_names())
    rows.append((parts, "`[[mux]]`", "", "", _address_range(sorted(addresses)), "", ""))
    return _table(head, rows)


def _overview_cells(options: ChipOptions) -> tuple[str, ...]:
    chip = chips.i2c_chip(options.chip)
    inputs = "" if options.inputs is None else f"{len(options.inputs)} inputs, "
    across = f"{chip.full_scale_amperes:g} A"
    if options.external_shunt:
        across = f"{chip.full_scale_shunt_volts * 1e3:g} mV"
    bits = getattr(chip, "value_bits", 16)
    assert options.addresses is not None
    assert options.averaging is not None
    seconds = max(options.averaging.counts) * 2 * max(options.averaging.conversion_seconds)
    return (
        f"{inputs}0-{chip.highest_volts:g} V, +-{across}" + ("" if bits == 16 else f", {bits} bits"),
        "on your board" if options.external_shunt else "inside",
        _address_range(options.addresses),
        f"{seconds:.{1 if seconds >= 1 else 2}f} s" + ("" if options.inputs is None else " an input"),
        "from averages" + ("; the chip's own sum where a conversion goes unread" if chip.counter_registers else ""),
    )


def _ranges() -> str:
    prints = [f"{mark} ({ohms:g} ohm)" for mark, ohms in SHUNTS_OHMS.items()]
    rows: list[Sequence[str]] = []
    for name in _on_i2c():
        chip = chips.i2c_chip(name)
        if chip.options.external_shunt:
            full_scale = chip.full_scale_shunt_volts
            amperes = [f"{full_scale / ohms:.3g} A" for ohms in SHUNTS_OHMS.values()]
            rows.append((name.upper(), f"{chip.highest_volts:g} V", f"{full_scale * 1e3:g} mV", *amperes))
        else:
            amperes = ["-"] * len(SHUNTS_OHMS)
            rows.append((name.upper(), f"{chip.highest_volts:g} V", f"inside: {chip.full_scale_amperes:g} A", *amperes))
    return _table(("chip", "up to", "across the shunt", *prints), rows)


def _accuracy() -> str:
    example = f"{EXAMPLE_AMPERES:g} A on {EXAMPLE_OHMS:g} ohm"
    rows = []
    for name in _on_i2c():
        row = ACCURACY[name]
        error = row.current_error_amperes(EXAMPLE_AMPERES, EXAMPLE_OHMS)
        offset = _scaled(row.offset_volts, 1e6, "uV")
        if row.offset_amperes is not None:
            offset = _scaled(row.offset_amperes, 1e3, "mA")
        rows.append(
            (
                name.upper(),
                _sum(_scaled(row.current_percent, 1, "%"), offset),
                "?" if error is None else f"+-{error * 1e3:.2g} mA",
                _sum(_scaled(row.voltage_percent, 1, "%"), _scaled(row.voltage_offset_volts, 1e3, "mV")),
                row.source,
            )
        )
    return _table(("chip", "current", example, "volts", "datasheet"), rows)


def _muxes() -> str:
    rows = []
    for kind in MUX_KINDS.values():
        alike = [other.part for other in lookalikes(kind) if {*kind.addresses} & {*other.addresses}]
        names, addresses = _in_code((kind.name, *kind.aliases)), _address_range(kind.addresses)
        rows.append((kind.part, names, f"{kind.channels}", addresses, ", ".join(alike) or "-"))
    return _table(("mux", "`chip =`", "channels", "address", "same number of control bits"), rows)


def _drivers() -> str:
    rows: dict[tuple[str, str], list[str]] = {}
    for numbered in _kernel_drivers.NUMBERED:
        numbers = ", ".join(map(str, numbered.pairs))
        rows.setdefault((numbers, _assumed(numbered.default_shunt_ohms)), []).extend(numbered.names)
    for labelled in _kernel_drivers.LABELLED:
        labels = [
            shown for volts, _, _ in labelled.rails for shown in dict.fromkeys(volts.replace("#", n) for n in ("", "1"))
        ]
        rows.setdefault((_in_code(labels), _assumed(labelled.default_shunt_ohms)), []).extend(labelled.names)
    return _table(
        ("driver", "`input` or `label`", "shunt that it assumes"),
        [
            *((_in_code(names), inputs, shunt) for (inputs, shunt), names in rows.items()),
            ("other PMBus drivers", "`vin` where there is `iin`, `vout1` where there is `iout1`, and so on", ""),
            ("any other", "a label that a voltage and a current share", ""),
        ],
    )


def _assumed(ohms: float | None) -> str:
    return "" if ohms is None else f"{ohms:g} ohm"


def _on_i2c() -> Iterator[str]:
    return (name for name in chips.names() if chips.options()[name].addresses is not None)


def _address_range(addresses: Sequence[int]) -> str:
    ends = ((f"0x{run[0]:02X}", f"0x{run[-1]:02X}") for run in runs(addresses))
    return ", ".join(first if first == last else f"{first}-{last}" for first, last in ends)


def _scaled(value: float | None, factor: float, unit: str) -> str:
    return "?" if value is None else f"{value * factor:g} {unit}"


def _sum(*parts: str) -> str:
    return "?" if set(parts) == {"?"} else " + ".join(part for part in parts if not part.startswith("0 "))


def _in_code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
