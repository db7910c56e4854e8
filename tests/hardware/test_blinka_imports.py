"""Blinka guesses the board, asks on the terminal and wants GPIO libraries: settled before anything is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# A machine without any GPIO library: what `pip install` leaves on a Raspberry Pi.
WITHOUT_GPIO = "import sys; sys.modules.update(dict.fromkeys(('gpiod', 'RPi', 'RPi.GPIO', 'lgpio', 'Jetson')))\n"
PREPARE = "from agent.i2c.adapters import prepare_blinka; prepare_blinka((1,))\n"
IMPORT_DRIVERS = """
import adafruit_ina260
import adafruit_tca9548a
from adafruit_bus_device.i2c_device import I2CDevice
from adafruit_blinka.microcontroller.generic_linux.i2c import I2C
"""
SEE_NO_BOARD = """
from adafruit_blinka.agnostic import board_id
assert board_id == "GENERIC_LINUX_PC", board_id
"""
OPEN_THE_BOARD = """
from agent.i2c.adapters import open_bus
from agent.errors import BusError
try:
    open_bus("board")
except BusError as error:
    print(error)
"""


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BLINKA_")}
    return subprocess.run(
        [sys.executable, "-c", script],
        env=kept | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


LEFT_OVER = [
    {},
    {"BLINKA_MCP2221": "1"},
    {"BLINKA_FT232H": "1"},
    {"BLINKA_FORCEBOARD": "RASPBERRY_PI_4B", "BLINKA_FORCECHIP": "BCM2XXX"},
    {"BLINKA_FORCEBOARD": "JETSON_ORIN_NX", "BLINKA_FORCECHIP": "T234"},
]


@pytest.mark.parametrize("environment", LEFT_OVER, ids=str)
def test_drivers_import_silently_on_any_machine(environment: dict[str, str]) -> None:
    done = run(WITHOUT_GPIO + PREPARE + IMPORT_DRIVERS + SEE_NO_BOARD, **environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_unprepared_drivers_fail_to_import_on_a_raspberry_pi() -> None:
    """What the test above would pass without: the machine that it runs on must not make it pass."""
    done = run(WITHOUT_GPIO + IMPORT_DRIVERS, BLINKA_FORCEBOARD="RASPBERRY_PI_4B", BLINKA_FORCECHIP="BCM2XXX")
    assert done.returncode != 0


@pytest.mark.parametrize(
    "environment",
    [{}, {"BLINKA_FORCEBOARD": "GENERIC_LINUX_PC", "BLINKA_FORCECHIP": "GENERIC_X86"}, {"BLINKA_FORCEBOARD": "NONE"}],
    ids=str,
)
def test_the_default_bus_of_an_unknown_board_is_one_clear_error(environment: dict[str, str]) -> None:
    prepare = "from agent.i2c.adapters import prepare_blinka; prepare_blinka(('board',))\n"
    done = run(WITHOUT_GPIO + prepare + OPEN_THE_BOARD, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the board's default bus: Blinka cannot open it (")
    assert "; name the bus by number instead: bus = " in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize(("variable", "library"), [("BLINKA_MCP2221", "hidapi"), ("BLINKA_FT232H", "pyftdi")])
def test_the_error_of_a_usb_adapter_names_its_library(variable: str, library: str) -> None:
    prepare = "from agent.i2c.adapters import prepare_blinka; prepare_blinka(('board',))\n"
    without_library = "import sys; sys.modules.update(dict.fromkeys(('hid', 'pyftdi')))\n"
    done = run(without_library + prepare + OPEN_THE_BOARD, **{variable: "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert f"; {variable} is set: is the adapter plugged in, is {library} installed" in done.stdout
    assert "bus = " not in done.stdout
