"""The command line, also with unusual input and environments."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import __version__, cli, commands
from agent.commands import check, delete, scan, watch
from agent.commands import run as run_command
from agent.errors import ExitCode, UnreachableError
from agent.run.assembly import RunOptions, destination_name
from agent.run.loop import Loop
from agent.simulate.rails import ConstantRail
from tests.run.running import (
    CPU,
    DISK,
    NO_MANAGER,
    PROJECT,
    HandWaiting,
    MemoryGateway,
    agent_of,
    groups_of,
    program,
    run,
    settings_for,
    until,
    world_for,
    write_config,
)
from tests.servers import Server, answering

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from agent.settings import Settings
    from agent.simulate.clock import HandClock

DASHES = pytest.mark.reliability(
    18.3, "`--` on the command line, on any version of Python", "a usage error: exit code 64"
)


@pytest.mark.parametrize(
    ("line", "module", "values"),
    [
        ("", run_command, {"once": False, "dry_run": False, "trace": [], "splay": None}),
        (
            "--once --dry-run --simulate --log-level debug --log-format json --splay 2m",
            run_command,
            {
                "once": True,
                "dry_run": True,
                "simulate": True,
                "log_level": "debug",
                "log_format": "json",
                "splay": "2m",
            },
        ),
        (
            "--config f.toml --trace cpu=a.csv --trace disk=b.csv.gz",
            run_command,
            {"config": "f.toml", "trace": ["cpu=a.csv", "disk=b.csv.gz"]},
        ),
        (
            "--config check --trace delete --splay check",
            run_command,
            {"config": "check", "trace": ["delete"], "splay": "check"},
        ),
        ("--config=delete", run_command, {"config": "delete"}),
        ("check", check, {"hardware": False, "gateway": False}),
        ("delete", delete, {"device": []}),
        ("--config f.toml check --simulate", check, {"config": "f.toml", "simulate": True}),
        (
            "--simulate delete --device a --device check --config f.toml",
            delete,
            {"simulate": True, "device": ["a", "check"], "config": "f.toml"},
        ),
        ("check --log-level error", check, {"log_level": "error"}),
        ("scan --bus 1 --bus 7 --toml", scan, {"bus": [1, 7], "toml": True}),
        ("watch", watch, {}),
    ],
    ids=lambda value: value or "nothing" if isinstance(value, str) else "",
)
def test_options_reach_the_command(line: str, module: ModuleType, values: dict[str, object]) -> None:
    options = vars(cli.build_parser().parse_args(line.split()))
    assert options["command"] is module.run
    assert {name: options.get(name) for name in values} == values


@pytest.mark.parametrize("line", ["-h", "--help", "--once --help", "check --help", "--version"])
def test_help_and_version_exit_with_0(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 0
    output, errors = capsys.readouterr()
    assert "wattpush" in output
    assert errors == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("chekc", 'wattpush: unknown command "chekc"; did you mean check? The commands are init, scan, check, '),
        ("frobnicate", 'wattpush: unknown command "frobnicate"; the commands are init, scan, check, '),
        ("--onc", "wattpush: unrecognized arguments: --onc; did you mean --once?"),
        ("--conf f.toml", "wattpush: unrecognized arguments: --conf; did you mean --config?"),
        ("check --hardwear", "wattpush check: unrecognized arguments: --hardwear; did you mean --hardware?"),
        ("delete cpu", "wattpush delete: unrecognized arguments: cpu\n"),
        ("--log-level loud", "invalid choice: 'loud'"),
        ("--config", "expected one argument"),
        ("--once=yes", "ignored explicit argument 'yes'"),
        *(
            pytest.param(line, f"{program}: unrecognized arguments: --", marks=DASHES)
            for line, program in (
                ("--", "wattpush"),
                ("-- check", "wattpush"),
                ("check -- --hardware", "wattpush check"),
            )
        ),
        ("--once extra", 'unknown command "extra"'),
        ("delete --once", "wattpush delete: --once: only for a run, which has no command"),
        ("check --splay=1s", "wattpush check: --splay: only for a run, which has no command"),
        ("--no-such-option", "unrecognized arguments: --no-such-option"),
    ],
)
def test_a_wrong_command_line_exits_with_64(
    line: str, message: str, capsys: pytest.CaptureFixture[str], measured: Callable[[str], None]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == ExitCode.USAGE
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert errors.endswith(f"\nTry: {errors.partition(':')[0]} --help\n")
    measured(f"`wattpush {line}`")


def shell(command: str, config: Path) -> subprocess.CompletedProcess[str]:
    line = command.format(program=f"{sys.executable} -m agent", config=config)
    ended = subprocess.run(["/bin/sh", "-c", line], cwd=PROJECT, capture_output=True, timeout=60, check=False)
    output, log = (data.decode(errors="replace") for data in (ended.stdout, ended.stderr))
    return subprocess.CompletedProcess(line, ended.returncode, output, log)


@pytest.mark.parametrize("options", [("--dry-run",), ("--once",), ("--splay", "1s"), ("--trace", "cpu=x.csv")], ids=str)
def test_a_command_refuses_options_of_a_run(options: tuple[str, ...], tmp_path: Path, pushgateway_url: str) -> None:
    config = write_config(tmp_path, pushgateway_url, "refused-options")
    assert run("--config", config, "--simulate", "--once").returncode == 0
    ended = run(*options, "--config", config, "delete")
    assert ended.returncode == ExitCode.USAGE
    assert f"{options[0]}: only for a run" in ended.stderr
    assert groups_of(pushgateway_url, "refused-options"), "the groups were deleted anyway"


@pytest.mark.parametrize(
    "command", ["{program} --config {config} --simulate --once", "{program} --config {config} check"]
)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_standard_streams_do_not_fail(command: str, closed: str, tmp_path: Path, pushgateway_url: str) -> None:
    config = write_config(tmp_path, pushgateway_url, "closed-streams")
    assert shell(f"{command} --config {{config}} {closed}", config).returncode == 0


def test_a_full_disk_behind_stdout_is_one_error_line(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://gateway.invalid")
    for command in ("--simulate --once --dry-run", "check", "scan --simulate", "scan --simulate --toml"):
        ended = shell(f"env -u PYTHONUNBUFFERED {{program}} --config {{config}} {command} >/dev/full", config)
        assert ended.returncode == ExitCode.IOERR, command
        assert "Exception ignored" not in ended.stderr
        assert "No space left on device" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("stderr", ["2>/dev/full", "2>&1 | true"])
@pytest.mark.parametrize("buffering", ["env -u PYTHONUNBUFFERED", "env PYTHONUNBUFFERED=1"])
def test_an_unwritable_stderr_keeps_the_exit_code(tmp_path: Path, stderr: str, buffering: str) -> None:
    code = tmp_path / "code"
    program = f"{buffering} {{program}} --config {tmp_path}/absent check"
    shell(f"({program}; echo $? >{code}) {stderr}", tmp_path)
    assert int(code.read_text()) == ExitCode.CONFIG


def test_an_endless_file_is_not_a_configuration() -> None:
    ended = run("--config", "/dev/zero", "check")
    assert ended.returncode == ExitCode.CONFIG
    assert "is it the right file?" in ended.stderr


def test_a_state_dir_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://gateway.invalid")
    (tmp_path / "state").write_text("a file")
    ended = run("--config", config, "--simulate", "--once")
    assert ended.returncode == ExitCode.CONFIG
    assert f"state_dir: {tmp_path / 'state'} is not a folder" in ended.stderr


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_delete_refuses_a_name_that_no_device_can_have(name: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://gateway.invalid")
    assert run("--config", config, "delete", "--device", name).returncode == ExitCode.USAGE


def test_a_changed_group_by_is_explained_and_delete_removes_both_shapes(tmp_path: Path, pushgateway_url: str) -> None:
    by_device = write_config(tmp_path, pushgateway_url, "shapes")
    assert run("--config", by_device, "--simulate", "--once").returncode == 0
    by_node = write_config(tmp_path, pushgateway_url, "shapes", push='group_by = "node"\ntimeout = "1m"')
    refused = run("--config", by_node, "--simulate", "--once")
    assert refused.returncode == ExitCode.PROTOCOL
    assert "as after a change of group_by: `wattpush delete` removes" in refused.stderr
    assert run("--config", by_node, "--simulate", "delete").returncode == 0
    until(lambda: groups_of(pushgateway_url, "shapes") == {}, "all groups to go")
    assert run("--config", by_node, "--simulate", "--once").returncode == 0


def test_delete_prints_any_device_name_in_any_encoding(tmp_path: Path, pushgateway_url: str) -> None:
    config = write_config(tmp_path, pushgateway_url, "encodings", devices=("Lüfter-風扇",))
    ended = shell("PYTHONIOENCODING=latin-1 {program} --config {config} delete", config)
    assert ended.returncode == 0, ended.stderr


def test_a_web_page_is_not_an_accepted_push(tmp_path: Path) -> None:
    page = answering("200 OK", b"<html>welcome</html>", "Content-Type: text/html; charset=utf-8")
    with Server(page) as server:
        ended = run("--config", write_config(tmp_path, server.url), "--simulate", "--once")
    assert ended.returncode == ExitCode.PROTOCOL
    assert "with a web page" in ended.stderr


def hangups_are_expected(pid: int) -> bool:
    """Whether a process ignores or catches SIGHUP (proc_pid_status(5))."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    masks = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigIgn", "SigCgt"))]
    return any(mask & 1 << (signal.SIGHUP - 1) for mask in masks)


def test_a_reload_during_startup_does_not_end_the_program(tmp_path: Path, pushgateway_url: str) -> None:
    config = write_config(tmp_path, pushgateway_url, "early-reload")
    with program("--config", config, "--simulate") as running:
        until(lambda: hangups_are_expected(running.process.pid), "the program's first lines")
        for _ in range(200):
            running.process.send_signal(signal.SIGHUP)
        running.logs("pushed to")
        assert running.end(signal.SIGTERM)[0] == 0


def test_an_internal_error_says_where_to_report_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_options: object) -> int:
        raise RuntimeError("a bug")

    monkeypatch.setattr(check, "run", fail)
    monkeypatch.setattr(cli, "set_up", lambda *_: None)
    assert cli.main(["check"]) == ExitCode.SOFTWARE
    assert caplog.messages[0].startswith(
        f"internal error: a bug in wattpush {__version__}; please report it where you got"
    )
    assert "RuntimeError: a bug" in caplog.text


def test_a_default_hostname_is_warned_about_at_startup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, "http://gateway.invalid")
    config.write_text(config.read_text().replace('hostname = "node-17"\n', ""))
    monkeypatch.setattr(commands, "hostname", lambda: "raspberrypi")
    assert cli.main(["--config", str(config), "--simulate", "--once", "--dry-run"]) == 0
    assert "raspberrypi" in capfd.readouterr().err
    logging.getLogger().handlers.clear()


def test_a_scrape_gets_the_last_interval_and_a_push_everything_pending(clock: HandClock) -> None:
    settings = settings_for(interval_seconds=10.0)
    rail = ConstantRail(10.0, 1.0, clock.monotonic)
    gateway = MemoryGateway()
    away = UnreachableError("away")
    gateway.fail = lambda _group: away
    agent = agent_of(settings, world_for(settings, clock, {"cpu": rail}), clock, gateway)
    Loop(agent, clock, HandWaiting(clock, clock.monotonic() + 25.5), NO_MANAGER).run()
    rail.amperes = 0.1
    Loop(agent, clock, HandWaiting(clock, clock.monotonic() + 35.5), NO_MANAGER).run()
    assert agent.published is not None
    (scraped,) = agent.published.devices
    assert scraped.means is not None
    assert scraped.extremes is not None
    assert scraped.means.watts == pytest.approx(1.0)
    assert scraped.extremes.max_watts == pytest.approx(1.0)
    gateway.fail = lambda _group: None
    Loop(agent, clock, HandWaiting(clock, clock.monotonic() + 12.5), NO_MANAGER).run()
    pushed = gateway.history[-2]["device cpu"]
    received = [
        groups["device cpu"]["wattpush_device_max_watts"] for groups in gateway.history if "device cpu" in groups
    ]
    assert received[0] == pytest.approx(10.0), "the readings of the failed pushes are lost"
    assert pushed["wattpush_device_joules_total"] > 0


def test_a_push_ends_before_the_next_and_reports_its_duration(clock: HandClock) -> None:
    settings = settings_for(interval_seconds=20.0)
    gateway = MemoryGateway()
    agent = agent_of(settings, world_for(settings, clock), clock, gateway)
    assert agent.budget_seconds <= 20.0
    agent.take_sweep()

    def slow(_group: object) -> None:
        clock.sleep(1.5)

    gateway.fail = slow
    for _ in range(2):
        agent.begin_push()
        report = agent.parts.publisher.take_report()
        assert report is not None
        agent.end_push(report)
    assert gateway.groups["node"]["wattpush_agent_push_seconds"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("settings", "options", "line"),
    [
        (
            settings_for(),
            RunOptions(),
            "1 device read every 1 s, pushed to http://gateway.invalid:9091 every 15 s as node-17",
        ),
        (
            settings_for(CPU, DISK),
            RunOptions(is_dry_run=True),
            "2 devices read every 1 s, printed every 15 s as node-17",
        ),
        (settings_for(pushgateway=None), RunOptions(), "1 device read every 1 s as node-17; nothing is pushed"),
    ],
    ids=["pushed", "printed", "nothing"],
)
def test_the_first_line_says_what_becomes_of_the_readings(
    settings: Settings, options: RunOptions, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run_command._log_start(settings, options, destination_name(settings))
    assert caplog.messages == [f"wattpush {__version__}: {line}"]


def test_a_node_that_is_only_scraped_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, None, more='[serve]\nlisten = "127.0.0.1:0"\n')
    with program("--config", config, "--simulate") as running:
        running.logs("1 device read every 0.05 s, published for scrapes every 0.2 s as node-17-simulated")
        assert running.end(signal.SIGTERM)[0] == 0
