"""A run in the foreground of a terminal, on a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.run.running import LONG_SECONDS, PROJECT, until, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Window:
    """A terminal window with the program in its foreground."""

    def __init__(self, *command: str) -> None:
        self._master, slave = pty.openpty()
        # As a login shell leaves SIGHUP, also where the tests themselves run under nohup.
        usual = ["env", "--default-signal=HUP"]
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *usual, *command], cwd=PROJECT, stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._is_open = True
        self.text = ""

    def close(self) -> None:
        """Close the window."""
        if self._is_open:
            self._is_open = False
            os.close(self._master)

    def shows(self, text: str) -> None:
        def is_shown() -> bool:
            with contextlib.suppress(BlockingIOError):
                self.text += os.read(self._master, 4096).decode()
            return text in self.text

        with contextlib.suppress(pytest.fail.Exception):
            until(is_shown, text, 60)
        assert text in self.text


@contextlib.contextmanager
def window(*command: str) -> Iterator[Window]:
    opened = Window(*command)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait(LONG_SECONDS)
        opened.close()


def run_of(folder: Path) -> tuple[str, ...]:
    config = write_config(folder, "http://127.0.0.1:9")
    return (sys.executable, "-m", "agent", "--config", str(config), "--simulate")


@pytest.mark.reliability(
    15.1, "the terminal of a foreground run is closed", "the run ends as after SIGTERM; `kill -HUP` still reloads"
)
def test_a_run_ends_with_its_terminal(tmp_path: Path, measured: Callable[[str], None]) -> None:
    with window(*run_of(tmp_path)) as opened:
        opened.shows(": 1 device read every")
        opened.process.send_signal(signal.SIGHUP)
        opened.shows("configuration reloaded")
        opened.close()
        assert opened.process.wait(20) == 0
    assert '"ended_well": true' in (tmp_path / "state" / "simulated.json").read_text()
    measured("exit 0, state saved")


def test_once_on_a_terminal_says_what_it_did(tmp_path: Path, pushgateway_url: str) -> None:
    config = str(write_config(tmp_path, pushgateway_url, "once-on-a-terminal"))
    program = (sys.executable, "-m", "agent", "--config", config, "--simulate", "--once")
    with window(*program) as opened:
        opened.shows(f"info: 1 device read, pushed to {pushgateway_url} as node-17-simulated")
        assert opened.process.wait(20) == 0
    ended = subprocess.run(program, cwd=PROJECT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    assert "pushed to" not in ended.stdout + ended.stderr, "cron would mail it"


def test_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    with window("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *run_of(tmp_path)) as opened:
        opened.shows(": 1 device read every")
        opened.close()
        with pytest.raises(subprocess.TimeoutExpired):
            opened.process.wait(1)
        opened.process.send_signal(signal.SIGTERM)
        assert opened.process.wait(20) == 0


def test_a_start_ends_with_its_terminal(tmp_path: Path) -> None:
    with window(*run_of(tmp_path), "--splay", "1000h") as opened:
        until(lambda: handles_hang_ups(opened.process.pid), "the program's first lines")
        opened.close()
        assert opened.process.wait(20) in (0, 128 + signal.SIGHUP)


def handles_hang_ups(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (signal.SIGHUP - 1) & 1)


def test_a_dry_run_ends_with_its_terminal_without_a_traceback(tmp_path: Path) -> None:
    errors = tmp_path / "errors"
    config = write_config(tmp_path, "http://127.0.0.1:9", top='interval = "1h"\nsample_interval = "50ms"')
    command = shlex.join((sys.executable, "-m", "agent", "--config", str(config), "--simulate", "--dry-run"))
    with window("sh", "-c", f"exec {command} 2>{shlex.quote(str(errors))}") as opened:
        opened.shows("# PUT")
        threading.Event().wait(0.5)  # so that there are readings to print at the end
        opened.close()
        assert opened.process.wait(LONG_SECONDS) == 0, errors.read_text()
        assert "Traceback" not in errors.read_text()
