"""Any file gives Settings or ConfigError and nothing else, and a good one gives the settings that were meant."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.config import parse_duration
from agent.config.environment import escape
from agent.config.keys import DEVICE, METRICS, MUX, PUSHGATEWAY, REMOTE_WRITE, SERVE, TABLES, KeyTable
from agent.config.values import parse_size, spell_size
from agent.errors import ConfigError
from agent.settings import Device, Settings

Parse = Callable[[str], Settings]

EXAMPLE = (Path(__file__).parents[2] / "config.toml.example").read_text()


def toml_value(value: object) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08x}" for character in value) + '"'
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml_value(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
    return repr(value)


def toml_document(tree: dict[str, Any]) -> str:
    return "".join(f"{toml_value(key)} = {toml_value(value)}\n" for key, value in tree.items())


def assert_settings_or_one_line_a_problem(text: str, parse_text: Parse) -> None:
    try:
        parse_text(text)
    except ConfigError as error:
        problems = error.problems
    else:
        return
    assert problems
    assert [problem for problem in problems if len(problem.splitlines()) != 1] == []
    assert len(set(problems)) == len(problems)


ALL_KEYS = sorted(
    {key.name for table in TABLES for key in table.keys}
    | {table.name for table in TABLES if table.name}
    | {"count", "voltage", "current"}
)
WORDS = [
    *(
        "ina260",
        "ina3221",
        "hwmon",
        "tca9548a",
        "pca9546a",
        "m0",
        "m1",
        "auto",
        "board",
        "device",
        "node",
        "",
        ".",
        "..",
    ),
    *(
        "15s",
        "1.1ms",
        "0x40",
        "http://[",
        "http://gateway:9091",
        "http://a:b@c",
        "http://c/api/v1/write",
        "64MB",
        "7d",
        "[::1]:0",
        ":99999",
        "~",
        "~nobody-x",
    ),
]
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from([0, 1, 3, 0x40, 0x41, 0x70, 0x71]),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
SOME_KEYS = st.one_of(st.sampled_from(ALL_KEYS), st.text(st.characters(exclude_categories=["Cs"]), max_size=4))
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(SOME_KEYS, inner, max_size=5)),
    max_leaves=12,
)


def tables_like(table: KeyTable) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with mostly known keys and mostly plausible values: many pass the first step."""
    known = st.fixed_dictionaries({}, optional={key.name: st.one_of(SCALARS, TREES) for key in table.keys})
    return st.one_of(known, st.dictionaries(SOME_KEYS, TREES, max_size=3))


FILES = st.fixed_dictionaries(
    {},
    optional={
        "interval": SCALARS,
        "sample_interval": SCALARS,
        "max_gap": SCALARS,
        "hostname": SCALARS,
        "state_dir": SCALARS,
        "pushgateway": tables_like(PUSHGATEWAY),
        "remote_write": tables_like(REMOTE_WRITE),
        "serve": tables_like(SERVE),
        "metrics": tables_like(METRICS),
        "mux": st.lists(tables_like(MUX), max_size=4),
        "device": st.lists(tables_like(DEVICE), max_size=5),
    },
)


@settings(max_examples=150)
@given(st.one_of(st.dictionaries(SOME_KEYS, TREES, max_size=5), FILES))
def test_any_tree_gives_settings_or_problems_of_one_line_each(parse_text: Parse, tree: dict[str, Any]) -> None:
    assert_settings_or_one_line_a_problem(toml_document(tree), parse_text)


@settings(max_examples=100)
@given(st.text())
def test_any_text_gives_settings_or_problems_of_one_line_each(parse_text: Parse, text: str) -> None:
    assert_settings_or_one_line_a_problem(text, parse_text)


@settings(max_examples=200)
@given(st.one_of(SCALARS, st.text("0123456789.ushm-+e ")))
def test_any_value_is_a_duration_or_refused(value: object) -> None:
    try:
        seconds = parse_duration(value)
    except ValueError:
        return
    assert 0 <= seconds < float("inf")


@settings(max_examples=200)
@given(st.one_of(SCALARS, st.text("0123456789.kMGTiB "), st.from_regex(r"[0-9.]{1,20} ?[kMGT]i?B", fullmatch=True)))
def test_any_value_is_a_size_or_refused(value: object) -> None:
    try:
        size_bytes = parse_size(value)
    except ValueError:
        return
    assert size_bytes >= 0
    if 1000 <= size_bytes <= 10**15 and size_bytes % 1000 == 0:  # far beyond what any key takes
        assert parse_size(spell_size(size_bytes)) == size_bytes


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=20).filter(
    lambda name: name not in {".", ".."}
)
# In milliseconds, so that every unit gives the same float.
DURATIONS = st.integers(100, 60_000)
TWO_DEEP = st.tuples(st.integers(0, 7), st.integers(0, 3))


@dataclass(frozen=True)
class Wanted:
    """What a person means: makes the file, and predicts the settings."""

    hostname: str
    sample_milliseconds: int
    interval_milliseconds: int
    job: str
    devices: list[tuple[str, tuple[int, int], int]]

    def tree(self) -> dict[str, Any]:
        return {
            "hostname": escape(self.hostname),
            "sample_interval": f"{self.sample_milliseconds}ms",
            "interval": self.interval_milliseconds / 1000,
            "pushgateway": {"url": "http://gateway", "job": escape(self.job)},
            # The inner muxes come first, and refer to one further down.
            "mux": [
                *(
                    {"name": f"inner {n}", "chip": "pca9546a", "mux": "outer", "channel": n, "address": 0x71}
                    for n in range(8)
                ),
                {"name": "outer", "chip": "tca9548a", "bus": 1, "address": 0x70},
            ],
            "device": [
                {"name": escape(name), "chip": "ina260", "mux": f"inner {outer}", "channel": inner, "address": address}
                for name, (outer, inner), address in self.devices
            ],
        }


WANTED = st.builds(
    Wanted,
    hostname=NAMES,
    sample_milliseconds=DURATIONS,
    interval_milliseconds=DURATIONS.map(lambda milliseconds: milliseconds + 60_000),
    job=NAMES,
    devices=st.lists(
        st.tuples(NAMES, TWO_DEEP, st.integers(0x40, 0x4F)),
        min_size=1,
        max_size=6,
        unique_by=(lambda device: device[0], lambda device: device[1:]),
    ),
)


def as_wanted(device: Device) -> tuple[str, tuple[int, int], int]:
    assert device.place is not None
    outer, inner = device.place.path
    return device.name, (outer.channel, inner.channel), device.place.address


@settings(max_examples=80)
@given(WANTED)
def test_a_good_file_gives_the_settings_that_were_meant(parse_text: Parse, wanted: Wanted) -> None:
    found = parse_text(toml_document(wanted.tree()))

    assert found.hostname == wanted.hostname
    assert found.sample_interval_seconds == wanted.sample_milliseconds / 1000
    assert found.interval_seconds == wanted.interval_milliseconds / 1000
    assert found.pushgateway is not None
    assert found.pushgateway.job == wanted.job
    assert [as_wanted(device) for device in found.devices] == wanted.devices


@settings(max_examples=80)
@given(WANTED, st.data())
def test_a_second_chip_at_an_occupied_address_is_always_found(
    parse_text: Parse, wanted: Wanted, data: st.DataObject
) -> None:
    """A chip's address is taken on every segment of bus between the trunk and the chip."""
    _, (outer, inner), address = data.draw(st.sampled_from(wanted.devices))
    places = [{"bus": 1}, {"mux": "outer", "channel": outer}, {"mux": f"inner {outer}", "channel": inner}]
    intruder = {"name": "an intruder with a name that no other has", "chip": "ina260", "address": address}
    tree = wanted.tree()
    tree["device"].append(intruder | data.draw(st.sampled_from(places)))

    with pytest.raises(ConfigError) as caught:
        parse_text(toml_document(tree))

    assert len(caught.value.problems) == 1
    assert "an intruder" in caught.value.problems[0]
    assert "address" in caught.value.problems[0]


def mutated(text: str, chance: random.Random) -> str:
    """The text with one to three small accidents, such as a typing error or a bad SD card causes."""
    for _ in range(chance.randint(1, 3)):
        lines = text.splitlines(keepends=True) or [""]
        here, there = chance.randrange(len(lines)), chance.randrange(len(lines))
        accident = chance.randrange(6)
        if accident == 0:
            del lines[here]
        elif accident == 1:
            lines.insert(there, lines[here])
        elif accident == 2:
            lines[here], lines[there] = lines[there], lines[here]
        elif accident == 3:
            # Without its comment sign, documentation becomes configuration.
            lines[here] = lines[here].removeprefix("#")
        else:
            line = bytearray(lines[here].encode())
            if line:
                line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
            lines[here] = line.decode("utf-8", "replace")
        text = "".join(lines)
    return text


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_example_gives_settings_or_problems_of_one_line_each(seed: int, parse_text: Parse) -> None:
    chance = random.Random(seed)
    # Most of the example is comments, where an accident changes nothing.
    only_keys = "".join(line for line in EXAMPLE.splitlines(keepends=True) if not line.startswith(("# ", "\n")))

    for _ in range(1500):
        assert_settings_or_one_line_a_problem(mutated(only_keys, chance), parse_text)
