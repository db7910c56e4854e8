"""Compares the results of a chip with a register that it computes from them: two chips at one address contradict.

The bits of two chips that answer together are ANDed, in voltage, current and the computed register C alike. C is the
power, or the current scaled by a calibration, so the AND of two of them is not what follows from the ANDs of their
results. A single chip contradicts itself only for moments: while a conversion ends between the transfers, or between
its two halves, or while a bit flips. So a contradiction counts when it lasts for several readings in a row::

    V I C                    fits: that is all, nearly always
    V I C  conditions        the calibration and the mode with which C is computed so
    pause  V I C V I         several times: C may lie anywhere between what follows from before and after

Rounding is allowed for in LSBs of all three registers. The INA226 scales the current of single conversions and averages
then (SBOS547, section 6.3.1.1): the same, whatever the load does. The INA260 averages the product of single
conversions; the INA228 multiplies the averages (SLYS021, section 7.3.2). Where the voltage sags or rises by a share
under the current, the mean of the products and the product of the means differ by no more than that share. Should a
chip differ all the same, slightly and every time, its check turns itself off.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from agent.chips import ExpectedBits, signed
from agent.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import ComputedRegister, I2CChip, Measurement
    from agent.i2c.bus import Bus

log = logging.getLogger(__name__)

# Together longer than the slowest conversion of one quantity, 8.2 ms, after which a chip fits again.
_ATTEMPTS = 5
_PAUSE_SECONDS = 0.003

# The chip may compute from what it has not rounded yet, or rounded once more: single conversions, and their mean.
_LSBS_OF_RESULTS = 2


class _Quantity(NamedTuple):
    """What a register may hold.

    Attributes:
        source: what it follows from.
        register: the register, in words.
        unit: its unit.
        slight_share: by how much of it a healthy chip may differ that computes it in another way.
    """

    source: str
    register: str
    unit: str
    slight_share: float


# A power may be the average of products. A current differs by roundings; that of two chips is often close to it.
_QUANTITIES = {
    "power": _Quantity("voltage times current", "the power register", "W", 0.25),
    "current": _Quantity("the measured current", "the current register", "A", 0.01),
}
_FAILURES_OF_A_USELESS_CHECK = 10

_CHECKS_OF_NO_REGISTER = 3


class ContradictionError(SensorError):
    """The registers of a chip contradict each other."""


class Comparison(NamedTuple):
    """What the registers of a chip say about a power or a current.

    Attributes:
        results: the words of voltage and current.
        word: that of the computed register.
        is_blank: whether that word is what a chip answers that has no such register: all bits 0, or all 1.
        expected: the magnitude that follows from the results, in watts or amperes.
        found: that of the register.
        fits: whether the two agree, as far as the register can tell.
    """

    results: tuple[int, ...]
    word: int
    is_blank: bool
    expected: float
    found: float
    fits: bool


class ComputedCheck:
    """The check of one chip."""

    def __init__(self, bus: Bus, chip: I2CChip, name: str) -> None:
        self._bus = bus
        self._chip = chip
        self._name = name
        self._is_on = chip.computed is not None
        self._failures: list[Comparison] = []  # in a row
        self._has_passed = False

    def run(self) -> None:
        """Make sure that the chip's registers fit together. Raises SensorError if they do not, and as `Bus.read`."""
        computed = self._chip.computed
        if computed is None or not self._is_on:
            return
        found = _compare(self._bus, self._chip, computed)
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
            raise _error(self._name, self._chip, computed, found)
        quantity = _QUANTITIES[computed.quantity]
        self._failures = [*self._failures, found][-_FAILURES_OF_A_USELESS_CHECK:]
        if not self._has_passed and all(failure.is_blank for failure in self._failures):
            if len(self._failures) == _CHECKS_OF_NO_REGISTER:
                digits = 2 * computed.register.length_bytes
                self._turn_off(quantity, f"it always reads 0x{found.word:0{digits}x}")
        elif self._is_slight(quantity.slight_share):
            self._turn_off(quantity, f"it never equals {quantity.source}, and is close to it")
        else:
            raise _error(self._name, self._chip, computed, found)

    def _is_slight(self, share: float) -> bool:
        """Whether so many failures show a chip that computes in another way, rather than two chips."""
        failures = self._failures
        return (
            len(failures) == _FAILURES_OF_A_USELESS_CHECK
            and len({failure.results for failure in failures}) > 1
            and all(abs(failure.found - failure.expected) <= failure.expected * share for failure in failures)
        )

    def _turn_off(self, quantity: _Quantity, reason: str) -> None:
        self._is_on = False
        log.warning("%s: %s is not used to check its readings any more: %s", self._name, quantity.register, reason)


def refuse_contradiction(bus: Bus, chip: I2CChip, name: str) -> None:
    """Make sure that the registers of a chip that others configured fit together; the path is selected.

    Raises:
        ContradictionError: they do not. They may have been filled before the chip was configured as it is: it counts if
            it is still so a conversion later.
        SensorError: the chip has measured something beyond its range; otherwise as `Bus.read`.
    """
    if chip.computed is not None:
        found = _compare(bus, chip, chip.computed)
        if found is not None and not found.fits and not found.is_blank:
            raise _error(name, chip, chip.computed, found)


def _compare(bus: Bus, chip: I2CChip, computed: ComputedRegister) -> Comparison | None:
    """Compare until they fit, or until it is sure that they do not; None if the register shows nothing."""
    address = chip.place.address
    *results, word = bus.read(address, (*chip.results, computed.register))
    found = _judge(chip, computed, (results,), word, 0.0)
    if found.fits:
        return found
    conditions = (*computed.requires, *((computed.unaveraged,) if computed.unaveraged else ()))
    words = bus.read(address, tuple(bits.register for bits in conditions))
    if not all(map(ExpectedBits.is_written, computed.requires, words)):
        return None
    is_averaged = computed.unaveraged is not None and not computed.unaveraged.is_written(words[-1])
    share = _QUANTITIES[computed.quantity].slight_share if is_averaged else 0.0
    found = _judge(chip, computed, (results,), word, share)
    for _ in range(_ATTEMPTS):
        if found.fits:
            break
        bus.pause(_PAUSE_SECONDS)
        bus.check_path(chip.place)
        count = len(chip.results)
        words = bus.read(address, (*chip.results, computed.register, *chip.results))
        found = _judge(chip, computed, (words[:count], words[count + 1 :]), words[count], share)
    return found


def _judge(
    chip: I2CChip, computed: ComputedRegister, readings: Sequence[Sequence[int]], word: int, share: float
) -> Comparison:
    """Whether the register lies between what follows from the readings, give or take roundings and a share of it."""
    measured = [_measurement(chip, results) for results in readings]
    volts, amperes = [abs(one.volts) for one in measured], [abs(one.amperes) for one in measured]
    volts_rounding = _LSBS_OF_RESULTS * computed.volts_per_lsb
    amperes_rounding = _LSBS_OF_RESULTS * computed.amperes_per_lsb
    lowest = _expected(computed, max(min(volts) - volts_rounding, 0.0), max(min(amperes) - amperes_rounding, 0.0))
    highest = _expected(computed, max(volts) + volts_rounding, max(amperes) + amperes_rounding)
    bits = 8 * computed.register.length_bytes
    found = (abs(signed(word, bits)) if computed.quantity == "current" else word) * computed.per_lsb
    fits = lowest * (1 - share) - computed.per_lsb <= found <= highest * (1 + share) + computed.per_lsb
    is_blank = word in (0, (1 << bits) - 1)
    return Comparison(tuple(readings[-1]), word, is_blank, _expected(computed, volts[-1], amperes[-1]), found, fits)


def _expected(computed: ComputedRegister, volts: float, amperes: float) -> float:
    """The watts or amperes that the register should hold."""
    return volts * amperes if computed.quantity == "power" else amperes


def _measurement(chip: I2CChip, results: Sequence[int]) -> Measurement:
    (measured,) = chip.decode(results)
    if isinstance(measured, SensorError):
        raise measured
    return measured


def _error(name: str, chip: I2CChip, computed: ComputedRegister, found: Comparison) -> ContradictionError:
    source, register, unit, _ = _QUANTITIES[computed.quantity]
    return ContradictionError(
        f"{name}: its registers contradict each other ({source} is {found.expected:.4g} {unit}, {register} reads "
        f"{found.found:.4g} {unit}); are two chips at 0x{chip.place.address:02x}?"
    )
