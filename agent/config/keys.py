"""Every key of config.toml, one row each.

The schema that `tables.py` reads a file by, docs/configuration.md and config.toml.example are made from these rows.
Defaults stand in `settings.py`: a row fills the field of the same name, to which a duration adds its unit.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any

from agent.config import values
from agent.config.values import InvalidError, Kind, quoted
from agent.i2c.muxes import MUX_ADDRESSES, MUX_KINDS, mux_names
from agent.i2c.place import Mux
from agent.settings import (
    Device,
    MetricsSettings,
    PushgatewaySettings,
    RemoteWriteSettings,
    ServeSettings,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_DAY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Key:
    """A key of one table.

    Attributes:
        name: the key as it stands in the file.
        kind: the values that it may hold.
        meaning: its purpose, in a sentence or two of Markdown without links.
        example: the value in config.toml.example, in TOML. If empty, that is the default; a key that has no default
            either appears in one of the further blocks of that file.
        in_force: whether that line of config.toml.example is in force, not commented out.
        required: whether a table without this key is refused. `example` is then also the suggested value.
        default_text: the default in words, if the field in `settings.py` has none.
    """

    name: str
    kind: Kind
    meaning: str
    example: str = ""
    in_force: bool = False
    required: bool = False
    default_text: str = ""

    @property
    def attribute(self) -> str:
        """The field of the settings class that it fills: `timeout_seconds` for `timeout`."""
        return self.name + self.kind.unit


@dataclass(frozen=True, slots=True)
class KeyTable:
    """The keys of one table of the file, in the order in which documents show them.

    Attributes:
        name: `device` for `[[device]]`; empty for the top of the file.
        settings: the class that a table becomes.
        about: the purpose of the table.
        is_list: whether there can be several of them, in double brackets.
        in_force: whether config.toml.example has it in force, not commented out.
    """

    name: str
    settings: type
    about: str
    keys: tuple[Key, ...]
    is_list: bool = False
    in_force: bool = True

    @property
    def header(self) -> str:
        """The line that begins such a table, `[pushgateway]` or `[[device]]`."""
        return f"[[{self.name}]]" if self.is_list else f"[{self.name}]"

    @property
    def where(self) -> str:
        """Where its keys belong, for a message."""
        return f"in {self.header}" if self.name else "at the top of the file, before the first [table]"

    def default(self, name: str) -> Any:
        """The value in the settings without the key; None if they have no default for it."""
        (attribute,) = (key.attribute for key in self.keys if key.name == name)
        defaults = {field.name: field.default for field in fields(self.settings)}
        value = defaults.get(attribute, MISSING)
        return None if value is MISSING else value

    def arguments(self, good: dict[str, Any]) -> dict[str, Any]:
        """The values that fill a field of the settings class, by the name of that field."""
        names = {field.name for field in fields(self.settings)}
        attributes = {key.name: key.attribute for key in self.keys if key.attribute in names}
        return {attributes[name]: value for name, value in good.items() if name in attributes}


_TEXT = Kind("string", values.text)
_GROUPING_VALUE = Kind("string of at most 200 characters, not `.` or `..`", values.grouping_value)
_MUX_NAME = Kind("string", values.mux_name)
_FILE = Kind("path", values.optional_text)
_SWITCH = Kind("`true` or `false`", values.switch)
_BUS = Kind('whole number, path, or `"board"`', values.bus)
_CHANNEL = values.whole_number(0, max(kind.channels for kind in MUX_KINDS.values()) - 1)


def _mux_chip(value: object) -> str:
    name = values.text(value)
    if name in mux_names():
        return name
    from agent.config.known_parts import about_mux

    raise InvalidError(f"{quoted(name)} is not a supported mux{about_mux(name)}")


_MUX_CHIP = Kind(values.one_of(*mux_names()).words, _mux_chip)
_AVERAGING = Kind(
    '`"auto"` or a table of `count`, `voltage`, `current`',
    values.auto,
    keys={
        "count": Kind("whole number", values.any_whole_number),
        "voltage": values.duration(0, _DAY_SECONDS),
        "current": values.duration(0, _DAY_SECONDS),
    },
)


def _channels_of_muxes() -> str:
    names: dict[int, list[str]] = {}
    for kind in MUX_KINDS.values():
        names.setdefault(kind.channels, []).extend((kind.name, *kind.aliases))
    return "; ".join(f"{', '.join(found)} with channels 0 to {channels - 1}" for channels, found in names.items())


def connection_keys(url: str, check_url: Callable[[object], str], url_meaning: str) -> tuple[Key, ...]:
    """How to reach a server that we push to, for each table with such a server; `url` is an example in TOML."""
    return (
        Key(
            "url",
            Kind("`http://` or `https://` URL", check_url),
            f"{url_meaning} Credentials go into separate keys, below.",
            example=url,
            required=True,
        ),
        Key(
            "timeout",
            values.duration(0.001, 3600),
            "The longest that one attempt may take in all: DNS, connection, TLS, answer.",
        ),
        Key(
            "username",
            Kind("string without `:`", values.username),
            "The user for HTTP basic authentication, with `password_file`.",
            example='""',
        ),
        Key(
            "password_file",
            _FILE,
            "The file with the password: a path, or the bare name of a systemd credential. It is read at every push, "
            "so it can change at any time.",
            example='""',
        ),
        Key(
            "bearer_token_file",
            _FILE,
            "The file with a bearer token, instead of a user; given and read as `password_file` is.",
            example='""',
        ),
        Key(
            "ca_file",
            _FILE,
            "The certificate authorities (PEM) that the server's certificate is checked against.",
            example='""',
            default_text="the system's trust store",
        ),
        Key("cert_file", _FILE, "A client certificate (PEM), with `key_file`.", example='""'),
        Key("key_file", _FILE, "The key of the client certificate (PEM).", example='""'),
    )


TOP = KeyTable(
    "",
    Settings,
    "Before the first `[table]`: in TOML every key belongs to the table above it.",
    (
        Key(
            "hostname",
            _GROUPING_VALUE,
            "The name of this machine at the gateway (grouping key `hostname`). Two machines with one name overwrite "
            "each other.",
            example='"node-17"',
            default_text="the machine's own hostname",
        ),
        Key("interval", values.duration(0.1, _DAY_SECONDS), "How often to push."),
        Key(
            "sample_interval",
            values.duration(0.01, _DAY_SECONDS),
            "How often to read every device; at most `interval`.",
        ),
        Key(
            "max_gap",
            values.duration(0.01, 366 * _DAY_SECONDS),
            "The longest time between two readings over which energy is still counted, also between two runs. With "
            "`--once` on a timer, make it longer than the timer's period. Within a run, consecutive readings always "
            "count.",
        ),
        Key(
            "state_dir",
            _FILE,
            "The folder that keeps the energy counters across restarts. Set it if a service runs: otherwise the "
            "service, root and each user have separate counters, and Prometheus counts each change between them as "
            "energy.",
            example='"/var/lib/wattpush"',
            default_text="`$STATE_DIRECTORY` (set by systemd), else `$XDG_STATE_HOME/wattpush`, else "
            "`~/.local/state/wattpush`",
        ),
    ),
)

PUSHGATEWAY = KeyTable(
    "pushgateway",
    PushgatewaySettings,
    "The Pushgateway to push to. At least one of this table, `[remote_write]` and `[serve]` is required.",
    (
        *connection_keys('"http://127.0.0.1:9091"', values.gateway_url, "Where to push. A path is kept."),
        Key("job", _GROUPING_VALUE, "The grouping key `job`."),
        Key(
            "group_by",
            values.one_of("device", "node"),
            '"device": one group for each device, {hostname, device}. "node": one group for the whole machine, '
            "{hostname}, with `device` as a label; easier on a gateway with more than a few hundred devices.",
        ),
        Key("delete_on_exit", _SWITCH, "Delete this machine's groups from the gateway at a clean stop."),
    ),
)

REMOTE_WRITE = KeyTable(
    "remote_write",
    RemoteWriteSettings,
    "Keep the history of every series in a server that takes Prometheus remote write 1.0: VictoriaMetrics, Prometheus, "
    "Mimir, Grafana Cloud, Thanos, Cortex. What cannot be sent waits in a backlog in `state_dir`, and arrives later "
    "with its own time. Without this table nothing is kept.",
    (
        *connection_keys(
            '"https://vm.example.org/api/v1/write"',
            values.remote_write_url,
            "Where to send, with the whole path: /api/v1/write for VictoriaMetrics and Prometheus, /api/v1/push for "
            "Mimir and Cortex, /api/prom/push for Grafana Cloud, /api/v1/receive for Thanos.",
        ),
        Key(
            "headers",
            Kind("table of strings", values.headers),
            "Sent with every request: the tenant of Mimir, for example. No secrets, because this file need not be "
            "private.",
            example='{ X-Scope-OrgID = "tenant" }',
            default_text="none",
        ),
        Key(
            "job",
            _GROUPING_VALUE,
            "The label `job` of every series. With that of `[pushgateway]`, dashboards keep working; take another one "
            "if the same database also scrapes the gateway.",
        ),
        Key(
            "resolution",
            values.one_of("interval", "sample"),
            '"interval": one sample of each series for every `interval`. "sample": also the volts, amperes, watts and '
            "counters of every single reading. For VictoriaMetrics that is little; a Prometheus that has taken a day "
            "of it late needs more than a minute for its next start, and seconds for a query. The readings of an "
            "`interval` wait in memory for its end; at most 200,000 of all devices.",
        ),
        Key(
            "max_backlog",
            values.size(100_000, 10**13),
            "The most that the backlog may take on disk; beyond it the oldest samples are dropped and counted. A day "
            'of 8 devices takes some 18 MB with `resolution = "sample"` at 1 s, and some 3 MB with "interval" at 15 s.',
        ),
        Key(
            "max_age",
            values.duration(60, 366 * _DAY_SECONDS),
            "Samples that are older are dropped and counted. Not more than the server accepts: the "
            "`out_of_order_time_window` of Prometheus or Mimir, the `-retentionPeriod` of VictoriaMetrics.",
        ),
        Key(
            "catch_up",
            values.number(2, 1000),
            "How many times faster than real time a backlog is sent: at 20, a day takes 72 minutes. It keeps a fleet "
            "that comes back all at once from overloading its server.",
        ),
        Key(
            "clock",
            values.one_of("synchronised", "system"),
            '"synchronised": samples are sent once the clock was synchronised with a time server in this boot, '
            'because one sample from the future makes Prometheus refuse those of all nodes. "system": trust the clock '
            "as it is, on a machine whose clock is set in another way, by GPS or its host.",
        ),
    ),
    in_force=False,
)

SERVE = KeyTable(
    "serve",
    ServeSettings,
    "Answer scrapes at `/metrics`, with a live page at `/` and a health check at `/-/healthy`. At most 64 clients are "
    "connected at a time; a request may take 5 s to arrive, and its answer 10 s. Without this table nothing listens.",
    (
        Key(
            "listen",
            Kind('`"host:port"`', values.listen),
            "Where to listen. An IPv6 address goes in brackets: `[::1]:9812`. Without a host it is every address of "
            "this machine; with port 0 the system chooses a port.",
            example='"127.0.0.1:9812"',
            required=True,
        ),
        Key(
            "cert_file",
            _FILE,
            "Answer over TLS (1.2 or newer) only, with the certificate in this file (PEM, any intermediate ones after "
            "it), and `key_file`. A renewed certificate is used from the next connection on.",
            example='""',
        ),
        Key("key_file", _FILE, "The key of the certificate (PEM, without a passphrase).", example='""'),
        Key(
            "username",
            Kind("string without `:`", values.username),
            "Answer only to this user, by HTTP basic authentication, with `password_file`. Without TLS, whoever sees "
            "the traffic sees the password.",
            example='""',
        ),
        Key(
            "password_file",
            _FILE,
            "The file with the password: a path, or the bare name of a systemd credential. It is read at every "
            "request, so it can change at any time.",
            example='""',
        ),
    ),
    in_force=False,
)

METRICS = KeyTable(
    "metrics",
    MetricsSettings,
    "Optional series.",
    (
        Key("extremes", _SWITCH, "Gauges of the lowest and highest reading since the last push."),
        Key(
            "charge",
            _SWITCH,
            "Also `wattpush_device_coulombs_total` and `wattpush_device_returned_coulombs_total`, for batteries and "
            "solar panels. Charge is counted without this key too, so they appear with their whole count.",
        ),
        Key(
            "ina260_names",
            _SWITCH,
            "Also `ina260_voltage_volts`, `ina260_current_amperes` and `ina260_power_watts`, for dashboards made for "
            "single-sensor exporters.",
        ),
    ),
)

MUX = KeyTable(
    "mux",
    Mux,
    "An I2C multiplexer, one table for each; none if every chip is on a bus itself. It is on a `bus`, or behind a "
    "`channel` of another `mux`.",
    (
        Key(
            "name",
            _TEXT,
            "The name by which devices, and muxes behind it, refer to this mux. Unique.",
            example='"m0"',
            required=True,
        ),
        Key(
            "chip",
            _MUX_CHIP,
            f"Its type: {_channels_of_muxes()}.",
            example='"tca9548a"',
            required=True,
        ),
        Key(
            "bus",
            _BUS,
            'N of /dev/i2c-N; or the path of a link to one, such as "/dev/i2c-rack"; or "board": the board\'s default '
            "bus through Blinka, also that of a USB adapter.",
            example="1",
            in_force=True,
            default_text="that of the mux before it",
        ),
        Key(
            "address",
            values.address_in(MUX_ADDRESSES),
            "Its 7-bit address: 0x70 plus the number at its pins A2 to A0, of which some kinds have fewer.",
            example="0x70",
            required=True,
        ),
        Key("mux", _MUX_NAME, "The mux that this one is behind, instead of `bus`.", default_text="none"),
        Key("channel", _CHANNEL, "The channel of that mux.", default_text="none"),
    ),
    is_list=True,
)

DEVICE = KeyTable(
    "device",
    Device,
    "One measured load, one table for each; at least one. Its chip is on a `bus`, behind a `channel` of a `mux`, "
    "owned by the kernel, or part of a Raspberry Pi 5.",
    (
        Key("name", _GROUPING_VALUE, "Grouping key `device`. Unique.", example='"cpu"', required=True),
        # The chips are not known here: rules.py requires the key, and lists them.
        Key("chip", _TEXT, "The chip that measures it.", example='"ina260"', in_force=True, default_text="required"),
        Key(
            "bus",
            _BUS,
            "The bus of a chip that is behind no mux, written like that of a mux.",
            default_text="that of its mux",
        ),
        Key(
            "mux",
            _MUX_NAME,
            "The mux that the chip is behind.",
            example='"m0"',
            in_force=True,
            default_text="none",
        ),
        Key(
            "channel",
            _CHANNEL,
            "The channel of that mux.",
            example="0",
            in_force=True,
            default_text="none; required with `mux`",
        ),
        Key(
            "address",
            Kind("depends on the chip", values.address),
            "The chip's 7-bit address.",
            example="0x40",
            in_force=True,
            default_text="none; required on I2C",
        ),
        Key(
            "averaging",
            _AVERAGING,
            'What the chip averages for one result. "auto" covers as much of each `sample_interval` as the chip can, '
            "so that short bursts count. A table gives the number of conversions and the time of each.",
            example='"auto"',
            default_text='`"auto"`',
        ),
        Key(
            "input",
            Kind("depends on the chip", values.any_whole_number),
            "The input of a chip that has several. Several devices may share that chip, one input each.",
            default_text="none; required on a chip with several",
        ),
        Key(
            "shunt_ohms",
            Kind("0.000001 to 1000000", values.ohms),
            "The resistance of the shunt on the board. The chip does not know it; a wrong value makes every current "
            "wrong.",
            default_text="none; required if the shunt is on the board",
        ),
        Key(
            "sensor",
            _TEXT,
            "The hwmon name of a chip that the kernel owns, or its folder below /sys.",
            default_text="none; required for hwmon",
        ),
        Key(
            "label",
            _TEXT,
            "The hwmon label of the input on that chip; or give its number as `input`.",
            default_text="none; hwmon needs this or `input`",
        ),
        Key(
            "rail",
            _TEXT,
            'The rail of a Raspberry Pi 5, such as "VDD_CORE"; "all" is the sum of its rails.',
            default_text="none; required for rpi-pmic",
        ),
    ),
    is_list=True,
)

TABLES = (TOP, PUSHGATEWAY, REMOTE_WRITE, SERVE, METRICS, MUX, DEVICE)
