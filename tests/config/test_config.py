from __future__ import annotations

import contextlib
import grp
import math
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent.config import find_file, load, parse, parse_duration
from agent.config.values import parse_size, spell_duration, spell_size
from agent.errors import ConfigError, ExitCode, PermissionDeniedError
from agent.i2c.muxes import MUX_KINDS, mux_kind, mux_names
from agent.i2c.place import Mux, Place
from agent.settings import (
    Averaging,
    ChipOptions,
    Device,
    MetricsSettings,
    PushgatewaySettings,
    RemoteWriteSettings,
    ServeSettings,
    Settings,
)

Chips = Mapping[str, ChipOptions]
Parse = Callable[[str], Settings]

GATEWAY = '[pushgateway]\nurl = "http://gateway:9091"\n'
DEVICE = '[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 0x40\n'


def test_a_small_file_gets_the_documented_defaults(parse_text: Parse) -> None:
    assert parse_text(GATEWAY + DEVICE) == Settings(
        hostname="pi-4",
        devices=(Device(name="cpu", chip="ina260", place=Place(bus=1, mux=None, channel=None, address=0x40)),),
        muxes=(),
        interval_seconds=15.0,
        sample_interval_seconds=1.0,
        max_gap_seconds=600.0,
        state_dir=Path("/home/pi/.local/state/wattpush"),
        pushgateway=PushgatewaySettings(
            url="http://gateway:9091",
            job="power",
            group_by="device",
            timeout_seconds=5.0,
            username=None,
            password_file=None,
            bearer_token_file=None,
            ca_file=None,
            cert_file=None,
            key_file=None,
            delete_on_exit=False,
        ),
        serve=None,
        metrics=MetricsSettings(extremes=True, ina260_names=False),
        warnings=(),
    )


def test_every_key_reaches_its_setting(parse_text: Parse) -> None:
    text = """
        hostname = "rack 1/node 17"
        interval = "1m"
        sample_interval = "250ms"
        max_gap = "1h30m"
        state_dir = "~/state"

        [pushgateway]
        url = "https://push.example.org:9091/prefix/"
        job = "watts"
        group_by = "node"
        timeout = 2.5
        username = "node"
        password_file = "password"
        bearer_token_file = ""
        ca_file = "/etc/ca.pem"
        cert_file = "/etc/cert.pem"
        key_file = "/etc/key.pem"
        delete_on_exit = true

        [serve]
        listen = "[::1]:9812"
        cert_file = "/etc/serve.pem"
        key_file = "/etc/serve-key.pem"
        username = "prometheus"
        password_file = "serve-password"

        [metrics]
        extremes = false
        ina260_names = true

        [[mux]]
        name = "outer"
        chip = "tca9548a"
        bus = "board"
        address = 0x70

        [[mux]]
        name = "inner"
        chip = "pca9546a"
        mux = "outer"
        channel = 7
        address = 0x71

        [[device]]
        name = "cpu"
        chip = "ina260"
        mux = "inner"
        channel = 3
        bus = "board"
        address = 0x4f
        averaging = { count = 64, voltage = "1.1ms", current = 0.000140 }

        [[device]]
        name = "radio"
        chip = "ina3221"
        mux = "outer"
        channel = 0
        address = 0x41
        input = 2
        shunt_ohms = 1
        averaging = "auto"

        [[device]]
        name = "module"
        chip = "hwmon"
        sensor = "ina3221"
        label = "VDD_IN"
    """
    outer = Mux("outer", MUX_KINDS["tca9548a"], Place("board", None, None, 0x70))
    inner = Mux("inner", MUX_KINDS["pca9546a"], Place("board", outer, 7, 0x71))

    assert parse_text(text) == Settings(
        hostname="rack 1/node 17",
        devices=(
            Device(
                name="cpu",
                chip="ina260",
                place=Place(bus="board", mux=inner, channel=3, address=0x4F),
                averaging=Averaging(count=64, voltage_seconds=1.1e-3, current_seconds=140e-6),
            ),
            Device(
                name="radio",
                chip="ina3221",
                place=Place(bus="board", mux=outer, channel=0, address=0x41),
                input=2,
                shunt_ohms=1.0,
            ),
            Device(name="module", chip="hwmon", sensor="ina3221", label="VDD_IN"),
        ),
        muxes=(outer, inner),
        interval_seconds=60.0,
        sample_interval_seconds=0.25,
        max_gap_seconds=5400.0,
        state_dir=Path("/home/pi/state"),
        pushgateway=PushgatewaySettings(
            url="https://push.example.org:9091/prefix/",
            job="watts",
            group_by="node",
            timeout_seconds=2.5,
            username="node",
            password_file="password",
            ca_file="/etc/ca.pem",
            cert_file="/etc/cert.pem",
            key_file="/etc/key.pem",
            delete_on_exit=True,
        ),
        serve=ServeSettings(
            host="::1",
            port=9812,
            cert_file="/etc/serve.pem",
            key_file="/etc/serve-key.pem",
            username="prometheus",
            password_file="serve-password",
        ),
        metrics=MetricsSettings(extremes=False, ina260_names=True),
    )


def test_muxes_may_be_described_in_any_order(parse_text: Parse) -> None:
    inner = '[[mux]]\nname = "b"\nchip = "tca9548a"\nmux = "a"\nchannel = 1\naddress = 0x71\n'
    outer = '[[mux]]\nname = "a"\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n'

    settings = parse_text(GATEWAY + inner + outer + DEVICE)

    assert [mux.name for mux in settings.muxes] == ["b", "a"]
    assert settings.muxes[0].place.mux == settings.muxes[1]


@pytest.mark.parametrize(
    "devices",
    [
        pytest.param(
            '[[device]]\nname="a"\nchip="ina3221"\nbus=1\naddress=0x40\ninput=1\nshunt_ohms=0.1\n'
            '[[device]]\nname="b"\nchip="ina3221"\nbus=1\naddress=0x40\ninput=3\nshunt_ohms=0.05\n',
            id="one chip, two inputs with different shunts",
        ),
        pytest.param(
            '[[device]]\nname="a"\nchip="ina260"\nbus=1\naddress=0x40\n'
            '[[device]]\nname="b"\nchip="ina260"\nbus=2\naddress=0x40\n'
            '[[device]]\nname="c"\nchip="ina260"\nbus="board"\naddress=0x40\n',
            id="one address on three buses",
        ),
        pytest.param(
            '[[mux]]\nname="m0"\nchip="tca9548a"\nbus=1\naddress=0x70\n'
            '[[mux]]\nname="m1"\nchip="tca9548a"\nbus=1\naddress=0x71\n'
            '[[device]]\nname="a"\nchip="ina260"\nmux="m0"\nchannel=0\naddress=0x40\n'
            '[[device]]\nname="b"\nchip="ina260"\nmux="m0"\nchannel=1\naddress=0x40\n'
            '[[device]]\nname="c"\nchip="ina3221"\nmux="m1"\nchannel=0\naddress=0x40\ninput=1\nshunt_ohms=0.1\n'
            '[[device]]\nname="d"\nchip="ina260"\nbus=2\naddress=0x40\n',
            id="one address behind several channels and muxes",
        ),
        pytest.param(
            '[[mux]]\nname="m0"\nchip="tca9548a"\nbus=1\naddress=0x70\n'
            '[[mux]]\nname="m1"\nchip="tca9548a"\nmux="m0"\nchannel=0\naddress=0x71\n'
            '[[mux]]\nname="m2"\nchip="tca9548a"\nmux="m0"\nchannel=1\naddress=0x71\n'
            '[[device]]\nname="a"\nchip="ina260"\nmux="m1"\nchannel=0\naddress=0x40\n'
            '[[device]]\nname="b"\nchip="ina260"\nmux="m2"\nchannel=0\naddress=0x40\n',
            id="two identical branches that never meet",
        ),
        pytest.param(
            '[[device]]\nname="a"\nchip="hwmon"\nsensor="ina3221"\ninput=1\n'
            '[[device]]\nname="b"\nchip="hwmon"\nsensor="ina3221"\ninput=2\n'
            '[[device]]\nname="c"\nchip="hwmon"\nsensor="other"\ninput=2\n',
            id="several inputs of kernel-owned chips",
        ),
    ],
)
def test_a_working_topology_is_accepted(devices: str, parse_text: Parse) -> None:
    assert len(parse_text(GATEWAY + devices).devices) == devices.count("[[device]]")


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("15s", 15.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1.5s", 1.5),
        ("1h30m", 5400.0),
        ("7d", 604_800.0),
        ("1d12h", 129_600.0),
        ("140us", 140e-6),
        ("1.1ms", 1.1e-3),
        ("0s", 0.0),
        (3, 3.0),
        (0.25, 0.25),
        (0, 0.0),
    ],
)
def test_a_duration_has_a_unit_or_is_in_seconds(value: object, seconds: float) -> None:
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", "s", "5", "5 s", " 5s", "5S", "5w", "-1s", "+1s", "1e3s", ".5s", "5.s", "1s2", "9" * 400 + "s"),
        *(True, False, None, [], {}, -1, -0.5, math.nan, math.inf, 10**400),
    ],
)
def test_the_error_for_a_bad_duration_names_valid_ones(value: object) -> None:
    with pytest.raises(ValueError, match=r'^expected a duration such as "15s" or a number of seconds, not '):
        parse_duration(value)


@pytest.mark.parametrize("text", ["7d", "24h", "10m", "90s", "1.5s", "1s", "100ms", "2.116ms", "140us", "0s"])
def test_a_message_spells_a_duration_as_the_file_does(text: str) -> None:
    assert spell_duration(parse_duration(text)) == text


@pytest.mark.parametrize(
    ("listen", "host", "port"),
    [
        ("127.0.0.1:9812", "127.0.0.1", 9812),
        ("[::1]:9812", "::1", 9812),
        (":9812", "", 9812),
        ("localhost:0", "localhost", 0),
    ],
)
def test_a_file_may_only_serve_scrapes(listen: str, host: str, port: int, parse_text: Parse) -> None:
    settings = parse_text(f'[serve]\nlisten = "{listen}"\n{DEVICE}')

    assert settings.serve == ServeSettings(host, port)
    assert settings.pushgateway is None


@pytest.mark.parametrize(
    ("listen", "keys", "times"),
    [
        (":9812", "", 1),
        ("0.0.0.0:9812", "", 1),
        ("[::]:9812", "", 1),
        ("node-17:9812", "", 1),
        ("192.0.2.1:9812", 'cert_file = ""\nkey_file = ""', 1),
        ("0.0.0.0:9812", 'cert_file = "c"\nkey_file = "k"', 0),
        ("127.0.0.1:9812", "", 0),
        ("127.1.2.3:9812", "", 0),
        ("[::1]:9812", "", 0),
        ("localhost:9812", "", 0),
    ],
)
def test_a_password_that_crosses_the_network_in_clear_is_warned_about(
    listen: str, keys: str, times: int, parse_text: Parse
) -> None:
    user = 'username = "node"\npassword_file = "p"'
    settings = parse_text(f'[serve]\nlisten = "{listen}"\n{user}\n{keys}\n{DEVICE}')
    assert [warning.partition("; ")[0] for warning in settings.warnings] == [
        "serve: username: without TLS, whoever sees the traffic sees the password"
    ] * times
    assert parse_text(f'[serve]\nlisten = "{listen}"\n{DEVICE}').warnings == ()


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway",
        "http://gateway:9091/",
        "https://push.example.org/a/b",
        "http://10.0.0.1:80",
        "http://[fd00::1]:9091",
        "http://push_gateway:9091",
    ],
)
def test_a_url_is_kept_as_written(url: str, parse_text: Parse) -> None:
    pushgateway = parse_text(f'[pushgateway]\nurl = "{url}"\n{DEVICE}').pushgateway

    assert pushgateway is not None
    assert pushgateway.url == url


@pytest.mark.parametrize(
    "hostname", ["raspberrypi", "RaspberryPi.local", "localhost", "jetson", "ubuntu", "debian.lan"]
)
def test_a_hostname_shared_by_many_machines_is_warned_about(hostname: str, chips: Chips) -> None:
    text = GATEWAY + DEVICE

    assert parse(text, chips, default_hostname=hostname, environ={"HOME": "/"}).warnings == (
        (
            f'hostname: "{hostname}", this machine\'s own name, is shared by many machines, and two machines with one '
            'name overwrite each other at the gateway; write hostname = "..."'
        ),
    )
    for chosen in (hostname, "node-17"):
        named = f'hostname = "{chosen}"\n{text}'
        assert parse(named, chips, default_hostname=hostname, environ={"HOME": "/"}).warnings == ()


@pytest.mark.parametrize("hostname", ["", ".", "a\nb"])
def test_a_machine_with_an_unusable_name_needs_a_hostname(hostname: str, chips: Chips) -> None:
    with pytest.raises(ConfigError, match=r"^hostname: missing, and this machine's own name cannot be used: "):
        parse(GATEWAY + DEVICE, chips, default_hostname=hostname, environ={"HOME": "/"})


def test_a_shunt_that_looks_like_milliohms_is_warned_about(parse_text: Parse) -> None:
    device = '[[device]]\nname = "a"\nchip = "ina3221"\nbus = 1\naddress = 0x40\ninput = 1\nshunt_ohms = '

    for ohms, milliohms in (("100", "0.1"), ("5", "0.005")):
        (line,) = parse_text(f"{GATEWAY}{device}{ohms}\n").warnings
        assert line.startswith(f'device[1] "a": shunt_ohms: {ohms} ohms is a lot for a shunt; ')
        assert line.endswith(f"if it is {ohms} milliohms, write shunt_ohms = {milliohms}")
    for ohms, microohms in (("1000", "0.001"), ("2000", "0.002"), ("100000", "0.1")):
        (line,) = parse_text(f"{GATEWAY}{device}{ohms}\n").warnings
        assert line.endswith(f"if it is {ohms} microohms, write shunt_ohms = {microohms}")
    assert parse_text(f"{GATEWAY}{device}1\n").warnings == ()


@pytest.mark.parametrize(
    ("chip", "address", "warning"),
    [
        ("pca9540b", 0x71, "0x71, but a PCA9540B answers only at 0x70; is it another kind?"),
        ("pca9543a", 0x74, "0x74, but a PCA9543A answers only at 0x70 to 0x73; is it another kind?"),
        ("tca9545a", 0x77, "0x77, but a TCA9545A answers only at 0x70 to 0x73; is it another kind?"),
        ("pca9540b", 0x70, None),
        ("tca9545a", 0x73, None),
        ("pca9544a", 0x77, None),
    ],
)
def test_an_address_that_a_kind_of_mux_cannot_have_is_a_warning(
    chip: str, address: int, warning: str | None, parse_text: Parse
) -> None:
    table = f'[[mux]]\nname = "m0"\nchip = "{chip}"\nbus = 1\naddress = {address}\n'
    device = '[[device]]\nname = "a"\nchip = "ina260"\nmux = "m0"\nchannel = 1\naddress = 0x40\n'
    found = parse_text(f"{GATEWAY}{table}{device}").warnings
    assert found == (() if warning is None else (f'mux[1] "m0": address: {warning}',))


@pytest.mark.parametrize("name", mux_names())
def test_every_name_of_a_mux_kind_is_accepted_and_its_channels_checked(name: str, parse_text: Parse) -> None:
    kind = mux_kind(name)
    assert kind is not None
    table = f'[[mux]]\nname = "m0"\nchip = "{name}"\nbus = 1\naddress = 0x70\n'
    device = '[[device]]\nname = "a"\nchip = "ina260"\nmux = "m0"\naddress = 0x40\nchannel = '
    (mux,) = parse_text(f"{GATEWAY}{table}{device}{kind.channels - 1}\n").muxes
    assert mux.kind is kind
    if kind.channels < 8:
        with pytest.raises(ConfigError) as caught:
            parse_text(f"{GATEWAY}{table}{device}{kind.channels}\n")
        assert str(caught.value).endswith(f'{kind.channels} is not in 0..{kind.channels - 1}: mux "m0" is a {name}')


@pytest.mark.parametrize(
    ("line", "environ", "state_dir"),
    [
        ('state_dir = "/srv"', {"STATE_DIRECTORY": "/var/lib/wattpush"}, "/srv"),
        ('state_dir = "here"', {}, "here"),
        ('state_dir = "~"', {"HOME": "/home/pi"}, "/home/pi"),
        ("", {"STATE_DIRECTORY": "/var/lib/wattpush", "XDG_STATE_HOME": "/x"}, "/var/lib/wattpush"),
        ('state_dir = ""', {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ("", {"STATE_DIRECTORY": "", "XDG_STATE_HOME": "/x", "HOME": "/home/pi"}, "/x/wattpush"),
        ("", {"XDG_STATE_HOME": "relative", "HOME": "/home/pi"}, "/home/pi/.local/state/wattpush"),
        ("", {"XDG_STATE_HOME": "", "HOME": "/home/pi"}, "/home/pi/.local/state/wattpush"),
    ],
)
def test_state_dir_is_from_the_file_or_systemd_or_xdg(
    line: str, environ: dict[str, str], state_dir: str, chips: Chips
) -> None:
    text = f"{line}\n{GATEWAY}{DEVICE}"

    assert parse(text, chips, default_hostname="x", environ=environ).state_dir == Path(state_dir)


@pytest.mark.parametrize(
    ("argument", "environ", "path"),
    [
        ("a.toml", {"WATTPUSH_CONFIG": "b.toml"}, "a.toml"),
        (None, {"WATTPUSH_CONFIG": "b.toml"}, "b.toml"),
        (None, {"WATTPUSH_CONFIG": ""}, "/etc/wattpush/config.toml"),
        (None, {}, "/etc/wattpush/config.toml"),
    ],
)
def test_the_command_line_names_the_file_before_the_environment(
    argument: str | None, environ: dict[str, str], path: str
) -> None:
    assert find_file(argument, environ) == Path(path)


def load_from(path: Path, chips: Chips) -> Settings:
    return load(path, chips, default_hostname="pi-4", environ={"HOME": "/home/pi"})


@pytest.mark.parametrize("beginning", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"], ids=["unix", "windows"])
def test_a_file_is_read_whatever_editor_wrote_it(
    beginning: bytes, line_end: bytes, tmp_path: Path, chips: Chips, parse_text: Parse
) -> None:
    text = f'hostname = "Küche"\n{GATEWAY}{DEVICE}'
    path = tmp_path / "config.toml"
    path.write_bytes(beginning + text.encode().replace(b"\n", line_end))

    assert load_from(path, chips) == parse_text(text)


def test_the_error_for_a_missing_file_names_the_ways_out(tmp_path: Path, chips: Chips) -> None:
    path = tmp_path / "config.toml"

    with pytest.raises(ConfigError) as caught:
        load_from(path, chips)

    (problem,) = caught.value.problems
    assert problem.startswith("no such file; ")
    for way in ("wattpush init", "wattpush scan --toml", "wattpush config", "wattpush --simulate"):
        assert way in problem
    assert len(problem) <= 220
    assert caught.value.exit_code == ExitCode.CONFIG


def test_the_error_for_a_folder_asks_for_a_file(tmp_path: Path, chips: Chips) -> None:
    with pytest.raises(ConfigError) as caught:
        load_from(tmp_path, chips)

    assert caught.value.problems == (f"is a folder; name the file in it, such as {tmp_path}/config.toml",)


def test_a_named_pipe_is_refused_at_once(tmp_path: Path, chips: Chips) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "config.toml").symlink_to("pipe")

    for path in (tmp_path / "pipe", tmp_path / "config.toml"):
        with pytest.raises(ConfigError) as caught:
            load_from(path, chips)
        assert caught.value.problems == ("is a named pipe, which wattpush would wait on forever; name a regular file",)


def test_a_pipe_from_the_shell_is_read(tmp_path: Path) -> None:
    """`--config <(...)`, and `--config /dev/stdin` behind a pipe."""
    (tmp_path / "config.toml").write_text(GATEWAY + DEVICE)
    for config in ('<(cat "$1")', '/dev/stdin < <(cat "$1")', '/dev/stdin < "$1"'):
        checked = subprocess.run(
            ["bash", "-c", f'"$0" -m agent check --config {config}', sys.executable, str(tmp_path / "config.toml")],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (checked.returncode, checked.stderr) == (0, "")


def test_a_path_through_a_file_is_a_configuration_error(tmp_path: Path, chips: Chips) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"^cannot be read: Not a directory$"):
        load_from(tmp_path / "file" / "config.toml", chips)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b"\xff", "line 1, column 1: byte 0xff"),
        (b"\n# two\n# \xe4", "line 3, column 3: byte 0xe4"),
        ("# ä\nhostname = ".encode() + b'"K\xfcche"\n', "line 2, column 14: byte 0xfc"),
        ("# a whole ä, then half of one: ä".encode()[:-1], "line 1, column 32: byte 0xc3"),
    ],
)
def test_an_encoding_error_names_its_position_and_a_fix(
    content: bytes, place: str, tmp_path: Path, chips: Chips
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_from(path, chips)

    assert caught.value.problems == (f"{place} is not UTF-8; save the file as UTF-8",)


NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
NOBODY = pwd.getpwuid(65534).pw_name
NO_GROUP = grp.getgrgid(65534).gr_name


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Be the user and in the group of the number 65534, and in no other group."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@NEEDS_ROOT
@pytest.mark.parametrize(
    ("folder_mode", "file_mode", "group", "who", "cure"),
    [
        (0o750, 0o644, "adm", "only root and the group adm may enter {0}", f"sudo usermod -aG adm {NOBODY}, then"),
        (0o755, 0o640, "adm", "only root and the group adm may read {1}", f"sudo usermod -aG adm {NOBODY}, then"),
        (0o700, 0o644, "adm", "only root may enter {0}", f"sudo chgrp {NO_GROUP} {{0}} && sudo chmod 750 {{0}}"),
        (0o755, 0o600, "root", "only root may read {1}", f"sudo chgrp {NO_GROUP} {{1}} && sudo chmod 640 {{1}}"),
        (0o755, 0o640, "root", "only root may read {1}", f"sudo chgrp {NO_GROUP} {{1}} && sudo chmod 640 {{1}}"),
    ],
)
def test_a_denied_file_names_what_blocks_and_a_cure_that_works(  # noqa: PLR0917 - a row of the table
    chips: Chips, folder_mode: int, file_mode: int, group: str, who: str, cure: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:  # pytest's own folders let no other user in
        Path(name).chmod(0o755)
        folder = Path(name) / "wattpush"
        folder.mkdir()
        path = folder / "config.toml"
        path.write_text(GATEWAY + DEVICE)
        for place, mode in ((path, file_mode), (folder, folder_mode)):
            place.chmod(mode)
            os.chown(place, 0, grp.getgrnam(group).gr_gid)
        with as_nobody(), pytest.raises(PermissionDeniedError) as caught:
            load_from(path, chips)
        expected = f"{path}: permission denied: {who}; {cure}".format(folder, path)
        assert str(caught.value).startswith(expected)
        assert caught.value.exit_code == ExitCode.NOPERM


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a = " + "[" * 100_000, id="deeply nested"),
        pytest.param("a = " + "9" * 100_000, id="more digits than Python reads"),
        pytest.param("interval = 0x" + "f" * 100_000, id="more digits than Python prints"),
        pytest.param("[" + "a." * 20_000 + "a]", id="a name with many parts"),
        pytest.param("\x00", id="a null byte"),
    ],
)
def test_a_file_that_strains_the_parser_is_refused_briefly(text: str, parse_text: Parse) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_text(text)

    assert all(len(problem) < 1000 for problem in caught.value.problems)


def test_reading_the_configuration_imports_nothing_heavy() -> None:
    program = "import sys, agent.config; print(' '.join(sys.modules))"

    modules = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()

    assert "agent.config" in modules
    assert not {"board", "busio", "prometheus_client", "tenacity", "urllib3", "asyncio", "difflib"} & set(modules)


def test_every_key_of_remote_write_arrives_in_the_settings(parse_text: Parse) -> None:
    lines = """
        [remote_write]
        url = "https://mimir.example.org/api/v1/push"
        timeout = "9s"
        username = "node"
        password_file = "/run/password"
        ca_file = "/etc/ca.pem"
        cert_file = "/etc/cert.pem"
        key_file = "/etc/key.pem"
        headers = { X-Scope-OrgID = "a|b", X-B = "${HOME}" }
        job = "lab"
        resolution = "sample"
        max_backlog = "1.5 GiB"
        max_age = "30h"
        catch_up = 7.5
        clock = "system"
    """

    assert parse_text(lines + DEVICE).remote_write == RemoteWriteSettings(
        url="https://mimir.example.org/api/v1/push",
        timeout_seconds=9.0,
        username="node",
        password_file="/run/password",
        ca_file="/etc/ca.pem",
        cert_file="/etc/cert.pem",
        key_file="/etc/key.pem",
        headers=(("X-Scope-OrgID", "a|b"), ("X-B", "/home/pi")),
        job="lab",
        resolution="sample",
        max_backlog_bytes=3 * 2**29,
        max_age_seconds=108_000.0,
        catch_up=7.5,
        clock="system",
    )


def test_a_file_may_only_keep_history(parse_text: Parse) -> None:
    settings = parse_text(f'[remote_write]\nurl = "http://vm:8428/api/v1/write"\n{DEVICE}')

    assert settings.remote_write == RemoteWriteSettings(url="http://vm:8428/api/v1/write")
    assert (settings.pushgateway, settings.serve) == (None, None)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("100kB", 100_000), ("64MB", 64_000_000), ("1.5GB", 1_500_000_000), ("64 MiB", 2**26), ("0.5TiB", 2**39)],
)
def test_a_size_has_a_unit(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes
    assert parse_size(spell_size(size_bytes)) == size_bytes
