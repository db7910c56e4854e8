"""Renders docs/configuration.md from the rows of agent/config/keys.py and the options of the chips."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from agent import chips
from agent.config import SHARED_HOSTNAMES, parse
from agent.config.example import COLUMNS, averaging_choices, toml_default, with_aliases
from agent.config.keys import DEVICE, METRICS, MUX, PUSHGATEWAY, REMOTE_WRITE, TABLES
from agent.config.values import AVERAGING_EXAMPLE, spell_duration
from agent.errors import ConfigError
from agent.settings import runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.config.keys import Key, KeyTable
    from agent.settings import Settings

_MUX = '[[mux]]\nname = "m0"\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n'
_DEVICE = '[[device]]\nname = "cpu"\nchip = "ina260"\nmux = "m0"\nchannel = 0\naddress = 0x40\n'
_RAIL = '[[device]]\nname = "{}"\nchip = "rpi-pmic"\nrail = "{}"\n'
SMALLEST = f'[pushgateway]\nurl = "http://127.0.0.1:9091"\n\n{_MUX}\n{_DEVICE}'

RULES: Mapping[str, str] = {
    "": "`sample_interval` must not be longer than `interval`. Which counters there are without `state_dir`: "
    "[install.md](install.md#the-energy-counters).",
    PUSHGATEWAY.name: "`username` and `password_file` need each other, and so do `cert_file` and `key_file`. "
    "`bearer_token_file` excludes a user. How groups look: [metrics.md](metrics.md).",
    REMOTE_WRITE.name: "The keys of a connection are those of `[pushgateway]`. `headers` cannot hold `Authorization`, "
    "`Host`, `User-Agent`, `Content-...` or `X-Prometheus-Remote-Write-Version`. Which server needs what: "
    "[history.md](history.md).",
    METRICS.name: "All series: [metrics.md](metrics.md).",
    MUX.name: "Parts that are connected at the same time must have different addresses: those on the bus itself, and "
    "those behind each channel on the path to a chip. Chips behind different channels of one mux never meet. Buses "
    "and wiring: [boards.md](boards.md).",
    DEVICE.name: "One input of a chip belongs to one device. Devices on one chip have the same `averaging`. The next "
    "section shows which keys a chip takes.",
}
"""What holds between the keys of a table, and where to read on."""

MISTAKES: Mapping[str, str] = {
    "a misspelt key": SMALLEST.replace("channel", "chanel"),
    "a key in the wrong table": f'{SMALLEST}\n[metrics]\ninterval = "5s"\n',
    "a number in quotes": SMALLEST.replace("0x40", '"0x40"'),
    "a value out of range": f'sample_interval = "1ms"\n{SMALLEST}',
    "a user without a password": SMALLEST.replace(':9091"', ':9091"\nusername = "node"'),
    "a size without a unit": f'{SMALLEST}[remote_write]\nurl = "http://vm:8428/api/v1/write"\nmax_backlog = 64\n',
    "a remote write URL without its path": f'{SMALLEST}[remote_write]\nurl = "http://vm:8428"\n',
    "two devices on one chip": SMALLEST + _DEVICE.replace("cpu", "disk"),
    "a chip on the bus with the address of one behind a mux": SMALLEST
    + _DEVICE.replace("cpu", "fan").replace('mux = "m0"\nchannel = 0', "bus = 1"),
    "a key that the chip does not use": f"{SMALLEST}shunt_ohms = 0.1\n",
}
"""Files that are refused, by what is wrong with them."""

WARNINGS: Mapping[str, str] = {
    "raspberrypi": SMALLEST,
    "node-17": SMALLEST + '[[device]]\nname = "radio"\nchip = "ina3221"\nbus = 1\naddress = 0x41\ninput = 2\n'
    "shunt_ohms = 100\n",
    "node-18": SMALLEST.replace("tca9548a", "tca9543a").replace("0x70", "0x74"),
    "node-19": SMALLEST + _RAIL.format("board", "all") + _RAIL.format("core", "VDD_CORE"),
}
"""Files that are warned about, by the name of the machine."""


def page() -> str:
    """The whole page."""
    return "\n".join([_head(), *map(_section, TABLES), _chips(), _mistakes(), _warnings()])


def _head() -> str:
    return f"""\
# Configuration

Every key of `/etc/wattpush/config.toml`, generated from the code (`make generated`). Start from
[config.toml.example](../config.toml.example), or from what `wattpush scan --toml` prints. The smallest file that
measures a chip behind a mux:

```toml
{SMALLEST.strip()}
```

The file is that of `--config`, else of `$WATTPUSH_CONFIG`, else `/etc/wattpush/config.toml`. `wattpush check` reports
everything that is wrong with it, one line for each mistake. SIGHUP reloads it; if it is bad, the errors are logged and
the old configuration stays in force.

**Durations** are strings such as "500ms", "15s", "1.5h", "1h30m" or "7d" (us, ms, s, m, h, d), or a number of seconds.
**Sizes** are strings such as "64MB" or "1.5GB" (kB, MB, GB, TB; or KiB, MiB, GiB, TiB).
**Addresses** have 7 bits and no quotes: 0x40. **Paths**: "" is the same as no key.

In any string, `${{NAME}}` is the value of the environment variable NAME in the process that reads the file; one that
is not set is an error. `$$` is a dollar sign. So one file serves many machines: `hostname = "${{NODE_NAME}}"`. For the
service, set variables with `systemctl edit wattpush` (`[Service]`, `Environment=NODE_NAME=node-17`). Passwords have
files of their own.
"""


def _section(table: KeyTable) -> str:
    heading = f"`{table.header}`" if table.name else "At the top of the file"
    lines = [
        f"## {heading}\n",
        f"{_wrapped(table.about)}\n",
        "| key | default | range | meaning |",
        "|---|---|---|---|",
        *(_row(table, key) for key in table.keys),
    ]
    if table.name in RULES:
        lines.append(f"\n{_wrapped(RULES[table.name])}")
    return "\n".join(lines) + "\n"


def _row(table: KeyTable, key: Key) -> str:
    default = toml_default(table, key)
    applies = "required" if key.required else key.default_text or (f"`{default}`" if default else "none")
    return f"| `{key.name}` | {applies} | {key.kind.words} | {key.meaning} |"


def _chips() -> str:
    options = chips.options()
    lines = [
        "## Chips\n",
        "What a `[[device]]` needs for each `chip`.\n",
        "| `chip` | `address` | `input` | `shunt_ohms` | `averaging` |",
        "|---|---|---|---|---|",
    ]
    for name, option in sorted(options.items()):
        address = "-; instead `sensor`, and `label` or `input`"
        if option.rails_without_current is not None:
            address = "-; instead `rail`"
        if option.addresses is not None:
            address = ", ".join(f"0x{run[0]:02x} to 0x{run[-1]:02x}" for run in runs(option.addresses))
        inputs = "-" if option.inputs is None else f"{option.inputs[0]} to {option.inputs[-1]}"
        shunt = "required" if option.external_shunt else "-"
        averages = "-" if option.averaging is None else "yes"
        spelt = ", ".join(f"`{alias}`" for alias in with_aliases([name]))
        lines.append(f"| {spelt} | {address} | {inputs} | {shunt} | {averages} |")
    lines += [
        f"\nAn `averaging` table has all three of these, as in `averaging = {AVERAGING_EXAMPLE}`:\n",
        "| `chip` | `count` | `voltage` and `current` |",
        "|---|---|---|",
    ]
    for names, averaging in averaging_choices(options):
        counts = ", ".join(map(str, averaging.counts))
        times = ", ".join(map(spell_duration, averaging.conversion_seconds))
        lines.append(f"| {', '.join(f'`{name}`' for name in names)} | {counts} | {times} |")
    return "\n".join(lines) + "\n"


def _mistakes() -> str:
    lines = ["## Common mistakes\n", "| mistake | message |", "|---|---|"]
    for name, text in MISTAKES.items():
        try:
            _parse(text)
        except ConfigError as error:
            lines.append(f"| {name} | {_in_code(error.problems)} |")
        else:
            raise SystemExit(f"{name}: not refused")
    return "\n".join(lines) + "\n"


def _warnings() -> str:
    names = ", ".join(SHARED_HOSTNAMES)
    lines = ["## Warnings\n", f"The agent logs these and runs; the first one for the hostnames {names}:\n"]
    lines += [f"- {_in_code(_parse(text, hostname).warnings)}" for hostname, text in WARNINGS.items()]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, COLUMNS, break_on_hyphens=False, break_long_words=False)


def _in_code(lines: Iterable[str]) -> str:
    return "<br>".join(f"`{line}`" for line in lines)


def _parse(text: str, hostname: str = "node-17") -> Settings:
    return parse(text, chips.options(), default_hostname=hostname, environ={"HOME": "/home/pi"})
