"""The shape of each table of config.toml on its own: which keys there are, and what each may hold.

Which keys must be there, and what they mean together, is for `rules.py` and `wiring.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import voluptuous as vol

from agent.config import values
from agent.config.values import describe, nearest, quoted
from agent.i2c.muxes import mux_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_DAY_SECONDS = 86400.0


class _UnknownKeyInvalid(vol.Invalid):
    """A key that its table does not have; which key is the last of its `path`."""

    def __init__(self, known: Sequence[str]) -> None:
        super().__init__("unknown key")
        self.known = known

    @property
    def key(self) -> str:
        return str(self.path[-1])

    @property
    def meant(self) -> str | None:
        """The key of the same table that the writer most likely meant, if it is not one of another table."""
        return None if any(self.key in keys for keys in KEYS.values()) else nearest(self.key, self.known)


def _shape(keys: Mapping[str, Callable[[object], Any]]) -> vol.Schema:
    """A table that may hold these keys, each with what checks its value; which ones must be there is for the rules."""

    def refuse_unknown(_value: object) -> None:
        raise _UnknownKeyInvalid(tuple(keys))

    checks: dict[object, object] = {vol.Optional(key): check for key, check in keys.items()}
    return vol.Schema({**checks, vol.Extra: refuse_unknown})


AVERAGING_KEYS: dict[str, Callable[[object], Any]] = {
    "count": values.any_whole_number,
    "voltage": values.duration(0, _DAY_SECONDS),
    "current": values.duration(0, _DAY_SECONDS),
}
_AVERAGING_SHAPE = _shape(AVERAGING_KEYS)


def _averaging(value: object) -> dict[str, Any] | None:
    """None for "auto"; otherwise a table whose numbers are checked against the chip later."""
    if value == "auto":
        return None
    if not isinstance(value, dict):
        example = '{ count = 64, voltage = "1.1ms", current = "1.1ms" }'
        raise vol.Invalid(f'expected "auto" or a table such as {example}, not {describe(value)}')
    checked: dict[str, Any] = _AVERAGING_SHAPE(value)
    return checked


_TOP = "at the top of the file, before the first [table]"
# Where each table's keys belong, in the words of a message -> its keys.
KEYS: dict[str, dict[str, Callable[[object], Any]]] = {
    _TOP: {
        "hostname": values.grouping_value,
        "interval": values.duration(0.1, _DAY_SECONDS),
        "sample_interval": values.duration(0.01, _DAY_SECONDS),
        "max_gap": values.duration(0.01, 366 * _DAY_SECONDS),
        "state_dir": values.optional_text,
        "pushgateway": values.table,
        "serve": values.table,
        "metrics": values.table,
        "mux": values.tables,
        "device": values.tables,
    },
    "in [pushgateway]": {
        "url": values.url,
        "job": values.grouping_value,
        "group_by": values.one_of("device", "node"),
        "timeout": values.duration(0.001, 3600),
        "username": values.username,
        "password_file": values.optional_text,
        "bearer_token_file": values.optional_text,
        "ca_file": values.optional_text,
        "cert_file": values.optional_text,
        "key_file": values.optional_text,
        "delete_on_exit": values.switch,
    },
    "in [serve]": {"listen": values.listen},
    "in [metrics]": {"extremes": values.switch, "ina260_names": values.switch},
    "in [[mux]]": {
        "name": values.text,
        "chip": values.one_of(*mux_names()),
        "bus": values.bus,
        "address": values.address,
        "mux": values.text,
        "channel": values.whole_number(0, 7),
    },
    "in [[device]]": {
        "name": values.grouping_value,
        "chip": values.text,
        "bus": values.bus,
        "mux": values.text,
        "channel": values.whole_number(0, 7),
        "address": values.address,
        "averaging": _averaging,
        "input": values.any_whole_number,
        "shunt_ohms": values.ohms,
        "sensor": values.text,
        "label": values.text,
    },
}
_SHAPES = {where: _shape(keys) for where, keys in KEYS.items()}


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file.

    Attributes:
        title: how messages call it: `device[2] "cpu"`, `pushgateway`, or nothing for the top of the file.
        given: every key in the file, also those whose values are no good, and what misspelt ones were meant to be: they
            are not missing.
        good: the values that no rule has refused so far.
        problems: the one list that all tables add to.
    """

    title: str
    given: frozenset[str]
    good: dict[str, Any]
    problems: list[str]

    def refuse(self, key: str, text: str) -> None:
        """Report a key and forget its value, so that no later rule stumbles over the same mistake."""
        self.good.pop(key, None)
        self.problems.append(f"{self.title}: {key}: {text}" if self.title else f"{key}: {text}")

    def refuse_if_good(self, key: str, text: str) -> None:
        """Report a key that should not be there, unless something was said about it already."""
        if key in self.good:
            self.refuse(key, text)

    def require(self, key: str, cure: str) -> None:
        """Report a key that is not in the file."""
        if key not in self.given:
            self.refuse(key, f"missing; {cure}")


def read_top(tree: dict[str, Any]) -> Table:
    """The top of the file, with a new list of problems that all tables read from it add to."""
    return _read_table(tree, "", _TOP, [])


def _read_table(table: dict[str, Any], title: str, where: str, problems: list[str]) -> Table:
    """Check the shape of one table, and keep what is good of it."""
    shape = _SHAPES[where]
    bad_keys: set[object] = set()
    meant: set[str] = set()
    try:
        good = shape(table)
    except vol.MultipleInvalid as invalid:
        for error in invalid.errors:
            bad_keys.add(error.path[0])
            if isinstance(error, _UnknownKeyInvalid) and len(error.path) == 1 and error.meant is not None:
                meant.add(error.meant)
            place = [title] if title else []
            place += [key if re.fullmatch(r"[\w-]+", key) else quoted(key) for key in map(str, error.path)]
            problems.append(": ".join([*place, _explain(error)]))
        good = shape({key: value for key, value in table.items() if key not in bad_keys})
    return Table(title, frozenset(table) | meant, good, problems)


def _explain(error: vol.Invalid) -> str:
    """What is wrong, and for an unknown key also what may have been meant."""
    if not isinstance(error, _UnknownKeyInvalid):
        return error.msg
    for where, keys in KEYS.items():
        # `interval` below [metrics] belongs to that table, however far apart they are: the classic slip in TOML.
        if error.key in keys:
            return f"unknown key here; it belongs {where}"
    if error.meant is not None:
        return f'unknown key; did you mean "{error.meant}"?'
    return f"unknown key; known here: {', '.join(error.known)}"


def read_single(top: Table, key: str) -> Table | None:
    """The one `[key]` table, or None if the file has none that can be read."""
    table = top.good.get(key)
    return None if table is None else _read_table(table, key, f"in [{key}]", top.problems)


def read_list(top: Table, key: str) -> list[Table]:
    """The `[[key]]` tables in the order of the file."""
    read = []
    for number, table in enumerate(top.good.get(key, ()), start=1):
        title = f"{key}[{number}]"
        if not isinstance(table, dict):
            top.problems.append(f"{title}: expected a table, not {describe(table)}")
            continue
        name = table.get("name")
        if isinstance(name, str) and name:
            title += f" {quoted(name)}"
        read.append(_read_table(table, title, f"in [[{key}]]", top.problems))
    return read
