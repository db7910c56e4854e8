"""Compares voltage times current with the power register of a chip that has one: two chips at one address contradict.

The bits of two chips that answer together are ANDed, in voltage, current and power alike, so the product is not the
power. A single chip contradicts itself only for moments: while a conversion ends between the transfers, or between its
two halves, or while a bit flips. So a contradiction counts when it lasts for several readings in a row::

    V I P                    fits: that is all, nearly always
    V I P  conditions        the calibration and the mode with which P is the product
    pause  V I P V I         several times: P may lie anywhere between the products of before and after

Rounding is allowed for in LSBs of all three registers. INA226 and INA260 average the product of single conversions
(SBOS547, section 6.3.1.1), the INA228 multiplies the averages (SLYS021, section 7.3.2). Where the voltage sags or rises
by a share under the current, the mean of the products and the product of the means differ by no more than that share.
Should a chip that multiplies averages differ all the same, slightly and every time, its check turns itself off.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from agent.chips import ExpectedBits
from agent.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import I2CChip, Measurement, PowerRegister
    from agent.i2c.bus import Bus

log = logging.getLogger(__name__)

# Together longer than the slowest conversion of one quantity, 8.2 ms, after which a chip fits again.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.003

# The chip may multiply what it has not rounded yet, or rounded once more.
_LSBS_OF_RESULTS = 2

# What a healthy chip may show if it averages the product.
_SHARE_OF_AVERAGING = 0.25
_FAILURES_OF_A_USELESS_CHECK = 10

_CHECKS_OF_NO_REGISTER = 3


class ContradictionError(SensorError):
    """The registers of a chip contradict each other."""


class Comparison(NamedTuple):
    """What the registers of a chip say about its power.

    Attributes:
        results: the words of voltage and current.
        power_word: that of the power register.
        is_blank: whether that word is what a chip answers that has no such register: all bits 0, or all 1.
        product_watts: the magnitude of voltage times current.
        power_watts: what the power register says.
        fits: whether the two agree, as far as the power register can tell.
    """

    results: tuple[int, ...]
    power_word: int
    is_blank: bool
    product_watts: float
    power_watts: float
    fits: bool


class PowerCheck:
    """The check of one chip."""

    def __init__(self, bus: Bus, chip: I2CChip, name: str) -> None:
        self._bus = bus
        self._chip = chip
        self._name = name
        self._is_on = chip.power is not None
        self._failures: list[Comparison] = []  # in a row
        self._has_passed = False

    def run(self) -> None:
        """Make sure that the chip's registers fit together. Raises SensorError if they do not, and as `Bus.read`."""
        power = self._chip.power
        if power is None or not self._is_on:
            return
        found = _compare(self._bus, self._chip, power)
        if found is None:
            return
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
            and len({failure.results for failure in failures}) > 1
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
            it is still so a conversion later.
        SensorError: the chip has measured something beyond its range; otherwise as `Bus.read`.
    """
    if chip.power is not None:
        found = _compare(bus, chip, chip.power)
        if found is not None and not found.fits and not found.is_blank:
            raise _error(name, chip, found)


def _compare(bus: Bus, chip: I2CChip, power: PowerRegister) -> Comparison | None:
    """Compare until they fit, or until it is sure that they do not; None if the power register shows nothing."""
    address = chip.place.address
    *results, power_word = bus.read(address, (*chip.results, power.register))
    found = _judge(chip, power, (results,), power_word, 0.0)
    if found.fits:
        return found
    conditions = (*power.requires, *((power.unaveraged,) if power.unaveraged else ()))
    words = bus.read(address, tuple(bits.register for bits in conditions))
    if not all(map(ExpectedBits.is_written, power.requires, words)):
        return None
    is_averaged = power.unaveraged is not None and not power.unaveraged.is_written(words[-1])
    share = _SHARE_OF_AVERAGING if is_averaged else 0.0
    found = _judge(chip, power, (results,), power_word, share)
    for _ in range(_ATTEMPTS):
        if found.fits:
            break
        bus.pause(_PAUSE_SECONDS)
        bus.check_path(chip.place)
        count = len(chip.results)
        words = bus.read(address, (*chip.results, power.register, *chip.results))
        found = _judge(chip, power, (words[:count], words[count + 1 :]), words[count], share)
    return found


def _judge(
    chip: I2CChip, power: PowerRegister, readings: Sequence[Sequence[int]], power_word: int, share: float
) -> Comparison:
    """Whether the power lies between the products of the readings, give or take roundings and a share of them."""
    measured = [_measurement(chip, results) for results in readings]
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
    return Comparison(tuple(readings[-1]), power_word, is_blank, volts[-1] * amperes[-1], power_watts, fits)


def _measurement(chip: I2CChip, results: Sequence[int]) -> Measurement:
    (measured,) = chip.decode(results)
    if isinstance(measured, SensorError):
        raise measured
    return measured


def _error(name: str, chip: I2CChip, found: Comparison) -> ContradictionError:
    return ContradictionError(
        f"{name}: its registers contradict each other (voltage times current is {found.product_watts:.2f} W, the power "
        f"register reads {found.power_watts:.2f} W); are two chips at 0x{chip.place.address:02x}?"
    )
