"""Compares the results of a chip with a register that it computes from them: two chips at one address contradict.

The bits of two chips that answer together are ANDed, in voltage, current and the computed register C alike. C is the
power, or the current scaled by a calibration, so the AND of two of them is not what follows from the ANDs of their
results. A single chip contradicts itself only for moments: while a conversion ends between the transfers, or between
its two halves, or while a bit flips. So a contradiction counts when it lasts for several readings in a row::

    V I C                    fits: that is all, nearly always
    V I C  conditions        the calibration and the mode with which C is computed so
    pause  V I C V I         several times: C may lie anywhere between what follows from all readings so far

Rounding is allowed for in LSBs of all three registers. The INA226 scales the current of single conversions and then
averages it (SBOS547, section 6.3.1.1): the same, whatever the load does. The INA260 averages the product of single
conversions; the INA228 multiplies the averages (SLYS021, section 7.3.2). Where the voltage sags or rises by a share
under the current, the mean of the products and the product of the means differ by no more than that share.
They differ by more where a result averages over a current of both directions, or over a rail that is switched: then a
run lets the chip convert without averaging for a moment, which tells such a load from two chips. An observer, which
writes nothing, leaves it open. An INA226, which is checked by its current, shows such a load by its power. Should a
chip differ all the same, slightly and every time, its check turns itself off.
"""

from __future__ import annotations

import logging
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from agent.chips import ExpectedBits, signed
from agent.errors import SensorError
from agent.measure.identify import agreed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.chips import ComputedRegister, I2CChip, Measurement
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

# The chip may compute from what it has not rounded yet, or rounded once more: single conversions, and their mean.
_LSBS_OF_RESULTS = 2

_FAILURES_OF_A_USELESS_CHECK = 10

_CHECKS_OF_NO_REGISTER = 3


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


class ContradictionError(SensorError):
    """The registers of a chip contradict each other.

    Attributes:
        is_sure: False if a load that changes within a result may be the reason.
    """

    def __init__(self, message: str, *, is_sure: bool) -> None:
        super().__init__(message)
        self.is_sure = is_sure


class Comparison(NamedTuple):
    """What the registers of a chip say about a power or a current.

    Attributes:
        measured: voltage and current, as read last.
        word: that of the computed register.
        is_blank: whether that word is what a chip answers that has no such register: all bits 0, or all 1.
        expected: the magnitude that follows from the results, in watts or amperes.
        found: that of the register.
        fits: whether the two agree, as far as the register can tell.
        is_averaged: whether the register is a mean of products.
    """

    measured: Measurement
    word: int
    is_blank: bool
    expected: float
    found: float
    fits: bool
    is_averaged: bool


class ComputedCheck:
    """The check of one chip."""

    def __init__(self, bus: Bus, chip: I2CChip, name: str, clock: Clock) -> None:
        self._bus = bus
        self._chip = chip
        self._name = name
        self._clock = clock
        self._trusted_until_seconds = -inf
        self._suspicion: Comparison | None = None
        self._is_logged = False
        self._is_on = chip.computed is not None
        self._failures: list[Comparison] = []  # in a row
        self._has_passed = False

    def run(self) -> bool:
        """Make sure that the chip's registers fit together.

        Returns:
            Whether only `examine` can tell.

        Raises:
            SensorError: they do not; otherwise as `Bus.read`.
        """
        computed = self._chip.computed
        if computed is None or not self._is_on:
            return False
        found = _compare(self._bus, self._chip, computed)
        if found is not None and found.is_averaged and not found.fits and (self._has_passed or not found.is_blank):
            self._suspicion = found
            return self._clock.monotonic() >= self._trusted_until_seconds
        if found is not None:
            self._conclude(found, computed)
        self._log_averaged_power()
        return False

    def _log_averaged_power(self) -> None:
        """Warn of a rail that is switched within a result, if the chip shows it by a register of its own."""
        averaged = None if self._is_logged else self._chip.averaged_power
        found = None if averaged is None else _compare(self._bus, self._chip, averaged)
        if found is not None and found.is_averaged and not found.fits and not found.is_blank:
            self._log(found)

    def examine(self) -> None:
        """Make sure that the registers of a chip that has just stopped averaging fit together. Raises as `run`."""
        computed = self._chip.computed
        if computed is None:
            return
        found = _compare(self._bus, self._chip, computed)
        if found is None or found.is_averaged:  # it lost its power, or a bit flipped on the way to it
            return
        self._conclude(found, computed)
        if not found.fits:
            return
        self._trusted_until_seconds = self._clock.monotonic() + EXAMINATION_SECONDS
        if self._suspicion is not None and not self._is_logged:
            self._log(self._suspicion)

    def _log(self, found: Comparison) -> None:
        self._is_logged = True
        log.warning(
            "%s: voltage times current was %.2f W, its own average of the power %.2f W: within one result, the rail "
            "was switched, or the current changed direction; if the rail is switched all the time, watts and joules "
            "are wrong: set a smaller averaging count",
            self._name,
            found.expected,
            found.found,
        )

    def _conclude(self, found: Comparison, computed: ComputedRegister) -> None:
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
            and len({failure.measured for failure in failures}) > 1
            and all(abs(failure.found - failure.expected) <= failure.expected * share for failure in failures)
        )

    def _turn_off(self, quantity: _Quantity, reason: str) -> None:
        self._is_on = False
        log.warning("%s: %s is no longer used to check its readings: %s", self._name, quantity.register, reason)


def refuse_contradiction(bus: Bus, chip: I2CChip, name: str) -> None:
    """Make sure that the registers of a chip that others configured fit together; the path is selected.

    Raises:
        ContradictionError: they do not. They may have been filled before the chip was configured as it is: it counts if
            it is still so a conversion later, and if it `is_sure`. Otherwise as `Bus.read`.
    """
    if chip.computed is not None:
        found = _compare(bus, chip, chip.computed)
        if found is not None and not found.fits and not found.is_blank:
            raise _error(name, chip, chip.computed, found)


def _compare(bus: Bus, chip: I2CChip, computed: ComputedRegister) -> Comparison | None:
    """Compare until they fit, or until it is sure that they do not; None if the registers show nothing."""
    address = chip.place.address
    *results, word = bus.read(address, (*chip.results, computed.register))
    measured = _measured(chip, results)
    if not measured:  # beyond the range of the chip, or flipped
        return None
    found = _judge(computed, measured, word, 0.0)
    if found.fits:
        return found
    conditions = (*computed.requires, *((computed.unaveraged,) if computed.unaveraged else ()))
    words = agreed(
        bus, chip.place, tuple(bits.register for bits in conditions), tuple(bits.bits for bits in conditions)
    )
    if words is None or not all(map(ExpectedBits.is_written, computed.requires, words)):
        return None
    is_averaged = computed.unaveraged is not None and not computed.unaveraged.is_written(words[-1])
    share = _QUANTITIES[computed.quantity].slight_share if is_averaged else 0.0
    found = _judge(computed, measured, word, share)
    count = len(chip.results)
    for _ in range(_ATTEMPTS_OF_AVERAGES if is_averaged else _ATTEMPTS):
        if found.fits:
            break
        bus.pause(_PAUSE_SECONDS)
        bus.check_path(chip.place)
        words = bus.read(address, (*chip.results, computed.register, *chip.results))
        measured += _measured(chip, words[:count]) + _measured(chip, words[count + 1 :])
        found = _judge(computed, measured, words[count], share)
    return found


def _judge(computed: ComputedRegister, measured: Sequence[Measurement], word: int, share: float) -> Comparison:
    """Whether the register lies between what follows from all readings, give or take roundings and a share of it."""
    volts, amperes = [abs(one.volts) for one in measured], [abs(one.amperes) for one in measured]
    volts_rounding = _LSBS_OF_RESULTS * computed.volts_per_lsb
    amperes_rounding = _LSBS_OF_RESULTS * computed.amperes_per_lsb
    lowest = _expected(computed, max(min(volts) - volts_rounding, 0.0), max(min(amperes) - amperes_rounding, 0.0))
    highest = _expected(computed, max(volts) + volts_rounding, max(amperes) + amperes_rounding)
    bits = 8 * computed.register.length_bytes
    found = (abs(signed(word, bits)) if computed.quantity == "current" else word) * computed.per_lsb
    return Comparison(
        measured[-1],
        word,
        word in (0, (1 << bits) - 1),
        _expected(computed, volts[-1], amperes[-1]),
        found,
        lowest * (1 - share) - computed.per_lsb <= found <= highest * (1 + share) + computed.per_lsb,
        share > 0.0,
    )


def _expected(computed: ComputedRegister, volts: float, amperes: float) -> float:
    """The watts or amperes that the register should hold."""
    return volts * amperes if computed.quantity == "power" else amperes


def _measured(chip: I2CChip, results: Sequence[int]) -> list[Measurement]:
    """The reading; empty if the chip cannot have measured it."""
    try:
        (measured,) = chip.decode(results)
    except SensorError:
        return []
    return [] if isinstance(measured, SensorError) else [measured]


def _error(name: str, chip: I2CChip, computed: ComputedRegister, found: Comparison) -> ContradictionError:
    source, register, unit, _ = _QUANTITIES[computed.quantity]
    numbers = f"{source} is {found.expected:.4g} {unit}, {register} reads {found.found:.4g} {unit}"
    question = f"are two chips at 0x{chip.place.address:02x}?"
    if found.is_averaged:
        message = (
            f"{name}: {numbers} (an average); does its rail switch, or its current change direction, within a result? "
            f"If not, {question}"
        )
    else:
        message = f"{name}: its registers contradict each other ({numbers}); {question}"
    return ContradictionError(message, is_sure=not found.is_averaged)
