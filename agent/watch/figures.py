"""Numbers as people read them: few digits, a unit with an SI prefix, always as wide, so that columns stand still."""

from __future__ import annotations

NUMBER_CHARACTERS = 5
"""A number with its sign and its point: `12.01`, `-1.25`, `324.1`."""

_PREFIXES = (("m", 1e-3), ("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))
_JOULES_PER_WATT_HOUR = 3600.0


def number(value: float, characters: int = NUMBER_CHARACTERS) -> str:
    """With as many decimals as fit; longer than `characters` if not even its whole part fits."""
    text = ""
    # From the most decimals on: only the rounded number shows how many places it takes before the point.
    for decimals in range(characters - 2, -1, -1):
        text = f"{value:.{decimals}f}"
        if len(text) <= characters:
            break
    return number(0.0, characters) if value and not float(text) else text  # no sign for what is rounded to zero


def quantity(value: float, unit: str) -> str:
    """A number and its unit, such as `324.1 mA` or `12.01 V `: always NUMBER_CHARACTERS + 2 + len(unit) wide."""
    prefix, factor = _prefix_for(value, NUMBER_CHARACTERS)
    return f"{number(value / factor):>{NUMBER_CHARACTERS}} {prefix + unit:<{len(unit) + 1}}"


def span(lowest: float, highest: float, unit: str) -> str:
    """Two numbers under one prefix, such as `1.61..9.98 W `: always 2 * NUMBER_CHARACTERS + 2 + len(unit) wide."""
    characters = NUMBER_CHARACTERS - 1
    prefix, factor = _prefix_for(max(lowest, highest, key=abs), characters)
    numbers = "..".join(number(value / factor, characters) for value in (lowest, highest))
    return f"{numbers:>{2 * characters + 2}} {prefix + unit:<{len(unit) + 1}}"


def energy(joules: float) -> str:
    """In joules below a watt hour, in watt hours from there on; always as wide."""
    if abs(joules) < _JOULES_PER_WATT_HOUR:
        return f"{quantity(joules, 'J')} "
    return quantity(joules / _JOULES_PER_WATT_HOUR, "Wh")


def duration(seconds: float) -> str:
    """A time in the largest unit that makes it a round number: `250 ms`, `1.5 s`, `2 min`, `3 h`."""
    for unit, unit_seconds in (("h", 3600.0), ("min", 60.0)):
        if seconds >= unit_seconds and seconds % unit_seconds == 0:
            return f"{seconds / unit_seconds:.0f} {unit}"
    return f"{seconds:g} s" if seconds >= 1.0 else f"{seconds * 1000:g} ms"


def _prefix_for(value: float, characters: int) -> tuple[str, float]:
    """The prefix under which a value has at most three digits before the point, as it is rounded; none for a zero."""
    smallest = _PREFIXES[0][1]
    if float(number(value / smallest, characters)) == 0.0:
        return "", 1.0
    for prefix, factor in _PREFIXES[:-1]:
        text = number(value / factor, characters)
        if abs(float(text)) < 1000.0 and len(text) <= characters:
            return prefix, factor
    return _PREFIXES[-1]
