"""The command `wattpush check`: its lines, exit codes and terminal output."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from agent import cli
from tests.run.running import groups_of, on_a_terminal, run, write_config
from tests.servers import Server, answering, free_port

if TYPE_CHECKING:
    from pathlib import Path

HWMON = '[[device]]\nname = "module"\nchip = "hwmon"\nsensor = "no such chip"\ninput = 1\n'


def lines(output: str) -> list[tuple[str, str]]:
    """The status and subject of each line."""
    split = [line.split(maxsplit=1) for line in output.splitlines()]
    return [(status, rest.partition(": ")[0]) for status, rest in split]


def test_check_covers_node_and_gateway_and_leaves_nothing_behind(tmp_path: Path, pushgateway_url: str) -> None:
    config = write_config(tmp_path, pushgateway_url, "check command", devices=["cpu", "disk"])
    ended = run("check", "--config", config, "--simulate", "--hardware", "--gateway")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert lines(ended.stdout) == [
        ("ok", str(config)),
        ("note", "hardware"),
        *(("ok", what) for what in ("bus", "mux m0", "cpu", "disk")),
        *(("ok", what) for what in ("name", "connection", "version", "clock", "push", "delete")),
        ("note", "scrape"),
    ]
    assert "SIMULATED from the configuration: no chip and no number below is real" in ended.stdout
    assert groups_of(pushgateway_url, "check command") == {}
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.toml"]


def test_check_covers_sensors_of_the_kernel(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", more=HWMON)
    ended = run("check", "--config", config, "--simulate", "--hardware")
    assert ended.returncode == 0
    assert ("ok", "module") in lines(ended.stdout)
    assert "curr1_input" in ended.stdout


@pytest.mark.parametrize(
    ("status", "code"), [("400 Bad Request", 76), ("503 Service Unavailable", 69), ("200 OK", 74), (None, 69)]
)
def test_all_failures_are_printed_and_the_worst_is_the_exit_code(
    tmp_path: Path, status: str | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    # No such bus on this machine, and no such sensor: 74.
    with Server(answering(status or "200 OK")) as server:
        url = server.url if status else f"http://127.0.0.1:{free_port()}"
        # A push that keeps failing takes all of the timeout.
        config = write_config(tmp_path, url, push=f'timeout = "{"3s" if code == 69 else "1m"}"')
        config.write_text(config.read_text().replace("bus = 1", "bus = 987") + HWMON)
        assert cli.main(["check", "--config", str(config), "--hardware", "--gateway"]) == code
    found = lines(capsys.readouterr().out)
    assert {("failed", "bus"), ("failed", "module"), ("note", "scrape")} <= set(found)
    assert (("failed", "push" if status else "gateway") in found) == (status != "200 OK")


def test_a_configuration_warning_is_not_a_failure(tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        "http://127.0.0.1:9",
        more='[[device]]\nname = "radio"\nchip = "ina3221"\nbus = 1\naddress = 0x41\ninput = 1\nshunt_ohms = 100\n',
    )
    ended = run("check", "--config", config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert lines(ended.stdout) == [("ok", str(config)), ("warning", "configuration")]
    assert "if it is 100 milliohms, write shunt_ohms = 0.1" in ended.stdout


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/etc/passwd", "/etc/passwd is not a folder"),
        ("/etc/passwd/a/b", "/etc/passwd/a/b: /etc/passwd is not a folder"),
        ("/dev/null", "/dev/null is not a folder"),
        ("{tmp}/new/folder", None),
        ("{tmp}", None),
    ],
)
def test_check_names_a_state_dir_that_is_no_folder(tmp_path: Path, path: str, problem: str | None) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    state_dir = path.replace("{tmp}", str(tmp_path))
    config.write_text(re.sub("(?m)^state_dir.*$", "", config.read_text()))
    config.write_text(f'state_dir = "{state_dir}"\n{config.read_text()}')
    ended = run("check", "--config", config)
    first, *others = ended.stdout.splitlines()
    assert first.startswith(f"ok       {config}")
    if problem is None:
        others = [line for line in others if "after a reboot" not in line]  # where tests run on a tmpfs
        assert (ended.returncode, others) == (0, [])
    else:
        hint = "name a folder, or a path where one can be created"
        assert (ended.returncode, others) == (78, [f"failed   state_dir: {problem}; {hint}"])
    assert not (tmp_path / "new").exists()


def test_check_gateway_needs_a_configured_gateway(tmp_path: Path) -> None:
    config = write_config(tmp_path, None, more='[serve]\nlisten = "127.0.0.1:9812"\n')
    ended = run("check", "--config", config, "--gateway")
    assert (ended.returncode, ended.stdout) == (64, "")
    assert "no [pushgateway] url" in ended.stderr


def test_check_warns_of_files_that_a_push_cannot_read(tmp_path: Path) -> None:
    password, authority = tmp_path / "password", tmp_path / "ca.pem"
    push = f'username = "node"\npassword_file = "{password}"\nca_file = "{authority}"'
    config = write_config(tmp_path, "https://gateway.invalid", push=push)
    ended = run("check", "--config", config)
    assert ended.returncode == 0, "the service may be able to read them"
    _, credentials, tls = ended.stdout.splitlines()
    assert credentials.startswith(
        f"warning  credentials: pushgateway.password_file: cannot read {password}: No such file"
    )
    assert tls.startswith(f"warning  TLS: pushgateway.ca_file: cannot read {authority}: No such file")
    password.write_text("secret")
    password.chmod(0o600)
    authority.write_text("nothing of the kind")
    _, tls = run("check", "--config", config).stdout.splitlines()
    assert "holds no usable certificate" in tls


def remote_write(url: str, more: str = "") -> str:
    return f'[remote_write]\nurl = "{url}/api/v1/write"\n{more}\n'


def test_check_gateway_covers_the_server_of_the_history(tmp_path: Path) -> None:
    with Server(answering("204 No Content", b"")) as server:
        config = write_config(tmp_path, None, more=remote_write(server.url, 'clock = "system"'))
        ended = run("check", "--config", config, "--gateway")
        requests = [request.method for request in server.requests]
    assert (ended.returncode, ended.stderr) == (0, "")
    subjects = [(status, what.removeprefix("remote_write ")) for status, what in lines(ended.stdout)]
    assert subjects == [
        ("ok", str(config)),
        *(("ok", what) for what in ("name", "connection", "request")),
        ("warning", "clock"),  # this server sends no Date
        ("note", "server"),
    ]
    assert requests == ["POST", "GET"]
    assert not (tmp_path / "state").exists()


def test_a_refused_history_is_the_exit_code_of_the_check(tmp_path: Path, pushgateway_url: str) -> None:
    with Server(answering("401 Unauthorized", b"")) as server:
        config = write_config(tmp_path, pushgateway_url, "history check", more=remote_write(server.url))
        ended = run("check", "--config", config, "--gateway")
    assert ended.returncode == 76
    found = lines(ended.stdout)
    assert ("failed", "remote_write request") in found
    assert ("ok", "push") in found


def test_check_warns_of_files_that_history_cannot_read(tmp_path: Path) -> None:
    more = remote_write("https://vm.invalid", f'bearer_token_file = "{tmp_path}/none"\nca_file = "{tmp_path}/ca.pem"')
    config = write_config(tmp_path, "http://127.0.0.1:9", more=more)
    ended = run("check", "--config", config)
    assert ended.returncode == 0
    assert lines(ended.stdout)[1:] == [("warning", "remote_write credentials"), ("warning", "remote_write TLS")]
    assert "remote_write.bearer_token_file: cannot read" in ended.stdout


def test_delete_says_that_history_is_kept(tmp_path: Path) -> None:
    config = write_config(tmp_path, None, more=remote_write("http://user-free.example:8428"))
    ended = run("delete", "--config", config)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "kept: the history at user-free.example:8428, which only the server itself can delete\n"


def test_delete_removes_groups_and_keeps_history(tmp_path: Path, pushgateway_url: str) -> None:
    config = write_config(tmp_path, pushgateway_url, "kept", more=remote_write("http://127.0.0.1:9"))
    ended = run("delete", "--config", config)
    assert (ended.returncode, ended.stderr) == (0, "")
    first, *others = ended.stdout.splitlines()
    assert first.startswith("kept: the history at 127.0.0.1:9")
    assert others == ["not there: device cpu", "not there: node"]


def test_a_terminal_gets_wrapped_lines_and_coloured_status(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    arguments = ("check", "--config", config, "--simulate", "--hardware")
    plain = on_a_terminal(*arguments, environ={"COLUMNS": "80", "NO_COLOR": "1"})
    assert "\x1b" not in plain
    assert max(len(line) for line in plain.splitlines() if " " in line[9:]) <= 80
    assert "\n         " in plain
    coloured = on_a_terminal(*arguments, environ={"COLUMNS": "80", "NO_COLOR": ""})
    assert coloured.startswith(f"\x1b[32mok\x1b[0m       {config}")
    assert coloured.count("\x1b[32mok\x1b[0m") == 4
    piped = run(*arguments).stdout
    assert len(piped.splitlines()) == 5
    assert "\x1b" not in piped
