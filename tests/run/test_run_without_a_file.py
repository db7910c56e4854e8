"""Commands on a machine without a configuration: with `--simulate` they run the built-in node, and push nothing."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from agent import cli, config
from agent.config.builtin_node import BUILTIN_NODE
from agent.errors import ExitCode
from tests.run.running import program

if TYPE_CHECKING:
    from pathlib import Path

    from tests.run.running import Program

GATEWAY = '[pushgateway]\nurl = "http://127.0.0.1:9"\n'
MODULE = "tests.run.without_a_file"


@pytest.fixture
def default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the default configuration, which is not there."""
    path = tmp_path / "etc" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setattr(config, "DEFAULT_FILE", path)
    monkeypatch.delenv("WATTPUSH_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    return path


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def read_groups(running: Program, groups: int) -> list[str]:
    assert running.process.stdout is not None
    found: list[str] = []
    while len(found) < groups:
        line = running.process.stdout.readline()
        assert line, running.stderr
        if line.startswith("# PUT "):
            found.append(line.strip())
    return found


def test_a_run_without_a_file_says_what_to_type(default_file: Path, tmp_path: Path) -> None:
    with program(default_file, "--simulate", module=MODULE) as running:
        running.logs("no configuration: simulating the built-in node, and pushing nothing")
        assert "wattpush watch --simulate" in running.stderr
        assert "--simulate --dry-run" in running.stderr
        assert "published" not in running.stderr
        assert "pushed to" not in running.stderr
        assert running.end(signal.SIGTERM)[0] == 0
    assert written(tmp_path) == []


def test_two_runs_without_a_file_do_not_collide(default_file: Path) -> None:
    with (
        program(default_file, "--simulate", module=MODULE) as first,
        program(default_file, "--simulate", module=MODULE) as second,
    ):
        first.logs("no configuration")
        second.logs("no configuration")
        assert first.end(signal.SIGTERM)[0] == second.end(signal.SIGTERM)[0] == 0


def test_a_dry_run_without_a_file_prints_the_groups(default_file: Path) -> None:
    with program(default_file, "--simulate", "--dry-run", module=MODULE) as running:
        assert read_groups(running, 4) == [
            *(
                f"# PUT /metrics/job/power/device/{device}/hostname/demo-simulated"
                for device in ("cpu", "accelerator", "radio")
            ),
            "# PUT /metrics/job/power/hostname/demo-simulated",
        ]
        assert running.end(signal.SIGTERM)[0] == 0


def test_once_without_a_file_needs_a_dry_run(
    default_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert not default_file.exists()
    assert cli.main(["--simulate", "--once"]) == ExitCode.USAGE
    assert "--dry-run" in capfd.readouterr().err.splitlines()[-1]
    assert cli.main(["--simulate", "--once", "--dry-run"]) == 0
    assert "device/radio/hostname/demo-simulated" in capfd.readouterr().out
    assert written(tmp_path) == []


@pytest.mark.parametrize("hardware", [(), ("--hardware",)])
def test_check_without_a_file_checks_the_builtin_node(
    default_file: Path, hardware: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", "--simulate", *hardware]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"note     {default_file}: no such file; checked instead: the built-in node")
    assert "3 devices, 1 mux" in out
    assert "wattpush init" in out
    assert ("SIMULATED from the built-in node" in out) == bool(hardware)


@pytest.mark.parametrize("command", [["check", "--gateway"], ["delete"]])
def test_what_needs_a_gateway_is_refused_without_a_file(
    default_file: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert not default_file.exists()
    assert cli.main([*command, "--simulate"]) == ExitCode.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "needs a configuration: the built-in node of --simulate" in captured.err


def test_scan_without_a_file_shows_the_builtin_node(default_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not default_file.exists()
    assert cli.main(["scan", "--simulate"]) == 0
    out = capsys.readouterr().out
    assert "SIMULATED from the built-in node" in out
    assert "INA3221 input 2" in out


def test_a_named_file_that_is_missing_is_an_error(
    default_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not default_file.exists()
    assert cli.main(["--config", str(tmp_path / "none.toml"), "check", "--simulate"]) == ExitCode.CONFIG
    monkeypatch.setenv("WATTPUSH_CONFIG", str(tmp_path / "none.toml"))
    assert cli.main(["check", "--simulate"]) == ExitCode.CONFIG
    assert capsys.readouterr().err.count("no such file") == 2


def test_a_default_file_is_an_error_if_it_leads_nowhere(
    default_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    default_file.symlink_to(tmp_path / "nowhere")
    assert cli.main(["check", "--simulate"]) == ExitCode.CONFIG
    assert "no such file" in capsys.readouterr().err


def test_hardware_needs_a_file(default_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not default_file.exists()
    assert cli.main(["check"]) == ExitCode.CONFIG
    assert "no such file" in capsys.readouterr().err


def test_a_file_still_needs_a_destination(default_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    default_file.write_text(BUILTIN_NODE)
    assert cli.main(["check", "--simulate"]) == ExitCode.CONFIG
    assert "pushgateway: missing" in capsys.readouterr().err


def test_a_reload_takes_a_file_that_has_come(default_file: Path, tmp_path: Path) -> None:
    with program(default_file, "--simulate", module=MODULE) as running:
        running.logs("no configuration")
        default_file.write_text(f'state_dir = "{tmp_path / "state"}"\n{BUILTIN_NODE}{GATEWAY}')
        running.process.send_signal(signal.SIGHUP)
        running.logs("configuration reloaded")
        running.logs("3 devices read every 1 s, pushed to http://127.0.0.1:9 every 15 s as demo-simulated")
        assert running.end(signal.SIGTERM)[0] == 0


def test_a_reload_does_not_replace_a_lost_file_with_the_builtin_node(default_file: Path, tmp_path: Path) -> None:
    default_file.write_text(f'state_dir = "{tmp_path / "state"}"\n{BUILTIN_NODE}{GATEWAY}')
    with program(default_file, "--simulate", module=MODULE) as running:
        running.logs("3 devices read every")
        default_file.unlink()
        running.process.send_signal(signal.SIGHUP)
        running.logs("the configuration is not reloaded; the old one stays in force")
        assert "no such file" in running.stderr
        assert running.end(signal.SIGTERM)[0] == 0
