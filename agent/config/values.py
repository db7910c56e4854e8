"""Checks of single values of config.toml: each takes a value as TOML gives it and returns it ready for use.

A check raises `InvalidError`, whose text names the expected and the actual value. That text never contains a line
break, whatever is in the file, and never the user:password part of a URL.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from agent.i2c.place import BOARD
from agent.settings import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.i2c.place import BusName

AVERAGING_EXAMPLE = '{ count = 64, voltage = "1.1ms", current = "1.1ms" }'

_MAX_QUOTED_CHARACTERS = 60
# These become parts of the gateway's path, which servers and proxies limit to somewhat more than 1,000 characters.
MAX_NAME_CHARACTERS = 200
# I2C_MINORS in the kernel's include/linux/i2c.h: no adapter has a higher number.
_MAX_BUS = 0xFFFFF
_MAX_ADDRESS = 0x7F
# A number of more than 64 bits is a typing error, and Python refuses to print one of some thousand digits.
_MAX_SHOWN_BITS = 64

_DAY_SECONDS = 86400
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)")
# Multiply, then divide: 1.1 / 1000 is the float nearest to 0.0011, while 1.1 * 0.001 is not.
_UNIT_RATIOS = {"us": (1, 1_000_000), "ms": (1, 1_000), "s": (1, 1), "m": (60, 1), "h": (3600, 1), "d": (86400, 1)}
_UNIT_WORDS = {
    "ms": ("ms", "msec", "msecs", "milliseconds"),
    "s": ("", "s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
}

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?(kB|MB|GB|TB|KiB|MiB|GiB|TiB)")
_SIZE_UNITS: dict[str, int] = {
    **{unit: 1000**power for power, unit in enumerate(("kB", "MB", "GB", "TB"), start=1)},
    **{unit: 1024**power for power, unit in enumerate(("KiB", "MiB", "GiB", "TiB"), start=1)},
}

_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})(?:\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_LISTEN = re.compile(r"(?:\[(?P<bracketed>[^\]]*)\]|(?P<plain>[^:\[\]]*)):(?P<port>[0-9]{1,5})")

# RFC 9110, section 5.6.2: a token.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_MAX_HEADER_CHARACTERS = 4000
# What the agent sends itself, and what to write instead.
_OWN_HEADERS = {
    "authorization": "write username and password_file, or bearer_token_file",
    "proxy-authorization": "write the user into the URL of the proxy, in the environment",
    "user-agent": "the agent sends its own; remove it",
    "host": "it is made from url; remove it",
    "connection": "connections are kept open by the agent; remove it",
    "transfer-encoding": "the agent sends the length; remove it",
    "x-prometheus-remote-write-version": "the agent speaks version 0.1.0; remove it",
}

_REMOTE_WRITE_PATHS = {
    8428: "/api/v1/write",  # VictoriaMetrics
    8480: "/insert/0/prometheus/api/v1/write",  # vminsert, of its cluster
    9090: "/api/v1/write",  # Prometheus
    9009: "/api/v1/push",  # Mimir and Cortex
    19291: "/api/v1/receive",  # Thanos
}
"""By the default port of the server, in its own documentation."""

_PUSH_PATH = re.compile(r"/+metrics(?:/+job(?:@base64)?(?:/.*)?)?/*$")


class InvalidError(ValueError):
    """A value that cannot be used; the text is the reason."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The values that a key may hold.

    Attributes:
        words: the kind or range, for the reference.
        check: turns the TOML value into the one that the settings hold, or raises `InvalidError`.
        unit: the suffix that the field in the settings adds to the key.
        keys: the keys of an inline table, which may stand instead of a value that `check` accepts.
    """

    words: str
    check: Callable[[object], Any]
    unit: str = ""
    keys: Mapping[str, Kind] = field(default_factory=dict)


def quoted(text: str) -> str:
    """The text in double quotes for a message: on one line, and cut if it is long."""
    shown = text if len(text) <= _MAX_QUOTED_CHARACTERS else text[:_MAX_QUOTED_CHARACTERS] + "…"
    return '"' + "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown) + '"'


def describe(value: object) -> str:
    """A value of any TOML type as a message shows it."""
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
    """The known word that was most likely meant, or None."""
    import difflib

    by_lower = {name.lower(): name for name in known}
    # Names are short: "mo" and "m0" are only half alike.
    matches = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def parse_duration(value: object) -> float:
    """A duration in seconds, from a string such as "500ms", "15s", "1h30m" or "7d", or a number of seconds.

    Zero is a duration; the caller decides whether it makes sense.

    Raises:
        InvalidError: anything else, including negative and infinite values.
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
        expected = 'expected a duration such as "15s" or a number of seconds'
        raise InvalidError(f"{expected}, not {describe(value)}{_duration_hint(value)}")
    return seconds


def _duration_hint(value: object) -> str:
    """What was meant by a duration without a unit, or with one in other letters; empty if that cannot be told."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", value) if isinstance(value, str) else None
    if found is None:
        return ""
    units = [unit for unit, words in _UNIT_WORDS.items() if found[2].lower() in words]
    return f'; did you mean "{found[1]}{units[0]}"?' if units else ""


def spell_duration(seconds: float) -> str:
    """A duration as one writes it in the file: 0.5 is `500ms`, 600 is `10m`, a week is `7d`."""
    if seconds > _DAY_SECONDS and seconds % _DAY_SECONDS == 0:
        return f"{seconds / _DAY_SECONDS:g}d"
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:g}s"
    milliseconds = seconds * 1e3
    return f"{milliseconds:g}ms" if milliseconds >= 1 else f"{milliseconds * 1e3:g}us"


def duration(low_seconds: float, high_seconds: float) -> Kind:
    """A duration from `low_seconds` to `high_seconds`, both allowed."""
    low, high = spell_duration(low_seconds), spell_duration(high_seconds)

    def check(value: object) -> float:
        seconds = parse_duration(value)
        if not low_seconds <= seconds <= high_seconds:
            raise InvalidError(f"{spell_duration(seconds)} is not in {low}..{high}")
        return seconds

    return Kind(f"duration, {low} to {high}", check, unit="_seconds")


def parse_size(value: object) -> int:
    """A size in bytes, from a string such as "64MB", "1.5 GB" or "64MiB".

    Raises:
        InvalidError: anything else, also a number without a unit, which may mean anything.
    """
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidError(f'expected a size such as "64MB" or "64MiB", not {describe(value)}{_size_hint(value)}')
    return round(float(found[1]) * _SIZE_UNITS[found[2]])


def _size_hint(value: object) -> str:
    """What was meant by a size with a unit in other letters, or without one; empty if that cannot be told."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**15:
        shown = spell_size(value) if value >= _SIZE_UNITS["kB"] else f"{value}MB"
        return f'; write "{shown}"'
    found = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]{1,3})", value) if isinstance(value, str) else None
    if found:
        for unit in _SIZE_UNITS:
            if found[2].lower() in (unit.lower(), unit[0].lower()):
                return f'; did you mean "{found[1]}{unit}"?'
    return ""


def spell_size(size_bytes: int) -> str:
    """A size as one writes it in the file: 64,000,000 is `64MB`."""
    for unit, factor in sorted(_SIZE_UNITS.items(), key=lambda item: -item[1]):
        if size_bytes % factor == 0 and size_bytes:
            return f"{size_bytes // factor}{unit}"
    for unit in ("TB", "GB", "MB", "kB"):
        if size_bytes >= _SIZE_UNITS[unit]:
            return f"{size_bytes / _SIZE_UNITS[unit]:.6g}{unit}"
    return f"{size_bytes / _SIZE_UNITS['kB']:g}kB"


def size(low_bytes: int, high_bytes: int) -> Kind:
    """A size from `low_bytes` to `high_bytes`, both allowed."""
    low, high = spell_size(low_bytes), spell_size(high_bytes)

    def check(value: object) -> int:
        size_bytes = parse_size(value)
        if not low_bytes <= size_bytes <= high_bytes:
            raise InvalidError(f"{spell_size(size_bytes)} is not in {low}..{high}")
        return size_bytes

    return Kind(f"size, {low} to {high}", check, unit="_bytes")


def _is_control(character: str) -> bool:
    # C0, DEL and C1, and the two Unicode characters that end a line.
    return character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029"


def text(value: object) -> str:
    """A string that is not empty and contains no control characters."""
    if not isinstance(value, str):
        raise InvalidError(f"expected a string, not {describe(value)}")
    if not value:
        raise InvalidError("is empty")
    if any(map(_is_control, value)):
        raise InvalidError(f"{quoted(value)} contains a control character")
    return value


def optional_text(value: object) -> str | None:
    """A string; the empty one means the same as no key: None."""
    return None if value == "" else text(value)


def grouping_value(value: object) -> str:
    """A job, hostname or device name: a value in the grouping key of the Pushgateway.

    Any HTTP server resolves `.` and `..` in a path: the push would end in a redirect.
    """
    name = text(value)
    if name in {".", ".."}:
        raise InvalidError(f"{quoted(name)} cannot be a grouping value: in the gateway's URL it means a folder")
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidError(f"{quoted(name)} is longer than {MAX_NAME_CHARACTERS} characters")
    return name


def username(value: object) -> str | None:
    """The user of HTTP basic authentication, which cannot contain a colon (RFC 7617 section 2)."""
    user = optional_text(value)
    if user is not None and ":" in user:
        raise InvalidError('must not contain ":"; put the password into the file that password_file names')
    return user


def switch(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise InvalidError(f"expected true or false, not {describe(value)}")
    return value


def _unquote_hint(value: object) -> str:
    """How to write a number that was written as a string; empty for anything else."""
    if isinstance(value, str):
        found = re.fullmatch(r"(?:/dev/i2c-|i2c-)?(0x[0-9A-Fa-f]{1,8}|[0-9]{1,9})", value)
        if found:
            return f"; write {found[1]} without quotes"
    return ""


def _integer(value: object, expected: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidError(f"expected {expected}, not {describe(value)}{_unquote_hint(value)}")
    return value


def whole_number(low: int, high: int) -> Kind:
    """An integer from `low` to `high`, both allowed; 2.0 and true are not integers."""

    def check(value: object) -> int:
        number = any_whole_number(value)
        if not low <= number <= high:
            raise InvalidError(f"{describe(number)} is not in {low}..{high}")
        return number

    return Kind(f"{low} to {high}", check)


def number(low: float, high: float) -> Kind:
    """A number from `low` to `high`, both allowed."""

    def check(value: object) -> float:
        is_nan = isinstance(value, float) and math.isnan(value)  # math.isnan fails on huge integers
        if isinstance(value, bool) or not isinstance(value, (int, float)) or is_nan:
            raise InvalidError(f"expected a number, not {describe(value)}{_unquote_hint(value)}")
        if not low <= value <= high:
            raise InvalidError(f"{describe(value)} is not in {low:g}..{high:g}")
        return float(value)

    return Kind(f"{low:g} to {high:g}", check)


def any_whole_number(value: object) -> int:
    """An integer; its range depends on the chip."""
    return _integer(value, "a whole number")


def mux_name(value: object) -> str:
    """The name of a [[mux]] table, not the number or the address of a mux."""
    if not isinstance(value, str):
        raise InvalidError(f"expected the name of a [[mux]] table, not {describe(value)}")
    return text(value)


def address(value: object) -> int:
    """A 7-bit I2C address; its range depends on the chip."""
    # Datasheets write addresses in hexadecimal, as 40h or without any mark.
    found = re.fullmatch(r"\s*([0-9A-Fa-f]{2})h?\s*", value) if isinstance(value, str) else None
    if found:
        shown = describe(value)
        raise InvalidError(f"expected an address such as 0x40, not {shown}; write 0x{found[1].lower()} without quotes")
    return _integer(value, "an address such as 0x40")


def check_address(value: int, allowed: Sequence[int]) -> None:
    """Refuse an address that the chip cannot be strapped to."""
    if value not in allowed:
        shown = f"0x{value:02x}" if 0 <= value <= 0xFFFF else describe(value)
        ranges = " or ".join(f"0x{run[0]:02x}..0x{run[-1]:02x}" for run in runs(allowed))
        raise InvalidError(f"{shown} is not in {ranges}{_address_hint(value, shown, allowed)}")


def _address_hint(value: int, shown: str, allowed: Sequence[int]) -> str:
    """What was meant by an address that is not allowed; empty if that cannot be told."""
    if not 0 <= value <= 0xFFFF:
        return ""
    # TOML's 40 is decimal, and datasheets write addresses in hexadecimal, often without 0x.
    meant = int(str(value), 16)
    if meant in allowed:
        return f"; {value} is {shown}: write 0x{meant:02x}"
    # Some manuals count the bit for reading and writing as part of the address.
    if value > _MAX_ADDRESS and value >> 1 in allowed:
        return f"; {shown} has 8 bits, with the one for reading and writing: write 0x{value >> 1:02x}"
    return ""


def address_in(allowed: range) -> Kind:
    """An address of a chip whose straps allow only these."""

    def check(value: object) -> int:
        given = address(value)
        check_address(given, allowed)
        return given

    return Kind(f"0x{allowed[0]:02x} to 0x{allowed[-1]:02x}", check)


def bus(value: object) -> BusName:
    """N of /dev/i2c-N, a path that leads to one, or "board"."""
    if isinstance(value, str) and (value == BOARD or value.startswith("/")):
        return value
    number = _integer(value, 'a bus number, a path such as "/dev/i2c-rack", or "board"')
    if not 0 <= number <= _MAX_BUS:
        raise InvalidError(f"{describe(number)} is not in 0..{_MAX_BUS}")
    return number


def ohms(value: object) -> float:
    """A shunt resistance; outside 1 microohm to 1 megaohm it is a typing error."""
    is_nan = isinstance(value, float) and math.isnan(value)  # math.isnan fails on huge integers
    if isinstance(value, bool) or not isinstance(value, (int, float)) or is_nan:
        raise InvalidError(f"expected a resistance in ohms such as 0.1, not {describe(value)}{_ohms_hint(value)}")
    if not 1e-6 <= value <= 1e6:
        raise InvalidError(f"{describe(value)} is not in 0.000001..1000000 (ohms)")
    return float(value)


def printed_ohms(text: str) -> float | None:
    """The resistance meant by the print on a resistor, or by a number with or without its unit; None for other text."""
    plain = text.replace(" ", "").replace(",", ".").lower()
    # IEC 60062: the letter stands where the decimal point is.
    if printed := re.fullmatch(r"([0-9]{0,4})r([0-9]{1,6})", plain):
        return float(f"{printed[1] or 0}.{printed[2]}")
    if found := re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})(m?)(?:ohms?|\u03c9|r)?", plain):
        return float(found[1]) / (1000 if found[2] else 1)
    return None


def _ohms_hint(value: object) -> str:
    meant = printed_ohms(value) if isinstance(value, str) else None
    return "" if meant is None else f"; write {meant:g} without quotes"


def one_of(*choices: str) -> Kind:
    """One of a few words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise InvalidError(f"{describe(value)} is not one of {', '.join(map(quoted, choices))}")
        return value

    *first, last = (f"`{quoted(choice)}`" for choice in choices)
    return Kind(f"{', '.join(first)} or {last}" if first else last, check)


def auto(value: object) -> None:
    """The averaging "auto", which the settings hold as None."""
    if value != "auto":
        raise InvalidError(f'expected "auto" or a table such as {AVERAGING_EXAMPLE}, not {describe(value)}')


def _is_ip(host: str, version: Literal[4, 6]) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).version == version
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can connect to the host of `listen`, which is empty for every address."""
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(host: str) -> bool:
    """Whether it is a name that can be resolved (RFC 1123 section 2.1; underscores may pass), or IPv4."""
    return bool(_HOST.fullmatch(host))


def url(value: object) -> str:
    """The URL of a server, with its path.

    http.client and urllib3 refuse other schemes, spaces and bad ports only at the first push, and take a user in the
    URL for a part of the host name. So all of these are refused here.
    """
    given = text(value)
    if "@" in given:
        raise InvalidError(
            "contains credentials; move them to username and password_file (a literal @ in the path is %40)"
        )
    if not given.startswith(("http://", "https://")):
        raise InvalidError(f"{quoted(given)} does not begin with http:// or https://")
    if not given.isascii() or " " in given:
        raise InvalidError(f"{quoted(given)} has characters that a URL cannot contain; percent-encode them")
    if "?" in given or "#" in given:
        raise InvalidError(f"{quoted(given)} has a query or fragment; remove it, only a path is allowed")
    try:
        parts = urlsplit(given)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidError(f"{quoted(given)} is not a URL with a valid host and port: {error}") from error
    if not (_is_ip(host, 6) if "[" in parts.netloc else _is_host(host)):
        raise InvalidError(f"{quoted(given)} has no valid host name")
    if port == 0:
        raise InvalidError(f"{quoted(given)} has port 0, on which no server listens")
    return given


def gateway_url(value: object) -> str:
    """The URL of a Pushgateway, up to the path that every request adds (a gateway answers 400 to a doubled one)."""
    given = url(value)
    found = _PUSH_PATH.search(urlsplit(given).path)
    if found:
        without = quoted(given.removesuffix(found[0]))
        raise InvalidError(f"{quoted(given)}: leave out {found[0]}, which every push adds: url = {without}")
    return given


def remote_write_url(value: object) -> str:
    """The URL of a remote write server with its whole path, to which nothing is added."""
    given = url(value)
    parts = urlsplit(given)
    if not parts.path.strip("/"):
        is_grafana_cloud = (parts.hostname or "").endswith(".grafana.net")
        path = "/api/prom/push" if is_grafana_cloud else _REMOTE_WRITE_PATHS.get(parts.port or 0)
        hint = (
            "add it, /api/v1/write for VictoriaMetrics and Prometheus, /api/v1/push for Mimir; "
            "docs/history.md has others"
        )
        if path is not None:
            hint = f"write url = {quoted(given.rstrip('/') + path)}"
        raise InvalidError(f"{quoted(given)}: the path is missing; {hint}")
    return given


def headers(value: object) -> tuple[tuple[str, str], ...]:
    """The headers of a table of strings, in its order; none that the agent sends itself."""
    if not isinstance(value, dict):
        raise InvalidError(f'expected a table such as {{ X-Scope-OrgID = "tenant" }}, not {describe(value)}')
    names: set[str] = set()
    for name, content in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise InvalidError(f"{quoted(name)} cannot be the name of a header")
        lower = name.lower()
        own = _OWN_HEADERS.get(lower) or ("the agent describes its own body; remove it" * lower.startswith("content-"))
        if own:
            raise InvalidError(f"{name}: not allowed here: {own}")
        if lower in names:
            raise InvalidError(f"{name}: given twice; upper and lower case are the same")
        names.add(lower)
        if not isinstance(content, str):
            raise InvalidError(f"{name}: expected a string, not {describe(content)}")
        # The value may be a secret, so no message shows it.
        if not content or content != content.strip(" ") or not (content.isascii() and content.isprintable()):
            raise InvalidError(f"{name}: the value must be printable ASCII, without spaces at its ends")
        if len(content) > _MAX_HEADER_CHARACTERS:
            raise InvalidError(f"{name}: the value is longer than {_MAX_HEADER_CHARACTERS} characters")
    return tuple(value.items())


def listen(value: object) -> tuple[str, int]:
    """Host and port from "host:port", "[::1]:9812" or ":9812"; port 0 lets the system choose."""
    found = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise InvalidError(f'expected "host:port" such as "127.0.0.1:9812" or "[::1]:9812", not {describe(value)}')
    port = int(found["port"])
    if port > 0xFFFF:
        raise InvalidError(f"port {port} is not in 0..65535")
    bracketed, plain = found["bracketed"], found["plain"]
    if bracketed is not None:
        if not _is_ip(bracketed, 6):
            raise InvalidError(f"{quoted(bracketed)} is not an IPv6 address")
        return bracketed, port
    if plain and not _is_host(plain):
        raise InvalidError(f"{quoted(plain)} is not a host name or IPv4 address")
    return plain, port


TABLE = "table"
"""The words of the kinds `table` and `tables`, whose content is checked later, key by key."""


def table(header: str) -> Kind:
    """One table under `header`: `[pushgateway]`."""

    def check(value: object) -> dict[str, object]:
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            raise InvalidError(f"there can be only one: write {header}, in single brackets")
        if not isinstance(value, dict):
            raise InvalidError(f"expected a table, {header}, not {describe(value)}")
        return value

    return Kind(TABLE, check)


def tables(header: str) -> Kind:
    """Any number of tables, each under `header`: `[[device]]`."""

    def check(value: object) -> list[object]:
        if isinstance(value, dict):
            raise InvalidError(f"there can be several: write {header}, in double brackets")
        if not isinstance(value, list):
            raise InvalidError(f"expected tables, {header}, not {describe(value)}")
        return value

    return Kind(TABLE, check)
