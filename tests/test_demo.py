"""`make demo` and `make live`, as their programs run: on real servers, in 80 columns, leaving nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scripts.stack import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[[str], subprocess.Popen[str]]

PROJECT = Path(__file__).parents[1]
SERVERS = ("prometheus-pushgateway", "prometheus", "victoria-metrics")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts one of the programs, whose temporary files are in `tmp_path`."""
    missing = [name for name in SERVERS if shutil.which(name) is None]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs real servers: apt-get install {' '.join(missing)}")
    assert not missing
    started: list[subprocess.Popen[str]] = []

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", f"scripts.{name}"]
        environ = {**os.environ, "TMPDIR": str(tmp_path), "http_proxy": "http://127.0.0.1:9"}
        started.append(
            subprocess.Popen(
                command, cwd=PROJECT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    left = subprocess.run(["pgrep", "-fa", tmp_path], capture_output=True, text=True, check=False).stdout
    assert (left, list(tmp_path.iterdir())) == ("", [])


def read_until(process: subprocess.Popen[str], text: str) -> str:
    """The output up to a line that contains the text."""
    output = ""
    for line in process.stdout or ():
        output += line
        if text in line:
            return output
    raise AssertionError(output)


def test_the_demo_counts_every_joule_and_sample_through_an_outage(start: Start) -> None:
    process = start("demo")
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0, output
    assert "0 lost, 0 doubled" in output
    energy = re.findall(r"^  (\w+) +counted +([0-9.]+) J, flowed +([0-9.]+) J", output, re.MULTILINE)
    assert sorted(device for device, _, _ in energy) == ["accelerator", "cpu", "radio"]
    for _, counted, flowed in energy:
        assert float(counted) == pytest.approx(float(flowed), rel=0.02)
    assert "fails" in output
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize("name", ["demo", "live"])
def test_a_stop_in_the_middle_leaves_nothing(start: Start, name: str) -> None:
    process = start(name)
    read_until(process, {"demo": " 1 s", "live": "Ctrl-C"}[name])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_live_prints_addresses_that_answer_until_ctrl_c(start: Start) -> None:
    process = start("live")
    addresses = re.findall(r"http://\S+", read_until(process, "Ctrl-C"))
    assert len(addresses) == 3
    assert [address for address in addresses if fetch(address) is None] == []

    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "\nEverything is stopped.\n")


def test_a_reader_that_leaves_ends_the_demo_in_silence(start: Start) -> None:
    process = start("demo")
    read_until(process, " 1 s")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(30) == 0
