"""Turns config.toml into `Settings`, or reports every problem in it; imported by check/, scan/, init/ and commands/.

First each table is read by itself, by the rows of `keys.py`. Then the rules between keys (`rules.py`) and between
tables (`topology.py`) check the values that are good so far; a refused value is dropped, so that one mistake makes
one line. Settings are made only if there is no line.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent import access
from agent.config.environment import escape
from agent.config.keys import DEVICE, METRICS, MUX, PUSHGATEWAY, REMOTE_WRITE, SERVE, TOP
from agent.config.rules import (
    check_connection,
    check_device,
    check_resolution,
    check_top,
    check_unique_names,
    is_on_i2c,
)
from agent.config.tables import read_list, read_single, read_top
from agent.config.topology import (
    Topology,
    check_shared_averaging,
    check_shared_kernel_inputs,
    device_parts,
    find_clashes,
)
from agent.config.values import MAX_NAME_CHARACTERS, is_loopback, parse_duration, quoted
from agent.errors import ConfigError, PermissionDeniedError
from agent.settings import (
    ALL_RAILS,
    Device,
    MetricsSettings,
    PushgatewaySettings,
    RemoteWriteSettings,
    ServeSettings,
    Settings,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]  # installed on Python 3.10 only

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.config.tables import Table
    from agent.i2c.place import Place
    from agent.settings import ChipOptions

__all__ = [
    "DEFAULT_FILE",
    "MAX_NAME_CHARACTERS",
    "SHARED_HOSTNAMES",
    "USUAL_MAX_SHUNT_OHMS",
    "escape",
    "find_file",
    "is_file_expected",
    "is_shared_hostname",
    "load",
    "parse",
    "parse_duration",
]

DEFAULT_FILE = Path("/etc/wattpush/config.toml")

SHARED_HOSTNAMES = ("raspberrypi", "localhost", "jetson", "ubuntu", "debian")

_NO_FILE = (
    "no such file; wattpush init asks and writes it, wattpush scan --toml prints one for what is connected, "
    "wattpush config documents every key, and wattpush --simulate needs no file and no hardware"
)
_LARGEST_BYTES = 2**20
# [[device]] with `averaging = { ... }` has four: the file, the list, the device, the averaging.
_MOST_LEVELS = 16
_TOO_DEEP = "tables or lists are nested too deeply; compare with what wattpush config prints"
# Of a longer one, no more than this is looked at for a hint.
_LONGEST_LINE = 200
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# The kernel numbers these in the order in which it finds the chips.
_NUMBERED_FOLDER = re.compile("/hwmon[0-9]+/*$")
USUAL_MAX_SHUNT_OHMS = 1.0
"""Shunts that measure current are far below: the 5 of a part marked R005 means milliohms, not ohms."""
_LEAST_MICROOHMS = 1000


def is_shared_hostname(hostname: str) -> bool:
    """Whether many machines have this name of their own."""
    return hostname.split(".", maxsplit=1)[0].lower() in SHARED_HOSTNAMES


def find_file(argument: str | None, environ: Mapping[str, str]) -> Path:
    """The file to read: `--config`, else `$WATTPUSH_CONFIG`, else /etc/wattpush/config.toml."""
    return Path(argument or environ.get("WATTPUSH_CONFIG") or DEFAULT_FILE)


def is_file_expected(argument: str | None, environ: Mapping[str, str]) -> bool:
    """Whether a file is named, or the default one is there, so that reading it works or is an error."""
    if argument or environ.get("WATTPUSH_CONFIG"):
        return True
    try:
        DEFAULT_FILE.lstat()
    except FileNotFoundError:
        return False
    except OSError:  # such as a folder that this user may not enter: reading it says so
        return True
    return True


def load(
    path: Path, chips: Mapping[str, ChipOptions], *, default_hostname: str, environ: Mapping[str, str]
) -> Settings:
    """Read and check a configuration file.

    Args:
        path: the file.
        chips: the options of each chip, by the name in `chip = "..."`.
        default_hostname: the machine's own name, for a file without `hostname`.
        environ: for `${NAME}` in the file, $STATE_DIRECTORY, $XDG_STATE_HOME and $HOME.

    Raises:
        ConfigError: the file is missing, is not TOML in UTF-8, or contains mistakes; each has one line, to be printed
            after the name of the file.
        PermissionDeniedError: the file may not be read.
    """
    try:
        # A pipe that the shell made, for /dev/stdin or <(...), is fine: its real path leads nowhere.
        if Path(os.path.realpath(path)).is_fifo():
            raise ConfigError(("is a named pipe, which wattpush would wait on forever; name a regular file",))
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except PermissionError as error:
        raise PermissionDeniedError(f"{path}: permission denied: {access.of_denied_read(path)}") from error
    except FileNotFoundError as error:
        raise ConfigError((_NO_FILE,)) from error
    except IsADirectoryError as error:
        raise ConfigError((f"is a folder; name the file in it, such as {path / DEFAULT_FILE.name}",)) from error
    except OSError as error:
        raise ConfigError((f"cannot be read: {error.strerror or error}",)) from error
    if len(content) > _LARGEST_BYTES:
        raise ConfigError((f"is larger than {_LARGEST_BYTES >> 20} MiB; is it the right file?",))
    content = content.removeprefix(_BYTE_ORDER_MARK)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        wrong = f"byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError((f"line {line}, column {column}: {wrong}",)) from error
    return parse(text, chips, default_hostname=default_hostname, environ=environ)


def parse(
    text: str,
    chips: Mapping[str, ChipOptions],
    *,
    default_hostname: str,
    environ: Mapping[str, str],
    needs_destination: bool = True,
) -> Settings:
    """Check the text of a configuration file; arguments and ConfigError as for `load`.

    Only a text that is no file of the user's need not say where the metrics go.
    """
    top = read_top(_parse_toml(text), environ)
    specs = (PUSHGATEWAY, REMOTE_WRITE, SERVE, METRICS)
    pushgateway, remote_write, serve, metrics = (read_single(top, spec) for spec in specs)
    muxes, devices = read_list(top, MUX), read_list(top, DEVICE)

    check_top(top, default_hostname, needs_destination=needs_destination)
    for connection in filter(None, (pushgateway, remote_write, serve)):
        check_connection(connection)
    check_resolution(top, remote_write, len(devices))
    check_unique_names(muxes)
    check_unique_names(devices)
    topology = Topology(muxes, all_read="mux" not in top.given or "mux" in top.good)
    for mux in muxes:
        topology.check_keys(mux)
    topology.resolve_muxes()
    for device in devices:
        check_device(device, chips)
        if is_on_i2c(device, chips):
            topology.check_keys(device)
    check_shared_kernel_inputs(devices)
    places = [topology.place_of(device) for device in devices]
    check_shared_averaging(devices, places)
    top.problems.extend(find_clashes([*topology.mux_parts(), *device_parts(devices, places, chips)]))
    state_dir = _state_dir(top, environ)
    if top.problems:
        raise ConfigError(tuple(top.problems))

    return Settings(
        **{"hostname": default_hostname, **TOP.arguments(top.good), "state_dir": state_dir},
        devices=tuple(_make_device(*pair) for pair in zip(devices, places, strict=True)),
        muxes=topology.muxes(),
        pushgateway=PushgatewaySettings(**PUSHGATEWAY.arguments(pushgateway.good)) if pushgateway else None,
        remote_write=RemoteWriteSettings(**REMOTE_WRITE.arguments(remote_write.good)) if remote_write else None,
        serve=_make_serve(serve) if serve else None,
        metrics=MetricsSettings(**METRICS.arguments(metrics.good)) if metrics else MetricsSettings(),
        warnings=(*_warnings(top, serve, devices, default_hostname), *topology.warnings()),
    )


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        tree: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(?s)(.*) \(at (line \d+, column \d+|end of document)\)", str(error))
        what, where = (found[1], found[2]) if found else (str(error), "somewhere")
        where = where.replace("end of document", "end of the file")
        hint = _toml_hint(text, where) or "compare with what wattpush config prints"
        raise ConfigError((f"{where}: not valid TOML: {what}; {hint}",)) from error
    except ValueError as error:
        # Python refuses to read decimal numbers with more than some thousand digits.
        raise ConfigError((f"not valid TOML: {error}",)) from error
    except RecursionError as error:
        raise ConfigError((_TOO_DEEP,)) from error
    if _is_too_deep(tree):
        raise ConfigError((_TOO_DEEP,))
    return tree


def _toml_hint(text: str, where: str) -> str:
    """What to write instead, if it is a common mistake; else empty."""
    found = re.fullmatch(r"line ([0-9]+), column ([0-9]+)", where)
    before = text.split("\n")[: int(found[1])] if found else [""]
    line = before.pop()[:_LONGEST_LINE]
    return _layout_hint(line, before) or _value_hint(line)


def _layout_hint(line: str, before: list[str]) -> str:
    """For a line that is not `key = value` or a header; `before` are the lines above it."""
    header = re.fullmatch(r"\s*\[(?:\[\s*([\w-]+)\s*\]|([\w-]+)\s*\]\])\s*(?:#.*)?", line)
    if header is not None:
        return f"write [[{header[1] or header[2]}]]"
    if re.match(r"\s*[\w-]+\s*:", line):
        return "write = between a key and its value"
    if line.count('"') % 2:
        return 'is a quotation mark missing, "..."?'
    if _is_repeated(line, before):
        return "the key is there twice: remove one of them"
    return ""


def _value_hint(line: str) -> str:
    """For a value that TOML does not know."""
    value = re.fullmatch(r"\s*[\w-]+\s*=\s*([^#]*?)\s*(?:#.*)?", line)
    if value is None or value[1] in ("true", "false", "inf", "nan"):
        return ""
    if value[1] in ("True", "False", "TRUE", "FALSE"):
        return f"write {value[1].lower()}"
    if re.fullmatch(r"[0-9A-Fa-f]{2}h|0X[0-9A-Fa-f]{2}", value[1]):
        return f"write 0x{value[1].lower().removeprefix('0x').removesuffix('h')}"
    # Three digits after a comma may be thousands, unless a zero stands before it.
    if re.fullmatch(r"0?,[0-9]+|[0-9]+,(?![0-9]{3}$)[0-9]+|\.[0-9]+", value[1]):
        return f"write {float(value[1].replace(',', '.')):g}"
    # Letters, a path, or the quotation marks of a word processor. It may be a secret, so no message shows it.
    is_text = re.match(r"[A-Za-z/\u2018-\u201e]", value[1]) is not None and '"' not in value[1]
    return 'write text in quotes: "..."' if is_text else ""


def _is_repeated(line: str, before: list[str]) -> bool:
    """Whether the key of a line stands above it in the same table."""
    key = re.match(r"\s*([\w-]+)\s*=", line)
    for earlier in reversed(before):
        if key is None or earlier.lstrip().startswith("["):
            return False
        if re.match(rf"\s*{key[1]}\s*=", earlier):
            return True
    return False


def _is_too_deep(tree: dict[str, Any]) -> bool:
    """Whether tables and lists are nested more deeply than any value of a configuration, as in `a.a.a.a = 1`."""
    level: list[Any] = [tree]
    for _ in range(_MOST_LEVELS):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for values in inner for item in values if isinstance(item, dict | list)]
    return bool(level)


def _state_dir(top: Table, environ: Mapping[str, str]) -> Path | None:
    """The folder of the counters: from the file, systemd or the user (XDG Base Directory Specification)."""
    if "state_dir" in top.given and "state_dir" not in top.good:
        return None
    given = top.good.get("state_dir")
    # systemd.exec(5): several folders in StateDirectory= are joined by colons.
    from_systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    xdg_state_home = environ.get("XDG_STATE_HOME", "")
    if given is None and from_systemd:
        return Path(from_systemd)
    # By the specification, relative paths in XDG_* are ignored.
    if given is None and xdg_state_home.startswith("/"):
        return Path(xdg_state_home) / "wattpush"
    folder = given or "~/.local/state/wattpush"
    home = environ.get("HOME")
    if home and (folder == "~" or folder.startswith("~/")):
        return Path(home, folder[2:])
    try:
        return Path(folder).expanduser()
    except RuntimeError:
        top.refuse("state_dir", f"{quoted(folder)}: this home folder cannot be found; write the full path")
        return None


def _make_serve(table: Table) -> ServeSettings:
    host, port = table.good["listen"]
    return ServeSettings(host=host, port=port, **SERVE.arguments(table.good))


def _make_device(table: Table, place: Place | None) -> Device:
    return Device(place=place, **DEVICE.arguments(table.good))


def _warnings(top: Table, serve: Table | None, devices: Sequence[Table], default_hostname: str) -> Iterator[str]:
    if "hostname" not in top.given and is_shared_hostname(default_hostname):
        yield (
            f"hostname: {quoted(default_hostname)}, this machine's own name, is shared by many machines, and two "
            'machines with one name overwrite each other at the gateway; write hostname = "..."'
        )
    if serve is not None:
        host, _ = serve.good["listen"]
        if serve.good.get("username") and not serve.good.get("cert_file") and not is_loopback(host):
            yield (
                "serve: username: without TLS, whoever sees the traffic sees the password; write cert_file and "
                "key_file, or listen on 127.0.0.1 only"
            )
    yield from _warnings_of_sums(devices)
    for device in devices:
        sensor = device.good.get("sensor", "")
        if _NUMBERED_FOLDER.search(sensor):
            yield (
                f"{device.title}: sensor: {quoted(sensor)} may be another chip after the next boot; write the name of "
                "the chip, or its folder without hwmonN, as wattpush scan --toml does"
            )
        if device.good.get("shunt_ohms", 0) > USUAL_MAX_SHUNT_OHMS:
            shunt_ohms = device.good["shunt_ohms"]
            # In the kernel's files and device trees, shunts are in microohms.
            unit, parts = ("milliohms", 1e3) if shunt_ohms < _LEAST_MICROOHMS else ("microohms", 1e6)
            yield (
                f"{device.title}: shunt_ohms: {shunt_ohms:g} ohms is a lot for a shunt; "
                f"if it is {shunt_ohms:g} {unit}, write shunt_ohms = {shunt_ohms / parts:g}"
            )


def _warnings_of_sums(devices: Sequence[Table]) -> Iterator[str]:
    rails = [device for device in devices if "rail" in device.good]
    for whole in rails:
        for part in rails:
            if whole.good["rail"] == ALL_RAILS != part.good["rail"]:
                yield (
                    f"{part.title}: rail: its power is in {whole.title} too, so a sum over all devices, "
                    "as in the dashboards, counts it twice; remove one of them"
                )
