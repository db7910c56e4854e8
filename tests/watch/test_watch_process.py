"""The real program in a pipe and in a terminal, and every way to end it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.measure.readings import Failure, Reading
from agent.run.assembly import RunOptions, make_watched_sweep
from agent.simulate.rails import ConstantRail
from agent.simulate.world import build_world
from tests.bench import ina260, mux, settings_of
from tests.emulated_i2c_dev import EmulatedI2CDev
from tests.run.running import LONG_SECONDS, PROJECT, program, run, until, write_config
from tests.watch.terminal import UTF8, Terminal

if TYPE_CHECKING:
    from pathlib import Path

NUMBER = r"-?\d+\.\d+"
READING = re.compile(
    r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z device=cpu "
    rf"volts={NUMBER} amperes={NUMBER} watts={NUMBER} joules={NUMBER} simulated=true"
)
STOPS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, "http://gateway.invalid:9091", devices=["cpu", "disk"])


def watching(config: Path) -> list[str | Path]:
    return ["watch", "--simulate", "--config", config]


def test_a_pipe_gets_one_line_for_each_device_and_sweep(config: Path) -> None:
    with program(*watching(config)) as running:
        assert running.process.stdout is not None
        lines = [running.process.stdout.readline() for _ in range(40)]
        assert running.end(signal.SIGTERM)[0] == 0
    assert [line.split()[1] for line in lines] == ["device=cpu", "device=disk"] * 20
    assert READING.fullmatch(lines[-2].strip())
    assert all(line.endswith(" simulated=true\n") for line in lines)
    assert running.stderr == ""


@STOPS
def test_a_signal_ends_the_watch(config: Path, number: int) -> None:
    with program(*watching(config)) as running:
        assert running.process.stdout is not None
        running.process.stdout.readline()
        assert running.end(number)[0] == 0
    assert running.stderr == ""


def test_a_reader_that_ends_stops_it_silently(config: Path) -> None:
    words = shlex.join([sys.executable, "-m", "agent", *map(str, watching(config))])
    ended = subprocess.run(
        ["bash", "-c", f'{words} | head -n 3; echo "${{PIPESTATUS[0]}}"'],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )
    assert ended.stdout.splitlines()[-1] == "0"
    assert len(ended.stdout.splitlines()) == 4
    assert ended.stderr == ""


def test_a_stalled_reader_does_not_prevent_a_stop(config: Path) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    watch = subprocess.Popen(
        [sys.executable, "-m", "agent", *map(str, watching(config))], cwd=PROJECT, stdout=writer, stderr=subprocess.PIPE
    )
    try:
        waiting = StalledPipe(writer)
        until(waiting.seen, "a full pipe that stays full for eight sweeps")
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(LONG_SECONDS) == 0
    finally:
        watch.kill()
        _, errors = watch.communicate()
        os.close(reader)
        os.close(writer)
    assert errors == b""


class StalledPipe:
    """A full pipe whose fill level has been the same for twenty checks in a row."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._content = b""
        self._checks = 0

    def seen(self) -> bool:
        content = fcntl.ioctl(self._pipe, termios.FIONREAD, bytes(4))
        is_still = content == self._content and not select.select([], [self._pipe], [], 0)[1]
        self._content, self._checks = content, self._checks + 1 if is_still else 0
        return self._checks >= 20


@pytest.mark.parametrize("has_keys", [False, True])
def test_a_terminal_that_hangs_up_stops_it_silently(config: Path, *, has_keys: bool) -> None:
    """It is not the controlling terminal of the process, so no SIGHUP is sent."""
    ours, theirs = pty.openpty()
    watch = subprocess.Popen(
        [sys.executable, "-m", "agent", *map(str, watching(config))],
        cwd=PROJECT,
        env={**os.environ, **UTF8},
        stdin=theirs if has_keys else subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
    )
    try:
        os.close(theirs)
        seen = b""
        while b" W " not in seen:
            seen += os.read(ours, 4096)
        os.close(ours)
        assert watch.wait(LONG_SECONDS) == 0
    finally:
        watch.kill()
        _, errors = watch.communicate()
    assert errors == b""


def test_it_pushes_and_saves_nothing(config: Path, tmp_path: Path) -> None:
    with program(*watching(config)) as running:
        assert running.process.stdout is not None
        for _ in range(30):  # well beyond the interval at which a run pushes
            running.process.stdout.readline()
        running.end(signal.SIGTERM)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml"]
    assert running.stderr == ""


def test_a_bad_configuration_is_reported_and_the_terminal_untouched(tmp_path: Path) -> None:
    ended = run("watch", "--config", tmp_path / "none.toml")
    assert (ended.returncode, ended.stdout) == (78, "")
    assert "no such file" in ended.stderr


def test_options_of_a_run_are_refused(config: Path) -> None:
    ended = run("--once", *watching(config))
    assert (ended.returncode, ended.stdout) == (64, "")


def test_the_command_fills_the_terminal_and_restores_it(tmux: Terminal, config: Path) -> None:
    script = f'trap : INT; "$python" -m agent watch --simulate --config {config}; echo "ended with $?"; read -r _'
    tmux.start(script, 80, 24)
    screen = tmux.shows(" W ")
    assert screen.splitlines()[0].startswith("node-17-simulated  every 50 ms  at ")
    assert "SIMULATED" in screen.splitlines()[0]
    tmux.press("q")
    summary, ended = tmux.shows("ended with 0").splitlines()
    assert re.fullmatch(r"watched \d+ s \(SIMULATED\): cpu \S+ m?J, disk \S+ m?J, total \S+ m?J", summary)
    assert ended == "ended with 0"
    assert tmux.is_restored()


def test_a_key_does_not_wait_for_the_next_sweep(tmux: Terminal, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://gateway.invalid", top='interval = "30m"\nsample_interval = "30m"')
    tmux.start(f'"$python" -m agent watch --simulate --config {config}; echo "ended with $?"; read -r _', 100, 10)
    assert "q quits." in tmux.shows("converting")
    tmux.press("q")
    tmux.shows("ended with 0")


def test_a_resize_redraws_before_the_next_sweep(tmux: Terminal, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://gateway.invalid", top='interval = "5m"\nsample_interval = "5m"')
    tmux.start(f'"$python" -m agent watch --simulate --config {config}', 30, 10)
    assert "volts" not in tmux.shows("converting")
    tmux.resize(100, 10)
    assert "every 5 min" in tmux.shows("volts")


def test_a_dumb_terminal_gets_lines(tmux: Terminal, config: Path) -> None:
    tmux.start(f'"$python" -m agent watch --simulate --config {config}', 200, 24, {**UTF8, "TERM": "dumb"})
    assert READING.search(tmux.shows("watts="))


HANGING = """
import itertools, pathlib, sys, threading
from agent import cli
from agent.measure.sweep import Sweep
sweep, count = Sweep.run, itertools.count()
def hang():
    pathlib.Path(__file__).with_name("hangs").touch()
    threading.Event().wait()
Sweep.run = lambda self: sweep(self) if next(count) < 30 else hang()
sys.exit(cli.main(sys.argv[1:]))
"""


def test_a_hanging_bus_is_reported_and_ctrl_c_ends_the_watch(tmux: Terminal, config: Path, tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    command = f'"$python" {tmp_path / "hanging.py"} watch --simulate --config {config}'
    timed = f'trap : INT; {command}; echo "ended with $?"; read -r _'
    tmux.start(timed, 80, 24, {**UTF8, "PYTHONPATH": str(PROJECT)})
    tmux.shows("these numbers are old")
    assert "SIMULATED" in tmux.screen()
    tmux.press("C-c")
    tmux.shows("ended with 0")
    assert tmux.is_restored()


def test_a_stop_does_not_wait_for_a_hanging_bus(config: Path, tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    watch = subprocess.Popen(
        [sys.executable, str(tmp_path / "hanging.py"), *map(str, watching(config))],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert watch.stdout is not None
        until((tmp_path / "hangs").exists, "a sweep that hangs")
        watch.send_signal(signal.SIGTERM)
        assert watch.wait(LONG_SECONDS) == 0
    finally:
        watch.kill()
        _, errors = watch.communicate()
    assert errors == ""


def test_it_shares_the_bus_with_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the lock of another process, reports one that lasts, and releases its own after every sweep."""
    clock = SystemClock()
    settings = settings_of(mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0'), 'sample_interval = "10ms"\n')
    world = build_world(settings, clock.monotonic, {"cpu": ConstantRail(5.0, 1.0, clock.monotonic)})
    dev = EmulatedI2CDev(world.wires, tmp_path)
    dev.install(monkeypatch)
    with ExitStack() as stack:
        sweep = make_watched_sweep(settings, RunOptions(), clock, stack)

        def outcome() -> object:
            return sweep.run()[0]

        until(lambda: isinstance(outcome(), Reading), "a reading")
        world.wires[1].log = []
        assert isinstance(outcome(), Reading)
        # Reading the INA260's register 6 would clear the flag by which the run notices a new result.
        assert b"\x06" not in {transaction.messages[0].data for transaction in world.wires[1].log}
        other = os.open(dev.stand_in("/dev/i2c-1"), os.O_RDWR)
        stack.callback(os.close, other)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises unless the lock is free between two sweeps
        held = outcome()
        assert isinstance(held, Failure)
        assert "another" in str(held.error)
        fcntl.flock(other, fcntl.LOCK_UN)
        until(lambda: isinstance(outcome(), Reading), "a reading after the other has ended")
    assert world.muxes["m0"].control == 0
