"""The text of docs/configuration.md, made from what the code says of a configuration.

Keys, kinds of values, ranges and defaults are asked of `agent.config`; what is said when a value is wrong is what it
says. Only what a key is for, and an example, are written here: a key without them stops the script, and so does an
example that is refused, or a wrong one that is not.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent import chips
from agent.config import parse
from agent.config.tables import AVERAGING_KEYS, KEYS
from agent.config.values import spell_duration
from agent.errors import ConfigError
from agent.i2c.muxes import MUX_ADDRESSES, MUX_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from agent.settings import ChipOptions, Settings

Keys = dict[str, str]
"""Keys of a table, each with its value as it is written in TOML."""

ENVIRONMENT = {"HOME": "/home/pi"}


@dataclass(frozen=True, slots=True)
class Note:
    """What the code does not say of a key.

    Attributes:
        about: what it is for.
        example: a good value.
        wrong: a bad value.
        default: what holds without the key, where the settings do not simply hold its value.
        beside: keys of the same table that the example needs; an empty value leaves the key out.
    """

    about: str
    example: str
    wrong: str
    default: str = ""
    beside: Keys = field(default_factory=dict)


TOP = "at the top of the file, before the first [table]"

TABLES = {"pushgateway", "serve", "metrics", "mux", "device"}
"""What at the top of the file is no value."""

Table = tuple[str, Keys]

GATEWAY: Table = ("in [pushgateway]", {"url": '"http://127.0.0.1:9091"'})
MUX: Table = ("in [[mux]]", {"name": '"m0"', "chip": '"tca9548a"', "bus": "1", "address": "0x70"})
DEVICE: Table = (
    "in [[device]]",
    {"name": '"cpu"', "chip": '"ina260"', "mux": '"m0"', "channel": "0", "address": "0x40"},
)

SMALLEST = (GATEWAY, MUX, DEVICE)
"""The smallest configuration with a mux: examples are tried in it."""


def _another(table: Table, **changes: str) -> Table:
    return (table[0], {**table[1], **changes})


HEADINGS = {
    TOP: ("At the top of the file", "Before the first `[table]`: TOML counts every key below a table's name to it."),
    "in [pushgateway]": (
        "[pushgateway]",
        "Where to push. This table, or `[serve]`, or both must be there.",
    ),
    "in [serve]": ("[serve]", "Also, or only, answer scrapes. Without this table nothing listens."),
    "in [metrics]": ("[metrics]", "Which optional series there are: see [metrics.md](metrics.md)."),
    "in [[mux]]": (
        "[[mux]]",
        "An I2C multiplexer; as many as there are. It is on a `bus`, or behind a `channel` of another `mux`.",
    ),
    "in [[device]]": (
        "[[device]]",
        "One measured load; at least one. Its chip is on a `bus`, or behind a `channel` of a `mux`, or the kernel's.",
    ),
}

_IN_CREDENTIALS = (
    "A path, or the bare name of a systemd credential. Read at every push, so it can be changed at any time."
)
_KERNEL: Keys = {"chip": '"hwmon"', "mux": "", "channel": "", "address": ""}
_WITH_INPUT: Keys = {"chip": '"ina3221"', "input": "2", "shunt_ohms": "0.1"}

NOTES: dict[str, dict[str, Note]] = {
    TOP: {
        "hostname": Note(
            "The name of this machine at the gateway (grouping key `hostname`). Two machines under one name overwrite "
            "each other, so names that many machines share (raspberrypi, localhost, jetson, ubuntu, debian) are warned "
            "of at the start where they come from the machine.",
            '"node-17"',
            '".."',
            default="the machine's own hostname",
        ),
        "interval": Note("How often to push.", '"15s"', '"15 s"'),
        "sample_interval": Note("How often to read every sensor; at most `interval`.", '"500ms"', '"1ms"'),
        "max_gap": Note(
            "The longest time between two readings over which energy is still counted, also between two runs of "
            "`--once`. Over a longer gap nothing is counted: nobody knows what the load did. Between the readings of "
            "one run, energy is counted however short this is. With a timer make it longer than the timer's period: a "
            "run that starts a moment late would otherwise be a gap.",
            '"1h"',
            '"500us"',
        ),
        "state_dir": Note(
            "The folder in which the energy counters are kept over a restart. Where there is a service, write it: else "
            "the service, root and each user have [sets of counters](install.md#the-energy-counters) of their own, and "
            "Prometheus takes the falls between them for energy.",
            '"/var/lib/wattpush"',
            "5",
            default="the folder that systemd gives (`$STATE_DIRECTORY`), else `$XDG_STATE_HOME/wattpush`, else "
            "`~/.local/state/wattpush`",
        ),
    },
    "in [pushgateway]": {
        "url": Note(
            "The gateway, `http://` or `https://`. A path is kept. No user or password in here.",
            '"https://push.example.org:9091/prefix"',
            '"https://node:secret@push.example.org"',
        ),
        "job": Note("The grouping key `job`.", '"power"', '""'),
        "group_by": Note(
            '"device": a group for each device. "node": one group for all of this machine, `device` as a label; easier '
            "on a gateway with more than a few hundred devices. See [metrics.md](metrics.md).",
            '"node"',
            '"rack"',
        ),
        "timeout": Note(
            "The longest that one attempt to push may take, all of it: name, connection, TLS, answer.", '"10s"', '"0s"'
        ),
        "username": Note(
            "The user of HTTP basic authentication.",
            '"node"',
            '"node:secret"',
            default="none",
            beside={"password_file": '"/etc/wattpush/password"'},
        ),
        "password_file": Note(
            f"The file with the user's password. {_IN_CREDENTIALS}",
            '"/etc/wattpush/password"',
            "1234",
            default="none",
            beside={"username": '"node"'},
        ),
        "bearer_token_file": Note(
            f"Instead of a user: the file with a bearer token. {_IN_CREDENTIALS}",
            '"/etc/wattpush/token"',
            "true",
            default="none",
        ),
        "ca_file": Note(
            "The certificate authorities (PEM) that the gateway's certificate is held against.",
            '"/etc/wattpush/ca.pem"',
            "[]",
            default="what the system trusts",
        ),
        "cert_file": Note(
            "A client certificate (PEM), for a gateway that asks for one.",
            '"/etc/wattpush/node.pem"',
            "[]",
            default="none",
            beside={"key_file": '"/etc/wattpush/node.key"'},
        ),
        "key_file": Note(
            "The key of the client certificate (PEM).",
            '"/etc/wattpush/node.key"',
            "[]",
            default="none",
            beside={"cert_file": '"/etc/wattpush/node.pem"'},
        ),
        "delete_on_exit": Note("Remove this machine's groups from the gateway at a clean stop.", "true", '"yes"'),
    },
    "in [serve]": {
        "listen": Note(
            "Where to answer: `/metrics`, `/` and `/-/healthy`. An IPv6 address goes in brackets; without an address "
            "it is every one of this machine's; port 0 lets the system choose.",
            '"127.0.0.1:9812"',
            '"127.0.0.1"',
        ),
    },
    "in [metrics]": {
        "extremes": Note("The gauges of the lowest and highest reading since the last push.", "false", "1"),
        "ina260_names": Note(
            "Also `ina260_voltage_volts`, `ina260_current_amperes` and `ina260_power_watts`, for dashboards that were "
            "made for single-sensor exporters.",
            "true",
            '"on"',
        ),
    },
    "in [[mux]]": {
        "name": Note("What the devices, and muxes behind it, call it.", '"m1"', "0"),
        "chip": Note("What it is.", '"pca9546a"', '"tca9548"'),
        "bus": Note(
            'N of /dev/i2c-N, or "board": the board\'s default bus through Blinka, also that of a USB adapter (see '
            "[boards.md](boards.md)).",
            "7",
            '"/dev/i2c-1"',
            default="that of the mux before it",
        ),
        "address": Note("Its 7-bit address.", "0x71", "0x40"),
        "mux": Note(
            "Instead of `bus`: the mux that this one is behind.",
            '"m0"',
            '"mo"',
            default="none",
            beside={"bus": "", "channel": "7"},
        ),
        "channel": Note("The channel of that mux.", "7", "8", default="none", beside={"bus": "", "mux": '"m0"'}),
    },
    "in [[device]]": {
        "name": Note("The grouping key, or label, `device`.", '"cpu"', '"."'),
        "chip": Note("What measures it: see the chips below.", '"ina260"', '"ina206"'),
        "bus": Note(
            "For a chip without a mux before it: as for a mux.",
            "1",
            '"i2c-1"',
            default="that of its mux",
            beside={"mux": "", "channel": "", "address": "0x45"},
        ),
        "mux": Note("The mux that the chip is behind.", '"m0"', '"mo"', default="none"),
        "channel": Note("The channel of that mux; on a pca9546a 0..3.", "3", '"3"', default="none"),
        "address": Note("Its 7-bit address.", "0x41", "64.0"),
        "averaging": Note(
            'What the chip averages before it gives a result. "auto" covers as much of each `sample_interval` as the '
            "chip can, so that a burst between two readings is not missed. Or a table of the number of conversions "
            "averaged, and the time of each.",
            '{ count = 64, voltage = "1.1ms", current = "1.1ms" }',
            '{ count = 50, voltage = "1ms", current = "1.1ms" }',
            default='`"auto"`',
        ),
        "input": Note(
            "Which input of a chip that has several. Several devices may share such a chip, one input each.",
            "2",
            "4",
            default="none; needed on a chip with several",
            beside=_WITH_INPUT,
        ),
        "shunt_ohms": Note(
            "The resistance of the shunt on the board. It cannot be read from the chip, and a wrong one makes every "
            "current wrong.",
            "0.05",
            '"0.05"',
            default="none; needed where the shunt is on the board",
            beside=_WITH_INPUT,
        ),
        "sensor": Note(
            "The name that hwmon gives a chip of the kernel's, or its folder below /sys.",
            '"ina3221"',
            "1",
            default="none",
            beside={**_KERNEL, "label": '"VDD_IN"'},
        ),
        "label": Note(
            "The input of a chip of the kernel's, by the label that hwmon gives it; or its number, with `input`.",
            '"VDD_IN"',
            "1",
            default="none",
            beside={**_KERNEL, "sensor": '"ina3221"'},
        ),
    },
}

RULES: tuple[tuple[str, tuple[Table, ...]], ...] = (
    ("Nothing to measure", (GATEWAY,)),
    ("Nowhere to send it", (MUX, DEVICE)),
    ("A key that there is not", (GATEWAY, MUX, _another(DEVICE, chanel="1"))),
    ("A key in the wrong table", (GATEWAY, MUX, DEVICE, ("in [metrics]", {"interval": '"5s"'}))),
    ("Reading less often than pushing", ((TOP, {"sample_interval": '"1m"'}), *SMALLEST)),
    ("A user without a password", (_another(GATEWAY, username='"node"'), MUX, DEVICE)),
    ("A client certificate without its key", (_another(GATEWAY, cert_file='"/etc/wattpush/node.pem"'), MUX, DEVICE)),
    ("One name for two devices", (*SMALLEST, _another(DEVICE, channel="1"))),
    ("Two devices on one chip, or on one input of it", (*SMALLEST, _another(DEVICE, name='"disk"'))),
    (
        "One place, two kinds of chip",
        (*SMALLEST, _another(DEVICE, name='"radio"', chip='"ina3221"', input="1", shunt_ohms="0.1")),
    ),
    (
        "A chip on the bus itself with an address that is also used behind a mux of it",
        (*SMALLEST, _another(DEVICE, name='"fan"', mux="", channel="", bus="1")),
    ),
    (
        "Two muxes with one address, one behind the other",
        (*SMALLEST, _another(MUX, name='"m1"', bus="", mux='"m0"', channel="7")),
    ),
    (
        "A channel that the mux does not have",
        (GATEWAY, _another(MUX, chip='"pca9546a"'), _another(DEVICE, channel="4")),
    ),
    ("An address that the chip cannot have", (GATEWAY, MUX, _another(DEVICE, address="0x50"))),
    ("A key that the chip has no use for", (GATEWAY, MUX, _another(DEVICE, shunt_ohms="0.1"))),
    ("A chip with inputs and a shunt on the board, without either", (GATEWAY, MUX, _another(DEVICE, chip='"ina3221"'))),
)
"""What is refused that has nothing wrong in any single value: a name, and a file that does it."""


def page() -> str:
    """The whole page."""
    parts = [_head()]
    for where, checks in KEYS.items():
        heading, about = HEADINGS[where]
        if where != TOP:
            heading = f"`{heading}`"
        parts.append(f"## {heading}\n\n{about}\n")
        parts += [_key(where, key, check) for key, check in checks.items() if not (where == TOP and key in TABLES)]
    parts += [_chips(chips.options()), _rules(), _warnings()]
    return "\n".join(parts)


def undescribed() -> set[tuple[str, str]]:
    """The keys that only one of the code and `NOTES` knows."""
    in_code = {(where, key) for where, keys in KEYS.items() for key in keys if not (where == TOP and key in TABLES)}
    described = {(where, key) for where, notes in NOTES.items() for key in notes}
    return in_code ^ described


def _head() -> str:
    return f"""\
# Configuration

Every key of `/etc/wattpush/config.toml`: what it may hold, its default, an example, and what is said when it is wrong.
This page is made from the code (`make generated`). A file to start from is
[config.toml.example](../config.toml.example).

The file is the one that `--config` names, else `$WATTPUSH_CONFIG`, else `/etc/wattpush/config.toml`. Everything that is
wrong with it is said at once, a line each, with its place; `wattpush check` says it without running. SIGHUP reads it
anew; a bad file is then reported, and the old one stays in force.

The smallest file that measures something behind a mux:

```toml
{_toml(SMALLEST).strip()}
```

**Durations** are strings such as "500ms", "15s", "2m", "1.5h" or "1h30m" (us, ms, s, m, h), or a number of seconds.
**Addresses** are 7-bit, written without quotes: 0x40. **Files**: "" is the same as leaving the key out.
"""


def _key(where: str, key: str, check: Callable[[object], Any]) -> str:
    note = NOTES[where][key]
    refused = _problems(_file(where, {**note.beside, key: note.example}))
    if refused:
        raise SystemExit(f"{where}: the example of {key} is refused: {refused}")
    said = _problems(_file(where, {**note.beside, key: note.wrong}))
    if not said:
        raise SystemExit(f"{where}: the wrong example of {key} is not refused")
    beside = ", ".join(f"`{other} = {value}`" for other, value in note.beside.items() if value and other != key)
    return (
        f"### `{key}`\n\n{note.about}\n\n"
        f"- {_kind(where, key, check)}; {_default(where, key, note)}\n"
        f"- for example `{key} = {note.example}`{', with ' if beside else ''}{beside}\n"
        f"- wrong: `{key} = {note.wrong}` is answered by {_in_code(said)}\n"
    )


def _kind(where: str, key: str, check: Callable[[object], Any]) -> str:
    """What a value is, from the function that checks it, and the limits that this function was made with."""
    limits = inspect.getclosurevars(check).nonlocals if inspect.isfunction(check) else {}
    kind = check.__qualname__.partition(".")[0]
    if kind == "duration":
        low, high = (spell_duration(limits[name]) for name in ("low_seconds", "high_seconds"))
        return f"a duration, {low} to {high}"
    if kind == "whole_number":
        return f"a whole number, {limits['low']} to {limits['high']}"
    if kind == "one_of":
        return " or ".join(f'`"{choice}"`' for choice in limits["choices"])
    kinds = {
        "switch": "`true` or `false`",
        "text": "a string",
        "optional_text": "a string",
        "username": "a string without `:`",
        "grouping_value": "a string, at most 200 characters, not `.` or `..`",
        "url": "a string, an http or https URL",
        "listen": 'a string, `"host:port"`',
        "bus": 'a whole number, or `"board"`',
        "address": (
            f"0x{MUX_ADDRESSES[0]:02x} to 0x{MUX_ADDRESSES[-1]:02x}"
            if where == MUX[0]
            else "an address; which, see below"
        ),
        "ohms": "a number of ohms, 0.000001 to 1000000",
        "any_whole_number": "a whole number; which, see below",
        "_averaging": f'`"auto"`, or a table of {", ".join(f"`{name}`" for name in AVERAGING_KEYS)}',
    }
    try:
        return kinds[kind]
    except KeyError:
        raise SystemExit(f"{where}: {key}: say in scripts/reference_configuration.py what {kind} is") from None


def _default(where: str, key: str, note: Note) -> str:
    """What holds without the key: as the note or the code has it, or that the key must be there."""
    if note.default:
        return f"default: {note.default}"
    without = _file(where, {**note.beside, key: ""})
    if any(f" {key}: missing; " in f" {problem}" for problem in _problems(without)):
        return "needed"
    owner: Any = _parsed(without)
    if where != TOP:
        owner = getattr(owner, where.removeprefix("in ").strip("[]"))
    if hasattr(owner, f"{key}_seconds"):
        return f'default: `"{spell_duration(getattr(owner, f"{key}_seconds"))}"`'
    value = getattr(owner, key)
    if isinstance(value, bool):
        return f"default: `{str(value).lower()}`"
    if isinstance(value, str):
        return f'default: `"{value}"`'
    raise SystemExit(f"{where}: say in NOTES what holds without {key}")


def _chips(chips: Mapping[str, ChipOptions]) -> str:
    lines = [
        "## Chips\n",
        "What each `chip` of a `[[device]]` wants, as its file in `agent/chips/` declares it.\n",
        "| `chip` | `address` | `input` | `shunt_ohms` | `averaging` |",
        "|---|---|---|---|---|",
    ]
    for name, options in sorted(chips.items()):
        address = "the kernel knows it: `sensor`, and `label` or `input`"
        if options.addresses is not None:
            address = f"0x{options.addresses[0]:02x} to 0x{options.addresses[-1]:02x}"
        inputs = "-" if options.inputs is None else f"{options.inputs[0]} to {options.inputs[-1]}"
        shunt = "needed" if options.external_shunt else "-"
        averaging = "-" if options.averaging is None else "yes"
        lines.append(f"| `{name}` | {address} | {inputs} | {shunt} | {averaging} |")
    for counts, seconds in sorted(
        {(o.averaging.counts, o.averaging.conversion_seconds) for o in chips.values() if o.averaging is not None}
    ):
        names = ", ".join(
            f"`{name}`"
            for name, o in sorted(chips.items())
            if o.averaging is not None and (o.averaging.counts, o.averaging.conversion_seconds) == (counts, seconds)
        )
        lines.append(
            f"\nThe `averaging` of {names}: `count` is one of {', '.join(map(str, counts))}; `voltage` and `current` "
            f"are each one of {', '.join(map(spell_duration, seconds))}. All three go together."
        )
    lines.append(
        "\nMuxes: "
        + ", ".join(
            f"`{name}` has channels 0 to {channels - 1}"
            for name, channels in ((kind.name, kind.channels) for kind in MUX_KINDS.values())
        )
        + "."
    )
    return "\n".join(lines) + "\n"


def _rules() -> str:
    lines = [
        "## What goes together\n",
        "Refused though each value is good in itself, with what is said:\n",
        "| what | what is said |",
        "|---|---|",
    ]
    for name, tables in RULES:
        said = _problems(_toml(tables))
        if not said:
            raise SystemExit(f"{name}: not refused")
        lines.append(f"| {name} | {_in_code(said)} |")
    return "\n".join(lines) + "\n"


def _warnings() -> str:
    shared = parse(_toml(SMALLEST), chips.options(), default_hostname="raspberrypi", environ=ENVIRONMENT)
    shunt = _parsed(_file("in [[device]]", {**_WITH_INPUT, "shunt_ohms": "100"}))
    lines = [f"- `{warning}`" for settings in (shared, shunt) for warning in settings.warnings]
    return "## Warned of\n\nThe run goes on, and says at its start:\n\n" + "\n".join(lines) + "\n"


def _in_code(lines: Iterable[str]) -> str:
    return "<br>".join(f"`{line}`" for line in lines)


def _file(where: str, changes: Keys) -> str:
    """The smallest file with some keys of one table changed; of a mux, a second one that nothing is behind."""
    if where == MUX[0]:
        return _toml((*SMALLEST, _another(MUX, **{"name": '"m1"', "address": "0x71", **changes})))
    tables = dict(SMALLEST)
    tables[where] = {**tables.get(where, {}), **changes}
    # What is at the top of the file has to be at its top.
    return _toml(sorted(tables.items(), key=lambda table: table[0] != TOP))


def _toml(tables: Iterable[Table]) -> str:
    """The tables as text; a key with an empty value is left out."""
    blocks = []
    for where, keys in tables:
        lines = [] if where == TOP else [where.removeprefix("in ")]
        lines += [f"{key} = {value}" for key, value in keys.items() if value]
        blocks.append("\n".join([*lines, ""]))
    return "\n".join(blocks)


def _parsed(text: str) -> Settings:
    return parse(text, chips.options(), default_hostname="node-17", environ=ENVIRONMENT)


def _problems(text: str) -> tuple[str, ...]:
    try:
        _parsed(text)
    except ConfigError as error:
        return error.problems
    return ()
