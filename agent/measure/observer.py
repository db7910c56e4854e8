"""The session of an observer, which stands beside a run: it writes nothing to a chip, and reads what is there.

Every chip measures from power-on on, and its results are decoded by the configuration that is found. The status is not
read: that would clear the flag by which the run knows a new result. After a power loss the results are zero until the
first conversion ends, so zeros count when they are still there a conversion later. After a change of the configuration
they are those of before it, perhaps with another LSB, so they count a conversion later, too. The IDs are read after
every result: any configuration is accepted, so that it does not show whether the chip was exchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.measure.agreement import DoubleReader
from agent.measure.computed_check import ContradictionError, refuse_contradiction
from agent.measure.identify import agreed_configuration, identify, refuse_exchanged
from agent.measure.readings import Outcome, Settling
from agent.measure.session import CONVERSION_TOLERANCE, ChipSession

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.i2c.bus import Bus
    from agent.settings import Device

# A run makes sure of a contradiction when it reads its first result.
_RESULTS_OF_A_RUN = 2


class _Watched(NamedTuple):
    """An identified chip.

    Attributes:
        found: what its configuration registers hold.
        stale_until_seconds: until then its results may be those of an earlier configuration.
        last_results: the results read last; empty before the first.
        blank_until_seconds: when zeros are believed; None if there were other results.
    """

    found: tuple[int, ...]
    stale_until_seconds: float
    last_results: tuple[int, ...] = ()
    blank_until_seconds: float | None = None


class _Doubt(NamedTuple):
    """The registers of a chip contradict each other.

    Attributes:
        is_sure: False if a load that changes within a result may be the reason.
        until_seconds: from then on it counts if it is sure, and is believed to be the load's if not.
    """

    is_sure: bool
    until_seconds: float


class ObserverSession(ChipSession["_Watched | None"]):
    """A session with a chip that a run may be reading."""

    def __init__(self, devices: Sequence[Device], bus: Bus, clock: Clock, sample_interval_seconds: float) -> None:
        """Prepare; nothing is read yet."""
        super().__init__(devices, bus, clock, sample_interval_seconds, None)
        self._reader = DoubleReader(bus, self._chip, clock)
        self._last_found: tuple[int, ...] | None = None  # also of a chip that failed since
        self._doubt: _Doubt | None = None

    def fail(self, error: AgentError) -> list[Outcome]:
        """Identify the chip before trusting it again."""
        self._state = None
        return super().fail(error)

    def _act(self) -> list[Outcome]:
        """See `ChipSession._act`."""
        watched = self._state
        if watched is None:
            watched = self._identify()
            if (until_seconds := self._contradicts_until()) is not None:
                return self._settling(until_seconds)
        taken = self._reader.take((), watched.last_results)
        self._implausible += taken.implausible
        refuse_exchanged(self._bus, self._chip, self._name)
        found = self._bus.read(self.place.address, self._configuration)
        if found != watched.found:
            found = agreed_configuration(self._bus, self._chip, self._name)
        if found != watched.found:
            watched = self._adopt(found)
            if (until_seconds := self._contradicts_until()) is not None:
                return self._settling(until_seconds)
        results, now = taken.words[: self._result_count], self._clock.monotonic()
        # Results come in pairs, of an input each; without a conversion both are zero.
        blank_until_seconds = None
        if any(not voltage and not current for voltage, current in zip(results[::2], results[1::2], strict=True)):
            blank_until_seconds = watched.blank_until_seconds
            if blank_until_seconds is None:
                blank_until_seconds = now + self._chip.conversion_seconds * CONVERSION_TOLERANCE
        self._state = watched._replace(last_results=results, blank_until_seconds=blank_until_seconds)
        ready_at_seconds = max(watched.stale_until_seconds, blank_until_seconds or 0.0)
        if now < ready_at_seconds:
            return self._settling(ready_at_seconds)
        # The LSBs of the hardware counters are those of our configuration.
        measurements = self._chip.decode(taken.words if self._is_configured(found) else results)
        return self._readings(measurements, window_seconds=self._chip.conversion_seconds, is_new=True)

    def _identify(self) -> _Watched:
        self._bus.refuse_kernel_owned(self.place.address)
        return self._adopt(identify(self._bus, self._chip, self._name))

    def _settling(self, ready_at_seconds: float) -> list[Outcome]:
        return [Settling(device.name, ready_at_seconds) for device in self.devices]

    def _contradicts_until(self) -> float | None:
        """Until when a contradiction of the registers does not count yet; None if there is none, or if it never will.

        They may be those of before a change of the configuration. If a load that changes within a result may be the
        reason, a run makes sure with its first result, and leaves two chips without averaging.

        Raises:
            ContradictionError: there still is one.
        """
        try:
            refuse_contradiction(self._bus, self._chip, self._name)
        except ContradictionError as error:
            now = self._clock.monotonic()
            if self._doubt is None or self._doubt.is_sure != error.is_sure:
                wait_seconds = self._chip.conversion_seconds * CONVERSION_TOLERANCE
                if not error.is_sure:
                    wait_seconds = _RESULTS_OF_A_RUN * (wait_seconds + self._sample_interval_seconds)
                self._doubt = _Doubt(error.is_sure, now + wait_seconds)
            if now < self._doubt.until_seconds:
                return self._doubt.until_seconds
            if error.is_sure:
                raise
            return None
        self._doubt = None
        return None

    def _adopt(self, found: tuple[int, ...]) -> _Watched:
        """Decode by what was found. If it was changed, a result from before may have another LSB."""
        is_changed, self._last_found = self._last_found not in (None, found), found
        self._chip.adopt(found)
        conversion_seconds = self._chip.conversion_seconds * CONVERSION_TOLERANCE
        return _Watched(found, self._clock.monotonic() + conversion_seconds if is_changed else 0.0)
