"""The real program around real commands: status, streams, signals, terminal and files."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.run.running import LONG_SECONDS, PROJECT, program, run, until, write_config
from tests.watch.terminal import UTF8, Terminal

if TYPE_CHECKING:
    from pathlib import Path

ROW = re.compile(r"^cpu +-?[\d.]+ +-?[\d.]+ +-?[\d.]+ +[\d.]+ +100 %$", re.MULTILINE)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, "http://gateway.invalid:9091", devices=["cpu", "disk"])


def measuring(config: Path, *command: str | Path) -> list[str | Path]:
    return ["measure", "--simulate", "--config", config, "--", *command]


def script(folder: Path, text: str) -> list[str | Path]:
    """A command that runs this Python."""
    file = folder / "command.py"
    file.write_text(text)
    return [sys.executable, file]


def test_the_command_has_its_streams_and_the_table_follows(config: Path, tmp_path: Path) -> None:
    command = script(tmp_path, "import sys; sys.stdout.write(sys.stdin.read().upper()); sys.stderr.write('noise\\n')")
    ended = subprocess.run(
        [sys.executable, "-m", "agent", *map(str, measuring(config, *command))],
        cwd=PROJECT,
        input="from the pipe",
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "FROM THE PIPE")
    lines = ended.stderr.splitlines()
    assert lines[0].startswith("wattpush: SIMULATED ")
    assert lines[1] == "noise"
    assert lines[2].startswith(f"{sys.executable} {tmp_path}"[:30])
    assert lines[3].split() == ["device", "joules", "mean", "watts", "peak", "watts", "seconds", "measured"]
    assert ROW.search(ended.stderr), ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["command.py", "config.toml"]  # no state


def test_the_documented_example_shows_what_it_shows() -> None:
    page = (PROJECT / "docs" / "commands.md").read_text(encoding="utf-8")
    command, documented = re.findall(r"^```\n\$ wattpush (measure .+)\n((?:.+\n)+)```$", page, re.MULTILINE)[0]
    ended = run(*command.split())
    assert (ended.returncode, ended.stdout) == (0, "")
    shapes = [re.sub(r" *-?\d+\.\d+", " 0", text) for text in (ended.stderr, documented)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("command", "status"),
    [("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143), ("exit 64", 64)],
)
def test_the_exit_status_is_that_of_the_command(config: Path, command: str, status: int) -> None:
    ended = run(*measuring(config, "sh", "-c", command))
    assert (ended.returncode, ended.stdout) == (status, "")
    assert f"exit status {status}\n" in ended.stderr


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("no-such-command", 127, "measure: no-such-command: command not found"),
        ("/etc/passwd", 126, "measure: /etc/passwd: not an executable file"),
        ("", 127, "measure: the command is an empty word"),
        ("/", 126, "measure: /: not an executable file"),
    ],
)
def test_a_command_that_cannot_run_is_reported(config: Path, command: str, status: int, message: str) -> None:
    ended = run(*measuring(config, command))
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", f"wattpush: {message}\n")


def test_a_command_that_removes_itself_was_measured_once(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text('#!/bin/sh\nrm "$0"\n')
    file.chmod(0o755)
    ended = run("measure", "--simulate", "--config", config, "--runs", "3", "--", file)
    assert ended.returncode == 127
    assert ROW.search(ended.stderr), ended.stderr
    assert f"note: run 2 of 3: measure: {file}: No such file or directory" in ended.stderr


def test_a_script_without_its_interpreter_is_reported(config: Path, tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text("#!/no/such/interpreter\n")
    file.chmod(0o755)
    ended = run(*measuring(config, file))
    assert ended.returncode == 127
    assert f"measure: {file}: No such file or directory; does its interpreter exist?" in ended.stderr


def test_sensors_that_cannot_be_read_do_not_stop_the_command(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://gateway.invalid:9091", devices=["cpu", "disk"])
    config.write_text(config.read_text().replace("bus = 1", "bus = 77"))
    ended = run("measure", "--config", config, "--", "sh", "-c", "echo done; exit 5")
    assert (ended.returncode, ended.stdout) == (5, "done\n")
    assert "wattpush: warning: cpu, disk: /dev/i2c-77: " in ended.stderr, "one line for the bus"
    assert re.search(r"^cpu +- +- +- +0.000 +0 %  /dev/i2c-77: ", ended.stderr, re.MULTILINE)


def test_json_holds_every_run(config: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    arguments: list[str | Path] = ["--runs", "3", "--idle", "200ms", "--json", result]
    ended = run("measure", "--simulate", "--config", config, *arguments, "--", "sleep", "0.2")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.startswith("wattpush: SIMULATED")
    assert "device" not in ended.stderr
    written = json.loads(result.read_text(encoding="utf-8"))
    assert (written["hostname"], written["simulated"]) == ("node-17-simulated", True)
    assert written["command"] == ["sleep", "0.2"]
    assert [entry["device"] for entry in written["devices"]] == ["cpu", "disk"]
    assert len(written["runs"]) == written["runs_counted"] == 3
    for each in written["runs"]:
        assert each["seconds"] == pytest.approx(0.2, abs=0.15)
        for device in each["devices"]:
            assert device["coverage"] == 1.0
            assert device["joules"] == pytest.approx(device["mean_watts"] * device["seconds"])
            assert device["peak_watts"] >= device["mean_watts"]
    assert written["devices"][0]["joules"]["standard_deviation"] > 0.0
    assert written["devices"][0]["net_joules"]["mean"] is not None


def test_a_file_that_cannot_be_written_is_reported_first(config: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    for place in (tmp_path / "none" / "result.json", tmp_path):
        ended = run("measure", "--simulate", "--config", config, "--json", place, "--", "touch", started)
        assert ended.returncode == 64
        assert f"wattpush: --json {place}: " in ended.stderr
    assert not started.exists()


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_json_stands_between_other_output_in_a_file(config: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "output"
    words = ["measure", "--simulate", "--config", config, "--json", name, "--", "echo", "of the command"]
    with output.open("w") as file:
        ended = subprocess.run(
            [sys.executable, "-m", "agent", *map(str, words)],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            timeout=LONG_SECONDS,
            check=False,
        )
        os.write(file.fileno(), b"of the next command\n")
    assert ended.returncode == 0, ended.stderr
    first, *rest, last = output.read_text(encoding="utf-8").splitlines()
    assert (first, last) == ("of the command", "of the next command")
    assert json.loads("\n".join(rest))["command"] == ["echo", "of the command"]


def test_a_pipe_without_a_reader_keeps_nobody_waiting(config: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = run("measure", "--simulate", "--config", config, "--json", tmp_path / "pipe", "--", "true")
    assert ended.returncode == 74
    assert ROW.search(ended.stderr), ended.stderr


def test_results_whose_disk_fills_up_are_printed(config: Path) -> None:
    ended = run("measure", "--simulate", "--config", config, "--json", "/dev/full", "--", "true")
    assert ended.returncode == 74
    assert "wattpush: --json /dev/full: No space left on device" in ended.stderr
    assert ROW.search(ended.stderr), ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_is_passed_on_to_the_command(config: Path, tmp_path: Path, number: int) -> None:
    """SIGINT too, as no terminal has sent it to both."""
    ready = tmp_path / "ready"
    command = script(
        tmp_path,
        f"""
import pathlib, signal, sys
signal.signal({int(number)}, lambda number, frame: sys.exit(21))
pathlib.Path({str(ready)!r}).touch()
while True:
    signal.pause()
""",
    )
    with program(*measuring(config, *command)) as running:
        until(ready.exists, "the command runs")
        code, seconds = running.end(number)
    assert code == 21
    assert seconds < 10.0
    assert ROW.search(running.stderr), running.stderr


def test_a_signal_before_the_command_starts_ends_both(config: Path, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with program("measure", "--simulate", "--config", config, "--idle", "1h", "--", "touch", started) as running:
        running.logs("SIMULATED")
        assert running.end(signal.SIGTERM)[0] == 143
    assert not started.exists()


STATE = (
    "import os; print(open('/proc/self/status').read()); print(dict(os.environ)); print(os.listdir('/proc/self/fd'))"
)


@pytest.mark.parametrize("is_ignored", [False, True], ids=["without nohup", "under nohup"])
def test_the_command_starts_as_it_would_by_itself(config: Path, tmp_path: Path, *, is_ignored: bool) -> None:
    """Signals that are ignored, environment and open files."""
    command = script(tmp_path, STATE)
    before = "trap '' HUP; " if is_ignored else ""
    seen = []
    for words in (command, [sys.executable, "-m", "agent", *measuring(config, *command)]):
        ended = subprocess.run(
            ["bash", "-c", f"{before}exec {shlex.join(map(str, words))}"],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
            check=False,
        )
        status, rest = ended.stdout.split("\n\n")
        seen.append((re.findall(r"^(Sig(?:Ign|Blk).*)$", status, re.MULTILINE), rest))
    assert seen[0] == seen[1]


HANGING = """
import itertools, sys, threading
from agent import cli
from agent.measure.sweep import Sweep
sweep, count = Sweep.run, itertools.count()
Sweep.run = lambda self: sweep(self) if next(count) < 10 else threading.Event().wait()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_bus_that_hangs_keeps_nobody_waiting(config: Path, tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    ended = subprocess.run(
        [sys.executable, str(tmp_path / "hanging.py"), *map(str, measuring(config, "sleep", "1"))],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "sleep 1: 1.0" in ended.stderr
    assert "not measured all the time" in ended.stderr


def test_ctrl_c_ends_the_command_once_and_shows_the_table(tmux: Terminal, config: Path, tmp_path: Path) -> None:
    command = script(
        tmp_path,
        """
import signal
interrupt = {signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, interrupt)
print("ready", flush=True)
signal.sigwait(interrupt)
print("caught twice" if signal.sigtimedwait(interrupt, 0.5) else "caught once")
""",
    )
    words = shlex.join(map(str, measuring(config, *command)))
    tmux.start(f'trap : INT; "$python" -m agent {words}; echo "ended with $?"; read -r _', 120, 24)
    tmux.shows("ready")
    tmux.press("C-c")
    screen = tmux.shows("ended with 0")
    assert "caught once" in screen
    assert ROW.search(screen), screen


def test_ctrl_z_stops_both_and_the_shell_continues_them(tmux: Terminal, config: Path) -> None:
    words = shlex.join(map(str, measuring(config, "sh", "-c", "echo ready; sleep 1; echo over")))
    tmux.start(f"cd {PROJECT}; exec bash --norc --noprofile -i", 120, 24, {**UTF8, "PS1": "$ "})
    tmux.press("-l", f"{sys.executable} -m agent {words}")
    tmux.press("Enter")
    tmux.shows("\nready")
    tmux.press("C-z")
    tmux.shows("Stopped")
    tmux.press("-l", "fg")
    tmux.press("Enter")
    tmux.shows("\nover")
    assert "total" in tmux.shows("\ntotal")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "measure: no command; wattpush measure -- COMMAND [ARGUMENT]..."),
        (["--"], "measure: no command; "),
        (["ls", "-l"], "wattpush measure: ls: a command stands behind --: wattpush measure -- COMMAND"),
        (["--runs", "0", "--", "ls"], "argument --runs: expected a number from 1 on, not '0'"),
        (["--runs", "--", "ls"], "argument --runs: expected one argument"),
        (["--idle", "0", "--", "ls"], "argument --idle: expected more than 0 seconds"),
        (["--idle", "soon", "--", "ls"], "argument --idle: expected a duration"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: list[str], message: str) -> None:
    ended = run("measure", *arguments)
    assert (ended.returncode, ended.stdout) == (64, "")
    assert message in ended.stderr


def test_options_of_the_command_are_its_own(config: Path) -> None:
    command = ("printf", "%s.", "--simulate", "--", "--runs", "-h")
    ended = run(*measuring(config, *command))
    assert (ended.returncode, ended.stdout) == (0, "--simulate.--.--runs.-h.")
    ended = run("--once", *measuring(config, "true"))
    assert (ended.returncode, ended.stdout) == (64, "")
