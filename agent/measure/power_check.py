"""Compares voltage times current with the power register of a chip that has one: two chips at one address contradict.

The bits of two chips that answer together are ANDed, in voltage, current and power alike, so the product is not the
power. A single chip contradicts itself only for moments: while a conversion ends between the transfers, or between its
two halves, or while a bit flips. So a contradiction counts when it lasts for several readings in a row::

    V I P                    fits: that is all, nearly always
    V I P  conditions        the calibration and the mode with which P is the product
    pause  V I P V I         several times: P may lie anywhere between the products of all readings so far

Rounding is allowed for in LSBs of all three registers. INA226 and INA260 average the product of single conversions
(SBOS547, section 6.3.1.1), the INA228 multiplies the averages (SLYS021, section 7.3.2). Where the voltage sags or rises
by a share under the current, the mean of the products and the product of the means differ by no more than that share.
They differ by more where a result averages over a current of both directions, or over a rail that is switched: then a
run lets the chip convert without averaging for a moment, which tells such a load from two chips. An observer, which
writes nothing, leaves it open. Should a chip that multiplies averages differ all the same, slightly and every time, its
check turns itself off.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from agent.chips import ExpectedBits
from agent.errors import SensorError
from agent.measure.identify import agreed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import I2CChip, Measurement, PowerRegister
    from agent.clock import Clock
    from agent.i2c.bus import Bus

log = logging.getLogger(__name__)

# Together longer than the slowest conversion of one quantity, 8.2 ms, after which a chip fits again.
_ATTEMPTS_OF_AVERAGES = 5
# Longer than two of them, the first of which ends without averaging. Conversions may also be faster than the transfers:
# a load that is switched as fast then fits in most attempts.
_ATTEMPTS = 12
_PAUSE_SECONDS = 0.003

EXAMINATION_SECONDS = 3600.0
"""How long a chip is trusted that has fitted without averaging, whatever its averages show."""

# The chip may multiply what it has not rounded yet, or rounded once more.
_LSBS_OF_RESULTS = 2

# What a healthy chip may show if it averages the product.
_SHARE_OF_AVERAGING = 0.25
_FAILURES_OF_A_USELESS_CHECK = 10

_CHECKS_OF_NO_REGISTER = 3


class ContradictionError(SensorError):
    """The registers of a chip contradict each other.

    Attributes:
        is_sure: False if a load that changes within a result may be the reason.
    """

    def __init__(self, message: str, *, is_sure: bool) -> None:
        super().__init__(message)
        self.is_sure = is_sure


class Comparison(NamedTuple):
    """What the registers of a chip say about its power.

    Attributes:
        measured: voltage and current, as read last.
        power_word: that of the power register.
        is_blank: whether that word is what a chip answers that has no such register: all bits 0, or all 1.
        product_watts: the magnitude of voltage times current.
        power_watts: what the power register says.
        fits: whether the two agree, as far as the power register can tell.
        is_averaged: whether the power register is a mean of products.
    """

    measured: Measurement
    power_word: int
    is_blank: bool
    product_watts: float
    power_watts: float
    fits: bool
    is_averaged: bool


class PowerCheck:
    """The check of one chip."""

    def __init__(self, bus: Bus, chip: I2CChip, name: str, clock: Clock) -> None:
        self._bus = bus
        self._chip = chip
        self._name = name
        self._clock = clock
        self._trusted_until_seconds = -inf
        self._suspicion: Comparison | None = None
        self._has_told = False
        self._is_on = chip.power is not None
        self._failures: list[Comparison] = []  # in a row
        self._has_passed = False

    def run(self) -> bool:
        """Make sure that the chip's registers fit together.

        Returns:
            Whether only `examine` can tell.

        Raises:
            SensorError: they do not; otherwise as `Bus.read`.
        """
        power = self._chip.power
        if power is None or not self._is_on:
            return False
        found = _compare(self._bus, self._chip, power)
        if found is not None and found.is_averaged and not found.fits and (self._has_passed or not found.is_blank):
            self._suspicion = found
            return self._clock.monotonic() >= self._trusted_until_seconds
        if found is not None:
            self._conclude(found, power)
        return False

    def examine(self) -> None:
        """Make sure that the registers of a chip that has just stopped averaging fit together. Raises as `run`."""
        power = self._chip.power
        if power is None:
            return
        found = _compare(self._bus, self._chip, power)
        if found is None or found.is_averaged:  # it lost its power, or a bit flipped on the way to it
            return
        self._conclude(found, power)
        if not found.fits:
            return
        self._trusted_until_seconds = self._clock.monotonic() + EXAMINATION_SECONDS
        if self._suspicion is not None and not self._has_told:
            self._has_told = True
            log.warning(
                "%s: voltage times current was %.2f W, its own average of the power %.2f W: within one result, the "
                "rail was switched, or the current changed direction; if the rail is switched all the time, watts and "
                "joules are wrong: set a smaller averaging count",
                self._name,
                self._suspicion.product_watts,
                self._suspicion.power_watts,
            )

    def _conclude(self, found: Comparison, power: PowerRegister) -> None:
        if found.fits:
            self._failures.clear()
            self._has_passed |= not found.is_blank
            return
        if self._bus.is_doubted:
            # Other chips may have answered in between: this shows nothing about this chip's register.
            if found.is_blank and not self._has_passed:
                return
            raise _error(self._name, self._chip, found)
        self._failures = [*self._failures, found][-_FAILURES_OF_A_USELESS_CHECK:]
        if not self._has_passed and all(failure.is_blank for failure in self._failures):
            if len(self._failures) == _CHECKS_OF_NO_REGISTER:
                digits = 2 * power.register.length_bytes
                self._turn_off(f"it always reads 0x{found.power_word:0{digits}x}")
        elif self._is_averaged():
            self._turn_off("it never equals voltage times current, and is close to it")
        else:
            raise _error(self._name, self._chip, found)

    def _is_averaged(self) -> bool:
        """Whether so many failures show a chip that computes power in another way, rather than two chips."""
        failures = self._failures
        return (
            len(failures) == _FAILURES_OF_A_USELESS_CHECK
            and len({failure.measured for failure in failures}) > 1
            and all(
                abs(failure.power_watts - failure.product_watts) <= failure.product_watts * _SHARE_OF_AVERAGING
                for failure in failures
            )
        )

    def _turn_off(self, reason: str) -> None:
        self._is_on = False
        log.warning("%s: the power register is not used to check its readings any more: %s", self._name, reason)


def refuse_contradiction(bus: Bus, chip: I2CChip, name: str) -> None:
    """Make sure that the registers of a chip that others configured fit together; the path is selected.

    Raises:
        ContradictionError: they do not. They may have been filled before the chip was configured as it is: it counts if
            it is still so a conversion later, and if it `is_sure`. Otherwise as `Bus.read`.
    """
    if chip.power is not None:
        found = _compare(bus, chip, chip.power)
        if found is not None and not found.fits and not found.is_blank:
            raise _error(name, chip, found)


def _compare(bus: Bus, chip: I2CChip, power: PowerRegister) -> Comparison | None:
    """Compare until they fit, or until it is sure that they do not; None if the registers show nothing."""
    address = chip.place.address
    *results, power_word = bus.read(address, (*chip.results, power.register))
    measured = _measured(chip, results)
    if not measured:  # beyond the range of the chip, or flipped
        return None
    found = _judge(power, measured, power_word, 0.0)
    if found.fits:
        return found
    conditions = (*power.requires, *((power.unaveraged,) if power.unaveraged else ()))
    words = agreed(
        bus, chip.place, tuple(bits.register for bits in conditions), tuple(bits.bits for bits in conditions)
    )
    if words is None or not all(map(ExpectedBits.is_written, power.requires, words)):
        return None
    is_averaged = power.unaveraged is not None and not power.unaveraged.is_written(words[-1])
    share = _SHARE_OF_AVERAGING if is_averaged else 0.0
    found = _judge(power, measured, power_word, share)
    count = len(chip.results)
    for _ in range(_ATTEMPTS_OF_AVERAGES if is_averaged else _ATTEMPTS):
        if found.fits:
            break
        bus.pause(_PAUSE_SECONDS)
        bus.check_path(chip.place)
        words = bus.read(address, (*chip.results, power.register, *chip.results))
        measured += _measured(chip, words[:count]) + _measured(chip, words[count + 1 :])
        found = _judge(power, measured, words[count], share)
    return found


def _judge(power: PowerRegister, measured: Sequence[Measurement], power_word: int, share: float) -> Comparison:
    """Whether the power lies between the products of all readings, give or take roundings and a share of them."""
    volts, amperes = [abs(one.volts) for one in measured], [abs(one.amperes) for one in measured]
    power_watts = power_word * power.watts_per_lsb
    rounding_watts = power.watts_per_lsb + _LSBS_OF_RESULTS * (
        max(volts) * power.amperes_per_lsb + max(amperes) * power.volts_per_lsb
    )
    fits = (
        min(volts) * min(amperes) * (1 - share) - rounding_watts
        <= power_watts
        <= max(volts) * max(amperes) * (1 + share) + rounding_watts
    )
    is_blank = power_word in (0, (1 << 8 * power.register.length_bytes) - 1)
    return Comparison(measured[-1], power_word, is_blank, volts[-1] * amperes[-1], power_watts, fits, share > 0.0)


def _measured(chip: I2CChip, results: Sequence[int]) -> list[Measurement]:
    """The reading; empty if the chip cannot have measured it."""
    try:
        (measured,) = chip.decode(results)
    except SensorError:
        return []
    return [] if isinstance(measured, SensorError) else [measured]


def _error(name: str, chip: I2CChip, found: Comparison) -> ContradictionError:
    numbers = (
        f"voltage times current is {found.product_watts:.2f} W, the power register reads {found.power_watts:.2f} W"
    )
    question = f"are two chips at 0x{chip.place.address:02x}?"
    if found.is_averaged:
        message = (
            f"{name}: {numbers} (an average); does its rail switch, or its current change direction, within a result? "
            f"If not, {question}"
        )
    else:
        message = f"{name}: its registers contradict each other ({numbers}); {question}"
    return ContradictionError(message, is_sure=not found.is_averaged)
