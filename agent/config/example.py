"""The documented example configuration, from the rows of keys.py and the options of the chips.

The first block of each table shows every key that has an example or a default; the further blocks show the others. The
comment of a key stands where the key appears first.
"""

from __future__ import annotations

import textwrap
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.config.keys import DEVICE, TABLES
from agent.config.values import AVERAGING_EXAMPLE, spell_duration, spell_size
from agent.settings import CHIP_ALIASES, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.config.keys import Key, KeyTable
    from agent.settings import AveragingChoices, ChipOptions

COLUMNS = 120

HEAD = """\
# Configuration of wattpush. Copy it to /etc/wattpush/config.toml, then run `wattpush check`.
# `wattpush scan --toml` writes a short one for what is connected.
#
# A line that begins with "#key = value" shows the default of that key; remove the "#" to change it.
# Durations: "500ms", "15s", "1h30m", "7d", or a number of seconds. Sizes: "64MB", "1.5GB".
# Addresses: 0x40, without quotes. Paths: "" is none.
# "${NAME}" in any string is the value of that environment variable; "$$" is a dollar sign.
"""


@dataclass(frozen=True, slots=True)
class Block:
    """One table of the file.

    Attributes:
        values: its keys, with their values in TOML.
        about: a comment above it.
        in_force: whether it is not commented out.
    """

    values: Mapping[str, str]
    about: str = ""
    in_force: bool = False


def _behind_m0(name: str, chip: str, channel: int, address: int = 0x40, **values: str) -> dict[str, str]:
    place = {"mux": '"m0"', "channel": f"{channel}", "address": f"0x{address:02x}"}
    return {"name": f'"{name}"', "chip": f'"{chip}"', **place, **values}


FURTHER_BLOCKS: Mapping[str, Sequence[Block]] = {
    "mux": [
        Block(
            {"name": '"m1"', "chip": '"pca9546a"', "mux": '"m0"', "channel": "7", "address": "0x71"},
            about="A mux behind a channel of another one. Parts that are connected at the same time need different "
            "addresses: this mux and the one before it, or a chip and any part behind a mux beside it.",
        ),
    ],
    "device": [
        Block(_behind_m0("disk", "ina260", 1), in_force=True),
        Block(
            _behind_m0("radio", "ina3221", 3, 0x41, input="2", shunt_ohms="0.1"),
            about="A chip with three inputs. Most boards have a shunt of 0.1 ohm; Adafruit's has 0.05.",
            in_force=True,
        ),
        Block(
            {"name": '"fan"', "chip": '"ina260"', "bus": "1", "address": "0x45"},
            about="A chip without a mux, or behind a mux that the kernel drives: each of its channels is a "
            "separate bus.",
        ),
        Block(
            _behind_m0("server", "ina226", 2, shunt_ohms="0.002"),
            about="Chips with one input and a shunt on the board: the resistor says R002, R010 or R100.",
        ),
        Block(_behind_m0("router", "ina219", 4, shunt_ohms="0.1")),
        Block(
            _behind_m0("battery", "ina228", 5, shunt_ohms="0.015"),
            about="An INA228 also adds up energy by itself, so that `--once` loses nothing between two runs, whatever "
            "`max_gap` is.",
        ),
        Block(_behind_m0("motor", "ina237", 6, shunt_ohms="0.002")),
        Block(_behind_m0("heater", "ina238", 6, 0x41, shunt_ohms="0.002")),
        Block(
            {"name": '"module"', "chip": '"hwmon"', "sensor": '"ina3221"', "label": '"VDD_IN"'},
            about='A chip that the kernel owns: on Jetson modules (where older kernels call it "ina3221x"), or through '
            "an ina2xx overlay.",
        ),
        Block(
            {"name": '"board"', "chip": '"rpi-pmic"', "rail": '"all"'},
            about="The rails that a Raspberry Pi 5 measures itself; what its USB ports and HATs take is not in them.",
        ),
    ],
}


def example(options: Mapping[str, ChipOptions]) -> str:
    """The whole file; `options` of each chip, by the name in `chip = "..."`."""
    return "\n\n".join([HEAD, *("\n".join(_table(table, options)) for table in TABLES)])


def toml_default(table: KeyTable, key: Key) -> str:
    """The default of a key in TOML; empty if it has none."""
    default = table.default(key.name)
    if default is None or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if key.kind.unit == "_seconds":
        return f'"{spell_duration(default)}"'
    if key.kind.unit == "_bytes":
        return f'"{spell_size(default)}"'
    return f"{default:g}" if isinstance(default, float) else f'"{default}"'


def with_aliases(names: Iterable[str]) -> list[str]:
    """The names, each followed by the other names of the same chip."""
    return [spelt for name in names for spelt in (name, *(alias for alias, of in CHIP_ALIASES.items() if of == name))]


def averaging_choices(options: Mapping[str, ChipOptions]) -> list[tuple[list[str], AveragingChoices]]:
    """What chips can average, each with the names of the chips that can."""
    names: defaultdict[AveragingChoices, list[str]] = defaultdict(list)
    for name, option in sorted(options.items()):
        if option.averaging is not None:
            names[option.averaging].append(name)
    return [(with_aliases(chip_names), choices) for choices, chip_names in names.items()]


def _table(table: KeyTable, options: Mapping[str, ChipOptions]) -> Iterator[str]:
    first = {key.name: key.example or toml_default(table, key) for key in table.keys}
    blocks = [Block({name: value for name, value in first.items() if value}, table.about, table.in_force)]
    blocks += FURTHER_BLOCKS.get(table.name, ())
    if table is DEVICE:
        blocks += _blocks_of_other_chips(blocks, options)
    explained: set[str] = set()
    for block in blocks:
        yield from _comment(block.about)
        if not table.name:
            yield ""
        else:
            yield table.header if block.in_force else f"#{table.header}"
        for key in table.keys:
            if key.name not in block.values:
                continue
            if key.name not in explained:
                explained.add(key.name)
                yield from _comment(key.meaning + _default_sentence(key) + _chips_sentence(table, key, options))
                if key.name == "averaging":
                    yield from _averaging_lines(options)
            shown = block is not blocks[0] or key.in_force or key.required
            yield f"{'' if shown and block.in_force else '#'}{key.name} = {block.values[key.name]}"
        yield ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _default_sentence(key: Key) -> str:
    """What applies without a key, if its commented-out line does not show that."""
    shows_other = key.example and not key.in_force and key.default_text not in {"", f"`{key.example}`"}
    return f" Default: {key.default_text}." if shows_other else ""


def _chips_sentence(table: KeyTable, key: Key, options: Mapping[str, ChipOptions]) -> str:
    """Which chips there are, and which addresses they can have."""
    if table is DEVICE and key.name == "chip":
        return f" One of {', '.join(with_aliases(sorted(options)))}."
    if table is DEVICE and key.name == "address":
        names_with: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
        for name, option in sorted(options.items()):
            if option.addresses is not None:
                names_with[tuple(option.addresses)].append(name)
        choices = (
            f"{_address_ranges(those)} ({', '.join(with_aliases(names))})" for those, names in names_with.items()
        )
        return f" {'; '.join(choices)}."
    return ""


def _address_ranges(addresses: Sequence[int]) -> str:
    return ", ".join(f"0x{run[0]:02x} to 0x{run[-1]:02x}" for run in runs(addresses))


def _averaging_lines(options: Mapping[str, ChipOptions]) -> Iterator[str]:
    yield f"# averaging = {AVERAGING_EXAMPLE}"
    for names, choices in averaging_choices(options):
        counts = ", ".join(map(str, choices.counts))
        times = ", ".join(f'"{spell_duration(seconds)}"' for seconds in choices.conversion_seconds)
        yield from _comment(f"{', '.join(names)}: count {counts}; voltage and current {times}.")


def _blocks_of_other_chips(blocks: Sequence[Block], options: Mapping[str, ChipOptions]) -> Iterator[Block]:
    """A block for each chip on I2C that the others do not show, so that a new chip needs none here."""
    shown = {block.values["chip"].strip('"') for block in blocks}
    taken = {(block.values.get("channel"), int(block.values.get("address", "0"), 0)) for block in blocks}
    on_trunk = {address for channel, address in taken if channel is None}
    for name, option in sorted(options.items()):
        if name in shown or option.addresses is None:
            continue
        free = ((c, a) for c in (4, 5, 6) for a in option.addresses if (f"{c}", a) not in taken and a not in on_trunk)
        channel, address = next(free)
        taken.add((f"{channel}", address))
        values = _behind_m0(name, name, channel, address)
        if option.inputs is not None:
            values["input"] = f"{option.inputs[0]}"
        if option.external_shunt:
            values["shunt_ohms"] = "0.1"
        yield Block(values)
