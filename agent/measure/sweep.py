"""The sweep: one reading of every device, in an order that switches each mux channel once.

A chip is opened before its first reading and again after every failure, so that another chip in its place is noticed.
What a chip measured before it was configured, or before its power failed, is never reported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from agent import chips
from agent.chips import ExpectedBits, hwmon
from agent.errors import AgentError, BusError, SensorError
from agent.i2c.bus import describe
from agent.measure.readings import Converting, Failure, Outcome, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from agent.chips import I2CChip, KernelChip, Measurement
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.place import BusName, Place
    from agent.i2c.transfers import I2C, Register
    from agent.settings import Device, Settings

_T = TypeVar("_T")

# The datasheets allow a conversion 10 % more than its typical time.
_CONVERSION_TOLERANCE = 1.1
_CONVERSION_GRACE_SECONDS = 0.5

# A chip without a new result for this many conversions has stopped, unless somebody else reads its flag away.
_MISSED_CONVERSIONS = 10

# Power losses show in every sweep. That another program wrote to the chip is looked for this often.
CONFIGURATION_CHECK_SECONDS = 60.0

LONGEST_REST_SECONDS = 10.0


class _Rest:
    """How long to leave a failing chip alone: the first failure costs one sweep, each further one twice as many."""

    def __init__(self, clock: Clock, sample_interval_seconds: float) -> None:
        self._clock = clock
        self._first_seconds = sample_interval_seconds
        self._failures = 0
        self._until_seconds = 0.0
        self._error: AgentError | None = None

    def begin(self, error: AgentError) -> None:
        self._failures += 1
        self._error = error
        # Half an interval less, so that the sweep that is due then finds the rest over.
        sweeps = 2 ** min(self._failures - 1, 16) - 0.5
        self._until_seconds = self._clock.monotonic() + min(LONGEST_REST_SECONDS, self._first_seconds * sweeps)

    def end(self) -> None:
        self._failures = 0
        self._error = None

    def reason(self) -> AgentError | None:
        """What the chip failed with, while it rests for that; None when it is due."""
        is_resting = self._error is not None and self._clock.monotonic() < self._until_seconds
        return self._error if is_resting else None


class _Mark(Enum):
    """What is known of the mark in the status of a chip, which is lost with its power."""

    NOT_OURS = "neither left nor seen by this run"
    LEFT = "left, and not seen since: not every chip keeps it"
    KEPT = "seen with the last results"


@dataclass(frozen=True, slots=True)
class _FirstResult:
    """The conversion that is waited for after a chip was opened.

    Attributes:
        ready_at_seconds: not before this it is looked for.
        overdue_at_seconds: without it after this, the chip does not convert.
        may_be_there: its flag may have been read, and so cleared, by an earlier run that was killed, or by the run
            beside this guest: then results that are not zero say it as well.
    """

    ready_at_seconds: float
    overdue_at_seconds: float
    may_be_there: bool


class _I2CStation:
    """A chip on a bus, from unopened over converting to in use."""

    def __init__(  # noqa: PLR0913 - a chip, where it is, and what is known of it
        self,
        place: Place,
        devices: tuple[Device, ...],
        bus: Bus,
        clock: Clock,
        sample_interval_seconds: float,
        *,
        was_read_before: bool,
        is_guest: bool,
    ) -> None:
        self.place = place
        self.devices = devices
        self._bus = bus
        self._clock = clock
        self._chip: I2CChip = chips.i2c_chip(devices[0].chip)(devices, sample_interval_seconds)
        self._path = place.path
        self._name = f"{devices[0].chip.upper()} at {place}"
        self._is_guest = is_guest
        self._mark = _Mark.NOT_OURS
        self._watch(None)
        self._configuration = tuple(kept.register for kept in self._chip.configuration)
        self._result_count = len(self._chip.results)
        self._rest = _Rest(clock, sample_interval_seconds)
        self._is_open = False
        self._awaited: _FirstResult | None = None  # None while the chip is in use
        self._has_stopped_converting = False  # then it is configured anew, whatever its registers say
        self._last_results: tuple[int, ...] = ()
        self._new_at_seconds = 0.0
        self._check_at_seconds = 0.0
        # In this boot, by this run or by one before it: then it was configured, and keeps that while it has power.
        self._has_been_read = was_read_before
        # To be said in place of the next reading.
        self._power_lost = False
        self._was_configured = False

    def resting(self) -> list[Outcome] | None:
        """The outcomes while the chip rests after a failure, without a look at the bus; None when it is due."""
        reason = self._rest.reason()
        return None if reason is None else self._failed(reason, tried=False)

    def step(self) -> list[Outcome]:
        """One outcome for each device; nothing that an adapter, a chip or a driver raises gets out."""
        try:
            self._bus.select(self._path)
            if not self._is_open:
                self._open()
            return self._read()
        except AgentError as error:
            return self.fail(error)
        except OSError as error:
            return self.fail(SensorError(f"{self._name} does not answer: {describe(error)}; is it powered?"))

    def fail(self, error: AgentError) -> list[Outcome]:
        """Note a failure: the chip is identified and its configuration looked at before it is trusted again."""
        self._is_open = False
        self._rest.begin(error)
        return self._failed(error)

    def _failed(self, error: AgentError, *, tried: bool = True) -> list[Outcome]:
        return [Failure(device.name, error, tried) for device in self.devices]

    def _open(self) -> None:
        self._bus.refuse_kernel_owned(self.place.address)
        # Before the driver asks, whose probe forgets why there was no answer, and may wait for a second time-out.
        try:
            self._bus.read(self.place.address, self._configuration)
        except BusError:
            raise
        except OSError as error:
            raise SensorError(f"no {self._name}: {describe(error)}; is it powered?") from error
        is_set_up = self._is_set_up(self._through_driver(self._chip.identify))
        if not is_set_up:
            if self._is_guest and self._power_lost and self._chip.status is None:
                self._power_lost = False
                raise SensorError(
                    f"{self._name}: lost its power; left to the run beside this for a moment, to count it"
                )
            self._was_configured = True
            if not self._is_guest:
                self._leave_mark()
            self._through_driver(lambda _: self._chip.configure())
        now = self._clock.monotonic()
        self._awaited = _FirstResult(
            ready_at_seconds=now if is_set_up else now + self._chip.conversion_seconds,
            overdue_at_seconds=now + _longest_seconds(self._chip.conversion_seconds),
            # Whoever set it up may have been killed before there was a result of it.
            may_be_there=is_set_up and (self._has_been_read or self._is_guest),
        )
        # A chip may take the mark and not its configuration: what was written is looked at with the first result.
        self._check_at_seconds = now + CONFIGURATION_CHECK_SECONDS if is_set_up else now
        self._watch(None if self._is_guest else self._chip.status)
        self._is_open = True

    def _through_driver(self, act: Callable[[I2C], _T]) -> _T:
        """Do what goes through the chip's driver, which selects and deselects the channel for itself."""
        try:
            result = act(self._bus.driver_port(self._path))
        except (AgentError, OSError):
            raise
        except Exception as error:  # a driver is not ours: it may fail to import, or stumble over what it reads
            raise SensorError(f"{self._name}: its driver failed ({type(error).__name__}: {error})") from error
        self._bus.select(self._path)
        return result

    def _leave_mark(self) -> None:
        """Leave the mark that tells of a power loss; only a run does, which then goes by it."""
        self._through_driver(lambda _: self._chip.set_canary())
        self._mark = _Mark.LEFT

    def _is_set_up(self, found: Sequence[int]) -> bool:
        """Whether the chip converts as it should, by what its configuration holds; notices that it lost its power."""
        chip = self._chip
        is_written = all(map(ExpectedBits.is_written, chip.configuration, found))
        is_power_on = all(map(ExpectedBits.is_power_on, chip.configuration, found))
        if is_written and is_power_on and chip.status is not None:
            # The user wants what the chip wakes up with, so that only the status tells.
            is_written = chip.status.is_written(self._read_register(chip.status.register))
        # A chip that was read before and is back in its power-on state lost its power, even if it was silent then.
        if self._has_been_read and is_power_on and not is_written:
            self._power_lost = True
            self._has_been_read = False
        return is_written and not self._has_stopped_converting

    def _watch(self, status: ExpectedBits | None) -> None:
        """Read this after the results in every sweep; None: the whole configuration."""
        self._status = status
        measured = (*self._chip.results, *self._chip.accumulators)
        self._registers = measured if status is None else (*measured, status.register)

    def _read(self) -> list[Outcome]:
        now = self._clock.monotonic()
        if self._awaited is not None:
            is_news = self._power_lost or self._was_configured
            if is_news or not self._is_there(self._awaited, now):
                power_lost, self._power_lost, self._was_configured = self._power_lost, False, False
                ready_at_seconds = self._awaited.ready_at_seconds
                return [Converting(device.name, ready_at_seconds, power_lost) for device in self.devices]
            self._awaited = None
            self._has_stopped_converting = False
            self._last_results = ()  # what is read next is new
        words = self._bus.read(self.place.address, self._registers)
        status = self._status
        if status is None:
            return self._examine(words, None, now)
        results, word = words[:-1], words[-1]
        if word & status.bits != status.written or now >= self._check_at_seconds:
            return self._examine(results, word, now)
        self._mark = _Mark.KEPT
        return self._outcomes(results, is_new=self._is_new(results, word, now))

    def _outcomes(self, results: tuple[int, ...], *, is_new: bool) -> list[Outcome]:
        measurements = self._chip.decode(results)
        errors = [measured for measured in measurements if isinstance(measured, SensorError)]
        if len(errors) == len(measurements):
            self.fail(errors[0])
        else:
            self._rest.end()
            self._has_been_read = True
        return _outcomes(
            self.devices, measurements, self._clock, window_seconds=self._chip.conversion_seconds, is_new=is_new
        )

    def _is_new(self, results: tuple[int, ...], status_word: int, read_at_seconds: float) -> bool:
        """Whether the results are of another conversion than those before.

        The flag tells, unless another program read it away; results that differ are new in any case.

        Raises:
            SensorError: the chip has stopped.
        """
        results = results[: self._result_count]
        if status_word & self._chip.new_result or results != self._last_results:
            self._last_results = results
            self._new_at_seconds = read_at_seconds
            return True
        # By when it was read: this process may have been held up since.
        longest_seconds = self._chip.conversion_seconds * _MISSED_CONVERSIONS + _CONVERSION_GRACE_SECONDS
        if read_at_seconds - self._new_at_seconds > longest_seconds:
            found = self._bus.read(self.place.address, self._configuration)
            if not all(map(ExpectedBits.is_written, self._chip.configuration, found)):
                raise self._not_ours(found)
            self._has_stopped_converting = True
            raise SensorError(f"{self._name}: has stopped converting; it is configured anew")
        return False

    def _is_there(self, awaited: _FirstResult, now: float) -> bool:
        """Whether the first conversion since opening is over; raises SensorError when it should long be."""
        if now < awaited.ready_at_seconds:
            return False
        if self._chip.is_converted(self._read_register) or (awaited.may_be_there and self._has_results()):
            return True
        if now > awaited.overdue_at_seconds:
            self._has_stopped_converting = True
            raise SensorError(
                f"{self._name}: no conversion finished in time ({self._chip.conversion_seconds:.3g} s); "
                "faulty chip, or does its power fail again and again?"
            )
        look_again_at_seconds = now + min(self._chip.conversion_seconds / 16, 0.05)
        self._awaited = replace(awaited, ready_at_seconds=look_again_at_seconds)
        return False

    def _has_results(self) -> bool:
        """Whether nothing reads zero, as results do until they are there: real zeros wait for the flag."""
        return all(self._bus.read(self.place.address, self._chip.results))

    def _examine(self, results: tuple[int, ...], status_word: int | None, read_at_seconds: float) -> list[Outcome]:
        """Look at the configuration: the status is not as we left it, or does not tell, or it is time to.

        A chip in its power-on state lost its power; any other configuration that is not ours somebody else wrote.
        """
        chip, status = self._chip, self._status
        found = self._bus.read(self.place.address, self._configuration)
        is_written = all(map(ExpectedBits.is_written, chip.configuration, found))
        is_power_on = all(map(ExpectedBits.is_power_on, chip.configuration, found))
        if is_written and status is not None and status_word is not None and status.is_written(status_word):
            self._check_at_seconds = self._clock.monotonic() + CONFIGURATION_CHECK_SECONDS
            return self._outcomes(results, is_new=self._is_new(results, status_word, read_at_seconds))
        if is_written and (status is None or not is_power_on):
            if status is not None and self._mark is not _Mark.LEFT:
                was_kept = self._mark is _Mark.KEPT
                self._through_driver(self._chip.identify)  # a driver is good for one session
                self._leave_mark()
                # A run before this one left its mark too, on a chip that keeps one.
                if was_kept or (self._has_been_read and status.is_written(self._read_register(status.register))):
                    # It lost its power, and a guest has configured it since.
                    self._power_lost = True
                    # The guest may have done so just now, and may read the flag of the first result away.
                    now = self._clock.monotonic()
                    self._awaited = _FirstResult(
                        now, now + _longest_seconds(2 * chip.conversion_seconds), may_be_there=False
                    )
                    return self._read()
            else:  # It does not keep the mark. Then its configuration has to tell, in every sweep.
                self._watch(None)
            return self._outcomes(results, is_new=True)
        # A chip that lost its power before its first result did not keep what was written even once: that is a
        # failure, or one that never takes its configuration would be waited for without end.
        if not is_power_on or not self._has_been_read:
            raise self._not_ours(found)
        self._open()
        return self._read()

    def _not_ours(self, found: Sequence[int]) -> SensorError:
        pairs = list(zip(self._chip.configuration, found, strict=True))
        kept, word = next((pair for pair in pairs if not pair[0].is_written(pair[1])), pairs[0])
        return SensorError(
            f"{self._name}: configuration register reads 0x{word:04x} instead of "
            f"0x{kept.written:04x}; does another program use this chip, or is the bus disturbed?"
        )

    def _read_register(self, register: Register) -> int:
        (word,) = self._bus.read(self.place.address, (register,))
        return word


class _KernelStation:
    """A chip that the kernel reads."""

    def __init__(self, device: Device, chip: KernelChip, clock: Clock, sample_interval_seconds: float) -> None:
        self.devices = (device,)
        self._chip = chip
        self._clock = clock
        self._rest = _Rest(clock, sample_interval_seconds)

    def step(self) -> list[Outcome]:
        (device,) = self.devices
        reason = self._rest.reason()
        if reason is not None:
            return [Failure(device.name, reason, tried=False)]
        try:
            measurement = self._chip.read()
        except AgentError as error:
            self._rest.begin(error)
            return [Failure(device.name, error)]
        self._rest.end()
        return _outcomes(self.devices, (measurement,), self._clock, window_seconds=0.0, is_new=True)


_Station = TypeVar("_Station", _I2CStation, _KernelStation)


class Sweep:
    """Reads every device once a call."""

    def __init__(  # noqa: PLR0913 - what is read, with what, and what is known of it
        self,
        settings: Settings,
        buses: Sequence[Bus],
        clock: Clock,
        open_kernel_chip: Callable[[Device], KernelChip] = hwmon.Chip,
        *,
        read_before: Container[str] = (),
        is_guest: bool = False,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: what is to be read.
            buses: those that the settings name.
            clock: for conversions, rests and time stamps.
            open_kernel_chip: makes the reader of a chip that the kernel owns.
            read_before: devices that an earlier run has read since this boot.
            is_guest: leave the marks of chips, and the flags that tell of new results, to the run beside which this
                only looks on.
        """
        interval_seconds = settings.sample_interval_seconds
        self._buses = {bus.name: bus for bus in buses}
        self._stations: dict[BusName, list[_I2CStation]] = {bus.name: [] for bus in buses}
        for configured in settings.chips():
            place, devices = configured.place, configured.devices
            was_read_before = any(device.name in read_before for device in devices)
            bus = self._buses[place.bus]
            station = _I2CStation(
                place, devices, bus, clock, interval_seconds, was_read_before=was_read_before, is_guest=is_guest
            )
            self._stations[place.bus].append(station)
        for stations in self._stations.values():
            stations.sort(key=lambda station: _visiting_order(station.place))
        self._kernel_stations = [
            _KernelStation(device, open_kernel_chip(device), clock, interval_seconds)
            for device in settings.devices
            if device.place is None
        ]

    def run(self, only: Container[str] | None = None) -> list[Outcome]:
        """One outcome for every device, or for those of the chips that `only` names, grouped by bus.

        No bus is held when it returns.
        """
        outcomes: list[Outcome] = []
        for name, stations in self._stations.items():
            outcomes += self._sweep_bus(self._buses[name], _of(stations, only))
        for station in _of(self._kernel_stations, only):
            outcomes += station.step()
        return outcomes

    def close(self) -> None:
        """Give the device files back."""
        for bus in self._buses.values():
            bus.close()

    @staticmethod
    def _sweep_bus(bus: Bus, stations: list[_I2CStation]) -> list[Outcome]:
        if not stations:
            return []
        outcomes: list[Outcome] = []
        resting = [station.resting() for station in stations]
        if None not in resting:  # a bus that cannot be opened, or that somebody else holds, is left alone as well
            return [outcome for known in resting for outcome in known or ()]
        try:
            with bus.session():
                for station, known in zip(stations, resting, strict=True):
                    outcomes += station.step() if known is None else known
        except AgentError as error:  # the bus cannot be opened or locked
            outcomes = []
            for station, known in zip(stations, resting, strict=True):
                outcomes += station.fail(error) if known is None else known
        return outcomes


def _of(stations: list[_Station], only: Container[str] | None) -> list[_Station]:
    """The stations with any of these devices; all of them for None."""
    if only is None:
        return stations
    return [station for station in stations if any(device.name in only for device in station.devices)]


def _longest_seconds(typical_seconds: float) -> float:
    """How long a result may take that typically takes so long."""
    return typical_seconds * _CONVERSION_TOLERANCE + _CONVERSION_GRACE_SECONDS


def _outcomes(
    devices: Iterable[Device],
    measurements: Iterable[Measurement | SensorError],
    clock: Clock,
    *,
    window_seconds: float,
    is_new: bool,
) -> list[Outcome]:
    at_seconds, unix_seconds = clock.monotonic(), clock.time()
    return [
        Failure(device.name, measurement)
        if isinstance(measurement, SensorError)
        else Reading(
            device.name,
            measurement.volts,
            measurement.amperes,
            measurement.volts * measurement.amperes,
            at_seconds,
            unix_seconds,
            window_seconds,
            is_new,
            measurement.accumulated,
        )
        for device, measurement in zip(devices, measurements, strict=True)
    ]


def _visiting_order(place: Place) -> tuple[tuple[int, int], ...]:
    """Sorts chips by the addresses and channels on their paths, so that a sweep opens each channel once.

    0x80 is above every address: chips on a segment come after those behind its muxes, which are closed by then anyway.
    """
    return (*((hop.mux.address, hop.channel) for hop in place.path), (0x80, place.address))
