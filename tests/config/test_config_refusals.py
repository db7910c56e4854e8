"""Bad files, and exactly what is reported about them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.i2c.muxes import mux_names

Problems = Callable[[str], tuple[str, ...]]

GATEWAY = '[pushgateway]\nurl = "http://gateway:9091"\n'
DEVICE = '[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 0x40\n'
M0 = '[[mux]]\nname = "m0"\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n'


def top(lines: str) -> str:
    return f"{lines}\n{GATEWAY}{DEVICE}"


def gateway(lines: str) -> str:
    return f"{GATEWAY}{lines}\n{DEVICE}"


def url(value: str) -> str:
    return f'[pushgateway]\nurl = "{value}"\n{DEVICE}'


def remote(lines: str, url: str = "http://vm:8428/api/v1/write") -> str:
    return f'[remote_write]\nurl = "{url}"\n{lines}\n{DEVICE}'


def header(line: str) -> str:
    return remote(f"headers = {{ {line} }}")


def listen(value: str, lines: str = "") -> str:
    return f'[serve]\nlisten = "{value}"\n{lines}\n{DEVICE}'


def table(kind: str, **keys: str | float) -> str:
    lines = [f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}" for key, value in keys.items()]
    return "\n".join([f"[[{kind}]]", *lines, ""])


def mux(name: str, address: int = 0x70, chip: str = "tca9548a", **place: str | float) -> str:
    return table("mux", name=name, chip=chip, address=address, **place)


def ina260(name: str, address: int = 0x40, **keys: str | float) -> str:
    return table("device", name=name, chip="ina260", address=address, **keys)


def ina3221(name: str, address: int = 0x40, **keys: str | float) -> str:
    return table("device", name=name, chip="ina3221", address=address, **keys)


def hwmon(name: str, **keys: str | float) -> str:
    return table("device", name=name, chip="hwmon", **keys)


def averaging(value: str) -> str:
    return f"{GATEWAY}{DEVICE}averaging = {value}\n"


EXPECTED_DURATION = 'expected a duration such as "15s" or a number of seconds'
EXPECTED_SIZE = 'expected a size such as "64MB" or "64MiB"'
HEADER_VALUE = "the value must be printable ASCII, without spaces at its ends"
PATHS = (
    "the path is missing; add it, /api/v1/write for VictoriaMetrics and Prometheus, /api/v1/push for Mimir; "
    "docs/history.md has others"
)
SUPPORTED = 'supported are "high", "hwmon", "ina260", "ina3221"; if a package provides it, install that package'
KINDS = ", ".join(f'"{name}"' for name in sorted(mux_names()))
COUNTS = "1, 4, 16, 64, 128, 256, 512, 1024"
TIMES = "140us, 204us, 332us, 588us, 1.1ms, 2.116ms, 4.156ms, 8.244ms"
BOTH_ANSWER = "they would answer at once; give one of them another address"
MOVE_CREDENTIALS = "move them to username and password_file (a literal @ in the path is %40)"

# What is wrong -> the file, and the lines about it.
TOML: dict[str, tuple[str, ...]] = {
    "no equals sign": (
        "interval 15",
        "line 1, column 10",
    ),
    "unfinished string": ('\njob = "power', "end of the file"),
    "key twice": ("a = 1\na = 2\n", "line 2, column 6"),
    "switch twice": ("a = true\na = true\n", "line 2, column 9"),
}
# What stands as a value -> what to write instead.
NO_VALUES = {
    "ina260": 'text in quotes: "..."',
    "m0   # the first": 'text in quotes: "..."',
    "\u201ccpu\u201d": 'text in quotes: "..."',
    "/dev/i2c-1": 'text in quotes: "..."',
    "http://gw:9091": 'text in quotes: "..."',
    "True": "true",
    "40h": "0x40",
    "0X4F": "0x4f",
    "0,05": "0.05",
    "0,050": "0.05",
    "1,5": "1.5",
    ".1": "0.1",
}
TOP: dict[str, tuple[str, ...]] = {
    "duration without a unit": (
        top('interval = "15"'),
        f'interval: {EXPECTED_DURATION}, not "15"; did you mean "15s"?',
    ),
    "duration with a space": (
        top('interval = "1.5 Min"'),
        f'interval: {EXPECTED_DURATION}, not "1.5 Min"; did you mean "1.5m"?',
    ),
    "duration with a word for a unit": (
        top('interval = "500msec"'),
        f'interval: {EXPECTED_DURATION}, not "500msec"; did you mean "500ms"?',
    ),
    "duration with a strange unit": (
        top('interval = "15 parsecs"'),
        f'interval: {EXPECTED_DURATION}, not "15 parsecs"',
    ),
    "duration in other digits": (top('interval = "\u0661s"'), f'interval: {EXPECTED_DURATION}, not "\u0661s"'),
    "true for a duration": (top("interval = true"), f"interval: {EXPECTED_DURATION}, not true"),
    "negative duration": (top("interval = -1"), f"interval: {EXPECTED_DURATION}, not -1"),
    "negative duration with a unit": (top('interval = "-5s"'), f'interval: {EXPECTED_DURATION}, not "-5s"'),
    "nan": (top("interval = nan"), f"interval: {EXPECTED_DURATION}, not nan"),
    "inf": (top("max_gap = inf"), f"max_gap: {EXPECTED_DURATION}, not inf"),
    "a table for a duration": (top("interval = {}"), f"interval: {EXPECTED_DURATION}, not a table"),
    "a list for a duration": (top("interval = []"), f"interval: {EXPECTED_DURATION}, not a list"),
    "a date for a duration": (top("interval = 2024-01-01"), f"interval: {EXPECTED_DURATION}, not a date or time"),
    "more digits than a float holds": (
        top(f"interval = 1{'0' * 400}"),
        f"interval: {EXPECTED_DURATION}, not a huge number",
    ),
    "zero interval": (top("interval = 0"), "interval: 0s is not in 100ms..24h"),
    "interval too short": (top('interval = "50ms"'), "interval: 50ms is not in 100ms..24h"),
    "interval too long": (top('interval = "25h"'), "interval: 25h is not in 100ms..24h"),
    "sample interval too short": (top('sample_interval = "9ms"'), "sample_interval: 9ms is not in 10ms..24h"),
    "sample_interval longer than interval": (
        top('interval = "5s"\nsample_interval = "10s"'),
        "sample_interval: 10s is longer than interval, 5s",
    ),
    "default sample_interval longer than interval": (
        top('interval = "500ms"'),
        "interval: 500ms is shorter than sample_interval, 1s (the default)",
    ),
    "sample_interval longer than the default interval": (
        top('sample_interval = "1m"'),
        "sample_interval: 1m is longer than interval, 15s (the default)",
    ),
    "bad interval is not compared": (
        top('interval = true\nsample_interval = "1m"'),
        f"interval: {EXPECTED_DURATION}, not true",
    ),
    "empty hostname": (top('hostname = ""'), "hostname: is empty"),
    "dot hostname": (
        top('hostname = "."'),
        'hostname: "." cannot be a grouping value: in the gateway\'s URL it means a folder',
    ),
    "number for a hostname": (top("hostname = 17"), "hostname: expected a string, not 17"),
    "control character": (top('hostname = "a\\nb"'), 'hostname: "a\\nb" contains a control character'),
    "a line end of Unicode": (
        top('hostname = "a\\u2028b"'),
        'hostname: "a\\u2028b" contains a control character',
    ),
    "overlong hostname": (
        top(f'hostname = "{"x" * 201}"'),
        f'hostname: "{"x" * 60}…" is longer than 200 characters',
    ),
    "unknown key": (top("interval_s = 3"), 'interval_s: unknown key; did you mean "interval"?'),
    "unknown key in capitals": (top("INTERVAL = 3"), 'INTERVAL: unknown key; did you mean "interval"?'),
    "unknown key unlike any other": (
        top("zzz = 3"),
        (
            "zzz: unknown key; known here: hostname, interval, sample_interval, max_gap, state_dir, pushgateway, "
            "remote_write, serve, metrics, mux, device"
        ),
    ),
    "unknown key with strange characters": (
        top('"inter\\nval" = 3'),
        '"inter\\nval": unknown key; did you mean "interval"?',
    ),
    "key of another table": (top('job = "power"'), "job: unknown key here; it belongs in [pushgateway]"),
    "top-level key below a table": (
        gateway("interval = 3"),
        "pushgateway: interval: unknown key here; it belongs at the top of the file, before the first [table]",
    ),
    "unknown table": (top("[metric]"), "metric: unknown key; did you mean [metrics]?"),
    "chip under another name": (
        GATEWAY + DEVICE.replace("chip", "type"),
        'device[1] "cpu": type: unknown key; did you mean "chip"?',
    ),
    "shunt under another name": (
        GATEWAY + ina3221("cpu", bus=1, input=1, r_shunt=0.1),
        'device[1] "cpu": r_shunt: unknown key; did you mean "shunt_ohms"?',
    ),
    "table in the plural": (GATEWAY + DEVICE + "[[muxes]]\n", "muxes: unknown key; did you mean [[mux]]?"),
    "table in double brackets": (
        f"[[pushgateway]]\n{DEVICE}",
        "pushgateway: there can be only one: write [pushgateway], in single brackets",
    ),
    "list in single brackets": (
        f"{GATEWAY}[device]\nname = 1\n",
        "device: there can be several: write [[device]], in double brackets",
    ),
    "number for a table": (f"metrics = 3\n{GATEWAY}{DEVICE}", "metrics: expected a table, [metrics], not 3"),
    "number for a list of tables": (f"mux = 3\n{GATEWAY}{DEVICE}", "mux: expected tables, [[mux]], not 3"),
    "number in a list of tables": (
        f"mux = [3]\n{GATEWAY}{DEVICE}",
        "mux[1]: expected a table, not 3",
    ),
    "nothing to measure": (
        GATEWAY,
        "device: missing; describe at least one measured load in a [[device]] table",
    ),
    "an empty list of devices": (
        f"device = []\n{GATEWAY}",
        "device: missing; describe at least one measured load in a [[device]] table",
    ),
    "nowhere to send it": (
        DEVICE,
        (
            'pushgateway: missing; write [pushgateway] with url = "http://..." to push, [remote_write] with '
            'url = "http://.../api/v1/write" to keep history, or [serve] with listen = "127.0.0.1:9812" to be scraped'
        ),
    ),
    "a home folder of an unknown user": (
        top('state_dir = "~no-such-user/x"'),
        'state_dir: "~no-such-user/x": this home folder cannot be found; write the full path',
    ),
}
PUSHGATEWAY: dict[str, tuple[str, ...]] = {
    "no url": (f"[pushgateway]\n{DEVICE}", 'pushgateway: url: missing; write url = "http://127.0.0.1:9091"'),
    "empty url": (url(""), "pushgateway: url: is empty"),
    "no scheme": (url("gateway:9091"), 'pushgateway: url: "gateway:9091" does not begin with http:// or https://'),
    "other scheme": (url("ftp://gateway"), 'pushgateway: url: "ftp://gateway" does not begin with http:// or https://'),
    "no host": (url("http://:9091"), 'pushgateway: url: "http://:9091" has no valid host name'),
    "bad host": (url("http://a..b"), 'pushgateway: url: "http://a..b" has no valid host name'),
    "half an address": (
        url("http://[::1"),
        'pushgateway: url: "http://[::1" is not a URL with a valid host and port: Invalid IPv6 URL',
    ),
    "port out of range": (
        url("http://gateway:65536"),
        'pushgateway: url: "http://gateway:65536" is not a URL with a valid host and port: Port out of range 0-65535',
    ),
    "port zero": (
        url("http://gateway:0"),
        'pushgateway: url: "http://gateway:0" has port 0, on which no server listens',
    ),
    "the path of a push": (
        url("http://gateway/prefix/metrics/job/power/"),
        (
            'pushgateway: url: "http://gateway/prefix/metrics/job/power/": leave out /metrics/job/power/, which every '
            'push adds: url = "http://gateway/prefix"'
        ),
    ),
    "the path of a push with empty parts": (
        url("http://metrics//metrics//job/"),
        (
            'pushgateway: url: "http://metrics//metrics//job/": leave out //metrics//job/, which every push adds: '
            'url = "http://metrics"'
        ),
    ),
    "the path of a scrape": (
        url("http://gateway:9091/metrics"),
        (
            'pushgateway: url: "http://gateway:9091/metrics": leave out /metrics, which every push adds: '
            'url = "http://gateway:9091"'
        ),
    ),
    "space": (
        url("http://gate way"),
        'pushgateway: url: "http://gate way" has characters that a URL cannot contain; percent-encode them',
    ),
    "query": (
        url("http://gateway/?a=1"),
        'pushgateway: url: "http://gateway/?a=1" has a query or fragment; remove it, only a path is allowed',
    ),
    "credentials": (url("https://node:secret@gateway"), f"pushgateway: url: contains credentials; {MOVE_CREDENTIALS}"),
    "a user alone": (url("https://node@gateway"), f"pushgateway: url: contains credentials; {MOVE_CREDENTIALS}"),
    "number for a url": (f"[pushgateway]\nurl = 9091\n{DEVICE}", "pushgateway: url: expected a string, not 9091"),
    "dotdot job": (
        gateway('job = ".."'),
        'pushgateway: job: ".." cannot be a grouping value: in the gateway\'s URL it means a folder',
    ),
    "unknown grouping": (gateway('group_by = "host"'), 'pushgateway: group_by: "host" is not one of "device", "node"'),
    "zero timeout": (gateway("timeout = 0"), "pushgateway: timeout: 0s is not in 1ms..1h"),
    "word for a switch": (
        gateway('delete_on_exit = "yes"'),
        'pushgateway: delete_on_exit: expected true or false, not "yes"',
    ),
    "number for a switch": (
        gateway("delete_on_exit = 1"),
        "pushgateway: delete_on_exit: expected true or false, not 1",
    ),
    "username alone": (
        gateway('username = "node"'),
        'pushgateway: username: needs password_file; write password_file = "..."',
    ),
    "password_file alone": (
        gateway('password_file = "p"'),
        'pushgateway: password_file: needs username; write username = "..."',
    ),
    "password and bearer token": (
        gateway('username = "node"\npassword_file = "p"\nbearer_token_file = "t"'),
        "pushgateway: bearer_token_file: cannot be combined with password_file; keep one of them",
    ),
    "password and bearer token without a user": (
        gateway('password_file = "p"\nbearer_token_file = "t"'),
        "pushgateway: bearer_token_file: cannot be combined with password_file; keep one of them",
    ),
    "password in the username": (
        gateway('username = "node:secret"\npassword_file = "p"'),
        'pushgateway: username: must not contain ":"; put the password into the file that password_file names',
    ),
    "password in the file": (
        gateway('password = "secret"'),
        'pushgateway: password: unknown key; did you mean "password_file"?',
    ),
    "cert without key": (
        gateway('cert_file = "c"'),
        'pushgateway: cert_file: needs key_file; write key_file = "..."',
    ),
    "key without cert": (
        gateway('key_file = "k"\ncert_file = ""'),
        'pushgateway: key_file: needs cert_file; write cert_file = "..."',
    ),
    "bad key with a cert": (
        gateway('key_file = 1\ncert_file = "c"'),
        "pushgateway: key_file: expected a string, not 1",
    ),
}
REMOTE_WRITE: dict[str, tuple[str, ...]] = {
    "no url": (
        f"[remote_write]\n{DEVICE}",
        'remote_write: url: missing; write url = "https://vm.example.org/api/v1/write"',
    ),
    "no path": (remote("", "https://vm"), f'remote_write: url: "https://vm": {PATHS}'),
    "a path of slashes": (remote("", "http://vm:80//"), f'remote_write: url: "http://vm:80//": {PATHS}'),
    **{
        f"no path at {server}": (
            remote("", server),
            f'remote_write: url: "{server}": the path is missing; write url = "{server.rstrip("/")}{path}"',
        )
        for server, path in (
            ("http://vm:8428/", "/api/v1/write"),
            ("http://vm:8480", "/insert/0/prometheus/api/v1/write"),
            ("https://prometheus-prod-01.grafana.net", "/api/prom/push"),
        )
    },
    "a user in the url": (
        remote("", "http://a:b@vm/api/v1/write"),
        f"remote_write: url: contains credentials; {MOVE_CREDENTIALS}",
    ),
    "user without a password": (
        remote('username = "node"'),
        'remote_write: username: needs password_file; write password_file = "..."',
    ),
    "a key of the gateway": (
        remote('group_by = "node"'),
        "remote_write: group_by: unknown key here; it belongs in [pushgateway]",
    ),
    "an interval of more readings than fit into memory": (
        'interval = "1h"\nsample_interval = "10ms"\n' + remote('resolution = "sample"'),
        (
            'remote_write: resolution: "sample" keeps the 360000 readings of an interval in memory; at most 200000: '
            'interval = "2000s" is not too long'
        ),
    ),
    "size without a unit": (
        remote("max_backlog = 64"),
        f'remote_write: max_backlog: {EXPECTED_SIZE}, not 64; write "64MB"',
    ),
    "size in bytes": (
        remote("max_backlog = 64000000"),
        f'remote_write: max_backlog: {EXPECTED_SIZE}, not 64000000; write "64MB"',
    ),
    "size in other letters": (
        remote('max_backlog = "64mb"'),
        f'remote_write: max_backlog: {EXPECTED_SIZE}, not "64mb"; did you mean "64MB"?',
    ),
    "size in short": (
        remote('max_backlog = "1.5G"'),
        f'remote_write: max_backlog: {EXPECTED_SIZE}, not "1.5G"; did you mean "1.5GB"?',
    ),
    "size of words": (
        remote('max_backlog = "a lot"'),
        f'remote_write: max_backlog: {EXPECTED_SIZE}, not "a lot"',
    ),
    "negative size": (remote('max_backlog = "-1MB"'), f'remote_write: max_backlog: {EXPECTED_SIZE}, not "-1MB"'),
    "true for a size": (remote("max_backlog = true"), f"remote_write: max_backlog: {EXPECTED_SIZE}, not true"),
    "backlog too small": (remote('max_backlog = "99kB"'), "remote_write: max_backlog: 99kB is not in 100kB..10TB"),
    "no backlog": (remote('max_backlog = "0MB"'), "remote_write: max_backlog: 0kB is not in 100kB..10TB"),
    "backlog too large": (remote('max_backlog = "11TB"'), "remote_write: max_backlog: 11TB is not in 100kB..10TB"),
    "age too short": (remote('max_age = "59s"'), "remote_write: max_age: 59s is not in 1m..366d"),
    "age too long": (remote('max_age = "367d"'), "remote_write: max_age: 367d is not in 1m..366d"),
    "never catches up": (remote("catch_up = 1"), "remote_write: catch_up: 1 is not in 2..1000"),
    "string for a number": (
        remote('catch_up = "20"'),
        'remote_write: catch_up: expected a number, not "20"; write 20 without quotes',
    ),
    "nan for a number": (remote("catch_up = nan"), "remote_write: catch_up: expected a number, not nan"),
    "true for a number": (remote("catch_up = true"), "remote_write: catch_up: expected a number, not true"),
    "american clock": (
        remote('clock = "synchronized"'),
        'remote_write: clock: "synchronized" is not one of "synchronised", "system"',
    ),
    "unknown resolution": (
        remote('resolution = "1s"'),
        'remote_write: resolution: "1s" is not one of "interval", "sample"',
    ),
    "headers that are none": (
        remote('headers = "X-Scope-OrgID: a"'),
        'remote_write: headers: expected a table such as { X-Scope-OrgID = "tenant" }, not "X-Scope-OrgID: a"',
    ),
    "number for a header": (
        header("X-Scope-OrgID = 7"),
        "remote_write: headers: X-Scope-OrgID: expected a string, not 7",
    ),
    "a space in a header's name": (
        header('"X Scope" = "a"'),
        'remote_write: headers: "X Scope" cannot be the name of a header',
    ),
    "a line end in a header's name": (
        header('"X\\r\\nHost" = "a"'),
        'remote_write: headers: "X\\r\\nHost" cannot be the name of a header',
    ),
    "a line end in a header": (header('X-A = "a\\r\\nHost: b"'), f"remote_write: headers: X-A: {HEADER_VALUE}"),
    "a space at the end of a header": (header('X-A = "a "'), f"remote_write: headers: X-A: {HEADER_VALUE}"),
    "an empty header": (header('X-A = ""'), f"remote_write: headers: X-A: {HEADER_VALUE}"),
    "a long header": (
        header(f'X-A = "{"a" * 4001}"'),
        "remote_write: headers: X-A: the value is longer than 4000 characters",
    ),
    "a header twice": (
        header('X-A = "a", x-a = "b"'),
        "remote_write: headers: x-a: given twice; upper and lower case are the same",
    ),
    "credentials in a header": (
        header('authorization = "Bearer secret"'),
        (
            "remote_write: headers: authorization: not allowed here: write username and password_file, or "
            "bearer_token_file"
        ),
    ),
    "the agent's own encoding": (
        header('Content-Encoding = "gzip"'),
        "remote_write: headers: Content-Encoding: not allowed here: the agent describes its own body; remove it",
    ),
    "the agent's own version": (
        header('X-Prometheus-Remote-Write-Version = "2.0.0"'),
        (
            "remote_write: headers: X-Prometheus-Remote-Write-Version: not allowed here: the agent speaks version "
            "0.1.0; remove it"
        ),
    ),
    "the agent's own host": (
        header('Host = "vm"'),
        "remote_write: headers: Host: not allowed here: it is made from url; remove it",
    ),
}
SERVE_AND_METRICS: dict[str, tuple[str, ...]] = {
    **{
        f"{key} of the server alone": (
            listen(":9812", f'{key} = "x"'),
            f'serve: {key}: needs {other}; write {other} = "..."',
        )
        for pair in (("cert_file", "key_file"), ("username", "password_file"))
        for key, other in (pair, pair[::-1])
    },
    "user of the server with a colon": (
        listen(":9812", 'username = "node:secret"\npassword_file = "p"'),
        'serve: username: must not contain ":"; put the password into the file that password_file names',
    ),
    "token for the server": (
        listen(":9812", 'bearer_token_file = "t"'),
        "serve: bearer_token_file: unknown key here; it belongs in [pushgateway]",
    ),
    "nowhere to listen": (f"[serve]\n{DEVICE}", 'serve: listen: missing; write listen = "127.0.0.1:9812"'),
    "a port alone": (
        listen("9812"),
        'serve: listen: expected "host:port" such as "127.0.0.1:9812" or "[::1]:9812", not "9812"',
    ),
    "IPv6 without brackets": (
        listen("::1:9812"),
        'serve: listen: expected "host:port" such as "127.0.0.1:9812" or "[::1]:9812", not "::1:9812"',
    ),
    "listening on a number": (
        f"[serve]\nlisten = 9812\n{DEVICE}",
        'serve: listen: expected "host:port" such as "127.0.0.1:9812" or "[::1]:9812", not 9812',
    ),
    "no IPv6 in brackets": (listen("[localhost]:9812"), 'serve: listen: "localhost" is not an IPv6 address'),
    "listening out of range": (listen("localhost:65536"), "serve: listen: port 65536 is not in 0..65535"),
    "listening on a star": (listen("*:9812"), 'serve: listen: "*" is not a host name or IPv4 address'),
    "word for a metric": (top('[metrics]\nextremes = "no"'), 'metrics: extremes: expected true or false, not "no"'),
    "unknown metric": (top("[metrics]\nextreme = true"), 'metrics: extreme: unknown key; did you mean "extremes"?'),
}
MUXES: dict[str, tuple[str, ...]] = {
    "a mux without anything": (
        f"{GATEWAY}[[mux]]\n{DEVICE}",
        'mux[1]: name: missing; write name = "m0"',
        'mux[1]: chip: missing; write chip = "tca9548a"',
        "mux[1]: address: missing; write address = 0x70",
        "mux[1]: bus: missing; write bus = 1 for /dev/i2c-1, or mux and channel",
    ),
    "unknown kind of mux": (
        f"{GATEWAY}{mux('m0', chip='pca9641', bus=1)}{DEVICE}",
        f'mux[1] "m0": chip: "pca9641" is not a supported mux; supported are {KINDS}',
    ),
    "a kind of mux without its last letter": (
        f"{GATEWAY}{mux('m0', chip='TCA9548', bus=1)}{DEVICE}",
        'mux[1] "m0": chip: "TCA9548" is not a supported mux; did you mean "tca9548a"?',
    ),
    "a power monitor as a mux": (
        f"{GATEWAY}{mux('m0', chip='ina260', bus=1)}{DEVICE}",
        'mux[1] "m0": chip: "ina260" is not a supported mux; describe a power monitor in a [[device]] table',
    ),
    "mux address in decimal digits": (
        f'{GATEWAY}[[mux]]\nname = "m0"\nchip = "tca9548a"\nbus = 1\naddress = 70\n{DEVICE}',
        'mux[1] "m0": address: 0x46 is not in 0x70..0x77; 70 is 0x46: write 0x70',
    ),
    "mux address with the bit for reading": (
        f"{GATEWAY}{mux('m0', address=0xE1, bus=1)}{DEVICE}",
        (
            'mux[1] "m0": address: 0xe1 is not in 0x70..0x77; 0xe1 has 8 bits, with the one for reading and writing: '
            "write 0x70"
        ),
    ),
    "mux address as a manual writes it": (
        f'{GATEWAY}[[mux]]\nname = "m0"\nchip = "tca9548a"\nbus = 1\naddress = "70h"\n{DEVICE}',
        'mux[1] "m0": address: expected an address such as 0x40, not "70h"; write 0x70 without quotes',
    ),
    "mux address out of range": (
        f"{GATEWAY}{mux('m0', address=0x78, bus=1)}{DEVICE}",
        'mux[1] "m0": address: 0x78 is not in 0x70..0x77',
    ),
    "two muxes with one name": (
        (
            f"{GATEWAY}{M0}{mux('m0', address=0x71, bus=1)}{DEVICE}"
            f"{ina260('a', mux='m0', channel=1)}{ina260('b', mux='m0', channel=1)}"
        ),
        'mux[2] "m0": name: already used by mux[1]',
    ),
    "two muxes at one address": (
        f"{GATEWAY}{M0}{mux('m1', bus=1)}{DEVICE}",
        'mux[2] "m1": address: 0x70 on /dev/i2c-1 is already used by mux[1] "m0"',
    ),
    "mux behind itself": (
        f"{GATEWAY}{mux('m0', mux='m0', channel=0)}{DEVICE}",
        'mux[1] "m0": mux: the muxes form a loop: "m0" behind "m0"',
    ),
    "muxes in a loop, and one behind it": (
        (
            f"{GATEWAY}{mux('tail', mux='m0', channel=0)}{mux('m0', mux='m1', channel=0)}"
            f"{mux('m1', mux='m0', channel=0)}{DEVICE}{ina260('a', mux='tail', channel=0)}"
        ),
        'mux[2] "m0": mux: the muxes form a loop: "m0" behind "m1" behind "m0"',
    ),
    "mux behind an unknown mux": (
        f"{GATEWAY}{M0}{mux('m1', address=0x71, mux='m00', channel=0)}{DEVICE}{ina260('a', mux='m1', channel=0)}",
        'mux[2] "m1": mux: no mux is named "m00"; did you mean "m0"?',
    ),
    "mux behind a mux without a channel": (
        f"{GATEWAY}{M0}{mux('m1', address=0x71, mux='m0')}{DEVICE}",
        'mux[2] "m1": channel: missing; which channel of the mux, 0..7?',
    ),
    "mux on the trunk with a channel": (
        f"{GATEWAY}{mux('m0', bus=1, channel=0)}{DEVICE}",
        'mux[1] "m0": channel: needs mux; write mux = "..." or remove this line',
    ),
    "mux with a channel alone": (
        f"{GATEWAY}{mux('m0', channel=0)}{DEVICE}",
        'mux[1] "m0": mux: missing; which mux is this a channel of?',
    ),
    "mux with a different bus from its parent": (
        f"{GATEWAY}{M0}{mux('m1', address=0x71, mux='m0', channel=1, bus=2)}{DEVICE}",
        'mux[2] "m1": bus: 2 is not the bus of mux "m0" (1); remove this line',
    ),
    "mux behind a channel that a pca9546a lacks": (
        f"{GATEWAY}{mux('m0', chip='pca9546a', bus=1)}{mux('m1', address=0x71, mux='m0', channel=4)}{DEVICE}",
        'mux[2] "m1": channel: 4 is not in 0..3: mux "m0" is a pca9546a',
    ),
    "mux with the address of its parent": (
        f"{GATEWAY}{M0}{mux('m1', mux='m0', channel=2)}{DEVICE}",
        (
            'mux[1] "m0": address: 0x70 on /dev/i2c-1 clashes with mux[2] "m1" behind '
            "mux m0 (0x70 on /dev/i2c-1) channel 2: " + BOTH_ANSWER
        ),
    ),
    "mux with the address of its grandparent": (
        f"{GATEWAY}{M0}{mux('m1', address=0x71, mux='m0', channel=2)}{mux('m2', mux='m1', channel=3)}{DEVICE}",
        (
            'mux[1] "m0": address: 0x70 on /dev/i2c-1 clashes with mux[3] "m2" behind '
            "mux m1 (0x71 behind mux m0 (0x70 on /dev/i2c-1) channel 2) channel 3: " + BOTH_ANSWER
        ),
    ),
    "key of a device": (
        f"{GATEWAY}{M0}input = 1\n{DEVICE}",
        'mux[1] "m0": input: unknown key here; it belongs in [[device]]',
    ),
    "name with a line break": (
        f'{GATEWAY}[[mux]]\nname = "a\\nb"\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n{DEVICE}',
        'mux[1] "a\\nb": name: "a\\nb" contains a control character',
    ),
}
DEVICES: dict[str, tuple[str, ...]] = {
    "a device without anything": (
        f"{GATEWAY}[[device]]\n",
        'device[1]: name: missing; write name = "cpu"',
        'device[1]: chip: missing; one of "high", "hwmon", "ina260", "ina3221"',
    ),
    "an ina260 without anything": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\n',
        'device[1] "cpu": address: missing; write address = 0x40',
        'device[1] "cpu": bus: missing; write bus = 1 for /dev/i2c-1, or mux and channel',
    ),
    "an ina3221 without anything": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina3221"\n',
        'device[1] "cpu": input: missing; which of 1..3 is this load on?',
        'device[1] "cpu": shunt_ohms: missing; write the resistance of the shunt on the board, such as 0.1',
        'device[1] "cpu": address: missing; write address = 0x40',
        'device[1] "cpu": bus: missing; write bus = 1 for /dev/i2c-1, or mux and channel',
    ),
    "channel out of range in the second block": (
        f"{GATEWAY}{M0}{ina260('gpu', mux='m0', channel=0)}{ina260('cpu', mux='m0', channel=9)}",
        'device[2] "cpu": channel: 9 is not in 0..7',
    ),
    "negative channel": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='m0', channel=-1)}",
        'device[1] "cpu": channel: -1 is not in 0..7',
    ),
    "float for a channel": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='m0', channel=2.0)}",
        'device[1] "cpu": channel: expected a whole number, not 2.0',
    ),
    "true for a channel": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='m0')}channel = true\n",
        'device[1] "cpu": channel: expected a whole number, not true',
    ),
    "string for a channel": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='m0', channel='2')}",
        'device[1] "cpu": channel: expected a whole number, not "2"; write 2 without quotes',
    ),
    "channel that a pca9546a lacks": (
        f"{GATEWAY}{mux('m0', chip='pca9546a', bus=1)}{ina260('cpu', mux='m0', channel=5)}",
        'device[1] "cpu": channel: 5 is not in 0..3: mux "m0" is a pca9546a',
    ),
    "string for an address": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = "0x40"\n',
        'device[1] "cpu": address: expected an address such as 0x40, not "0x40"; write 0x40 without quotes',
    ),
    "word for an address": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = "high"\n',
        'device[1] "cpu": address: expected an address such as 0x40, not "high"',
    ),
    "true for an address": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = true\n',
        'device[1] "cpu": address: expected an address such as 0x40, not true',
    ),
    "ina260 address out of range": (
        f"{GATEWAY}{ina260('cpu', address=0x50, bus=1)}",
        'device[1] "cpu": address: 0x50 is not in 0x40..0x4f',
    ),
    "address in decimal digits of the hexadecimal one": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 40\n',
        'device[1] "cpu": address: 0x28 is not in 0x40..0x4f; 40 is 0x28: write 0x40',
    ),
    "address in decimal digits in quotes": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = "40"\n',
        'device[1] "cpu": address: expected an address such as 0x40, not "40"; write 0x40 without quotes',
    ),
    "address with the bit for writing": (
        f"{GATEWAY}{ina260('cpu', address=0x80, bus=1)}",
        (
            'device[1] "cpu": address: 0x80 is not in 0x40..0x4f; 0x80 has 8 bits, with the one for reading and '
            "writing: write 0x40"
        ),
    ),
    "ina3221 address out of range": (
        f"{GATEWAY}{ina3221('cpu', address=0x44, bus=1, input=1, shunt_ohms=0.1)}",
        'device[1] "cpu": address: 0x44 is not in 0x40..0x43',
    ),
    "address that Python refuses to print": (
        f'{GATEWAY}[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 0x{"f" * 6000}\n',
        'device[1] "cpu": address: a huge number is not in 0x40..0x4f',
    ),
    "shunt too large for a float": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1)}shunt_ohms = 0x{'f' * 6000}\n",
        'device[1] "cpu": shunt_ohms: a huge number is not in 0.000001..1000000 (ohms)',
    ),
    "string for a bus": (
        f"{GATEWAY}{ina260('cpu', bus='i2c-1')}",
        (
            'device[1] "cpu": bus: expected a bus number, a path such as "/dev/i2c-rack", or "board", not "i2c-1"; '
            "write 1 without quotes"
        ),
    ),
    "negative bus": (f"{GATEWAY}{ina260('cpu', bus=-1)}", 'device[1] "cpu": bus: -1 is not in 0..1048575'),
    "unknown mux": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='mo', channel=0)}",
        'device[1] "cpu": mux: no mux is named "mo"; did you mean "m0"?',
    ),
    "unknown mux unlike any other": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='xyz', channel=0)}",
        'device[1] "cpu": mux: no mux is named "xyz"; known are "m0"',
    ),
    "unknown mux without any mux": (
        f"{GATEWAY}{ina260('cpu', mux='m0', channel=0)}",
        'device[1] "cpu": mux: no mux is named "m0"; describe it in a [[mux]] table',
    ),
    "mux without a channel": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='m0')}",
        'device[1] "cpu": channel: missing; which channel of the mux, 0..7?',
    ),
    "mux without a channel, of a kind with two": (
        f"{GATEWAY}{mux('m0', chip='pca9543a', bus=1)}{ina260('cpu', mux='m0')}",
        'device[1] "cpu": channel: missing; which channel of the mux, 0..1?',
    ),
    "address of a mux for its name": (
        f'{GATEWAY}{M0}[[device]]\nname = "cpu"\nchip = "ina260"\nmux = 0x70\nchannel = 0\naddress = 0x40\n',
        'device[1] "cpu": mux: expected the name of a [[mux]] table, not 112',
    ),
    "channel for the input of an ina3221": (
        f"{GATEWAY}{ina3221('cpu', bus=1, channel=2, shunt_ohms=0.1)}",
        'device[1] "cpu": channel: is that of a mux; for that of the ina3221, write input = 2',
    ),
    "channel from zero for the input of an ina3221": (
        f"{GATEWAY}{ina3221('cpu', bus=1, channel=0, shunt_ohms=0.1)}",
        'device[1] "cpu": channel: is that of a mux; for that of the ina3221, write input = 1',
    ),
    "shunt with a decimal comma": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1)}shunt_ohms = '0,05'\n",
        (
            'device[1] "cpu": shunt_ohms: expected a resistance in ohms such as 0.1, not "0,05"; '
            "write 0.05 without quotes"
        ),
    ),
    "channel without a mux": (
        f"{GATEWAY}{ina260('cpu', bus=1, channel=0)}",
        'device[1] "cpu": channel: needs mux; write mux = "..." or remove this line',
    ),
    "neither bus nor mux": (
        f"{GATEWAY}{ina260('cpu')}",
        'device[1] "cpu": bus: missing; write bus = 1 for /dev/i2c-1, or mux and channel',
    ),
    "different bus from its mux": (
        f"{GATEWAY}{M0}{ina260('cpu', mux='m0', channel=0, bus='board')}",
        'device[1] "cpu": bus: "board" is not the bus of mux "m0" (1); remove this line',
    ),
    "dot as a name": (
        f"{GATEWAY}{ina260('.', bus=1)}",
        'device[1] ".": name: "." cannot be a grouping value: in the gateway\'s URL it means a folder',
    ),
    "two devices with one name": (
        f"{GATEWAY}{ina260('cpu', bus=1)}{ina260('cpu', 0x41, bus=1)}",
        'device[2] "cpu": name: already used by device[1]',
    ),
    "a chip in capitals": (
        f"{GATEWAY}{table('device', name='cpu', chip='INA260', bus=1, address=0x40)}",
        'device[1] "cpu": chip: "INA260" is not a supported chip; did you mean "ina260"?',
    ),
    "another chip with a similar name": (
        f"{GATEWAY}{table('device', name='cpu', chip='ina261', bus=1, address=0x40)}",
        f'device[1] "cpu": chip: "ina261" is not a supported chip; {SUPPORTED}',
    ),
    "unknown chip has no further problems": (
        f"{GATEWAY}{table('device', name='cpu', chip='hwmom', sensor='ina3221', label='VDD_IN')}",
        'device[1] "cpu": chip: "hwmom" is not a supported chip; did you mean "hwmon"?',
    ),
    "unknown chip unlike any other": (
        f"{GATEWAY}{table('device', name='cpu', chip='xyz', bus=1, address=0x40)}",
        f'device[1] "cpu": chip: "xyz" is not a supported chip; {SUPPORTED}',
    ),
    "mux as a device": (
        f"{GATEWAY}{table('device', name='m0', chip='tca9548a', bus=1, address=0x70)}",
        'device[1] "m0": chip: "tca9548a" is not a supported chip; describe a mux in a [[mux]] table',
    ),
    "shunt on an ina260": (
        f"{GATEWAY}{ina260('cpu', bus=1, shunt_ohms=0.1)}",
        'device[1] "cpu": shunt_ohms: not used by ina260: the shunt is inside the chip; remove this line',
    ),
    "input on an ina260": (
        f"{GATEWAY}{ina260('cpu', bus=1, input=1)}",
        'device[1] "cpu": input: not used by ina260, which has only one; remove this line',
    ),
    "label on an ina260": (
        f"{GATEWAY}{ina260('cpu', bus=1, label='VDD')}",
        'device[1] "cpu": label: not used by ina260, only by chips that the kernel owns; remove this line',
    ),
    "fourth input": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=4, shunt_ohms=0.1)}",
        'device[1] "cpu": input: 4 is not in 1..3',
    ),
    "no shunt at all": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1, shunt_ohms=0)}",
        'device[1] "cpu": shunt_ohms: 0 is not in 0.000001..1000000 (ohms)',
    ),
    "negative shunt": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1, shunt_ohms=-0.1)}",
        'device[1] "cpu": shunt_ohms: -0.1 is not in 0.000001..1000000 (ohms)',
    ),
    "shunt with its unit": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1, shunt_ohms='0.1 ohm')}",
        (
            'device[1] "cpu": shunt_ohms: expected a resistance in ohms such as 0.1, not "0.1 ohm"; '
            "write 0.1 without quotes"
        ),
    ),
    "shunt as printed on the resistor": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1, shunt_ohms='R050')}",
        (
            'device[1] "cpu": shunt_ohms: expected a resistance in ohms such as 0.1, not "R050"; '
            "write 0.05 without quotes"
        ),
    ),
    "shunt in milliohms with their unit": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1, shunt_ohms='100 mOhm')}",
        (
            'device[1] "cpu": shunt_ohms: expected a resistance in ohms such as 0.1, not "100 mOhm"; '
            "write 0.1 without quotes"
        ),
    ),
    "shunt in words": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1, shunt_ohms='small')}",
        'device[1] "cpu": shunt_ohms: expected a resistance in ohms such as 0.1, not "small"',
    ),
    "infinite shunt": (
        f"{GATEWAY}{ina3221('cpu', bus=1, input=1)}shunt_ohms = inf\n",
        'device[1] "cpu": shunt_ohms: inf is not in 0.000001..1000000 (ohms)',
    ),
    "hwmon without anything": (
        f"{GATEWAY}{hwmon('module')}",
        'device[1] "module": label: missing; write label = "..." as hwmon shows it, or input = 1',
        'device[1] "module": sensor: missing; write the hwmon name or its folder in sysfs',
    ),
    "hwmon with label and input": (
        f"{GATEWAY}{hwmon('module', sensor='ina3221', label='VDD_IN', input=1)}",
        'device[1] "module": input: cannot be combined with label; keep one of them',
    ),
    "hwmon with a place": (
        f"{GATEWAY}{M0}{hwmon('a', sensor='x', input=1, mux='nil', channel=0, bus=1, address=0x40, averaging='auto')}",
        'device[1] "a": mux: not used by hwmon: the kernel knows where it is; remove this line',
        'device[1] "a": bus: not used by hwmon: the kernel knows where it is; remove this line',
        'device[1] "a": channel: not used by hwmon: the kernel knows where it is; remove this line',
        'device[1] "a": address: not used by hwmon: the kernel knows where it is; remove this line',
        'device[1] "a": averaging: not used by hwmon: the kernel knows where it is; remove this line',
    ),
    "hwmon with a shunt": (
        f"{GATEWAY}{hwmon('a', sensor='x', input=1, shunt_ohms=0.1)}",
        'device[1] "a": shunt_ohms: not used by hwmon: the kernel knows the shunt; remove this line',
    ),
    "one hwmon input twice": (
        f"{GATEWAY}{hwmon('a', sensor='x', label='VDD_IN')}{hwmon('b', sensor='x', label='VDD_IN')}",
        'device[2] "b": label: "VDD_IN" of "x" is already read by device[1] "a"',
    ),
    "one hwmon folder in two spellings": (
        f"{GATEWAY}{hwmon('a', sensor='/sys/x', input=1)}{hwmon('b', sensor='/sys//x/', input=1)}",
        'device[2] "b": input: 1 of "/sys//x/" is already read by device[1] "a"',
    ),
}
AVERAGING: dict[str, tuple[str, ...]] = {
    "a word other than auto": (
        averaging('"on"'),
        (
            'device[1] "cpu": averaging: expected "auto" or a table such as '
            '{ count = 64, voltage = "1.1ms", current = "1.1ms" }, not "on"'
        ),
    ),
    "count that the chip lacks": (
        averaging('{ count = 3, voltage = "1.1ms", current = "1.1ms" }'),
        f'device[1] "cpu": averaging: count: 3 is not one of {COUNTS}',
    ),
    "time that the chip lacks": (
        averaging('{ count = 4, voltage = "1ms", current = 1 }'),
        f'device[1] "cpu": averaging: voltage: 1ms is not one of {TIMES}',
        f'device[1] "cpu": averaging: current: 1s is not one of {TIMES}',
    ),
    "incomplete averaging": (
        averaging("{ count = 4 }"),
        'device[1] "cpu": averaging: voltage: missing; count, voltage and current go together',
        'device[1] "cpu": averaging: current: missing; count, voltage and current go together',
    ),
    "wrong types in averaging": (
        averaging('{ count = "4", voltage = true, curent = "1.1ms" }'),
        'device[1] "cpu": averaging: count: expected a whole number, not "4"; write 4 without quotes',
        f'device[1] "cpu": averaging: voltage: {EXPECTED_DURATION}, not true',
        'device[1] "cpu": averaging: curent: unknown key; did you mean "current"?',
    ),
    "chip that averages nothing": (
        (
            f"{GATEWAY}{table('device', name='a', chip='high', bus=1, address=0x60)}"
            'averaging = { count = 1, voltage = "1.1ms", current = "1.1ms" }\n'
        ),
        'device[1] "a": averaging: not used by high, which has none; remove this line',
    ),
    "bad averaging is not compared": (
        (
            f"{GATEWAY}{ina3221('a', bus=1, input=1, shunt_ohms=0.1)}averaging = 3\n"
            f"{ina3221('b', bus=1, input=2, shunt_ohms=0.1)}"
            'averaging = { count = 4, voltage = "1.1ms", current = "1.1ms" }\n'
        ),
        (
            'device[1] "a": averaging: expected "auto" or a table such as '
            '{ count = 64, voltage = "1.1ms", current = "1.1ms" }, not 3'
        ),
    ),
    "different averaging on one chip": (
        (
            f"{GATEWAY}{ina3221('a', bus=1, input=1, shunt_ohms=0.1)}{ina3221('b', bus=1, input=2, shunt_ohms=0.1)}"
            'averaging = { count = 4, voltage = "1.1ms", current = "1.1ms" }\n'
        ),
        'device[2] "b": averaging: differs from that of device[1] "a" on the same chip',
    ),
}
CLASHES: dict[str, tuple[str, ...]] = {
    "two devices on one chip": (
        f"{GATEWAY}{M0}{ina260('a', mux='m0', channel=1)}{ina260('b', mux='m0', channel=1)}",
        'device[2] "b": address: 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 1 is already read by device[1] "a"',
    ),
    "two devices on one input": (
        f"{GATEWAY}{ina3221('a', bus=1, input=2, shunt_ohms=0.1)}{ina3221('b', bus=1, input=2, shunt_ohms=0.1)}",
        'device[2] "b": input: 2 of the ina3221 at 0x40 on /dev/i2c-1 is already read by device[1] "a"',
    ),
    "missing inputs do not clash": (
        f"{GATEWAY}{ina3221('a', bus=1, shunt_ohms=0.1)}{ina3221('b', bus=1, shunt_ohms=0.1)}",
        'device[1] "a": input: missing; which of 1..3 is this load on?',
        'device[2] "b": input: missing; which of 1..3 is this load on?',
    ),
    "two kinds at one place": (
        f"{GATEWAY}{ina260('a', bus=1)}{ina3221('b', bus=1, input=2, shunt_ohms=0.1)}",
        'device[2] "b": chip: ina3221 at 0x40 on /dev/i2c-1, where device[1] "a" has an ina260',
    ),
    "chip at the address of a mux beside it": (
        f"{GATEWAY}{M0}{table('device', name='a', chip='high', bus=1, address=0x70)}",
        'device[1] "a": address: 0x70 on /dev/i2c-1 is already used by mux[1] "m0"',
    ),
    "chip at the address of a mux on its path": (
        f"{GATEWAY}{M0}{table('device', name='a', chip='high', mux='m0', channel=1, address=0x70)}",
        (
            'mux[1] "m0": address: 0x70 on /dev/i2c-1 clashes with device[1] "a" behind '
            "mux m0 (0x70 on /dev/i2c-1) channel 1: " + BOTH_ANSWER
        ),
    ),
    "chip on the trunk with the address of three behind the mux": (
        (
            f"{GATEWAY}{M0}{ina260('a', mux='m0', channel=1)}{ina260('b', bus=1)}{ina260('c', mux='m0', channel=2)}"
            f"{ina260('d', mux='m0', channel=3)}"
        ),
        (
            'device[2] "b": address: 0x40 on /dev/i2c-1 clashes with device[1] "a" '
            "behind mux m0 (0x70 on /dev/i2c-1) channel 1 and 2 more: " + BOTH_ANSWER
        ),
    ),
    "chip between two muxes with the address of one behind both": (
        (
            f"{GATEWAY}{M0}{mux('m1', address=0x71, mux='m0', channel=2)}{ina260('a', mux='m0', channel=2)}"
            f"{ina260('b', mux='m1', channel=5)}"
        ),
        (
            'device[1] "a": address: 0x40 behind mux m0 (0x70 on /dev/i2c-1) channel 2 clashes with device[2] "b" '
            "behind mux m1 (0x71 behind mux m0 (0x70 on /dev/i2c-1) channel 2) channel 5: " + BOTH_ANSWER
        ),
    ),
}
ROWS: dict[str, tuple[str, ...]] = {
    f"{group}: {name}": row
    for group, rows in {
        "top": TOP,
        "pushgateway": PUSHGATEWAY,
        "remote write": REMOTE_WRITE,
        "serve and metrics": SERVE_AND_METRICS,
        "mux": MUXES,
        "device": DEVICES,
        "averaging": AVERAGING,
        "clash": CLASHES,
    }.items()
    for name, row in rows.items()
}


@pytest.mark.reliability(
    18.2,
    "a `url` that ends in `/metrics`, or in the path of a push",
    "refused with exit code 78; the error shows the `url` to write",
)
@pytest.mark.parametrize("name", ["the path of a push", "the path of a scrape"])
def test_a_url_with_the_path_of_a_push_is_refused(
    name: str, problems_of: Problems, measured: Callable[[str], None]
) -> None:
    text, line = ROWS[f"pushgateway: {name}"]
    assert list(problems_of(text)) == [line]
    measured("`/metrics` and `/metrics/job/power/`, with and without a prefix")


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_bad_file_gets_exactly_these_lines(row: tuple[str, ...], problems_of: Problems) -> None:
    text, *lines = row

    assert list(problems_of(text)) == lines


@pytest.mark.parametrize(("text", "where"), TOML.values(), ids=TOML)
def test_bad_toml_is_reported_with_line_and_column(text: str, where: str, problems_of: Problems) -> None:
    (line,) = problems_of(text)

    # The words in the middle are the parser's, and change with Python's version.
    assert line.split(":")[0] == where
    assert "not valid TOML" in line
    is_repeated = text.count("a = ") > 1
    hint = "the key is there twice: remove one of them" if is_repeated else "compare with what wattpush config prints"
    assert line.endswith(f"; {hint}")


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("hostname: node-17\n", "write = between a key and its value"),
        ('hostname = "node-17\n[pushgateway]\n', 'is a quotation mark missing, "..."?'),
        ('hostname = node-17"\n', 'is a quotation mark missing, "..."?'),
        ('[pushgateway]\nurl = "http://a"\n# or\nurl = "http://b"\n', "the key is there twice: remove one of them"),
        ("interval = 5\n[serve]\ninterval = ??\n", "compare with what wattpush config prints"),
    ],
)
def test_a_common_mistake_in_toml_says_what_to_write(text: str, hint: str, problems_of: Problems) -> None:
    (line,) = problems_of(text)
    assert "not valid TOML" in line
    assert line.endswith(f"; {hint}")


@pytest.mark.parametrize("header", ["[[device]", "[device]]", " [[device ] # a load"])
def test_a_header_with_a_missing_bracket_shows_the_whole_one(header: str, problems_of: Problems) -> None:
    (line,) = problems_of(f"{GATEWAY}{header}\n")
    assert "not valid TOML" in line
    assert line.endswith("; write [[device]]")


@pytest.mark.parametrize("value", ["1,000", "12,345"])
def test_a_comma_that_may_mean_thousands_is_not_read(value: str, problems_of: Problems) -> None:
    (line,) = problems_of(f"[[device]]\nshunt_ohms = {value}\n")
    assert line.endswith("; compare with what wattpush config prints")


@pytest.mark.parametrize(("value", "meant"), NO_VALUES.items())
def test_a_value_that_toml_does_not_know_says_what_to_write(value: str, meant: str, problems_of: Problems) -> None:
    (line,) = problems_of(f"[[device]]\nname = {value}\n")
    assert line.startswith("line 2, column ")
    assert line.endswith(f"; write {meant}")


@pytest.mark.parametrize("levels", [20, 3_000])
@pytest.mark.parametrize("text", ["{path} = 1", "[device]\n{path} = 1", "[[{path}]]", "a = {lists}"])
def test_tables_nested_too_deeply_make_one_line(text: str, levels: int, problems_of: Problems) -> None:
    """A dotted key makes tables that no parser has to nest its calls for."""
    nested = text.format(path=".".join("a" * levels), lists="[" * levels + "]" * levels)
    (line,) = problems_of(nested)
    assert line.startswith("tables or lists are nested too deeply")


def test_mistakes_in_several_tables_are_reported_at_once(problems_of: Problems) -> None:
    text = f"""
        interval = "1 minute"
        [pushgateway]
        url = "gateway:9091"
        [metrics]
        extrems = false
        [[mux]]
        name = "m0"
        chip = "tca9548a"
        bus = 1
        address = "0x70"
        {ina260("cpu", mux="m0", channel=9)}
        {ina260("gpu", mux="m0", channel=8)}
    """

    assert [line.rpartition(": ")[0] for line in problems_of(text)] == [
        "interval",
        "pushgateway: url",
        "metrics: extrems",
        'mux[1] "m0": address',
        'device[1] "cpu": channel',
        'device[2] "gpu": channel',
    ]


@pytest.mark.parametrize(
    ("misspelt", "key"),
    [
        (f'[pushgateway]\nurll = "http://gateway:9091"\n{DEVICE}', "url"),
        (f'[pushgatway]\nurl = "http://gateway:9091"\n{DEVICE}', "pushgateway"),
        (GATEWAY + DEVICE.replace("name", "nmae"), "name"),
        (GATEWAY + DEVICE.replace("chip", "chp"), "chip"),
        (GATEWAY + DEVICE.replace("bus", "buss"), "bus"),
        (GATEWAY + DEVICE.replace("address", "adress"), "address"),
        (GATEWAY + M0 + ina260("cpu", mux="m0", chanel=1), "channel"),
        (GATEWAY + ina3221("cpu", bus=1, inptu=1, shunt_ohms=0.1), "input"),
        (GATEWAY + ina3221("cpu", bus=1, input=1, shunt_ohm=0.1), "shunt_ohms"),
        (GATEWAY + hwmon("cpu", sensr="ina3221", label="VDD_IN"), "sensor"),
        (GATEWAY + hwmon("cpu", sensor="ina3221", lable="VDD_IN"), "label"),
    ],
)
def test_a_misspelt_required_key_is_one_mistake(misspelt: str, key: str, problems_of: Problems) -> None:
    (line,) = problems_of(misspelt)
    meant = f"[{key}]" if key == "pushgateway" else f'"{key}"'
    assert line.endswith(f"unknown key; did you mean {meant}?")


def test_a_mistake_in_one_table_hides_no_clash_between_others(problems_of: Problems) -> None:
    text = f"{GATEWAY}timeout = 0\n{M0}{ina260('a', 0x59, bus=1)}{ina260('b', mux='m0', channel=1)}{ina260('c', bus=1)}"

    assert problems_of(text) == (
        "pushgateway: timeout: 0s is not in 1ms..1h",
        'device[1] "a": address: 0x59 is not in 0x40..0x4f',
        (
            'device[3] "c": address: 0x40 on /dev/i2c-1 clashes with device[2] "b" '
            "behind mux m0 (0x70 on /dev/i2c-1) channel 1: " + BOTH_ANSWER
        ),
    )


@pytest.mark.parametrize(
    "broken_mux",
    [
        '[[mux]]\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n',
        '[mux]\nname = "m0"\n',
        M0.replace("0x70", "0x90"),
        "mux = 1",
    ],
    ids=["without a name", "in single brackets", "with a bad address", "no table at all"],
)
def test_devices_are_not_blamed_for_a_bad_mux(broken_mux: str, problems_of: Problems) -> None:
    devices = ina260("a", mux="m0", channel=1) + ina260("b", mux="m0", channel=2)

    (line,) = problems_of(f"{broken_mux}\n{GATEWAY}{devices}")

    assert line.startswith("mux")


def test_a_password_in_the_url_is_not_shown(problems_of: Problems) -> None:
    for value in ("https://node:hunter2@gateway", "node:hunter2@gateway", "https://node:hunter2@gate way/?x"):
        assert "hunter2" not in "\n".join(problems_of(url(value)))


def test_a_chain_of_a_thousand_muxes_makes_one_line(problems_of: Problems) -> None:
    row = mux("m0", bus=1) + "".join(mux(f"m{n}", 0x70, mux=f"m{n - 1}", channel=0) for n in range(1, 1000))

    lines = problems_of(GATEWAY + row + DEVICE)

    assert [line for line in lines if ": mux: " in line] == [
        'mux[9] "m8": mux: more than 8 muxes in a chain cannot all have different addresses'
    ]
