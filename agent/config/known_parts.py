"""What was meant by a name that `chip` does not accept; imported only for the message about it.

A part is known by its number: a typing error in the letters is forgiven, another number is another part. Nothing here
ever suggests a chip with different registers.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, NamedTuple

from agent.config.values import nearest, quoted
from agent.errors import ConfigError
from agent.i2c.muxes import mux_names
from agent.settings import CHIP_ALIASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.settings import ChipOptions

_KERNEL_SENSORS = (
    *("ina209", "ina233", "ina700", "ina780", "sq52206", "sy24655", "tmp512", "tmp513"),
    *("ltc2945", "ltc2947", "ltc2991", "ltc2992", "ltc4151", "ltc4282", "ltc4286"),
    *("adm1177", "adm1272", "adm1273", "adm1275", "adm1276", "adm1278", "adm1281", "adm1293", "adm1294"),
    *("lm25056", "lm25066", "lm5064", "lm5066", "lm5066i"),
    # The name that NVIDIA's older kernels give the INA3221 of a module.
    "ina3221x",
    "jetson",
)
"""What only a kernel driver reads (kernel documentation, hwmon/)."""

_HWMON_NAMES = {"jetson": "ina3221"}
"""Those that have another name in hwmon."""

_UNREAD_MONITORS = (
    *("ina2227", "ina4230", "ina4235", "ina701", "ina740", "ina745"),
    *(f"pac19{digits}" for digits in (31, 32, 33, 34, 41, 42, 51, 52, 53, 54)),
    *("ltc2941", "ltc2942", "ltc2943", "ltc2944", "ltc2946", "max34417", "max9611", "max9612", "isl28022"),
)
"""Power monitors on I2C that have no file here."""

_CONVERTERS = ("ads1013", "ads1014", "ads1015", "ads1113", "ads1114", "ads1115", "mcp3421", "mcp3424", "pcf8591")
"""Converters on I2C that measure a voltage."""

_ANALOGUE = (
    "acs712",
    "acs723",
    "acs758",
    "ina169",
    "ina180",
    "ina181",
    "ina199",
    "ina240",
    "ina250",
    "ina253",
    "max471",
)
"""Current sensors whose output is a voltage."""

_KERNEL_MUXES = (
    "pca9541",
    "pca9542",
    *(f"pca984{digit}" for digit in (6, 7, 8, 9)),
    *("max7356", "max7357", "max7358", "max7367", "max7368", "max7369"),
    *("ltc4305", "ltc4306"),
)
"""Muxes that only a kernel driver knows (kernel sources, drivers/i2c/muxes/: pca954x, pca9541, ltc4306)."""

_RASPBERRY_PI_5 = ("pi5", "pmic", "raspberrypi5", "rpi5", "vcgencmd")

_INSTALL = "if a package provides it, install that package"

# Letters, number, and the grade, package and qualification of an order code: INA226AIDGSR, INA219B, INA228-Q1.
_PART = re.compile(r"([a-z]*)([0-9]+)([a-z]{0,6}(?:q1)?)")
# The names of breakouts and drivers, before the part or its number alone: CJMCU-226, GY-INA219, Adafruit_INA260.
_BREAKOUT = re.compile(r"^(?:cjmcu|gy|mcu|adafruit(?:circuitpython)?|sparkfun|waveshare)(?=[a-z]*[0-9])")
_BOARD = re.compile(r"(?<=[0-9a-z])(?:breakout|board|module|sensor)$")
# Of three letters, two are right.
_ALIKE = 0.6


class _Part(NamedTuple):
    letters: str
    number: str
    suffix: str


def about_chip(name: str, chips: Mapping[str, ChipOptions]) -> str:
    """The end of a message that the chip `name` is not supported: what to write instead, if that is known.

    Args:
        name: as in the configuration.
        chips: the supported chips, those of packages too.
    """
    plain = _plain(name)
    if _same_part(plain, mux_names()) is not None:
        return "; describe a mux in a [[mux]] table"
    known = plain if plain in _KERNEL_SENSORS else _without_grade(plain)
    if known in _KERNEL_SENSORS and not _is_accepted(plain, chips) and not _is_accepted(known, chips):
        sensor = quoted(_HWMON_NAMES.get(known, known))
        return (
            f'; its kernel driver reads it: chip = "hwmon" and sensor = {sensor}, as wattpush scan --toml writes them '
            f"once the driver is loaded; or, {_INSTALL}"
        )
    meant = plain if _is_accepted(plain, chips) else _same_chip(plain, chips) or _same_word(plain, chips)
    if meant is not None:
        return f"; did you mean {quoted(meant)}?"
    return _why_unread(plain) or f"; supported are {listed(chips)}; {_INSTALL}"


def listed(chips: Iterable[str]) -> str:
    """The names of these chips and their aliases, in order, for a message."""
    names = set(chips)
    aliases = {alias for alias, name in CHIP_ALIASES.items() if name in names}
    return ", ".join(map(quoted, sorted(names | aliases)))


def _why_unread(plain: str) -> str:
    plain = _without_grade(plain)
    part = plain.upper()
    if plain in _UNREAD_MONITORS:
        return f"; wattpush has no driver for the {part}: {_INSTALL}; docs/adding-a-chip.md shows how to add it"
    if plain in _CONVERTERS:
        return f"; the {part} measures voltages only, and no current"
    if plain in _ANALOGUE:
        return f"; the {part} has an analogue output and is not on I2C"
    return ""


def about_mux(name: str) -> str:
    """The end of a message that the kind of mux `name` is not supported: what to write instead, if that is known."""
    plain = _plain(name)
    meant = _same_part(plain, mux_names())
    if meant is not None:
        return f"; did you mean {quoted(meant)}?"
    # All muxes here are 95xx, as many other parts are, so only PCA9458 is a typing error, and PCA9554 is not.
    swapped = re.sub("^([tp]ca9)45", r"\g<1>54", plain)
    meant = _same_part(swapped, mux_names())
    if meant is not None:
        return f"; did you mean {quoted(meant)}?"
    measures = _without_grade(plain) in {*_KERNEL_SENSORS, *_UNREAD_MONITORS, "hwmon", "rpipmic"}
    if measures or plain.startswith("ina"):
        return "; describe a power monitor in a [[device]] table"
    part = _without_grade(plain)
    if part in _KERNEL_MUXES:
        return f"; the kernel has a driver for the {part.upper()}: each channel is then a bus, without a [[mux]]"
    return f"; supported are {', '.join(map(quoted, sorted(mux_names())))}"


def _plain(name: str) -> str:
    """The name in small letters, without separators or the words for a board; letters that look like digits are digits.

    CJMCU-26O is 260; an I at the end stays, as in LM5066I.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    plain = re.sub(r"(?<=[0-9])o", "0", plain)
    plain = re.sub(r"(?<=[0-9])(?:[il](?=[0-9])|l$)", "1", _BOARD.sub("", plain))
    return _BREAKOUT.sub("", plain)


def _same_chip(plain: str, chips: Mapping[str, ChipOptions]) -> str | None:
    part = _part(plain)
    # The name of a chip that a package adds is not among the keys.
    other = "" if part is None else f"ina{part.number}"
    return _same_part(plain, (*chips, *CHIP_ALIASES, other) if _is_accepted(other, chips) else chips)


def _is_accepted(name: str, chips: Mapping[str, ChipOptions]) -> bool:
    try:
        return name in chips
    except ConfigError:  # a package adds it, and says what is wrong with it once the name is right
        return True


def _same_part(plain: str, known: Iterable[str]) -> str | None:
    """The known name of the part with this number; None if it is another part."""
    given = _part(plain)
    if given is None:
        return None

    def likeness(name: str) -> float:
        part = _part(_plain(name))
        if part is None or part.number != given.number:
            return 0.0
        # TCA9548 for TCA9548A, or INA219B for INA219.
        if not (given.suffix.startswith(part.suffix) or part.suffix.startswith(given.suffix)):
            return 0.0
        return SequenceMatcher(None, given.letters, part.letters).ratio() if given.letters else 1.0

    best = max(known, key=likeness, default=None)
    return best if best is not None and likeness(best) >= _ALIKE else None


def _part(plain: str) -> _Part | None:
    found = _PART.fullmatch(plain)
    return None if found is None else _Part(*found.groups())


def _without_grade(plain: str) -> str:
    """The part without the letters of its order code: INA745B is ina745."""
    part = _part(plain)
    return plain if part is None else part.letters + part.number


def _same_word(plain: str, known: Iterable[str]) -> str | None:
    """The known name without a number, such as hwmon, that was most likely meant."""
    words = [name for name in known if not any(character.isdigit() for character in name)]
    if plain in _RASPBERRY_PI_5 and "rpi-pmic" in words:
        return "rpi-pmic"
    return None if any(character.isdigit() for character in plain) else nearest(plain, words)
