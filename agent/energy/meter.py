"""The account: from outcomes to means, extremes and energy, for each device.

Two spans are kept apart. Counters run on for ever and are handed over to the next run. An interval gathers what is said
about the time since the last push; it is closed for a push and, if that fails, taken back, so that nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.energy.counters import Counters, LastReading, Saved
from agent.energy.hardware_counter import flow_between
from agent.energy.interval import Extremes, Interval, Means
from agent.measure.readings import Converting, Failure, Reading

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.chips import Accumulated
    from agent.measure.readings import Outcome

# A reading may come this many sample intervals after the last one before the time between them is a gap.
_LATE_SAMPLES = 1.5


@dataclass(frozen=True, slots=True)
class DeviceSnapshot:
    """What is published of a device. Without a good reading in the interval there are no means and no extremes."""

    device: str
    counters: Counters
    means: Means | None
    extremes: Extremes | None
    is_up: bool
    last_read_unix_seconds: float | None


@dataclass(frozen=True, slots=True)
class Closed:
    """An interval that has ended, as a push tells it and as a scrape does.

    Attributes:
        to_push: with everything that earlier pushes failed to bring.
        last_interval: the interval alone.
    """

    to_push: DeviceSnapshot
    last_interval: DeviceSnapshot


class DeviceAccount:
    """The account of one device.

    Attributes:
        max_gap_seconds: the longest time between two readings over which energy is still counted.
        sample_interval_seconds: how far apart the readings of one run are meant to be.
        is_up: whether the last reading succeeded.
    """

    def __init__(
        self,
        device: str,
        max_gap_seconds: float,
        saved: Saved = Saved(),  # noqa: B008 - immutable
        sample_interval_seconds: float = 0.0,
    ) -> None:
        self.device = device
        self.max_gap_seconds = max_gap_seconds
        self.sample_interval_seconds = sample_interval_seconds
        self.saved = saved
        self._has_read = False
        self.is_up = False
        self._current = Interval()
        self._sent = Interval()  # with the push that is under way
        self._unarrived = Interval()  # closed, and to be sent with the next push

    def add(self, outcome: Outcome) -> None:
        """Enter what a sweep brought back for this device."""
        match outcome:
            case Reading():
                self._add_reading(outcome)
            case Failure(tried=True):
                self.is_up = False
                self._count(read_errors=self.saved.counters.read_errors + 1)
            case Converting(power_lost=True):
                # Nobody knows what the rail did while the chip had no power: nothing is counted across it.
                self.is_up = False
                self._count(resets=self.saved.counters.resets + 1)
                self.saved = replace(self.saved, last=None)
            case Converting():
                # It had to be configured anew: what it added up until then may have been measured in other steps.
                if self.saved.last is not None and self.saved.last.energy_word is not None:
                    self.saved = replace(self.saved, last=replace(self.saved.last, energy_word=None, charge_word=None))

    @property
    def has_unpushed_readings(self) -> bool:
        """Whether there are readings that no push has brought to its end yet."""
        return any(interval.readings > 0 for interval in (self._current, self._sent, self._unarrived))

    def close_interval(self, *, for_push: bool = True) -> Closed:
        """End the interval; with `for_push` it is sent, and `settle` says later what became of it."""
        ended, self._current = self._current, Interval()
        if for_push:
            self.settle(pushed=False)  # of a push before it that was abandoned
        self._unarrived += ended
        closed = Closed(to_push=self._snapshot(self._unarrived), last_interval=self._snapshot(ended))
        if for_push:
            self._sent, self._unarrived = self._unarrived, Interval()
        return closed

    def settle(self, *, pushed: bool) -> None:
        """Forget what was pushed; what never arrived goes with the next push."""
        if not pushed:
            self._unarrived = self._sent + self._unarrived
        self._sent = Interval()

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
        self.saved = replace(self.saved, counters=replace(self.saved.counters, **changes))

    def _add_reading(self, reading: Reading) -> None:
        self.is_up = True
        self._current.add(reading.volts, reading.amperes, reading.power_watts)
        accumulated = reading.accumulated
        if accumulated is None:
            delivered, returned, seconds, last = self._energy_since_last(reading)
        else:
            delivered, returned, seconds, last = self._added_up(reading, accumulated) or self._energy_since_last(
                reading
            )
            last = replace(
                last, energy_word=accumulated.energy_word, charge_word=accumulated.charge_word, volts=reading.volts
            )
        counters = self.saved.counters
        self.saved = Saved(
            Counters(
                counters.joules + delivered,
                counters.returned_joules + returned,
                counters.measured_seconds + seconds,
                counters.readings + 1,
                counters.read_errors,
                counters.resets,
            ),
            last,
            reading.unix_seconds,
            self.saved.source,
        )
        self._has_read = True

    @property
    def _longest_gap_seconds(self) -> float:
        """Within a run, a reading that comes a little late ends no gap, however short `max_gap` is."""
        if not self._has_read:
            return self.max_gap_seconds
        return max(self.max_gap_seconds, _LATE_SAMPLES * self.sample_interval_seconds)

    def _added_up(self, reading: Reading, accumulated: Accumulated) -> tuple[float, float, float, LastReading] | None:
        """The same as `_energy_since_last`, from what the chip added up over conversions that nobody has read.

        It adds up every single conversion, not their averages, and so up to this very moment: nothing is assumed.
        Where every result was read, they are the better account, as they go by our clock: that of the chip may be 1 %
        off.

        Returns:
            None where every conversion was read, or where what the chip says cannot be.
        """
        last = self.saved.last
        if last is None or last.energy_word is None or last.charge_word is None:
            return None
        seconds = reading.at_seconds - last.at_seconds
        is_unseen = reading.is_new and last.assumed_seconds + seconds > 2 * reading.window_seconds
        if not (is_unseen or seconds > self._longest_gap_seconds):
            return None
        volts = max(last.volts, reading.volts)
        flow = flow_between(last.energy_word, last.charge_word, accumulated, volts, seconds)
        if flow is None:
            return None
        delivered, returned = (
            flow.delivered_joules - last.excess_joules,
            flow.returned_joules - last.returned_excess_joules,
        )
        return (
            max(0.0, delivered),
            max(0.0, returned),
            seconds,
            LastReading(reading.at_seconds, reading.power_watts, 0.0, max(0.0, -delivered), max(0.0, -returned)),
        )

    def _energy_since_last(self, reading: Reading) -> tuple[float, float, float, LastReading]:
        """Joules delivered, joules returned and seconds since the last reading, and what the next one carries on from.

        ::

                  conversion         conversion         conversion
            ---|------------------|------------------|------------------|---> time
                  ^                 ^      ^            ^
                  reading           new    not new      new: is about the conversion that ended before it

        The chip converts on its own clock. A reading is about the last conversion that has ended, of `window_seconds`;
        what came after is assumed to be the same until the next new reading corrects it. What lies between two
        conversions that were read is shared between them.
        """
        at_seconds, power_watts, window_seconds = reading.at_seconds, reading.power_watts, reading.window_seconds
        last = self.saved.last
        if last is None:
            return 0.0, 0.0, 0.0, LastReading(at_seconds, power_watts)
        last_power_watts = last.power_watts
        excess, returned_excess = last.excess_joules, last.returned_excess_joules
        seconds = at_seconds - last.at_seconds
        if not 0.0 < seconds <= self._longest_gap_seconds:
            return 0.0, 0.0, 0.0, LastReading(at_seconds, power_watts, 0.0, excess, returned_excess)
        assumed_seconds = last.assumed_seconds + seconds
        unseen_seconds = 0.0
        if assumed_seconds > window_seconds:  # at least what is older than a conversion has been reported on
            reported_seconds = assumed_seconds - window_seconds
            if reading.is_new and reported_seconds > window_seconds:
                unseen_seconds = reported_seconds - window_seconds
            elif reading.is_new:
                reported_seconds = window_seconds
            assumed_seconds -= reported_seconds
        elif reading.is_new:
            assumed_seconds = 0.0
        # Of all the time since the conversion before: half of what nobody saw at the last power, all else at this one.
        last_share_seconds = unseen_seconds / 2 - last.assumed_seconds
        share_seconds = seconds - last_share_seconds
        if last_power_watts >= 0.0 and power_watts >= 0.0 and not returned_excess:
            joules = last_power_watts * last_share_seconds + power_watts * share_seconds - excess
            if joules >= 0.0:
                return joules, 0.0, seconds, LastReading(at_seconds, power_watts, assumed_seconds)
            return 0.0, 0.0, seconds, LastReading(at_seconds, power_watts, assumed_seconds, -joules)
        delivered = max(0.0, last_power_watts) * last_share_seconds + max(0.0, power_watts) * share_seconds - excess
        returned = (
            max(0.0, -last_power_watts) * last_share_seconds + max(0.0, -power_watts) * share_seconds - returned_excess
        )
        excess, returned_excess = max(0.0, -delivered), max(0.0, -returned)
        return (
            max(0.0, delivered),
            max(0.0, returned),
            seconds,
            LastReading(at_seconds, power_watts, assumed_seconds, excess, returned_excess),
        )


class Account:
    """The accounts of all devices, by name and in the order of the configuration."""

    def __init__(
        self,
        devices: Iterable[str],
        max_gap_seconds: float,
        saved: Mapping[str, Saved],
        sample_interval_seconds: float = 0.0,
    ) -> None:
        self.devices = {
            device: DeviceAccount(device, max_gap_seconds, saved.get(device, Saved()), sample_interval_seconds)
            for device in devices
        }

    def adopt(self, earlier: Account) -> None:
        """Carry on what another account knows of the same devices: the configuration was read anew."""
        for name, account in earlier.devices.items():
            if name in self.devices:
                account.max_gap_seconds = self.devices[name].max_gap_seconds
                account.sample_interval_seconds = self.devices[name].sample_interval_seconds
                account.saved = account.saved.measured_at(self.devices[name].saved.source)
                self.devices[name] = account

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Enter a sweep."""
        for outcome in outcomes:
            self.devices[outcome.device].add(outcome)

    @property
    def has_unpushed_readings(self) -> bool:
        """Whether there is anything to say that has not been said."""
        return any(account.has_unpushed_readings for account in self.devices.values())

    def close_intervals(self, *, for_push: bool = True) -> tuple[Closed, ...]:
        """End the interval of every device; see `DeviceAccount.close_interval`."""
        return tuple(account.close_interval(for_push=for_push) for account in self.devices.values())

    def saved(self) -> dict[str, Saved]:
        """What the next run carries on from."""
        return {name: account.saved for name, account in self.devices.items()}
