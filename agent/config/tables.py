"""Reads each table of config.toml by itself: the keys that it may have, and the values of each.

The rules between keys are in `rules.py` and `topology.py`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.config import values
from agent.config.environment import expand
from agent.config.keys import TABLES, TOP
from agent.config.values import InvalidError, Kind, describe, nearest, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.config.keys import KeyTable

_KINDS = {
    table.where: {
        **{key.name: key.kind for key in table.keys},
        **{
            inner.name: values.tables(inner.header) if inner.is_list else values.table(inner.header)
            for inner in TABLES
            if table is TOP and inner is not TOP
        },
    }
    for table in TABLES
}
"""The keys of each table and their kinds, by the place of the table in the words of a message."""


_OTHER_WORDS = {
    "chip": ("type", "kind", "model", "part", "driver", "ic", "sensortype"),
    "shunt_ohms": ("rshunt", "resistance", "resistor", "ohms"),
    "url": ("uri", "endpoint", "server", "target", "host"),
    "interval": ("period", "every", "frequency", "scrapeinterval"),
    "name": ("id", "title"),
}
"""What other programs call a key, in small letters."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the file.

    Attributes:
        title: its name in messages: `device[2] "cpu"`, `pushgateway`, or nothing for the top of the file.
        given: every key in the file, including those with bad values, and the keys that misspelt ones stand for: these
            are not missing.
        good: the values that no rule has refused so far.
        problems: the one list that all tables add to.
        environ: whose values the strings of the file may name.
    """

    title: str
    given: frozenset[str]
    good: dict[str, Any]
    problems: list[str]
    environ: Mapping[str, str]

    def refuse(self, key: str, text: str) -> None:
        """Report a key and drop its value, so that no later rule reports the same mistake."""
        self.good.pop(key, None)
        self.problems.append(f"{self.title}: {key}: {text}" if self.title else f"{key}: {text}")

    def refuse_if_good(self, key: str, text: str) -> None:
        """Report a key that should not be there, unless it has been reported already."""
        if key in self.good:
            self.refuse(key, text)

    def require(self, key: str, hint: str) -> None:
        """Report a key that is not in the file."""
        if key not in self.given:
            self.refuse(key, f"missing; {hint}")


def read_top(tree: dict[str, Any], environ: Mapping[str, str]) -> Table:
    """The top of the file, with a new list of problems that all tables read from it share."""
    return _read_table(tree, "", TOP, [], environ)


def read_single(top: Table, spec: KeyTable) -> Table | None:
    """The one `[table]` of this name, or None if the file has none that can be read."""
    table = top.good.get(spec.name)
    return None if table is None else _read_table(table, spec.name, spec, top.problems, top.environ)


def read_list(top: Table, spec: KeyTable) -> list[Table]:
    """The `[[table]]` blocks of this name in the order of the file."""
    read = []
    for number, table in enumerate(top.good.get(spec.name, ()), start=1):
        title = f"{spec.name}[{number}]"
        if not isinstance(table, dict):
            top.problems.append(f"{title}: expected a table, not {describe(table)}")
            continue
        name = table.get("name")
        with suppress(InvalidError):
            name = expand(name, top.environ)
        if isinstance(name, str) and name:
            title += f" {quoted(name)}"
        read.append(_read_table(table, title, spec, top.problems, top.environ))
    return read


def _read_table(
    content: dict[str, Any], title: str, spec: KeyTable, problems: list[str], environ: Mapping[str, str]
) -> Table:
    kinds = _KINDS[spec.where]
    good, found = _read_keys(content, kinds, environ)
    problems.extend(f"{title}: {problem}" if title else problem for problem in found)
    meant = [_meant(key, kinds) for key in content if key not in kinds]
    table = Table(title, frozenset([*content, *filter(None, meant)]), good, problems, environ)
    for key in spec.keys:
        if key.required:
            table.require(key.name, f"write {key.name} = {key.example}")
    return table


def _read_keys(
    content: dict[str, Any], kinds: Mapping[str, Kind], environ: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The good values, and a line for each problem, `key: text`."""
    good: dict[str, Any] = {}
    problems = []
    for key, value in content.items():
        shown = key if re.fullmatch(r"[\w-]+", key) else quoted(key)
        kind = kinds.get(key)
        if kind is None:
            problems.append(f"{shown}: {_explain_unknown(key, kinds)}")
        elif kind.keys and isinstance(value, dict):
            inner, found = _read_keys(value, kind.keys, environ)
            problems.extend(f"{shown}: {problem}" for problem in found)
            if not found:
                good[key] = inner
        else:
            try:
                good[key] = kind.check(value if kind.words == values.TABLE else expand(value, environ))
            except InvalidError as error:
                problems.append(f"{shown}: {error}")
    return good, problems


def _explain_unknown(key: str, known: Mapping[str, Kind]) -> str:
    for where, kinds in _KINDS.items():
        # TOML counts `interval` below [metrics] to that table, however far apart they are: a classic mistake.
        if key in kinds:
            return f"unknown key here; it belongs {where}"
    meant = _meant(key, known)
    if meant is None:
        return f"unknown key; known here: {', '.join(known)}"
    header = (
        next((table.header for table in TABLES if table.name == meant), None) if known is _KINDS[TOP.where] else None
    )
    return f"unknown key; did you mean {header or quoted(meant)}?"


def _meant(key: str, known: Mapping[str, Kind]) -> str | None:
    """The key of the same table that was most likely meant, unless the key belongs to another table."""
    if any(key in kinds for kinds in _KINDS.values()):
        return None
    word = re.sub(r"[^a-z]", "", key.lower())
    return next((name for name, words in _OTHER_WORDS.items() if word in words and name in known), nearest(key, known))
