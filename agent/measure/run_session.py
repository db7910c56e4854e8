"""The session with one chip: identify it, configure it, await its first result, then read it in every sweep.

     +--------+                    +----------+                +-----------+  a reading
---->| Closed |  configured, or    | Settling |  first result  | Measuring |  in every sweep
     |        |------------------->|          |--------------->|           |--+
     +--------+  found configured  +----------+                +-----------+<-+
       ^    ^                        |      ^                    |       |
       |    |      any failure,      |      |     power lost:    |       |
       |    +------ no result -------+      +- configured again -+       |
       |            in time                                              |
       |                                                                 |
       +--- any failure, stopped converting, or another program wrote ---+

Each step returns the outcome of its devices: `Settling` in the first two states, readings in the third, a failure on
each arrow back to `Closed`. A failure closes the session, so that another chip in its place is noticed. Results from
before the chip was configured, or from before its power failed, are never reported.

Two things show that a chip lost its power: its configuration is back at the power-on values, or the canary bit is
gone. The canary bit is one that the run sets in the status register and that does nothing else. It is read together
with the flag of a new result, so that checking it costs nothing; the configuration is read once a minute, and with
every result if it decides what the result means. Both count only when two readings agree, because a bit may flip on
the bus; what is written is read back.

Chips of several kinds take the same configuration and mean different voltages by the same words. So each kind is
configured in a way that no other kind shows in the registers which are read in every sweep: an exchanged chip that had
its power and a configuration of ours all the time is not taken for the old one. A chip that is exchanged while it is
opened gets the wrong configuration: its IDs are read again with the first result, and then once a minute.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from agent.chips import ExpectedBits
from agent.errors import SensorError
from agent.measure.agreement import DoubleReader, Taken
from agent.measure.computed_check import ComputedCheck
from agent.measure.identify import agreed, agreed_configuration, identify, refuse_exchanged, through_driver
from agent.measure.readings import Outcome, Reading, Settling
from agent.measure.session import CONVERSION_TOLERANCE, ChipSession

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.i2c.bus import Bus
    from agent.i2c.transfers import I2C, Register
    from agent.settings import Device

_CONVERSION_GRACE_SECONDS = 0.5

# A chip without a new result for this many conversions has stopped, unless another program clears its flag.
_MISSED_CONVERSIONS = 10

# A bit may flip on the way to the chip, too.
_WRITE_ATTEMPTS = 3

CONFIGURATION_CHECK_SECONDS = 60.0
"""How often to check whether another program wrote to a chip, and whether it is still the same kind of chip.

A power loss shows in every sweep.
"""


class _Canary(Enum):
    """The state of the canary bit, as far as it is known."""

    UNKNOWN = "an earlier run may have set it"
    SET = "set, and not seen since: some clones do not keep it"
    SEEN = "read together with the last results"
    UNUSED = "the chip has none or does not keep it, or it is the run's: the configuration is read in every sweep"


class _Closed(NamedTuple):
    """Not opened yet, or closed by a failure.

    Attributes:
        power_lost: the chip lost its power, which no outcome has reported yet; then `must_configure` is set too.
        must_configure: configure the chip even if its registers look configured: it stopped converting, or a failure
            interrupted its configuration.
        results_are_old: the chip may still hold results from before its configuration, so that only the flag shows
            that there is a new one.
    """

    power_lost: bool = False
    must_configure: bool = False
    results_are_old: bool = False


class _Settling(NamedTuple):
    """Configured, or found configured, and waiting for the first result.

    Attributes:
        ready_at_seconds: when to check for the result.
        overdue_at_seconds: without a result after this, the chip does not convert.
        may_be_there: the result may be there without its flag, because another process may have read it, which clears
            the flag; then any results other than zero count.
        canary: what is known of the canary bit.
        check_at_seconds: when to read the configuration again.
    """

    ready_at_seconds: float
    overdue_at_seconds: float
    may_be_there: bool
    canary: _Canary
    check_at_seconds: float


class _Measuring(NamedTuple):
    """Read in every sweep.

    Attributes:
        canary: what is known of the canary bit.
        check_at_seconds: when to read the configuration again.
        last_results: the results read last; empty before the first.
        new_at_seconds: when they were new.
        seems_stopped: whether a new result was already overdue at the last reading.
    """

    canary: _Canary
    check_at_seconds: float
    last_results: tuple[int, ...]
    new_at_seconds: float
    seems_stopped: bool = False


_State = _Closed | _Settling | _Measuring


class RunSession(ChipSession[_State]):
    """A session with a chip on a bus: it configures the chip, and counts its power losses."""

    def __init__(
        self,
        devices: Sequence[Device],
        bus: Bus,
        clock: Clock,
        sample_interval_seconds: float,
        *,
        was_read_before: bool,
    ) -> None:
        """Prepare; nothing is read yet. `was_read_before`: an earlier run has read the chip since boot."""
        super().__init__(devices, bus, clock, sample_interval_seconds, _Closed())
        self._computed_check = ComputedCheck(bus, self._chip, self._name, clock)
        self._reader = DoubleReader(bus, self._chip, clock)
        self._scaling = self._chip.configuration if self._chip.scales else ()
        self._canary_at_start = _Canary.UNUSED if self._chip.status is None else _Canary.UNKNOWN
        # Of the bus, at the last check of the configuration: what was written since may have reached this chip, too.
        self._checked_miswrites = bus.possible_miswrites
        # Since boot. A chip that was read once has been configured, and stays so while it has power.
        self._has_been_read = was_read_before

    def _act(self) -> list[Outcome]:
        match self._state:
            case _Closed() as closed:
                return self._open(closed)
            case _Settling() as settling:
                return self._await_first_result(settling)
            case measuring:
                return self._measure(measuring, self._clock.monotonic())

    def _accept(self, outcomes: list[Outcome]) -> list[Outcome]:
        """See `ChipSession._accept`."""
        self._has_been_read |= any(isinstance(outcome, Reading) for outcome in outcomes)
        return super()._accept(outcomes)

    def fail(self, error: AgentError) -> list[Outcome]:
        """Close the session: identify the chip and read its configuration before trusting it again."""
        match self._state:
            case _Settling(may_be_there=may_be_there):
                self._state = _Closed(results_are_old=not may_be_there)
            case _Measuring():
                self._state = _Closed()
        return super().fail(error)

    def interrupted(self, error: AgentError, *, tried: bool = True) -> list[Outcome]:
        """See `Session.interrupted`. The holder of the bus may have cleared the flag of a new result."""
        now = self._clock.monotonic()
        match self._state:
            case _Settling() as settling:
                overdue_at_seconds = now + _longest_seconds(2 * self._chip.conversion_seconds)
                self._state = settling._replace(overdue_at_seconds=max(settling.overdue_at_seconds, overdue_at_seconds))
            case _Measuring() as measuring:
                self._state = measuring._replace(new_at_seconds=now)
        return super().interrupted(error, tried=tried)

    # Closed

    def _open(self, closed: _Closed) -> list[Outcome]:
        """Identify the chip, and configure it if it needs to be."""
        chip = self._chip
        self._bus.refuse_kernel_owned(self.place.address)
        found = identify(self._bus, chip, self._name)
        if not self._is_configured(found):
            found = agreed_configuration(self._bus, chip, self._name)
        is_configured, is_power_on = self._is_configured(found), self._is_power_on(found)
        if is_configured and is_power_on and chip.status is not None:
            # The configuration equals that of power-on: only the canary bit shows that it was written.
            is_configured = self._has_canary(chip.status)
        power_lost = closed.power_lost
        if self._has_been_read and is_power_on and not is_configured:
            power_lost = True  # perhaps while it did not answer
        if closed.must_configure or not is_configured:
            return self._configure(power_lost=power_lost)
        now = self._clock.monotonic()
        return self._await_first_result(
            _Settling(
                ready_at_seconds=now,
                overdue_at_seconds=now + _longest_seconds(2 * chip.conversion_seconds),
                # Not if it has not been read yet: the run that configured it may have been killed before the result.
                may_be_there=self._has_been_read and not closed.results_are_old,
                canary=self._canary_at_start,
                check_at_seconds=now,
            )
        )

    def _configure(self, *, power_lost: bool) -> list[Outcome]:
        """Configure the chip just identified, which starts a conversion."""
        self._will_write(_Closed(power_lost=power_lost, must_configure=True))
        if power_lost:
            self._has_been_read = False
        canary = self._canary_at_start
        for attempt in range(_WRITE_ATTEMPTS):
            if attempt or self._bus.is_doubted:
                self._bus.note_possible_miswrite()
            if canary is not _Canary.UNUSED:
                self._through_driver(lambda _: self._chip.set_canary())
                canary = _Canary.SET
            self._through_driver(lambda _: self._chip.configure())
            if self._holds_what_was_written():
                break
        now = self._clock.monotonic()
        settling = _Settling(
            ready_at_seconds=now + self._chip.conversion_seconds,
            overdue_at_seconds=now + _longest_seconds(2 * self._chip.conversion_seconds),
            may_be_there=False,
            canary=canary,
            # A chip may keep the canary bit but not its configuration: read that with the first result.
            check_at_seconds=now,
        )
        return self._settle(settling, power_lost=power_lost)

    def _will_write(self, state: _State) -> None:
        """Make sure that the path leads to this chip, and record the state first: a failed write may have arrived."""
        self._bus.check_path(self.place)
        self._state = self._state_if_in_doubt = state

    def _holds_what_was_written(self) -> bool:
        """Whether the chip holds what was written to it; if it never does, the check with the first result says so."""
        expected = self._chip.configuration
        if self._chip.status is not None:
            expected = (*expected, self._chip.status)
        registers = tuple(bits.register for bits in expected)
        found = agreed(self._bus, self.place, registers, tuple(bits.bits for bits in expected))
        return found is not None and all(map(ExpectedBits.is_written, expected, found))

    # Settling

    def _settle(self, settling: _Settling, *, power_lost: bool = False) -> list[Outcome]:
        self._state = settling
        return [Settling(device.name, settling.ready_at_seconds, power_lost) for device in self.devices]

    def _await_first_result(self, settling: _Settling) -> list[Outcome]:
        """Measure once the first conversion since opening is over."""
        self._state = settling
        now = self._clock.monotonic()
        if now < settling.ready_at_seconds:
            return self._settle(settling)
        if self._chip.is_converted(self._read_register) or (settling.may_be_there and self._has_results()):
            # No last results: what is read next is new.
            return self._measure(_Measuring(settling.canary, settling.check_at_seconds, (), now), now)
        # A status that was read twice has lost its flag: the next step shows more.
        if now > settling.overdue_at_seconds and not self._was_disturbed():
            self._state = _Closed(must_configure=True)
            raise SensorError(
                f"{self._name}: no conversion finished in time ({self._chip.conversion_seconds:.3g} s); "
                "is the chip faulty, or does its power keep failing?"
            )
        return self._settle(settling._replace(ready_at_seconds=now + min(self._chip.conversion_seconds / 16, 0.05)))

    def _has_results(self) -> bool:
        """Whether no result is zero, as all are before the first conversion ends; true zeros wait for the flag."""
        return all(self._bus.read(self.place.address, self._chip.results))

    # Measuring

    def _measure(self, measuring: _Measuring, now: float) -> list[Outcome]:
        self._state = measuring
        status = self._chip.status
        if status is None or measuring.canary is _Canary.UNUSED:
            return self._measure_without_canary(measuring, now)
        taken = self._take((status, *self._scaling), measuring)
        words, (status_word, *scaling_words) = taken.words, taken.expected_words
        has_canary, miswrites = status.is_written(status_word), self._bus.possible_miswrites
        is_scaled = all(map(ExpectedBits.is_written, self._scaling, scaling_words))
        if has_canary and is_scaled and now < measuring.check_at_seconds and miswrites == self._checked_miswrites:
            return self._report_conversion(measuring, words, status_word, now)
        found = self._read_configuration()
        is_configured = self._is_configured(found)
        if is_configured and not is_scaled:
            raise SensorError(f"{self._name}: its configuration reads differently each time; is the bus disturbed?")
        if is_configured and now >= measuring.check_at_seconds:
            refuse_exchanged(self._bus, self._chip, self._name)
        if is_configured and has_canary:
            return self._check_computed(measuring, miswrites, taken, now)
        if is_configured and not self._is_power_on(found):
            return self._without_canary(measuring, words)
        return self._reopen(found)

    def _measure_without_canary(self, measuring: _Measuring, now: float) -> list[Outcome]:
        taken = self._take(self._chip.configuration, measuring)
        if not self._is_configured(taken.expected_words):
            return self._reopen(taken.expected_words)
        if now >= measuring.check_at_seconds:
            refuse_exchanged(self._bus, self._chip, self._name)
            if self._computed_check.run():
                self._examine()
                return self._report(taken.words)
            measuring = measuring._replace(check_at_seconds=now + CONFIGURATION_CHECK_SECONDS)
        self._state = measuring._replace(last_results=taken.words[: self._result_count])
        return self._report(taken.words)

    def _check_computed(self, measuring: _Measuring, miswrites: int, taken: Taken, now: float) -> list[Outcome]:
        """Check the power register of a chip that is as it was configured, before what it measured is reported."""
        words, status_word = taken.words, taken.expected_words[0]
        if self._computed_check.run():
            self._examine()
            is_new = bool(status_word & self._chip.new_result) or words[: self._result_count] != measuring.last_results
            return self._report(words, is_new=is_new)
        self._checked_miswrites = miswrites
        checked = measuring._replace(check_at_seconds=self._clock.monotonic() + CONFIGURATION_CHECK_SECONDS)
        return self._report_conversion(checked, words, status_word, now)

    def _examine(self) -> None:
        """Check the power register without averaging, then configure the chip again.

        Two chips are left without averaging, so that an observer sees that they contradict each other, too.
        """
        self._will_write(_Closed(must_configure=True))
        if self._bus.is_doubted:
            self._bus.note_possible_miswrite()
        self._through_driver(lambda _: self._chip.stop_averaging())
        self._computed_check.examine()
        if self._is_power_on(agreed_configuration(self._bus, self._chip, self._name)):
            self._state = self._state_if_in_doubt = _Closed(power_lost=True, must_configure=True)
            return
        self._configure(power_lost=False)

    def _take(self, expected: tuple[ExpectedBits, ...], measuring: _Measuring) -> Taken:
        taken = self._reader.take(expected, measuring.last_results)
        self._implausible += taken.implausible
        return taken

    def _has_canary(self, status: ExpectedBits) -> bool:
        """Whether the canary bit and its neighbours are as written; anything else counts only when read twice."""
        words = agreed(self._bus, self.place, (status.register,), (status.bits,))
        return words is not None and status.is_written(words[0])

    def _report_conversion(
        self, measuring: _Measuring, words: tuple[int, ...], status_word: int, read_at_seconds: float
    ) -> list[Outcome]:
        """Report results that were read together with the canary bit and the flag of a new result.

        The flag shows that they are new, unless another program cleared it, or a reading of it was repeated; results
        that differ are new in any case.
        """
        last_results, new_at_seconds, seems_stopped = words[: self._result_count], read_at_seconds, False
        is_new = bool(status_word & self._chip.new_result) or last_results != measuring.last_results
        if not is_new:
            # A status that was read twice has lost its flag the second time: that shows nothing.
            seems_stopped = measuring.seems_stopped
            last_results, new_at_seconds = measuring.last_results, measuring.new_at_seconds
        if not is_new and not self._was_disturbed():
            # Use the read time, not now: the process may have been descheduled since.
            longest_seconds = self._chip.conversion_seconds * _MISSED_CONVERSIONS + _CONVERSION_GRACE_SECONDS
            seems_stopped = read_at_seconds - measuring.new_at_seconds > longest_seconds
            if seems_stopped:
                self._refuse_if_stopped(measuring)
        self._state = _Measuring(_Canary.SEEN, measuring.check_at_seconds, last_results, new_at_seconds, seems_stopped)
        return self._report(words, is_new=is_new)

    def _report(self, words: tuple[int, ...], *, is_new: bool = True) -> list[Outcome]:
        measurements = self._chip.decode(words)
        return self._readings(measurements, window_seconds=self._chip.conversion_seconds, is_new=is_new)

    def _without_canary(self, measuring: _Measuring, words: tuple[int, ...]) -> list[Outcome]:
        """Continue with a configured chip that lacks the canary bit: it keeps none, or another program wrote to it."""
        if measuring.canary is _Canary.SET:
            self._canary_at_start = _Canary.UNUSED
            check_at_seconds = self._clock.monotonic() + CONFIGURATION_CHECK_SECONDS
            self._state = measuring._replace(canary=_Canary.UNUSED, check_at_seconds=check_at_seconds)
            return self._report(words)
        return self._open(_Closed(power_lost=measuring.canary is _Canary.SEEN, must_configure=True))

    def _reopen(self, found: Sequence[int]) -> list[Outcome]:
        """A chip in its power-on state lost its power; any other value means that another program wrote it.

        Raises:
            SensorError: another program wrote it. Or it lost its power before its first reading: otherwise the
                session would wait forever for a chip that never keeps its configuration.
        """
        if not self._is_power_on(found):
            raise self._foreign_configuration(found)
        if not self._has_been_read:
            raise SensorError(
                f"{self._name}: is back at its power-on configuration before its first result; does its power keep "
                "failing, or is it a clone that keeps none?"
            )
        return self._open(_Closed())

    def _refuse_if_stopped(self, measuring: _Measuring) -> None:
        """Raise if the chip stopped converting, or if another program wrote to it, if that is why.

        It counts only when two readings in a row show it: the flag of a new result may have been flipped, or cleared by
        a reading that failed.
        """
        found = self._read_configuration()
        if not self._is_configured(found):
            raise self._foreign_configuration(found)
        if measuring.seems_stopped:
            self._state = _Closed(must_configure=True)
            raise SensorError(f"{self._name}: has stopped converting; it will be configured again")

    def _foreign_configuration(self, found: Sequence[int]) -> SensorError:
        pairs = list(zip(self._chip.configuration, found, strict=True))
        expected, word = next((pair for pair in pairs if not pair[0].is_written(pair[1])), pairs[0])
        return SensorError(
            f"{self._name}: configuration register reads 0x{word:04x} instead of "
            f"0x{expected.written:04x}; does another program use this chip, or is the bus disturbed?"
        )

    # Registers

    def _is_power_on(self, found: Sequence[int]) -> bool:
        return all(map(ExpectedBits.is_power_on, self._chip.configuration, found))

    def _read_register(self, register: Register) -> int:
        (word,) = self._bus.read(self.place.address, (register,))
        return word

    def _through_driver(self, act: Callable[[I2C], object]) -> None:
        through_driver(self._bus, self._chip, self._name, act)


def _longest_seconds(typical_seconds: float) -> float:
    """The longest that a result with this typical duration may take."""
    return typical_seconds * CONVERSION_TOLERANCE + _CONVERSION_GRACE_SECONDS
