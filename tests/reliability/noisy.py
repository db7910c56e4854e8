"""What the campaigns share: nodes on a disturbed wire whose every reading is compared with the truth."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import adafruit_ina260
import adafruit_ina3221
import adafruit_tca9548a

from agent.energy.meter import EnergyMeters
from agent.errors import BusyError
from agent.measure.readings import Failure, Reading, Settling
from agent.simulate.rails import ConstantRail
from agent.simulate.recordings import Recording
from tests.bench import Bench, ina260, ina3221, mux, settings_of
from tests.noise import WireClock

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from agent.measure.readings import Outcome
    from agent.settings import Device, Settings
    from agent.simulate.rails import Rail
    from agent.simulate.wire import Wire
    from agent.simulate.world import World

MOST_UNSEEN = 1 / 20_000
"""Of the readings beside a stock script, before its first switch is seen: it may open a channel for a whole reading."""

EQUAL_FLIPS = 5e-7
"""How many readings have a bit that flips in both readings of a register, with one byte in a thousand flipped:
2 registers x 16 bits x (1 / 8,000) squared."""

LSB_OF = {"ina260": (1.25e-3, 1.25e-3), "ina3221": (8e-3, 0.4e-3)}
"""Volts and amperes, with a shunt of 0.1 ohm."""

EIGHT_INA260 = mux("m0", 0x70) + "".join(ina260(f"d{n}", f'mux = "m0", channel = {n}') for n in range(8))
EIGHT_INA3221 = mux("m0", 0x70) + "".join(ina3221(f"d{n}", f'mux = "m0", channel = {n}', n % 3 + 1) for n in range(8))
TWICE_FOUR_INA260 = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + "".join(ina260(f"d{n}", f'mux = "m{n // 4}", channel = {n % 4}') for n in range(8))
)
EIGHT_AND_EIGHT = EIGHT_INA260 + "".join(ina3221(f"e{n}", f'mux = "m0", channel = {n}', n % 3 + 1) for n in range(8))
THREE_MUXES = "".join(
    mux(f"m{m}", 0x70 + m) + "".join(ina260(f"d{m}{n}", f'mux = "m{m}", channel = {n}') for n in (0, 3, 7))
    for m in range(3)
)
NESTED = (
    mux("m0", 0x70)
    + mux("m1", 0x71, 'mux = "m0", channel = 2')
    + mux("m2", 0x72, 'mux = "m0", channel = 2')
    + mux("m3", 0x73)
    + ina260("a", 'mux = "m0", channel = 0')
    + "".join(ina260(f"b{n}", f'mux = "m1", channel = {n}') for n in (1, 4))
    + "".join(ina260(f"c{n}", f'mux = "m2", channel = {n}') for n in (1, 5))
    + "".join(ina260(f"d{n}", f'mux = "m3", channel = {n}') for n in (0, 2))
)
FOUR_AND_FOUR = (
    mux("m0", 0x70)
    + mux("m1", 0x71)
    + "".join(ina260(f"d{n}", f'mux = "m{n // 4}", channel = {n % 4}') for n in (0, 2, 4, 6))
    + "".join(ina3221(f"d{n}", f'mux = "m{n // 4}", channel = {n % 4}', n % 3 + 1, 0x40) for n in (1, 3, 5, 7))
)
"""Eight chips of two kinds, all at 0x40, behind two muxes."""


def stepping_rails(settings: Settings, draws: random.Random, begun_seconds: float, seconds: float) -> dict[str, Rail]:
    """A load for each device that steps once in a few seconds, to values that its chip reads exactly.

    Each has a range of volts of its own, so that no device can be taken for another one.
    """
    rails: dict[str, Rail] = {}
    for number, device in enumerate(settings.devices):
        volts_lsb, amperes_lsb = LSB_OF[device.chip]
        rows, at_seconds = [], 0.0
        while at_seconds < seconds + 100:
            volts = round((3.0 + 1.3 * number + draws.random()) / volts_lsb) * volts_lsb
            rows.append((at_seconds, volts, round(draws.uniform(0.6, 1.2) / amperes_lsb) * amperes_lsb))
            at_seconds = (0.5 if not rows[1:] else at_seconds) + 1 + int(draws.expovariate(1 / 5))
        rails[device.name] = _AsItIs(Recording(rows).beginning_at(begun_seconds))
    return rails


class _AsItIs:
    """A rail that keeps its start time; the world would restart a recording."""

    def __init__(self, recording: Recording) -> None:
        self.segments = recording.segments
        self.integral = recording.integral


@dataclass
class Tally:
    """What came of the readings that were due.

    Attributes:
        due: one for each device and sweep, but not while another program held the bus.
        read: those of them that gave a reading.
        wrong: numbers that are not the truth.
        equal_flips: numbers of a chip on a wire that flips bits, off by one bit of its register: two readings of a
            register agree if the same bit flips in both.
        unseen: readings beside a stock script that are wrong although every mux was as it should be at each check.
        held: readings that were not due, because another program held the bus.
        power_losses: those that were reported, true or not.
        retries, implausible: what the outcomes say that their chips met on the bus.
    """

    due: int = 0
    read: int = 0
    held: int = 0
    power_losses: int = 0
    retries: int = 0
    implausible: int = 0
    wrong: list[str] = field(default_factory=list)
    equal_flips: list[str] = field(default_factory=list)
    unseen: set[str] = field(default_factory=set)

    def add(self, other: Tally) -> None:
        """Add the readings of another node."""
        self.due += other.due
        self.read += other.read
        self.equal_flips += other.equal_flips
        self.unseen |= other.unseen

    @property
    def share(self) -> float:
        return self.read / self.due

    def percent(self, digits: int = 1) -> str:
        return f"{100 * self.share:.{digits}f}"

    def numbers(self) -> str:
        """What is wrong with the numbers, in words; fails if it is more than chance allows."""
        assert self.wrong == []
        off, expected = len(self.equal_flips), EQUAL_FLIPS * self.read
        assert off <= 1 + 4 * expected, self.equal_flips
        assert len(self.unseen) <= 1 + MOST_UNSEEN * self.read, self.unseen
        twice = f", {off} off by a bit that flipped in both readings" if off else ""
        return f"{len(self.unseen)} wrong of {self.read:,} readings{twice}"


class NoisyNode:
    """A simulated node on a wire that a test disturbs, with its sweep and its energy meters.

    Attributes:
        has_stock_script: whether one runs beside it; see `Tally.unseen`.
        joules: the energy of each device that really flowed while it was measured: between good readings, and across
            no power loss.
    """

    def __init__(
        self,
        text: str,
        *,
        sample_interval: str = "1s",
        rails_of: Callable[[Settings, WireClock], dict[str, Rail]] | None = None,
        max_gap: str = "10m",
    ) -> None:
        self.settings = settings_of(text, f'sample_interval = "{sample_interval}"\nmax_gap = "{max_gap}"\n')
        self.clock = WireClock()
        self.begun_seconds = self.clock.seconds
        self.bench = Bench(
            self.settings, clock=self.clock, rails={} if rails_of is None else rails_of(self.settings, self.clock)
        )
        self.world: World = self.bench.world
        self.wire: Wire = self.bench.wire
        self.clock.runs_with(self.wire)
        self.meters = EnergyMeters(
            (device.name for device in self.settings.devices),
            self.settings.max_gap_seconds,
            {},
            self.settings.sample_interval_seconds,
        )
        self.tally = Tally()
        self.has_stock_script = False
        self.joules = {device.name: 0.0 for device in self.settings.devices}
        self._chips = {device.name: device for device in self.settings.devices}
        self._last_read: dict[str, float] = {}
        self._next_seconds = self.clock.seconds

    def sweep(self, times: int = 1, *, is_due: bool = True) -> None:
        """Take sweeps at the sample interval; with `is_due` False, only wrong readings are counted."""
        for _ in range(times):
            self.clock.sleep(max(0.0, self._next_seconds - self.clock.seconds))
            self._next_seconds = max(self._next_seconds, self.clock.seconds) + self.settings.sample_interval_seconds
            outcomes = self.bench.sweep.run()
            assert len(outcomes) == len(self.settings.devices)
            self.meters.add(outcomes)
            for outcome in outcomes:
                self._add(outcome, is_due=is_due)

    def _add(self, outcome: Outcome, *, is_due: bool) -> None:
        tally = self.tally
        tally.retries += outcome.disturbance.retries
        tally.implausible += outcome.disturbance.implausible
        match outcome:
            case Reading():
                self._compare(outcome)
            case Settling(device=device, power_lost=True):
                tally.power_losses += 1
                self._last_read.pop(device, None)
        if isinstance(outcome, Failure) and isinstance(outcome.error, BusyError):
            tally.held += 1
        elif is_due:
            tally.due += 1
            tally.read += isinstance(outcome, Reading)

    def _compare(self, reading: Reading) -> None:
        rail, at_seconds = self.bench.rails[reading.device], reading.at_seconds
        # The registers may have been read a few transfers, and be from a conversion, before this.
        segments = list(rail.segments(at_seconds - reading.window_seconds - 0.05, at_seconds))
        volts_lsb, amperes_lsb = LSB_OF[self._chips[reading.device].chip]
        for value, values, lsb in (
            (reading.volts, [segment.volts for segment in segments], volts_lsb),
            (reading.amperes, [segment.amperes for segment in segments], amperes_lsb),
        ):
            is_stepping = len(values) > 1
            slack = lsb if is_stepping else lsb / 100
            if not min(values) - slack <= value <= max(values) + slack:
                wrong = f"{reading} at {reading.at_seconds - self.begun_seconds:.4f} s, not {segments}"
                flipped = round(value / lsb) ^ round(values[-1] / lsb)
                is_one_bit = not is_stepping and flipped.bit_count() == 1
                if is_one_bit and self.wire.faults.flip:
                    self.tally.equal_flips.append(wrong)
                elif self.has_stock_script:
                    self.tally.unseen.add(wrong)
                else:
                    self.tally.wrong.append(wrong)
        last_seconds = self._last_read.get(reading.device)
        if last_seconds is not None and isinstance(rail, _AsItIs):
            gap = at_seconds - last_seconds
            if gap <= self.settings.max_gap_seconds:
                self.joules[reading.device] += rail.integral(last_seconds, at_seconds)
        self._last_read[reading.device] = at_seconds

    def energy_errors(self) -> dict[str, float]:
        """How far the energy of each device is off, as a share of what really flowed while it was measured."""
        return {
            name: self.meters.devices[name].saved.counters.joules / joules - 1 for name, joules in self.joules.items()
        }


class StockScript:
    """A script on Adafruit's drivers that reads each chip once a second.

    An error is caught for each device, as in their forums: the bus and everything on it are then opened again, because
    the driver of the mux leaves the bus locked after an error.
    """

    def __init__(self, node: NoisyNode) -> None:
        self.tally = Tally()
        self._node = node
        self._i2c: Any = None
        self._muxes: dict[int, Any] = {}
        self._sensors: dict[str, Any] = {}

    def sweep(self, times: int = 1, *, is_due: bool = True) -> None:
        node = self._node
        for _ in range(times):
            for device in node.settings.devices:
                try:
                    volts, amperes = self._read(device)
                except (OSError, RuntimeError, TypeError, ValueError):
                    self._i2c = None
                    is_read = False
                else:
                    is_read = (volts, amperes) != (0, 0)  # not converted yet
                    if is_read:
                        self._compare(device, volts, amperes)
                self.tally.due += is_due
                self.tally.read += is_due and is_read
            node.clock.sleep(1.0)

    def _read(self, device: Device) -> tuple[float, float]:
        place = device.place
        assert place is not None
        assert place.mux is not None
        if self._i2c is None:
            self._i2c = self._node.world.open(1)
            self._muxes, self._sensors = {}, {}
        if device.name not in self._sensors:
            stock_mux = self._muxes.setdefault(
                place.mux.address, adafruit_tca9548a.TCA9548A(self._i2c, place.mux.address)
            )
            driver = adafruit_ina260.INA260 if device.chip == "ina260" else adafruit_ina3221.INA3221
            with redirect_stdout(io.StringIO()):  # one of the drivers prints an error, then stumbles over it
                self._sensors[device.name] = driver(stock_mux[place.channel], place.address)
        sensor = self._sensors[device.name]
        if device.chip == "ina260":
            _ = sensor.power
            return sensor.voltage, sensor.current / 1000
        assert device.input is not None
        channel = sensor[device.input - 1]
        channel.shunt_resistance = device.shunt_ohms
        with redirect_stdout(io.StringIO()):
            return channel.bus_voltage, channel.current / 1000

    def _compare(self, device: Device, volts: float, amperes: float) -> None:
        rail = self._node.bench.rails[device.name]
        assert isinstance(rail, ConstantRail)
        volts_lsb, amperes_lsb = LSB_OF[device.chip]
        if abs(volts - rail.volts) > volts_lsb * 1.5 or abs(amperes - rail.amperes) > amperes_lsb * 1.5:
            self.tally.wrong.append(f"{device.name}: {volts} V, {amperes} A instead of {rail.volts}, {rail.amperes}")
