"""The bits of a sweep on the wire: one each for START, repeated START and STOP, nine for each byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import adafruit_ina3221
import adafruit_tca9548a

from agent.measure.readings import Reading
from agent.simulate.clock import HandClock
from agent.simulate.world import World, build_world
from bench import stock
from bench.measure import Effort, Findings, Goal, Row, Samples
from bench.nodes import SHORT_CONVERSION, configuration, settings_of
from tests.bench import sweep_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.settings import Settings

_SETTLING_SWEEPS = 3


def measure(_effort: Effort, _folder: Path) -> Findings:
    """Count the bits of one sweep: every result twice, the status, and the check of the muxes after each chip."""
    eight, many = (configuration(devices, each=SHORT_CONVERSION) for devices in (8, 64))
    rows = [
        _row("bus bits: 8 INA260 behind one mux", eight, _stock_ina260s(8), "1,332 bits", Goal(2300, "bits")),
        _row("bus bits: 64 INA260 behind 8 muxes", many, _stock_ina260s(64), "10,796 bits"),
        _row("bus bits: INA3221 behind a mux, 3 inputs", _ina3221(), _stock_ina3221, "376 bits", Goal(700, "bits")),
    ]
    by_muxes = [
        _bits_of_ours(settings_of(configuration(8 * muxes, each=SHORT_CONVERSION))) / (8 * muxes) for muxes in (1, 8)
    ]
    growth = Row(
        "bus bits for each device: 64 behind 8 muxes to 8 behind one",
        Samples((by_muxes[0],), "bits"),
        Samples((by_muxes[-1],), "bits"),
        (Goal(1.03, is_ratio=True),),
        before="1.01 x",
    )
    return Findings((*rows, growth))


def bits_of_eight_ina260() -> int:
    """The bits of a steady sweep of 8 INA260 behind one mux."""
    return _bits_of_ours(settings_of(configuration(8, each=SHORT_CONVERSION)))


def _row(what: str, text: str, stock_sweep: Callable[[World], None], before: str, *goals: Goal) -> Row:
    settings = settings_of(text)
    return Row(
        what,
        Samples((_bits_of_stock(settings, stock_sweep),), "bits"),
        Samples((_bits_of_ours(settings),), "bits"),
        goals,
        before,
    )


def _bits_of_ours(settings: Settings) -> int:
    """A steady sweep, after those that identify the chips, configure them and wait for them."""
    clock = HandClock()
    world = build_world(settings, clock.monotonic)
    sweep = sweep_of(settings, world, clock)
    for _ in range(_SETTLING_SWEEPS):
        sweep.run()
        clock.sleep(1.0)
    before = world.wires[1].bits
    outcomes = sweep.run()
    if not all(isinstance(outcome, Reading) for outcome in outcomes):
        raise RuntimeError(f"some devices were not read: {outcomes}")
    return world.wires[1].bits - before


def _bits_of_stock(settings: Settings, stock_sweep: Callable[[World], None]) -> int:
    clock = HandClock()
    world = build_world(settings, clock.monotonic)
    stock_sweep(world)
    return world.wires[1].bits


def _stock_ina260s(count: int) -> Callable[[World], None]:
    def sweep(world: World) -> None:
        sensors = stock.open_sensors(world.open(1), count)
        world.wires[1].bits = 0
        stock.sweep(sensors)

    return sweep


def _stock_ina3221(world: World) -> None:
    chip = adafruit_ina3221.INA3221(adafruit_tca9548a.TCA9548A(world.open(1), 0x70)[3], 0x41)
    world.wires[1].bits = 0
    for number in range(3):
        _ = chip[number].bus_voltage, chip[number].current


def _ina3221() -> str:
    devices = "".join(
        f'\n[[device]]\nname = "input-{number}"\nchip = "ina3221"\nmux = "m0"\nchannel = 3\naddress = 0x41\n'
        f"input = {number}\nshunt_ohms = 0.1\n{SHORT_CONVERSION}\n"
        for number in (1, 2, 3)
    )
    mux = '\n[[mux]]\nname = "m0"\nchip = "tca9548a"\nbus = 1\naddress = 0x70\n'
    return configuration(0) + mux + devices
