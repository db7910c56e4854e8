"""Energy meters: one for each device, from outcomes to means, extremes, energy and charge.

Counters never reset; each run hands them to the next. Means and extremes cover an interval, which a push closes. If
the push fails, the interval is pending and the next push covers it too, so that no reading is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.energy.counters import Counters, LastReading, Saved
from agent.energy.flow import NOTHING, Flow, flow
from agent.energy.hardware_counter import flows_between
from agent.energy.interval import Extremes, Interval, Means
from agent.measure.readings import UNDISTURBED, Failure, Reading, Settling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.measure.readings import Outcome

# A reading may be this many sample intervals after the last one before the time between them is a gap.
_LATE_SAMPLES = 1.5

_NOTHING_SAVED = Saved()


class DeviceSnapshot(NamedTuple):
    """The published values of a device. Without a good reading in the interval it has no means and no extremes."""

    device: str
    counters: Counters
    means: Means | None
    extremes: Extremes | None
    is_up: bool
    last_read_unix_seconds: float | None


class Closed(NamedTuple):
    """A closed interval, once for a push and once for a scrape.

    Attributes:
        pending: the interval and everything that earlier pushes failed to deliver.
        last_interval: the interval alone.
    """

    pending: DeviceSnapshot
    last_interval: DeviceSnapshot


class _Counted(NamedTuple):
    """The energy and the charge that flowed since the last reading.

    Attributes:
        measured_seconds: the time that they cover.
        assumed_seconds: the end of that time, which no finished conversion covers yet; see `LastReading`.
    """

    energy: Flow
    charge: Flow
    measured_seconds: float
    assumed_seconds: float


_NOT_MEASURED = _Counted(NOTHING, NOTHING, 0.0, 0.0)


class EnergyMeter:
    """The energy meter of one device.

    Attributes:
        max_gap_seconds: the longest time between two readings over which energy is counted.
        sample_interval_seconds: the intended time between two readings of one run.
        is_up: whether the last reading succeeded.
    """

    def __init__(
        self,
        device: str,
        max_gap_seconds: float,
        saved: Saved = _NOTHING_SAVED,
        sample_interval_seconds: float = 0.0,
    ) -> None:
        self.device = device
        self.max_gap_seconds = max_gap_seconds
        self.sample_interval_seconds = sample_interval_seconds
        self.saved = saved
        self._has_read = False
        self.is_up = False
        self._current = Interval()
        self._in_flight = Interval()  # with the push that is under way
        self._pending = Interval()  # closed, for the next push

    def add(self, outcome: Outcome) -> None:
        """Add the outcome of a sweep for this device."""
        if outcome.disturbance is not UNDISTURBED:
            counters, (retries, implausible) = self.saved.counters, outcome.disturbance
            self._count(retries=counters.retries + retries, implausible=counters.implausible + implausible)
        match outcome:
            case Reading():
                self._add_reading(outcome)
            case Failure(tried=True):
                self.is_up = False
                self._count(read_errors=self.saved.counters.read_errors + 1)
            case Settling(power_lost=True):
                # Nothing is known about the rail while the chip had no power: nothing is counted across that time.
                self.is_up = False
                self._count(resets=self.saved.counters.resets + 1)
                self.saved = self.saved._replace(last=None)
            case Settling():
                # The chip was configured again: until then its counters may have had other LSBs.
                last = self.saved.last
                if last is not None and last.energy_word is not None:
                    self.saved = self.saved._replace(last=last._replace(energy_word=None, charge_word=None))

    @property
    def has_unpushed_readings(self) -> bool:
        """Whether there are readings that no push has delivered yet."""
        return any(interval.readings > 0 for interval in (self._current, self._in_flight, self._pending))

    @property
    def has_open_readings(self) -> bool:
        """Whether there are readings that no closed interval holds yet."""
        return self._current.readings > 0

    def close_interval(self, *, for_push: bool = True) -> Closed:
        """Close the interval. With `for_push`, call `acknowledge` when the push has ended."""
        ended, self._current = self._current, Interval()
        self._pending += ended
        last_interval = self._snapshot(ended)
        return Closed(self.carry_pending() if for_push else self._snapshot(self._pending), last_interval)

    def carry_pending(self) -> DeviceSnapshot:
        """Hand what was closed before to a push, and close nothing; call `acknowledge` when the push has ended."""
        self.acknowledge(pushed=False)  # of an earlier push that was abandoned
        snapshot = self._snapshot(self._pending)
        self._in_flight, self._pending = self._pending, Interval()
        return snapshot

    def acknowledge(self, *, pushed: bool) -> None:
        """End the push that is under way: forget what it delivered, or keep it pending for the next push."""
        if not pushed:
            self._pending = self._in_flight + self._pending
        self._in_flight = Interval()

    def _snapshot(self, interval: Interval) -> DeviceSnapshot:
        return DeviceSnapshot(
            self.device,
            self.saved.counters,
            interval.means(),
            interval.extremes(),
            self.is_up and interval.readings > 0,
            self.saved.last_read_unix_seconds,
        )

    def _count(self, **changes: int) -> None:
        self.saved = self.saved._replace(counters=self.saved.counters._replace(**changes))

    def _add_reading(self, reading: Reading) -> None:
        self.is_up = True
        self._current.add(reading.volts, reading.amperes, reading.power_watts)
        counted = self._from_hardware_counters(reading) or self._from_readings(reading)
        joules, returned_joules = counted.energy
        coulombs, returned_coulombs = counted.charge
        last = self.saved.last
        if last is not None:
            joules -= last.overcounted_joules
            returned_joules -= last.returned_overcounted_joules
            coulombs -= last.overcounted_coulombs
            returned_coulombs -= last.returned_overcounted_coulombs
        counters, hardware = self.saved.counters, reading.hardware_counters
        self.saved = Saved(
            Counters(
                counters.joules + max(0.0, joules),
                counters.returned_joules + max(0.0, returned_joules),
                counters.measured_seconds + counted.measured_seconds,
                counters.readings + 1,
                counters.read_errors,
                counters.resets,
                counters.retries,
                counters.implausible,
                counters.coulombs + max(0.0, coulombs),
                counters.returned_coulombs + max(0.0, returned_coulombs),
            ),
            LastReading(
                reading.at_seconds,
                reading.power_watts,
                counted.assumed_seconds,
                # Counters must not fall: a negative rest waits.
                max(0.0, -joules),
                max(0.0, -returned_joules),
                None if hardware is None else hardware.energy_word,
                None if hardware is None else hardware.charge_word,
                0.0 if hardware is None else reading.volts,
                reading.amperes,
                max(0.0, -coulombs),
                max(0.0, -returned_coulombs),
            ),
            reading.unix_seconds,
            self.saved.source,
        )
        self._has_read = True

    @property
    def _longest_gap_seconds(self) -> float:
        """Within a run, a reading that is a little late leaves no gap, however short `max_gap` is."""
        if not self._has_read:
            return self.max_gap_seconds
        return max(self.max_gap_seconds, _LATE_SAMPLES * self.sample_interval_seconds)

    def _from_hardware_counters(self, reading: Reading) -> _Counted | None:
        """Count what flowed since the last reading by the chip's own counters, if conversions went unread.

        The chip adds up every conversion, not their averages, up to this very moment: nothing is assumed. If every
        conversion was read, the readings are more accurate, because they use our clock; the chip's may be 1 % off. If
        readings are further apart than a conversion takes, one will go unread: the time that readings assume until
        then would never be corrected.

        Returns:
            None if there are no such counters, if every conversion was read, or if the counters are implausible.
        """
        last = self.saved.last
        if last is None:
            return None
        seconds = reading.at_seconds - last.at_seconds
        is_unread = last.assumed_seconds + seconds > 2 * reading.window_seconds
        will_be_unread = not last.assumed_seconds and seconds > reading.window_seconds
        if not (reading.is_new and (is_unread or will_be_unread)) and seconds <= self._longest_gap_seconds:
            return None
        flows = flows_between(last, reading)
        return None if flows is None else _Counted(flows.energy, flows.charge, seconds, assumed_seconds=0.0)

    def _from_readings(self, reading: Reading) -> _Counted:
        """Count what flowed since the last reading by the power and the current of both.

        ::

                  conversion         conversion         conversion
            ---|------------------|------------------|------------------|---> time
                  ^                 ^      ^            ^
                  reading           new    not new      new: covers the conversion that ended before it

        The chip converts on its own clock. A reading covers the last conversion that has ended, of `window_seconds`.
        Power and current since then are assumed to be the same until the next new reading corrects them. The time
        between two conversions that were read is shared between them.
        """
        last = self.saved.last
        if last is None:
            return _NOT_MEASURED
        seconds = reading.at_seconds - last.at_seconds
        if not 0.0 < seconds <= self._longest_gap_seconds:
            return _NOT_MEASURED
        # This reading leaves two parts of the time since the last conversion that was read uncovered: the end, where a
        # conversion is under way, and the start, where conversions went unread.
        uncovered_seconds = last.assumed_seconds + seconds
        unread_seconds = 0.0
        if reading.is_new:
            unread_seconds = max(0.0, uncovered_seconds - 2 * reading.window_seconds)
            uncovered_seconds = max(0.0, uncovered_seconds - reading.window_seconds)
        assumed_seconds = min(uncovered_seconds, reading.window_seconds)
        # Half of the unread time is as the last reading; the time that was assumed to be so is taken back. All the rest
        # is as this reading.
        last_share_seconds = unread_seconds / 2 - last.assumed_seconds
        share_seconds = seconds - last_share_seconds
        return _Counted(
            flow(last.power_watts, last_share_seconds, reading.power_watts, share_seconds),
            flow(last.amperes, last_share_seconds, reading.amperes, share_seconds),
            seconds,
            assumed_seconds,
        )


class EnergyMeters:
    """The energy meters of all devices, by name and in the order of the configuration."""

    def __init__(
        self,
        devices: Iterable[str],
        max_gap_seconds: float,
        saved: Mapping[str, Saved],
        sample_interval_seconds: float = 0.0,
    ) -> None:
        self.devices = {
            device: EnergyMeter(device, max_gap_seconds, saved.get(device, _NOTHING_SAVED), sample_interval_seconds)
            for device in devices
        }

    def adopt(self, earlier: EnergyMeters) -> None:
        """Continue the meters of devices that an earlier configuration has too: the configuration was reloaded."""
        for name, meter in earlier.devices.items():
            if name in self.devices:
                meter.max_gap_seconds = self.devices[name].max_gap_seconds
                meter.sample_interval_seconds = self.devices[name].sample_interval_seconds
                meter.saved = meter.saved.with_source(self.devices[name].saved.source)
                self.devices[name] = meter

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Add the outcomes of a sweep."""
        for outcome in outcomes:
            self.devices[outcome.device].add(outcome)

    @property
    def has_unpushed_readings(self) -> bool:
        """Whether there are readings of any device that no push has delivered yet."""
        return any(meter.has_unpushed_readings for meter in self.devices.values())

    @property
    def has_open_readings(self) -> bool:
        """Whether there are readings of any device that no closed interval holds yet."""
        return any(meter.has_open_readings for meter in self.devices.values())

    def carry_pending(self) -> tuple[DeviceSnapshot, ...]:
        """Hand what was closed before to a push; see `EnergyMeter.carry_pending`."""
        return tuple(meter.carry_pending() for meter in self.devices.values())

    def close_intervals(self, *, for_push: bool = True) -> tuple[Closed, ...]:
        """Close the interval of every device; see `EnergyMeter.close_interval`."""
        return tuple(meter.close_interval(for_push=for_push) for meter in self.devices.values())

    def acknowledge_all(self, *, pushed: bool) -> None:
        """End the push that is under way for every device; see `EnergyMeter.acknowledge`."""
        for meter in self.devices.values():
            meter.acknowledge(pushed=pushed)

    def saved(self) -> dict[str, Saved]:
        """The state that the next run continues from."""
        return {name: meter.saved for name, meter in self.devices.items()}
