"""The sessions with a chip: the parts shared by a run and an observer, on a bus and in the kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext
from typing import TYPE_CHECKING, Generic, TypeVar

from agent import chips
from agent.chips import ExpectedBits
from agent.errors import AgentError, BusError, MuxSwitchedError, SensorError
from agent.i2c import hints
from agent.i2c.failures import describe, is_nack, is_time_out
from agent.measure.back_off import NO_BACK_OFF
from agent.measure.identify import agreed_configuration
from agent.measure.readings import Disturbance, Failure, Outcome, Reading

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from agent.chips import I2CChip, KernelChip, Measurement
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.settings import Device

_State = TypeVar("_State")

CONVERSION_TOLERANCE = 1.1
"""The datasheets allow a conversion 10 % more than its typical time."""

# How often a chip is read in a sweep, at least, before a mux that another program keeps switching makes it a failure.
_PATH_ATTEMPTS = 12
# Such a program is busy for some ten milliseconds: more attempts are made in this part of the interval.
_PATIENCE_SHARE = 0.5
_PATIENCE_SECONDS = 0.5
_PAUSE_SECONDS = 0.002

# Reading in doubt takes several times as many transfers, and so meets more disturbances: most last less than 5 ms.
_SILENCES_IN_DOUBT = 3


class Session(ABC):
    """A session with one chip."""

    def __init__(self, devices: Sequence[Device], clock: Clock, sample_interval_seconds: float) -> None:
        self.devices = tuple(devices)
        self._clock = clock
        self._sample_interval_seconds = sample_interval_seconds
        self._back_off = NO_BACK_OFF

    @property
    def is_failing(self) -> bool:
        """Whether it failed when it was tried last."""
        return self._back_off.failures > 0

    def is_one_of(self, names: Container[str] | None) -> bool:
        """Whether any of its devices is named here; None names all."""
        return names is None or any(device.name in names for device in self.devices)

    def backing_off(self) -> list[Outcome] | None:
        """The outcomes while the chip backs off after a failure; None when it is due."""
        reason = self._back_off.reason(self._clock.monotonic())
        return None if reason is None else self._failures(reason, tried=False)

    @abstractmethod
    def step(self) -> list[Outcome]:
        """Read the chip: one outcome for each device. Raises nothing that an adapter, a chip or a driver raises."""

    def fail(self, error: AgentError) -> list[Outcome]:
        """Record a failure, and back off."""
        self._back_off = self._back_off.after(error, self._clock.monotonic(), self._sample_interval_seconds)
        return self._failures(error)

    def interrupted(self, error: AgentError, *, tried: bool = True) -> list[Outcome]:
        """Report a failure of the bus, which is not the chip's: it does not back off, and stays as it is."""
        self._back_off = NO_BACK_OFF
        return self._failures(error, tried=tried)

    def skipped(self, error: AgentError) -> list[Outcome]:
        """Report that the sweep had no time for the chip."""
        return self._failures(error, tried=False)

    def _accept(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Record outcomes that nothing puts in doubt: one good reading ends the back-off."""
        if any(isinstance(outcome, Reading) for outcome in outcomes):
            self._back_off = NO_BACK_OFF
        elif isinstance(outcomes[0], Failure):
            self.fail(outcomes[0].error)
        return outcomes

    def _failures(self, error: AgentError, *, tried: bool = True) -> list[Outcome]:
        return [Failure(device.name, error, tried) for device in self.devices]

    def _readings(
        self, measurements: Sequence[Measurement | SensorError], *, window_seconds: float, is_new: bool
    ) -> list[Outcome]:
        at_seconds, unix_seconds = self._clock.monotonic(), self._clock.time()
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
                measurement.hardware_counters,
            )
            for device, measurement in zip(self.devices, measurements, strict=True)
        ]


class KernelSession(Session):
    """A session with a chip that the kernel reads: there is nothing to open or to configure."""

    def __init__(
        self, devices: Sequence[Device], chip: KernelChip, clock: Clock, sample_interval_seconds: float
    ) -> None:
        super().__init__(devices, clock, sample_interval_seconds)
        self._chip = chip

    def step(self) -> list[Outcome]:
        """See `Session.step`."""
        try:
            measurements = self._chip.read()
        except AgentError as error:
            return self.fail(error)
        return self._accept(self._readings(measurements, window_seconds=0.0, is_new=True))


class ChipSession(Session, Generic[_State]):
    """A session with a chip on a bus. What a step reads counts only if every mux is as selected when the step ends."""

    def __init__(
        self, devices: Sequence[Device], bus: Bus, clock: Clock, sample_interval_seconds: float, state: _State
    ) -> None:
        """Prepare; nothing is read yet."""
        super().__init__(devices, clock, sample_interval_seconds)
        self._bus = bus
        self._chip: I2CChip = chips.i2c_chip(devices[0].chip)(devices, sample_interval_seconds)
        self.place = self._chip.place
        self._path = self.place.path
        self._name = f"{devices[0].chip.upper()} at {self.place}"
        self._configuration = tuple(expected.register for expected in self._chip.configuration)
        self._result_count = len(self._chip.results)
        self._state = state
        # The state to return to if a mux was switched during a step: that before the step, unless it has written since.
        self._state_if_in_doubt = state
        self._implausible = 0  # readings discarded in this step
        self._retries_before = 0  # those of the bus before this step

    @abstractmethod
    def _act(self) -> list[Outcome]:
        """Do what the state asks for; the path is selected. Raises AgentError, OSError."""

    def step(self) -> list[Outcome]:
        """See `Session.step`."""
        self._retries_before, self._implausible = self._bus.retries, 0
        try:
            outcomes = self._accept(self._advance())
        except AgentError as error:
            outcomes = self.fail(error)
        except OSError as error:
            hint = hints.of_silent_chip(self.place, error)
            outcomes = self.fail(SensorError(f"no {self._name}: {describe(error)}; {hint}"))
        retries = self._bus.retries - self._retries_before
        if retries or self._implausible:
            disturbance = Disturbance(retries, self._implausible)
            return [outcome._replace(disturbance=disturbance) for outcome in outcomes]
        return outcomes

    def _advance(self) -> list[Outcome]:
        """Do what the state asks for, and do it again if another program switched a mux on the path in the meantime.

        Raises:
            MuxSwitchedError: it happened every time.
            AgentError, OSError: as `_act`.
        """
        attempts = silences = 0
        while True:
            self._state_if_in_doubt = self._state
            try:
                return self._act_on_path()
            except MuxSwitchedError:
                self._implausible += 1
                attempts += 1
                if attempts >= _PATH_ATTEMPTS and not self._has_time():
                    raise
            except OSError as error:
                silences += 1
                is_over_soon = is_nack(error) and silences < _SILENCES_IN_DOUBT and self._bus.is_doubted
                if not (is_over_soon and self._has_time()):
                    raise
                self._state = self._state_if_in_doubt
            self._clock.sleep(_PAUSE_SECONDS)

    def _has_time(self) -> bool:
        """Whether a chip that answered in the last sweep may take more of this one."""
        patience_seconds = min(_PATIENCE_SECONDS, self._sample_interval_seconds * _PATIENCE_SHARE)
        return not self.is_failing and self._bus.held_seconds < patience_seconds

    def _act_on_path(self) -> list[Outcome]:
        self._bus.select(self._path)
        try:
            with self._bus.guarding(self.place) if self._bus.is_doubted else nullcontext():
                outcomes = self._act()
        except BusError:
            raise
        except (SensorError, OSError) as error:
            if isinstance(error, OSError) and is_time_out(error):
                raise
            self._confirm_path()  # it may be the answer of another chip, or the silence of none
            raise
        self._confirm_path()
        return outcomes

    def _confirm_path(self) -> None:
        """Make sure that every mux is as selected; otherwise nothing read since then counts."""
        try:
            self._bus.check_path(self.place)
        except OSError:
            self._state = self._state_if_in_doubt
            raise

    def _was_disturbed(self) -> bool:
        """Whether anything had to be read again in this step."""
        return self._implausible > 0 or self._bus.retries != self._retries_before

    def _is_configured(self, found: Sequence[int]) -> bool:
        return all(map(ExpectedBits.is_written, self._chip.configuration, found))

    def _read_configuration(self) -> tuple[int, ...]:
        """What the configuration registers hold; anything but what we wrote counts only when it is read twice."""
        found = self._bus.read(self.place.address, self._configuration)
        return found if self._is_configured(found) else agreed_configuration(self._bus, self._chip, self._name)
