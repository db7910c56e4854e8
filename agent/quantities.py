"""Quantities as people read them: a number of a fixed width, an SI prefix and a unit."""

from __future__ import annotations

NUMBER_CHARACTERS = 5
"""Width of a number, with its sign and decimal point: `12.01`, `-1.25`, `324.1`."""

_PREFIXES = (("m", 1e-3), ("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
_JOULES_PER_WATT_HOUR = 3600.0


def format_number(value: float, characters: int = NUMBER_CHARACTERS) -> str:
    """Format a number with as many decimals as fit; longer than `characters` if its integer part does not fit."""
    text = ""
    value += 0.0  # -0.0 loses its sign
    # Try the most decimals first: only the rounded number shows how many digits stand before the point.
    for decimals in range(characters - 2, -1, -1):
        text = f"{value:.{decimals}f}"
        if len(text) <= characters:
            break
    return format_number(0.0, characters) if value and not float(text) else text  # -0.000 loses its sign


def format_quantity(value: float, unit: str) -> str:
    """Format a value with its unit, `324.1 mA` or `12.01 V `, to a width of NUMBER_CHARACTERS + 2 + len(unit)."""
    prefix, factor = _prefix_for(value, NUMBER_CHARACTERS)
    return f"{format_number(value / factor):>{NUMBER_CHARACTERS}} {prefix + unit:<{len(unit) + 1}}"


def format_range(lowest: float, highest: float, unit: str) -> str:
    """Format a range with one unit, `1.61..9.98 W `, to a width of 2 * NUMBER_CHARACTERS + 2 + len(unit)."""
    characters = NUMBER_CHARACTERS - 1
    prefix, factor = _prefix_for(max(lowest, highest, key=abs), characters)
    numbers = "..".join(format_number(value / factor, characters) for value in (lowest, highest))
    return f"{numbers:>{2 * characters + 2}} {prefix + unit:<{len(unit) + 1}}"


def format_energy(joules: float) -> str:
    """Format an energy in joules below one watt hour, else in watt hours, to a fixed width."""
    if abs(joules) < _JOULES_PER_WATT_HOUR:
        return f"{format_quantity(joules, 'J')} "
    return format_quantity(joules / _JOULES_PER_WATT_HOUR, "Wh")


def format_duration(seconds: float) -> str:
    """Format a duration in the largest unit that makes it a whole number: `250 ms`, `1.5 s`, `2 min`, `3 h`."""
    for unit, unit_seconds in (("h", 3600.0), ("min", 60.0)):
        if seconds >= unit_seconds and seconds % unit_seconds == 0:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:g} s" if seconds >= 1.0 else f"{seconds * 1000:g} ms"


def format_elapsed(seconds: float) -> str:
    """Format a time that has passed in its two largest units: `45 s`, `12 min 3 s`, `2 h 5 min`, `3 d 4 h`."""
    rest = round(seconds)
    units = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
    for unit, unit_seconds, smaller, smaller_seconds in units:
        if rest >= unit_seconds:
            return f"{rest // unit_seconds} {unit} {rest % unit_seconds // smaller_seconds} {smaller}"
    return f"{rest} s"


def _prefix_for(value: float, characters: int) -> tuple[str, float]:
    """Choose the SI prefix that leaves at most three digits before the point after rounding; none for zero."""
    smallest = _PREFIXES[0][1]
    if float(format_number(value / smallest, characters)) == 0.0:
        return "", 1.0
    for prefix, factor in _PREFIXES[:-1]:
        text = format_number(value / factor, characters)
        if abs(float(text)) < 1000.0 and len(text) <= characters:
            return prefix, factor
    return _PREFIXES[-1]
