"""A bench for the hardware path: a configuration's text becomes a simulated node, its sweep and a clock turned by hand.

Everything from the sweep down to the registers is real: the sweep, the bus, Adafruit's drivers, the simulated chips.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

# Before any driver is imported: these need no GPIO library and know no board.
os.environ["BLINKA_FORCEBOARD"] = "GENERIC_LINUX_PC"
os.environ["BLINKA_FORCECHIP"] = "GENERIC_X86"

from agent import chips
from agent.chips import hwmon
from agent.config import parse
from agent.i2c.bus import Bus
from agent.i2c.transfers import OpenBus
from agent.measure.readings import Failure, Outcome, Reading, Settling
from agent.measure.sweep import Sweep
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from agent.simulate.world import build_world

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.i2c.place import BusName
    from agent.settings import Settings
    from agent.simulate.chips import RegisterChip
    from agent.simulate.i2c import SimulatedI2C
    from agent.simulate.rails import Rail
    from agent.simulate.wire import Wire

NODE = """
hostname = "node"
[pushgateway]
url = "http://localhost:9091"
"""

FAST = 'averaging = { count = 4, voltage = "140us", current = "140us" }'
"""A conversion of 1.12 ms, so that a chip just configured is read in the next sweep."""


def ina260(name: str, place: str, address: int = 0x40, more: str = FAST) -> str:
    """A device's table; `place` is such as `mux = "m0", channel = 3` or `bus = 1`, a comma between the keys."""
    keys = "\n".join(place.split(", "))
    return f'[[device]]\nname = "{name}"\nchip = "ina260"\n{keys}\naddress = {address}\n{more}\n'


def ina3221(name: str, place: str, number: int, address: int = 0x41, more: str = FAST) -> str:
    return ina260(name, place, address, f"input = {number}\nshunt_ohms = 0.1\n{more}").replace("ina260", "ina3221")


SHORTEST = {
    "ina219": 'averaging = { count = 1, voltage = "532us", current = "532us" }',
    "ina228": 'averaging = { count = 4, voltage = "84us", current = "84us" }',
    "ina237": 'averaging = { count = 4, voltage = "84us", current = "84us" }',
    "ina238": 'averaging = { count = 4, voltage = "84us", current = "84us" }',
}
"""The chips with one input and a shunt on the board, each with a conversion about as short as with `FAST`."""


def with_shunt(chip: str, name: str, place: str, address: int = 0x40, more: str | None = None) -> str:
    """A device's table with one of the chips of `SHORTEST`; `more` of None is its averaging there."""
    averaging = SHORTEST[chip] if more is None else more
    return ina260(name, place, address, f"shunt_ohms = 0.1\n{averaging}").replace("ina260", chip)


def mux(name: str, address: int, place: str = "bus = 1") -> str:
    keys = "\n".join(place.split(", "))
    return f'[[mux]]\nname = "{name}"\nchip = "tca9548a"\naddress = {address}\n{keys}\n'


@cache  # tests that break a node at each position build it again and again
def settings_of(text: str, top: str = "") -> Settings:
    return parse(top + NODE + text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})


def distinct_rails(settings: Settings, clock: HandClock) -> dict[str, Rail]:
    """A rail for each device that no other device, no wired AND of two and no zero can be taken for.

    Both values are whole numbers of LSBs of both kinds of chip: what is read is exact.
    """
    rails: dict[str, Rail] = {}
    for number, device in enumerate(settings.devices):
        rails[device.name] = ConstantRail(2.0 + 0.2 * number, 0.02 * (number + 3) * (-1) ** number, clock.monotonic)
    return rails


@dataclass
class Bench:
    """A node on the bench.

    Attributes:
        refusal: what opening a bus raises, while it is set.
        attempts: how often a bus was to be opened.
        opened: every bus object that was opened.
    """

    settings: Settings
    clock: HandClock = field(default_factory=HandClock)
    rails: Mapping[str, Rail] = field(default_factory=dict)
    sysfs: Path = Path("/nonexistent")
    refusal: Exception | None = None
    attempts: int = 0
    opened: list[SimulatedI2C] = field(default_factory=list)
    hwmon_folder: Path = Path("/nonexistent")

    def __post_init__(self) -> None:
        self.rails = self.rails or distinct_rails(self.settings, self.clock)
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
        """What another process, or this one started again, would make of the same node.

        With `were_read` the state says that all devices have been read since this boot.
        """
        names: dict[BusName, None] = {d.place.bus: None for d in self.settings.devices if d.place is not None}
        self.buses = {
            name: Bus(
                name, [m for m in self.settings.muxes if m.bus == name], opener or self._open, self.clock, self.sysfs
            )
            for name in names
        }
        return Sweep(
            self.settings,
            list(self.buses.values()),
            self.clock,
            lambda device: hwmon.Chip(device, self.hwmon_folder),
            read_before=[device.name for device in self.settings.devices] if were_read else (),
            is_observer=is_observer,
        )

    def _open(self, name: BusName) -> OpenBus:
        self.attempts += 1
        if self.refusal is not None:
            raise self.refusal
        i2c = self.world.open(name)
        self.opened.append(i2c)
        return OpenBus(i2c, None, i2c.deinit, None if name == "board" else name)

    @property
    def wire(self) -> Wire:
        return self.world.wires[1]

    def chip(self, device: str) -> RegisterChip:
        return self.world.chips[device]  # type: ignore[return-value] # every simulated chip is one

    def run(self) -> dict[str, Outcome]:
        """One sweep; afterwards every lock is free, and every value that was reported is right."""
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
        """Sweeps until every device is read, as a loop makes them."""
        outcomes = self.run()
        while sweeps and not self.all_read(outcomes):
            sweeps -= 1
            outcomes = self.run_next()
        assert self.all_read(outcomes), [o for o in outcomes.values() if not isinstance(o, Reading)]
        return outcomes

    def assert_right(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Reading):
                rail = self.rails[outcome.device]
                if isinstance(rail, ConstantRail):
                    assert abs(outcome.volts - rail.volts) < 1e-9, (outcome, rail.volts)
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


def failure(outcome: Outcome) -> str:
    assert isinstance(outcome, Failure), outcome
    return str(outcome.error)


def power_losses(sweeps: Sequence[Mapping[str, Outcome]], device: str) -> int:
    outcomes = [outcomes[device] for outcomes in sweeps]
    return sum(isinstance(outcome, Settling) and outcome.power_lost for outcome in outcomes)
