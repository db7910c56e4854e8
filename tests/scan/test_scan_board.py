"""A board whose library prints to stdout, as Jetson.GPIO does below Blinka's `board`: stdout is for results alone."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent import chips
from agent.config import parse
from agent.i2c import hints
from agent.i2c.place import Place
from tests.run.running import LONG_SECONDS, PROJECT

if TYPE_CHECKING:
    from pathlib import Path

BOARD = """
import atexit, os, sys, time
from agent import chips
from agent.config import parse
from agent.simulate.world import build_world

print("WARNING: Carrier board is not from a Jetson Developer Kit.")
os.write(1, b"")  # libraries in C write to the descriptor
atexit.register(print, "Cleaning up pins")
atexit.register(os.write, 1, b"closed\\n")

def I2C():
    print("opening the bus")
    with open(os.environ["WATTPUSH_CONFIG"]) as file:
        settings = parse(file.read(), chips.options(), default_hostname="jetson", environ=os.environ)
    world = build_world(settings, time.monotonic, {})
    time.sleep(0.05)  # a simulated chip powers on now, and reads zero until its first conversion ends
    return world.open("board")
"""

CONFIG = """
hostname = "jetson"
[pushgateway]
url = "http://127.0.0.1:9091"
[[device]]
name = "cpu"
chip = "ina260"
bus = "board"
address = 0x40
averaging = { count = 4, voltage = "140us", current = "140us" }
"""

NOISE = ("WARNING: Carrier", "opening the bus", "Cleaning up pins", "closed")


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    (tmp_path / "board.py").write_text(BOARD)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


def run_on(jetson: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": f"{jetson}:{PROJECT}", "WATTPUSH_CONFIG": str(jetson / "config.toml")}
    return subprocess.run(
        [sys.executable, "-m", "agent", *arguments],
        env=os.environ | environ | {"STATE_DIRECTORY": str(jetson / "state")},
        capture_output=True,
        text=True,
        timeout=LONG_SECONDS,
        check=False,
    )


def test_a_scan_of_the_board_writes_only_toml(jetson: Path) -> None:
    ended = run_on(jetson, "scan", "--bus", "board", "--toml")
    assert ended.returncode == 0, ended.stderr
    settings = parse(ended.stdout, chips.options(), default_hostname="jetson", environ={"HOME": "/home/jetson"})
    assert [(device.chip, device.place) for device in settings.devices] == [
        ("ina260", Place("board", None, None, 0x40))
    ]
    assert all(noise in ended.stderr and noise not in ended.stdout for noise in NOISE), ended


def test_a_dry_run_with_the_board_writes_only_the_exposition(jetson: Path) -> None:
    ended = run_on(jetson, "--once", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("# PUT ")
    assert all(noise in ended.stderr and noise not in ended.stdout for noise in NOISE), ended


PI, ORIN, PC = "Raspberry Pi 4 Model B Rev 1.5", "NVIDIA Jetson Orin Nano Developer Kit", None


@pytest.mark.parametrize(
    ("model", "numbers", "hint"),
    [
        (PI, (), "is I2C enabled? sudo raspi-config nonint do_i2c 0"),
        (PI, (20, 21), "is I2C enabled? sudo raspi-config nonint do_i2c 0"),
        (PI, (1, 20), f"this machine has /dev/i2c-1, /dev/i2c-20; bus = 1 is /dev/i2c-1, the header of this {PI}"),
        (ORIN, (), "is I2C enabled? sudo modprobe i2c-dev, also at boot: echo i2c-dev | sudo tee /etc/modules-load.d/"),
        (ORIN, (0, 7), f"this machine has /dev/i2c-0, /dev/i2c-7; bus = 7 is /dev/i2c-7, the header of this {ORIN}"),
        (PC, (0, 3), "this machine has /dev/i2c-0, /dev/i2c-3; i2cdetect -l says more"),
        (PC, (), "is I2C enabled? sudo modprobe i2c-dev, also at boot: echo i2c-dev | sudo tee /etc/modules-load.d/"),
    ],
)
def test_a_missing_bus_names_the_cure_of_this_board_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str | None, numbers: tuple[int, ...], hint: str
) -> None:
    file = tmp_path / "model"
    if model is not None:
        file.write_bytes(model.encode() + b"\0")
    monkeypatch.setattr(hints, "_CONTAINER_MARKS", ())
    message = hints.of_missing_bus(numbers, "/dev/i2c-5", file)
    assert message.startswith(hint)
    assert len(message) < 170
    assert ("raspi-config" in message) == ("raspi-config" in hint or (model is PC and not numbers))


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("NVIDIA Jetson Orin Nano Developer Kit", "bus = 7 is /dev/i2c-7, the header of this NVIDIA Jetson Orin Nano"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "bus = 7 is /dev/i2c-7, the header of this"),
        ("NVIDIA Jetson Xavier NX Developer Kit", "bus = 8 is /dev/i2c-8, the header of this"),
        ("NVIDIA Jetson Nano Developer Kit", "bus = 1 is /dev/i2c-1, the header of this"),
        ("Raspberry Pi 5 Model B Rev 1.0", "bus = 1 is /dev/i2c-1, the header of this Raspberry Pi 5"),
        (None, "bus = 1 is /dev/i2c-1"),
    ],
)
def test_the_hint_names_the_header_bus_of_the_model(tmp_path: Path, model: str | None, hint: str) -> None:
    file = tmp_path / "model"
    if model is not None:
        file.write_bytes(model.encode() + b"\0")
    assert hints.of_header_bus(file).startswith(hint)
    assert "\0" not in hints.of_header_bus(file)
