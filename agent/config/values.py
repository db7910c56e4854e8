"""What a single value of config.toml may be: each function takes what TOML gave and returns it ready for use.

All of them but `parse_duration` raise voluptuous' `Invalid`, whose text says what was expected and what was found. That
text never holds a line break, whatever is in the file, and never the user:password part of a URL.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from voluptuous import Invalid

from agent.settings import ServeSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent.i2c.place import BusName

_MAX_QUOTED_CHARACTERS = 60
# The Pushgateway takes these as parts of its path, where servers and proxies stop somewhere above 1,000 characters.
_MAX_NAME_CHARACTERS = 200
# I2C_MINORS in the kernel's include/linux/i2c.h: no adapter has a higher number.
_MAX_BUS = 0xFFFFF
# Beyond 64 bits a number is a slip of the keyboard, and beyond some thousand digits Python refuses to print it.
_MAX_SHOWN_BITS = 64

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h)")
# Multiply, then divide: 1.1 / 1000 is the float nearest to 0.0011, while 1.1 * 0.001 is not.
_UNIT_RATIOS = {"us": (1, 1_000_000), "ms": (1, 1_000), "s": (1, 1), "m": (60, 1), "h": (3600, 1)}

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_LISTEN = re.compile(r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<plain>[^:\[\]]*)):(?P<port>[0-9]{1,5})")


def quoted(text: str) -> str:
    """The text in double quotes, on one line, cut when it is long: fit for any message."""
    shown = text if len(text) <= _MAX_QUOTED_CHARACTERS else text[:_MAX_QUOTED_CHARACTERS] + "…"
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown) + '"'


def describe(value: object) -> str:
    """How a value of any TOML type is called in a message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if value.bit_length() <= _MAX_SHOWN_BITS else "a huge number"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return repr(value)
    names: dict[type, str] = {dict: "a table", list: "a list"}
    return names.get(type(value), "a date or time")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of the known words that the writer most likely meant, or None."""
    import difflib

    by_lower = {name.lower(): name for name in known}
    # Names are short: "mo" and "m0" are only half alike.
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def parse_duration(value: object) -> float:
    """A duration in seconds, from a string such as "500ms", "15s", "2m", "1.5h" or "1h30m", or a number of seconds.

    Zero is a duration; whether it makes sense is for the caller to say.

    Raises:
        ValueError: for anything else, also negative and endless ones; the text says what was expected and what found.
    """
    seconds = math.nan
    if isinstance(value, str):
        if _DURATION.fullmatch(value):
            seconds = 0.0
            for number, unit in _DURATION_PART.findall(value):
                multiplier, divisor = _UNIT_RATIOS[unit]
                seconds += float(number) * multiplier / divisor
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f'expected a duration such as "15s" or a number of seconds, not {describe(value)}')
    return seconds


def spell_duration(seconds: float) -> str:
    """A duration the way a person writes it in the file: 0.5 is `500ms`, 600 is `10m`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:g}s"
    milliseconds = seconds * 1e3
    return f"{milliseconds:g}ms" if milliseconds >= 1 else f"{milliseconds * 1e3:g}us"


def duration(low_seconds: float, high_seconds: float) -> Callable[[object], float]:
    """A duration from `low_seconds` to `high_seconds`, both allowed."""

    def validate(value: object) -> float:
        try:
            seconds = parse_duration(value)
        except ValueError as error:
            raise Invalid(str(error)) from error
        if not low_seconds <= seconds <= high_seconds:
            limits = f"{spell_duration(low_seconds)}..{spell_duration(high_seconds)}"
            raise Invalid(f"{spell_duration(seconds)} is not in {limits}")
        return seconds

    return validate


def _is_control(character: str) -> bool:
    # C0, DEL and C1, and the two Unicode characters that end a line.
    return character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029"


def text(value: object) -> str:
    """A string with something in it and no control characters."""
    if not isinstance(value, str):
        raise Invalid(f"expected a string, not {describe(value)}")
    if not value:
        raise Invalid("is empty")
    if any(map(_is_control, value)):
        raise Invalid(f"{quoted(value)} has a control character in it")
    return value


def optional_text(value: object) -> str | None:
    """A string; the empty one is None, the same as the key not being there."""
    return None if value == "" else text(value)


def grouping_value(value: object) -> str:
    """A job, hostname or device name: a value in the grouping key of the Pushgateway.

    `.` and `..` are what any HTTP server resolves away as parts of a path: the push ends in a redirect.
    """
    name = text(value)
    if name in {".", ".."}:
        raise Invalid(f"{quoted(name)} cannot be pushed under: it means a folder in the gateway's URL")
    if len(name) > _MAX_NAME_CHARACTERS:
        raise Invalid(f"{quoted(name)} is longer than {_MAX_NAME_CHARACTERS} characters")
    return name


def username(value: object) -> str | None:
    """The user of HTTP basic authentication, which cannot hold a colon (RFC 7617 section 2)."""
    user = optional_text(value)
    if user is not None and ":" in user:
        raise Invalid('may not contain ":"; the password goes into the file that password_file names')
    return user


def switch(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise Invalid(f"expected true or false, not {describe(value)}")
    return value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _unquoted_cure(value: object) -> str:
    """For a number that was written as a string: how to write it."""
    if isinstance(value, str):
        found = re.fullmatch(r"(?:/dev/i2c-|i2c-)?(0x[0-9A-Fa-f]{1,8}|[0-9]{1,9})", value)
        if found:
            return f"; write {found[1]} without quotes"
    return ""


def whole_number(low: int, high: int) -> Callable[[object], int]:
    """An integer from `low` to `high`, both allowed; 2.0 and true are none."""

    def validate(value: object) -> int:
        if not isinstance(value, int) or not _is_whole(value):
            raise Invalid(f"expected a whole number, not {describe(value)}{_unquoted_cure(value)}")
        if not low <= value <= high:
            raise Invalid(f"{describe(value)} is not in {low}..{high}")
        return value

    return validate


def any_whole_number(value: object) -> int:
    """An integer; which ones are good depends on the chip."""
    if not isinstance(value, int) or not _is_whole(value):
        raise Invalid(f"expected a whole number, not {describe(value)}{_unquoted_cure(value)}")
    return value


def address(value: object) -> int:
    """A 7-bit I2C address; which ones are good depends on the part."""
    if not isinstance(value, int) or not _is_whole(value):
        raise Invalid(f"expected an address such as 0x40, not {describe(value)}{_unquoted_cure(value)}")
    return value


def check_address(value: int, allowed: range) -> None:
    """Refuse an address that the straps of a part cannot give it."""
    if value not in allowed:
        shown = f"0x{value:02x}" if 0 <= value <= 0xFFFF else describe(value)
        raise Invalid(f"{shown} is not in 0x{allowed[0]:02x}..0x{allowed[-1]:02x}")


def bus(value: object) -> BusName:
    """N of /dev/i2c-N, or "board"."""
    if value == "board":
        return "board"
    if not isinstance(value, int) or not _is_whole(value):
        raise Invalid(f'expected a bus number or "board", not {describe(value)}{_unquoted_cure(value)}')
    return whole_number(0, _MAX_BUS)(value)


def ohms(value: object) -> float:
    """A shunt resistance: a number above 0; outside 1 microohm to 1 megaohm it is a slip of the keyboard."""
    is_nan = isinstance(value, float) and math.isnan(value)  # an integer may be too large to be asked
    if isinstance(value, bool) or not isinstance(value, (int, float)) or is_nan:
        raise Invalid(f"expected the ohms of the shunt such as 0.1, not {describe(value)}")
    if not 1e-6 <= value <= 1e6:
        raise Invalid(f"{describe(value)} is not in 0.000001..1000000 (ohms)")
    return float(value)


def one_of(*choices: str) -> Callable[[object], str]:
    """One of a few words."""

    def validate(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise Invalid(f"{describe(value)} is not one of {', '.join(map(quoted, choices))}")
        return value

    return validate


def _is_ip(host: str, version: Literal[4, 6]) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    """Whether a resolver can be asked for this name (RFC 1123 section 2.1; underscores may pass), or it is IPv4."""
    return bool(_HOST.fullmatch(host))


def url(value: object) -> str:
    """The gateway's URL, its path prefix kept.

    http.client and urllib3 refuse other schemes, spaces and bad ports only at the first push, and a user in the URL is
    looked up as part of the host name. So all of it is refused here.
    """
    given = text(value)
    if "@" in given:
        raise Invalid("holds credentials; put them into username and password_file (a literal @ in the path is %40)")
    if not given.startswith(("http://", "https://")):
        raise Invalid(f"{quoted(given)} does not begin with http:// or https://")
    if not given.isascii() or " " in given:
        raise Invalid(f"{quoted(given)} has characters that a URL cannot hold; percent-encode them")
    if "?" in given or "#" in given:
        raise Invalid(f"{quoted(given)} has a query or fragment; the gateway takes only a path")
    try:
        parts = urlsplit(given)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise Invalid(f"{quoted(given)} is not a URL with a good host and port: {error}") from error
    if not (_is_ip(host, 6) if "[" in parts.netloc else _is_host(host)):
        raise Invalid(f"{quoted(given)} has no good host name in it")
    if port == 0:
        raise Invalid(f"{quoted(given)} has port 0, where nothing can listen")
    return given


def listen(value: object) -> ServeSettings:
    """Where to answer scrapes: "host:port", "[::1]:9812" or ":9812"; port 0 lets the system choose."""
    given = text(value)
    found = _LISTEN.fullmatch(given)
    if not found:
        raise Invalid(f'expected "host:port" such as "127.0.0.1:9812" or "[::1]:9812", not {quoted(given)}')
    port = int(found["port"])
    if port > 0xFFFF:
        raise Invalid(f"port {port} is not in 0..65535")
    bracketed, plain = found["bracketed"], found["plain"]
    if bracketed is not None:
        if not _is_ip(bracketed, 6):
            raise Invalid(f"{quoted(bracketed)} is not an IPv6 address")
        return ServeSettings(host=bracketed, port=port)
    if plain and not _is_host(plain):
        raise Invalid(f"{quoted(plain)} is not a host name or IPv4 address")
    return ServeSettings(host=plain, port=port)


def table(value: object) -> dict[str, object]:
    """One `[table]`."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        raise Invalid("there is only one of it: write its name in single brackets")
    if not isinstance(value, dict):
        raise Invalid(f"expected a table, not {describe(value)}")
    return value


def tables(value: object) -> list[object]:
    """A list of `[[table]]` blocks; what is in the list is looked at one by one later."""
    if isinstance(value, dict):
        raise Invalid("there can be several: write its name in double brackets")
    if not isinstance(value, list):
        raise Invalid(f"expected tables, not {describe(value)}")
    return value
