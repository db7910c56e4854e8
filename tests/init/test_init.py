"""`wattpush init` from an empty folder to a file that works, on a real terminal and an emulated bus."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from agent import chips
from agent.config import parse
from agent.simulate.rails import ConstantRail
from tests.bench import ina260, mux, with_shunt
from tests.init.dialogue import COLUMNS, Dialogue, dialogue
from tests.nginx_server import nginx_command, running_nginx
from tests.run.running import LONG_SECONDS, PROJECT, groups_of
from tests.scan.machine import Machine
from tests.servers import Client, Server, answering, free_port, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.settings import Settings

NODE = (
    mux("m0", 0x70)
    + ina260("m0-ch0-0x40", 'mux = "m0", channel = 0', more="")
    + ina260("m0-ch3-0x40", 'mux = "m0", channel = 3', more="")
    + with_shunt("ina226", "i2c1-0x45", "bus = 1", 0x45, more="")
)
DEVICES = (
    ("name [i2c1-0x45]: ", "cpu"),
    ("shunt: ", "R050"),
    ("another shunt [0.05]: ", ""),
    ("name [m0-ch0-0x40]: ", "radio"),
    ("name [m0-ch3-0x40]: ", "skip"),
)
GATEWAY = "Pushgateway [http://127.0.0.1:9091]: "
RETRY = '"-" for none: '


@pytest.fixture(autouse=True)
def own_hostname(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run on a machine with a name that many share."""
    monkeypatch.setenv("WATTPUSH_TEST_HOSTNAME", "bench")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "machine"
    folder.mkdir()
    machine = Machine(folder, NODE)
    yield machine
    machine.server.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def gateway_url() -> Iterator[str]:
    with running_pushgateway() as url:
        yield url


def answer_devices(person: Dialogue) -> None:
    for prompt, answer in DEVICES:
        person.answer(prompt, answer)


def read(file: Path) -> Settings:
    return parse(file.read_text(), chips.options(), default_hostname="bench", environ={"HOME": "/nowhere"})


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_the_answers_become_a_file_that_check_and_run_take(
    machine: Machine, folder: Path, gateway_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(folder.parent / "state"))
    file = folder / "config.toml"
    with dialogue(machine.command("init", "--config", str(file))) as person:
        answer_devices(person)
        person.answer(GATEWAY, gateway_url.removeprefix("http://"))
        shown = person.answer(f"Write {file}? [Y/n]: ", "")
        assert person.end() == 0, person.text
    assert f'[pushgateway] url = "{gateway_url}"' in shown
    assert [line for line in person.lines() if len(line) > COLUMNS and str(folder) not in line] == []
    assert person.lines()[-4:-1] == [
        "Next:",
        f"    wattpush watch --config {file}",
        f"    wattpush --once --dry-run --config {file}",
    ]
    assert f"ok {file}: 2 devices, 1 mux" in " ".join(person.text.split())
    assert machine.all_muxes_are_closed()
    assert [path.name for path in folder.iterdir()] == ["config.toml"]
    assert mode(file) == 0o600

    settings = read(file)
    assert [(device.name, device.chip, device.shunt_ohms) for device in settings.devices] == [
        ("cpu", "ina226", 0.05),
        ("radio", "ina260", None),
    ]
    checked = machine.run("check", "--hardware", "--gateway", "--config", str(file))
    assert checked.returncode == 0, checked
    once = machine.run("--once", "--config", str(file))
    assert once.returncode == 0, once
    groups = groups_of(gateway_url, "power")
    assert set(groups) == {"", "cpu", "radio"}
    for name, found, factor in (("cpu", "i2c1-0x45", 2), ("radio", "m0-ch0-0x40", 1)):
        rail = machine.rails[found]
        assert isinstance(rail, ConstantRail)
        assert groups[name]["wattpush_device_amperes"] == pytest.approx(factor * rail.amperes, abs=1e-3)


def test_each_shunt_shows_the_reading_that_follows(machine: Machine, folder: Path) -> None:
    rail = machine.rails["i2c1-0x45"]
    assert isinstance(rail, ConstantRail)
    with dialogue(machine.command("init", "--config", str(folder / "config.toml"))) as person:
        person.answer("name [i2c1-0x45]: ", "")
        person.answer("shunt: ", "")
        assert "amperes need a shunt" in person.answer("shunt: ", "100")
        shown = person.answer("another shunt [100]: ", "10 mOhm")
        assert f"With 100 ohm it reads {rail.volts:.3f} V, {rail.amperes / 1000:.4f} A" in shown
        assert "100m" in shown
        shown = person.answer("another shunt [0.01]: ", "a lot")
        assert f"With 0.01 ohm it reads {rail.volts:.3f} V, {rail.amperes * 10:.4f} A" in shown
        assert '"a lot" is not a resistance' in person.expect("another shunt [0.01]: ")


def test_names_are_those_that_the_configuration_takes(machine: Machine, folder: Path) -> None:
    file = folder / "config.toml"
    with dialogue(machine.command("init", "--config", str(file))) as person:
        person.answer("name [i2c1-0x45]: ", "-")
        person.answer("name [m0-ch0-0x40]: ", "  cpu 1 ")
        person.answer("name [m0-ch3-0x40]: ", "cpu 1")
        assert "name of another device" in person.answer("name [m0-ch3-0x40]: ", "..")
        assert "folder" in person.answer("name [m0-ch3-0x40]: ", "x" * 201)
        assert "longer than 200" in person.answer("name [m0-ch3-0x40]: ", "${HOME}")
        person.answer(GATEWAY, "-")
        person.answer("? [Y/n]: ", "perhaps")
        person.answer("? [Y/n]: ", "yes")
        assert person.end() == 0, person.text
    settings = read(file)
    assert [device.name for device in settings.devices] == ["cpu 1", "${HOME}"]
    assert settings.pushgateway is None
    assert settings.serve is not None


def test_leaving_out_everything_asks_once_more(machine: Machine, folder: Path) -> None:
    with dialogue(machine.command("init", "--config", str(folder / "config.toml"))) as person:
        for name in ("i2c1-0x45", "m0-ch0-0x40", "m0-ch3-0x40"):
            person.answer(f"name [{name}]: ", "skip")
        assert "needs a device" in person.answer("name [i2c1-0x45]: ", "-")
        person.answer("name [m0-ch0-0x40]: ", "cpu")
        person.answer("name [m0-ch3-0x40]: ", "-")
        person.expect(GATEWAY)


def with_login(folder: Path, gateway_url: str, port: int) -> Path:
    """The sites of an nginx that asks for `node` and `secret word` before a Pushgateway."""
    sites = folder / "sites"
    sites.mkdir(parents=True)
    digest = subprocess.run(
        ["openssl", "passwd", "-apr1", "-stdin"], input=b"secret word", capture_output=True, check=True
    ).stdout
    (sites / "htpasswd").write_bytes(b"node:" + digest)
    (sites / "site.conf").write_text(
        f"server {{ listen 127.0.0.1:{port}; auth_basic wattpush; auth_basic_user_file {sites}/htpasswd;\n"
        f"location / {{ proxy_pass {gateway_url}; }} }}\n"
    )
    return sites


def test_a_wrong_password_is_asked_for_again(machine: Machine, folder: Path, tmp_path: Path, gateway_url: str) -> None:
    file, port = folder / "config.toml", free_port()
    sites = with_login(tmp_path / "nginx", gateway_url, port)
    with running_nginx(nginx_command(tmp_path / "nginx" / "run", sites), port):
        with dialogue(machine.command("init", "--config", str(file))) as person:
            answer_devices(person)
            person.answer(GATEWAY, f"127.0.0.1:{port}")
            person.answer("user name: ", "no:colon")
            assert 'no ":"' in person.answer("user name: ", "node")
            person.answer("password (not shown): ", "wrong guess")
            shown = person.answer('"keep", or "-": ', "")
            assert "401" in shown
            person.answer("user name [node]: ", "")
            person.answer("password (not shown): ", "")
            assert "empty" in person.answer("password (not shown): ", "secret word")
            shown = person.answer("? [Y/n]: ", "")
            assert person.end() == 0, person.text
        assert "push: PUT of the group" in shown
        assert f'username = "node" password_file = "{folder}/password"' in shown
        assert "secret" not in person.text
        assert "wrong guess" not in person.text
        assert (folder / "password").read_text() == "secret word\n"
        assert {path.name: mode(path) for path in folder.iterdir()} == {"config.toml": 0o600, "password": 0o600}
        checked = machine.run("check", "--gateway", "--config", str(file))
        assert checked.returncode == 0, checked


def test_a_gateway_that_is_down_can_be_kept_or_changed(machine: Machine, folder: Path, gateway_url: str) -> None:
    file = folder / "config.toml"
    closed = f"http://127.0.0.1:{free_port()}"
    with dialogue(machine.command("init", "--config", str(file))) as person:
        answer_devices(person)
        person.answer(GATEWAY, "ftp://example.org")
        assert "does not begin with http" in person.answer(GATEWAY, closed)
        assert "failed" in person.answer(RETRY, "")
        assert "failed" in person.answer(RETRY, f"{gateway_url}/metrics/job/power")
        assert "leave out" in person.answer(RETRY, "node:secret@example.org")
        assert "without user and password" in person.answer(RETRY, "keep")
        person.answer("? [Y/n]: ", "")
        assert person.end() == 0, person.text
    settings = read(file)
    assert settings.pushgateway is not None
    assert settings.pushgateway.url == closed


# What stops it.

UNAUTHORIZED = answering("401 Unauthorized", b"", 'WWW-Authenticate: Basic realm="wattpush"')
EVERY_PROMPT = [
    *DEVICES,
    (GATEWAY, ""),
    ("user name: ", "node"),
    ("password (not shown): ", "secret"),
    ('"keep", or "-": ', "keep"),
    ("? [Y/n]: ", ""),
]
STOPS = {"Ctrl-C": 130, "Ctrl-D": 130, "SIGTERM": 143, "closed window": None}


PASSWORD = [prompt for prompt, _ in EVERY_PROMPT].index("password (not shown): ")


@pytest.mark.parametrize(
    ("position", "stop"),
    [
        *((position, "Ctrl-C") for position in range(len(EVERY_PROMPT))),
        *((position, stop) for stop in STOPS if stop != "Ctrl-C" for position in (0, PASSWORD, len(EVERY_PROMPT) - 1)),
    ],
)
def test_a_stop_at_any_prompt_leaves_nothing(machine: Machine, folder: Path, position: int, stop: str) -> None:
    with (
        Server(UNAUTHORIZED) as server,
        dialogue(machine.command("init", "--config", f"{folder}/config.toml")) as person,
    ):
        for prompt, answer in EVERY_PROMPT[:position]:
            person.answer(prompt, server.url if prompt == GATEWAY else answer)
        prompt = EVERY_PROMPT[position][0]
        person.expect(prompt)
        assert person.echoes != prompt.startswith("password")
        if stop == "closed window":
            person.hang_up()
            assert person.end() in (0, 128 + signal.SIGHUP, 130)
        else:
            if stop == "SIGTERM":
                person.process.terminate()
            else:
                person.press({"Ctrl-C": "\x03", "Ctrl-D": "\x04"}[stop])
            assert person.end() == STOPS[stop]
            assert person.echoes
            assert person.lines()[-2:] == ["wattpush: nothing was written", ""]
    assert list(folder.iterdir()) == []
    assert machine.all_muxes_are_closed()


def test_a_stop_during_the_scan_closes_every_channel(machine: Machine, folder: Path) -> None:
    in_the_middle, go_on = threading.Event(), threading.Event()
    transfer = machine.wire.transfer

    def stop_there(messages: object) -> None:
        transfer(messages)  # type: ignore[arg-type]  # whatever the program sends
        if machine.world.muxes["m0"].open_channels:
            in_the_middle.set()
            go_on.wait(LONG_SECONDS)

    machine.wire.transfer = stop_there
    with dialogue(machine.command("init", "--config", f"{folder}/config.toml")) as person:
        assert in_the_middle.wait(LONG_SECONDS)
        person.press("\x03")
        go_on.set()
        assert person.end() == 130
        assert person.lines()[-2:] == ["wattpush: nothing was written", ""]
    assert machine.all_muxes_are_closed()
    assert list(folder.iterdir()) == []


def test_a_stop_during_the_gateways_test_deletes_the_test_group(machine: Machine, folder: Path) -> None:
    pushed = threading.Event()

    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            if request.target == "/metrics":
                pushed.set()
                client.hang()
            client.answer("202 Accepted" if request.method == "DELETE" else "200 OK")

    with Server(behave) as server, dialogue(machine.command("init", "--config", f"{folder}/config.toml")) as person:
        answer_devices(person)
        person.answer(GATEWAY, server.url)
        assert pushed.wait(LONG_SECONDS)
        person.press("\x03")
        assert person.end() == 130
        (put,) = (request.target for request in server.requests if request.method == "PUT")
        assert [request.target for request in server.requests if request.method == "DELETE"] == [put]
    assert list(folder.iterdir()) == []


def test_no_to_the_last_question_writes_nothing(machine: Machine, folder: Path) -> None:
    with dialogue(machine.command("init", "--config", f"{folder}/config.toml")) as person:
        answer_devices(person)
        person.answer(GATEWAY, "-")
        person.answer("? [Y/n]: ", "n")
        assert person.end() == 0
    assert "Nothing was written." in person.lines()
    assert list(folder.iterdir()) == []


def test_an_existing_file_is_replaced_only_on_request(machine: Machine, folder: Path) -> None:
    file = folder / "config.toml"
    file.write_text("old")
    with dialogue(machine.command("init", "--config", str(file))) as person:
        person.answer("keep it as config.toml.bak? [y/N]: ", "")
        assert person.end() == 0
    assert "Nothing was written." in person.lines()
    (folder / "config.toml.bak").write_text("older")
    with dialogue(machine.command("init", "--config", str(file))) as person:
        person.answer("keep it as config.toml.bak1? [y/N]: ", "y")
        answer_devices(person)
        person.answer(GATEWAY, "-")
        person.answer("? [Y/n]: ", "")
        assert person.end() == 0
    assert (folder / "config.toml.bak").read_text() == "older"
    assert (folder / "config.toml.bak1").read_text() == "old"
    assert len(read(file).devices) == 2


def test_nothing_found_says_what_to_do(machine: Machine, folder: Path) -> None:
    machine.world.muxes["m0"].unplug()
    machine.world.chips["i2c1-0x45"].unplug()
    with dialogue(machine.command("init", "--config", f"{folder}/config.toml")) as person:
        assert person.end() == 74, person.text
    assert "Nothing was found that wattpush reads." in person.text
    assert list(folder.iterdir()) == []


def test_a_name_that_many_machines_have_is_asked_for(
    machine: Machine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTPUSH_TEST_HOSTNAME", "raspberrypi")
    with dialogue(machine.command("init", "--config", f"{folder}/config.toml")) as person:
        answer_devices(person)
        person.answer("its name at the gateway", "Raspberrypi")
        assert "many machines" in person.answer("its name at the gateway", "node-17")
        person.answer(GATEWAY, "-")
        person.answer("? [Y/n]: ", "")
        assert person.end() == 0, person.text
    assert read(folder / "config.toml").hostname == "node-17"


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_without_a_terminal_it_says_what_to_use(stream: str) -> None:
    ours, theirs = os.openpty()
    stdin, stdout = (subprocess.DEVNULL if stream == name else theirs for name in ("stdin", "stdout"))
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "init"],
        cwd=PROJECT,
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == 64
    assert "wattpush scan --toml > FILE" in ended.stderr


def test_simulate_writes_only_a_file_that_is_named(machine: Machine, folder: Path) -> None:
    file = folder / "practice.toml"
    for arguments in ((), ("--config", str(file))):
        with dialogue(machine.command("init", "--simulate", *arguments)) as person:
            for name in ("m0-ch0-0x40", "m0-ch1-0x40", "skip"):
                person.answer(f"name [{name}]: ", "")
            person.answer("name [m0-ch2-0x41-in2]: ", "radio")
            person.answer("shunt: ", "0,05")
            person.answer("another shunt [0.05]: ", "")
            person.answer("name [skip]: ", "")
            person.answer(GATEWAY, "-")
            if arguments:
                person.answer(f"Write {file}? [Y/n]: ", "")
            assert person.end() == 0, person.text
    assert file.read_text().startswith("# SIMULATED")
    assert len(read(file).devices) == 3
