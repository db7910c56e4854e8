from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import adafruit_ina260
import adafruit_ina3221
import adafruit_tca9548a
import pytest

from agent.errors import UsageError
from agent.i2c.muxes import MUX_KINDS
from agent.i2c.place import Mux, Place
from agent.settings import Device, Settings
from agent.simulate.hwmon import SimulatedHwmon
from agent.simulate.rails import ConstantRail, LoadRail
from agent.simulate.recordings import Recording
from agent.simulate.world import build_world

if TYPE_CHECKING:
    from pathlib import Path

    from tests.simulate.simulated_clock import HandClock

M0 = Mux("m0", MUX_KINDS["tca9548a"], Place(1, None, None, 0x70))
M1 = Mux("m1", MUX_KINDS["pca9546a"], Place(1, M0, 2, 0x71))
SHARED = Place(1, M1, 3, 0x41)
NODE = Settings(
    hostname="node",
    muxes=(M1, M0),  # the order in the file is free
    devices=(
        Device("cpu", "ina260", Place(1, M0, 0, 0x40)),
        Device("radio", "ina3221", SHARED, input=2, shunt_ohms=0.1),
        Device("disk", "ina3221", SHARED, input=3, shunt_ohms=0.05),
        Device("fan", "ina260", Place("board", None, None, 0x45)),
        Device("module", "hwmon", sensor="ina3221", label="VDD_IN"),
    ),
)


def test_a_world_has_everything_that_the_configuration_names(clock: HandClock) -> None:
    world = build_world(NODE, clock)
    assert set(world.wires) == {1, "board"}
    assert set(world.muxes) == {"m0", "m1"}
    assert set(world.chips) == {"cpu", "radio", "disk", "fan"}
    assert world.chips["radio"] is world.chips["disk"]
    assert set(world.rails) == {"cpu", "radio", "disk", "fan", "module"}
    assert all(isinstance(rail, LoadRail) for rail in world.rails.values())


def test_every_device_reads_its_own_rail_through_its_own_path(clock: HandClock) -> None:
    rails = {device.name: ConstantRail(1.0 + n, 0.1 * (n + 1), clock) for n, device in enumerate(NODE.devices)}
    world = build_world(NODE, clock, rails)
    i2c = world.open(1)
    m0 = adafruit_tca9548a.TCA9548A(i2c, 0x70)
    m1 = adafruit_tca9548a.PCA9546A(m0[2], 0x71)
    cpu = adafruit_ina260.INA260(m0[0], 0x40)
    shared = adafruit_ina3221.INA3221(m1[3], 0x41)
    shared[1].shunt_resistance, shared[2].shunt_resistance = 0.1, 0.05
    fan = adafruit_ina260.INA260(world.open("board"), 0x45)
    clock.advance(4.0)
    assert (cpu.voltage, cpu.current) == (1.0, 100.0)
    assert (shared[1].bus_voltage, shared[1].current) == (2.0, pytest.approx(200.0))
    assert (shared[2].bus_voltage, shared[2].current) == (3.0, pytest.approx(300.0, abs=0.5))
    assert (shared[0].bus_voltage, shared[0].current) == (0, 0)
    assert (fan.voltage, fan.current) == (4.0, 400.0)


def test_a_recording_is_played_from_the_moment_the_world_is_built(clock: HandClock) -> None:
    clock.advance(5000.0)
    world = build_world(NODE, clock, {"fan": Recording([(0.0, 5.0, 1.0), (1.0, 5.0, 2.0)])})
    fan = adafruit_ina260.INA260(world.open("board"), 0x45)
    clock.advance(0.9)
    assert fan.current == 1000.0
    clock.advance(0.2)
    assert fan.current == 2000.0
    played = world.rails["fan"]
    assert isinstance(played, Recording)
    assert played.integral(5000.0, 5002.0) == pytest.approx(15.0)


def test_two_bus_objects_have_independent_locks(clock: HandClock) -> None:
    world = build_world(NODE, clock)
    first, second = world.open(1), world.open(1)
    assert first.try_lock()
    assert second.try_lock()


def test_muxes_and_chips_can_be_unplugged_by_name(clock: HandClock) -> None:
    world = build_world(NODE, clock)
    i2c = world.open(1)
    assert i2c.try_lock()
    assert i2c.scan() == [0x70]
    i2c.writeto(0x70, b"\x05")
    assert i2c.scan() == [0x40, 0x70, 0x71]
    world.chips["cpu"].unplug()
    world.muxes["m1"].unplug()
    assert i2c.scan() == [0x70]


def test_each_mux_has_as_many_channels_as_its_kind(clock: HandClock) -> None:
    world = build_world(NODE, clock)
    for mux in world.muxes.values():
        mux.write(b"\xff")
        mux.stop()
    assert world.muxes["m0"].open_channels == (0, 1, 2, 3, 4, 5, 6, 7)
    assert world.muxes["m1"].open_channels == (0, 1, 2, 3)


def test_the_simulator_imports_no_driver() -> None:
    script = "import sys, agent.simulate.world, agent.simulate.hwmon; print(*sys.modules, sep='\\n')"
    imported = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    assert "agent.simulate.world" in imported
    assert [name for name in imported if name.startswith(("adafruit", "Adafruit", "board", "busio"))] == []


def test_a_bus_that_is_not_configured_does_not_exist(clock: HandClock) -> None:
    with pytest.raises(FileNotFoundError, match="/dev/i2c-7"):
        build_world(NODE, clock).open(7)


def test_a_recording_for_an_unknown_device_is_refused(clock: HandClock) -> None:
    with pytest.raises(UsageError, match=r"^cpo: no such device .*; configured: cpu, radio, disk, fan, module$"):
        build_world(NODE, clock, {"cpo": Recording([(0.0, 5.0, 1.0)])})


@pytest.mark.parametrize("chip", ["ina999", "wire"])
def test_a_chip_without_a_simulated_twin_is_refused(clock: HandClock, chip: str) -> None:
    node = Settings("node", (Device("cpu", chip, Place(1, None, None, 0x40)),))
    with pytest.raises(UsageError, match=f"cpu: chip {chip} has no simulated twin"):
        build_world(node, clock)


def test_simulated_hwmon_shows_names_labels_and_current_values(clock: HandClock, tmp_path: Path) -> None:
    devices = (
        NODE.devices[0],
        Device("module", "hwmon", sensor="ina3221", label="VDD_IN"),
        Device("gpu", "hwmon", sensor="ina3221", input=1),
        Device("carrier", "hwmon", sensor="/sys/bus/i2c/drivers/ina2xx/1-0044/hwmon/hwmon3", input=1),
    )
    rails = {device.name: ConstantRail(5.0 + n, -0.25 * n, clock) for n, device in enumerate(devices)}
    tree = SimulatedHwmon(devices, rails, tmp_path, clock)
    files = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/*")}
    assert files == {
        "hwmon0/name": "ina3221\n",
        "hwmon0/in1_input": "7000\n",
        "hwmon0/curr1_input": "-500\n",
        "hwmon0/in2_label": "VDD_IN\n",
        "hwmon0/in2_input": "6000\n",
        "hwmon0/curr2_label": "VDD_IN\n",
        "hwmon0/curr2_input": "-250\n",
        "hwmon1/name": "hwmon3\n",
        "hwmon1/in1_label": "input 1\n",
        "hwmon1/curr1_label": "input 1\n",
        "hwmon1/in1_input": "8000\n",
        "hwmon1/curr1_input": "-750\n",
    }
    assert tree.folders["ina3221"] == tmp_path / "hwmon0"
    rails["module"].amperes = 1.5
    clock.advance(1.0)
    tree.refresh()
    assert (tmp_path / "hwmon0/curr2_input").read_text() == "1500\n"
