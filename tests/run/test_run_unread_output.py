"""Output that nobody reads: a full pipe, a terminal with its output stopped, a reader that is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.stderr import Stderr
from tests.run.running import LONG_SECONDS, PROJECT, ask, has_grown, until, write_config
from tests.servers import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def fill(write_end: int) -> int:
    """Write until there is no more room; return the number of bytes. The file blocks again afterwards."""
    os.set_blocking(write_end, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(write_end, b"x" * 100)
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(write_end, b"x")
    os.set_blocking(write_end, True)
    return filled


@contextlib.contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    """A pipe that takes no more, and whose reader reads nothing."""
    read_end, write_end = os.pipe()
    fill(write_end)
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


@contextlib.contextmanager
def stopped_terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal after Ctrl-S."""
    master, slave = pty.openpty()
    termios.tcflow(slave, termios.TCOOFF)
    yield master, slave
    os.close(master)
    os.close(slave)


@contextlib.contextmanager
def unread_terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal that is full, such as one behind a connection that hangs."""
    master, slave = pty.openpty()
    fill(slave)
    yield master, slave
    os.close(master)
    os.close(slave)


@contextlib.contextmanager
def broken_pipe() -> Iterator[tuple[int, int]]:
    """A pipe without a reader."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    yield -1, write_end
    os.close(write_end)


@contextlib.contextmanager
def vanished_terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal whose window was closed."""
    master, slave = pty.openpty()
    os.close(master)
    yield -1, slave
    os.close(slave)


UNREAD = pytest.mark.parametrize(
    "output", [full_pipe, stopped_terminal, unread_terminal, broken_pipe, vanished_terminal]
)


@pytest.mark.reliability(
    15.03,
    "a stderr that nobody reads (full pipe, Ctrl-S, a hung or closed terminal, a closed pipe), and no gateway",
    "sampling and SIGTERM go on; lines that find no room are dropped and counted",
)
@UNREAD
def test_a_stderr_that_nobody_reads_stops_nothing(
    output: Callable[[], contextlib.AbstractContextManager[tuple[int, int]]],
    tmp_path: Path,
    measured: Callable[[str], None],
) -> None:
    port = free_port()
    serve = f'[serve]\nlisten = "127.0.0.1:{port}"\n'
    config = write_config(tmp_path, "http://127.0.0.1:9", more=serve)

    def readings() -> int:
        with contextlib.suppress(OSError):
            for line in ask(f"http://127.0.0.1:{port}/metrics")[1].splitlines():
                if line.startswith("wattpush_device_readings_total"):
                    return int(float(line.split()[-1]))
        return 0

    seconds = []
    for _ in range(3):  # a busy machine may delay one of them
        with (
            output() as (_, stderr),
            running(stderr, "--config", str(config), "--simulate", "--log-level", "debug") as run,
        ):
            until(lambda: readings() > 10, "ten readings", 20)
            begun = readings()
            until(partial(has_grown, readings, begun + 10), "more readings", 20)
            begun_seconds = time.monotonic()
            run.send_signal(signal.SIGTERM)
            assert run.wait(LONG_SECONDS) == 0
            seconds.append(time.monotonic() - begun_seconds)
        if seconds[-1] < 2:
            break
    assert seconds[-1] < 2
    measured("readings go on; SIGTERM ends the run within 2 s")


@contextlib.contextmanager
def running(stderr: int, *arguments: str, stdout: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", *arguments],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait(LONG_SECONDS)


def test_errors_at_start_do_not_wait_for_a_reader(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("nonsense = 1\n")
    for arguments, code in (((f"--config={config}",), 78), (("--nonsense",), 64)):
        with full_pipe() as (_, stderr), running(stderr, *arguments) as run:
            assert run.wait(20) == code


@pytest.mark.parametrize("once", [(), ("--once",)], ids=["loop", "once"])
def test_a_stdout_that_nobody_reads_delays_no_stop(tmp_path: Path, once: tuple[str, ...]) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    arguments = ("--config", str(config), "--simulate", "--dry-run", *once)
    read_end, write_end = os.pipe()
    with full_pipe() as (_, stdout), running(write_end, *arguments, stdout=stdout) as run:
        os.close(write_end)
        assert select.select([read_end], [], [], 20)[0]
        until(lambda: is_blocked_in_write(run.pid), "the print to block", 20)
        run.send_signal(signal.SIGTERM)
        assert run.wait(20) == 0
    os.close(read_end)


def is_blocked_in_write(pid: int) -> bool:
    tasks = Path("/proc", str(pid), "task").iterdir()
    return any("pipe_w" in (task / "wchan").read_text() for task in tasks)


def drained(read_end: int) -> bytes:
    os.set_blocking(read_end, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(read_end, 1 << 16):
            data += piece
    return data


def test_one_missing_line_is_told_in_the_singular() -> None:
    with full_pipe() as (read_end, write_end):
        stderr = Stderr(write_end)
        stderr.write("lost\n")
        drained(read_end)
        stderr.write("first\n")
        lines = drained(read_end).decode().splitlines()
    assert lines == ["wattpush: 1 line is missing here: this output was not read", "first"]


@pytest.mark.parametrize("output", [full_pipe, stopped_terminal])
def test_the_number_of_missing_lines_is_told(
    output: Callable[[], contextlib.AbstractContextManager[tuple[int, int]]],
) -> None:
    with output() as (read_end, write_end):
        stderr = Stderr(write_end)
        for number in range(1, 8):
            stderr.write(f"lost {number}\n")
        if output is stopped_terminal:
            termios.tcflow(write_end, termios.TCOON)
        drained(read_end)
        stderr.write("first\nsecond\n")
        lines = drained(read_end).replace(b"\r", b"").decode().splitlines()
    assert lines == ["wattpush: 7 lines are missing here: this output was not read", "first", "second"]


def test_long_lines_are_cut_to_what_a_pipe_takes_at_once() -> None:
    read_end, write_end = os.pipe()
    Stderr(write_end).write("ä" * 5000 + "\n" + "next\n")
    data = drained(read_end)
    os.close(read_end)
    os.close(write_end)
    assert data.endswith(b" ... (cut)\nnext\n")
    assert len(data) == select.PIPE_BUF + len(b"next\n")


@pytest.mark.parametrize("output", [full_pipe, stopped_terminal])
def test_the_file_that_others_share_stays_blocking(
    output: Callable[[], contextlib.AbstractContextManager[tuple[int, int]]],
) -> None:
    with output() as (_, write_end):
        Stderr(write_end).write("line\n")
        assert not fcntl.fcntl(write_end, fcntl.F_GETFL) & os.O_NONBLOCK


def test_a_terminal_takes_a_line_in_parts() -> None:
    master, slave = pty.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    filled = fill(slave)
    left, read = filled - 10, b""
    while left > 0:
        piece = os.read(master, min(left, 1 << 16))
        left -= len(piece)
    stderr = Stderr(slave)
    lines = "".join(f"line {number:06d}\n" for number in range(100_000))
    stderr.write(lines)
    while b"line" not in read or read[-1:] != b"\n":
        read += drained(master)
        stderr.write("last\n")
    read += drained(master)
    whole = [line for line in read.lstrip(b"x").splitlines() if line.startswith(b"line ")]
    assert all(len(line) == len(b"line 000000") for line in whole)
    os.close(master)
    os.close(slave)
