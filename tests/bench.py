"""The one maker of simulated nodes: settings, a clock, simulated chips and the sweep over them.

`Bench.of` makes all of it from the text of a configuration; `sweep_of` makes a sweep for settings that a test has.
The sweep, the bus and Adafruit's drivers are the real ones; the chips are simulated at register level.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

# Set before any driver is imported, so that Blinka needs no GPIO library and looks for no board.
os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"

from agent import chips
from agent.chips import hwmon
from agent.config import parse
from agent.i2c.adapters import open_bus
from agent.i2c.bus import Bus
from agent.i2c.transfers import OpenBus
from agent.measure.readings import Failure, Outcome, Reading, Settling
from agent.measure.sweep import Sweep
from agent.simulate.chips import RegisterChip
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from agent.simulate.world import World, build_world
from tests.emulated_i2c_dev import EmulatedI2CDev

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    import pytest

    from agent.clock import Clock
    from agent.i2c.place import BusName
    from agent.settings import Settings
    from agent.simulate.i2c import SimulatedI2C
    from agent.simulate.rails import Rail
    from agent.simulate.wire import Wire

NO_FOLDER = Path("/nonexistent")

NODE = """
hostname = "node"
[pushgateway]
url = "http://localhost:9091"
"""

FAST = 'averaging = { count = 4, voltage = "140us", current = "140us" }'
"""A conversion of 1.12 ms, so that the sweep after the configuration finds a result."""


def ina260(name: str, place: str, address: int = 0x40, more: str = FAST) -> str:
    """The table of a device. `place` holds keys with commas between them: `mux = "m0", channel = 3`, or `bus = 1`."""
    keys = "\n".join(place.split(", "))
    return f'[[device]]\nname = "{name}"\nchip = "ina260"\n{keys}\naddress = {address}\n{more}\n'


def ina3221(name: str, place: str, number: int, address: int = 0x41, more: str = FAST) -> str:
    return ina260(name, place, address, f"input = {number}\nshunt_ohms = 0.1\n{more}").replace("ina260", "ina3221")


SHORTEST = {
    "ina219": 'averaging = { count = 1, voltage = "532us", current = "532us" }',
    **dict.fromkeys(("ina226", "ina230", "ina231", "ina232", "ina234", "ina236"), FAST),
    "ina228": 'averaging = { count = 4, voltage = "84us", current = "84us" }',
    "ina237": 'averaging = { count = 4, voltage = "84us", current = "84us" }',
    "ina238": 'averaging = { count = 4, voltage = "84us", current = "84us" }',
}
"""The chips with one input and an external shunt, each with a conversion about as short as with `FAST`."""

TOLERANCE_VOLTS = {"ina234": 12.8e-3}
"""Half an LSB, for a chip whose LSB is not a divisor of the voltages in the tests."""


def with_shunt(chip: str, name: str, place: str, address: int = 0x40, more: str | None = None) -> str:
    """The table of a device with a chip of `SHORTEST`, with the averaging given there unless `more` gives another."""
    averaging = SHORTEST[chip] if more is None else more
    return ina260(name, place, address, f"shunt_ohms = 0.1\n{averaging}").replace("ina260", chip)


def mux(name: str, address: int, place: str = "bus = 1", kind: str = "tca9548a") -> str:
    keys = "\n".join(place.split(", "))
    return f'[[mux]]\nname = "{name}"\nchip = "{kind}"\naddress = {address}\n{keys}\n'


@cache  # tests that inject a fault at every position build the same node each time
def settings_of(text: str, top: str = "") -> Settings:
    return parse(top + NODE + text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})


def distinct_rails(settings: Settings, clock: Clock) -> dict[str, Rail]:
    """A rail for each device that cannot be confused with another one, with the wired AND of two, or with zero.

    Both values are multiples of the LSBs of INA260 and INA3221, so that readings are exact.
    """
    rails: dict[str, Rail] = {}
    for number, device in enumerate(settings.devices):
        rails[device.name] = ConstantRail(2.0 + 0.2 * number, 0.02 * (number + 3) * (-1) ** number, clock.monotonic)
    return rails


def world_for(settings: Settings, clock: Clock, rails: Mapping[str, Rail] | None = None) -> World:
    """The simulated chips, with 12 V and 0.5 A at every device without another rail."""
    constant = {device.name: ConstantRail(12.0, 0.5, clock.monotonic) for device in settings.devices}
    return build_world(settings, clock.monotonic, {**constant, **(rails or {})})


def constant(rail: Rail) -> ConstantRail:
    """The rail, whose values a test can set."""
    assert isinstance(rail, ConstantRail)
    return rail


def buses_of(
    settings: Settings,
    world: World,
    clock: Clock,
    opener: Callable[[BusName], OpenBus] | None = None,
    sysfs: Path = NO_FOLDER,
) -> dict[BusName, Bus]:
    """The buses of a simulated node; `opener` opens one of them, or the simulated one by default."""

    def open_simulated(name: BusName) -> OpenBus:
        i2c = world.open(name)
        return OpenBus(i2c, None, i2c.deinit)

    return {
        name: Bus(name, [mux for mux in settings.muxes if mux.bus == name], opener or open_simulated, clock, sysfs)
        for name in world.wires
    }


def sweep_of(settings: Settings, world: World, clock: Clock, read_before: Container[str] = ()) -> Sweep:
    """The sweep of a simulated node; the state file lists the devices that were read since boot."""
    return Sweep(settings, list(buses_of(settings, world, clock).values()), clock, read_before=read_before)


@dataclass
class Bench:
    """A simulated node whose readings are compared with the truth.

    Attributes:
        refusal: raised when a bus is opened, while it is set.
        attempts: the number of attempts to open a bus.
        opened: every bus object that was opened.
    """

    settings: Settings
    clock: HandClock = field(default_factory=HandClock)
    rails: Mapping[str, Rail] = field(default_factory=dict)
    sysfs: Path = NO_FOLDER
    refusal: Exception | None = None
    attempts: int = 0
    opened: list[SimulatedI2C] = field(default_factory=list)
    hwmon_folder: Path = NO_FOLDER

    def __post_init__(self) -> None:
        self.rails = self.rails or distinct_rails(self.settings, self.clock)
        self._tolerances = {device.name: TOLERANCE_VOLTS.get(device.chip, 1e-9) for device in self.settings.devices}
        self.world = build_world(self.settings, self.clock.monotonic, self.rails)
        self.sweep = self.new_sweep()

    @classmethod
    def of(cls, text: str, top: str = 'sample_interval = "1s"\n') -> Bench:
        return cls(settings_of(text, top))

    def new_sweep(
        self,
        opener: Callable[[BusName], OpenBus] | None = None,
        *,
        is_observer: bool = False,
        were_read: bool = False,
    ) -> Sweep:
        """The sweep of another process on the same node, or of this one after a restart.

        With `were_read`, all devices have been read since boot, by the state file.
        """
        self.buses = buses_of(self.settings, self.world, self.clock, opener or self._open, self.sysfs)
        return Sweep(
            self.settings,
            list(self.buses.values()),
            self.clock,
            lambda devices: hwmon.Chip(devices, self.hwmon_folder),
            read_before=[device.name for device in self.settings.devices] if were_read else (),
            is_observer=is_observer,
        )

    def _open(self, name: BusName) -> OpenBus:
        self.attempts += 1
        if self.refusal is not None:
            raise self.refusal
        i2c = self.world.open(name)
        self.opened.append(i2c)
        return OpenBus(i2c, None, i2c.deinit, name if isinstance(name, int) else None)

    @property
    def wire(self) -> Wire:
        return self.world.wires[1]

    def chip(self, device: str) -> RegisterChip:
        chip = self.world.chips[device]
        assert isinstance(chip, RegisterChip)
        return chip

    def run(self) -> dict[str, Outcome]:
        """One sweep; checks that every lock is free afterwards and that every reading is right."""
        outcomes = self.sweep.run()
        by_device = {outcome.device: outcome for outcome in outcomes}
        assert len(outcomes) == len(by_device) == len(self.settings.devices)
        for i2c in self.opened:
            assert i2c.try_lock(), "a lock is still held"
            i2c.unlock()
        self.assert_right(outcomes)
        return by_device

    def run_next(self) -> dict[str, Outcome]:
        """The sweep that is due one sample interval later."""
        self.clock.sleep(self.settings.sample_interval_seconds)
        return self.run()

    def run_until_read(self, sweeps: int = 5) -> dict[str, Outcome]:
        """Sweep at the sample interval until every device is read."""
        outcomes = self.run()
        while sweeps and not self.all_read(outcomes):
            sweeps -= 1
            outcomes = self.run_next()
        assert self.all_read(outcomes), [o for o in outcomes.values() if not isinstance(o, Reading)]
        return outcomes

    def assert_right(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Reading):
                rail = self.rails.get(outcome.device)
                if isinstance(rail, ConstantRail):
                    assert abs(outcome.volts - rail.volts) < self._tolerances[outcome.device], (outcome, rail.volts)
                    assert abs(outcome.amperes - rail.amperes) < 1e-9, (outcome, rail.amperes)
                    assert outcome.power_watts == outcome.volts * outcome.amperes

    def all_muxes_are_closed(self) -> bool:
        return all(simulated.control == 0 for simulated in self.world.muxes.values())

    @staticmethod
    def all_read(outcomes: Mapping[str, Outcome]) -> bool:
        return all(isinstance(outcome, Reading) for outcome in outcomes.values())

    @staticmethod
    def kinds(outcomes: Mapping[str, Outcome]) -> dict[str, type[Outcome]]:
        return {device: type(outcome) for device, outcome in outcomes.items()}


class LinuxBench:
    """A bench whose sweep runs over an emulated /dev/i2c-1."""

    def __init__(self, text: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.bench = Bench.of(text)
        self.dev = EmulatedI2CDev(self.bench.world.wires, folder)
        self.dev.install(monkeypatch)
        self.bench.sweep = self.bench.new_sweep(open_bus)


HOLD_THE_BUS = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
"""A program that holds the lock on a file until its standard input ends."""


def failure(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    return str(outcome.error)


def power_losses(sweeps: Sequence[Mapping[str, Outcome]], device: str) -> int:
    outcomes = [outcomes[device] for outcomes in sweeps]
    return sum(isinstance(outcome, Settling) and outcome.power_lost for outcome in outcomes)
