"""Compares voltage times current with the power register of a chip that has one: two chips at one address contradict.

The bits of two chips that answer together are ANDed, in voltage, current and power alike, so the product is not the
power. According to the datasheets the power register is the product of the two result registers. Should a chip average
the product instead, its load makes the two differ slightly, every time: such a check turns itself off.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import SensorError

if TYPE_CHECKING:
    from agent.chips import I2CChip, PowerRegister
    from agent.i2c.bus import Bus

log = logging.getLogger(__name__)

_TOLERANCE_WATTS = 0.015
_ATTEMPTS = 3  # a conversion may end, or a bit flip, while the registers are read

# What a healthy chip may show if it averages the product.
_SHARE_OF_AVERAGING = 0.25
_FAILURES_OF_A_USELESS_CHECK = 10

_CHECKS_OF_NO_REGISTER = 3
_NOT_IMPLEMENTED = (0x0000, 0xFFFF)


class Comparison(NamedTuple):
    """What the registers of a chip say about its power.

    Attributes:
        results: the words of voltage and current.
        power_word: that of the power register.
        product_watts: the magnitude of voltage times current.
        power_watts: what the power register says.
        fits: whether the two agree, as far as the power register can tell.
    """

    results: tuple[int, ...]
    power_word: int
    product_watts: float
    power_watts: float
    fits: bool


class PowerCheck:
    """The check of one chip."""

    def __init__(self, bus: Bus, chip: I2CChip, name: str) -> None:
        self._bus = bus
        self._chip = chip
        self._name = name
        self._power = chip.power
        self._failures: list[Comparison] = []  # in a row
        self._has_passed = False

    def run(self) -> None:
        """Make sure that the chip's registers fit together. Raises SensorError if they do not, and as `Bus.read`."""
        if self._power is None:
            return
        found = _compare(self._bus, self._chip, self._power)
        if found.fits:
            self._failures.clear()
            self._has_passed |= found.power_word not in _NOT_IMPLEMENTED
            return
        if self._bus.is_doubted:
            # Other chips may have answered in between: this shows nothing about this chip's register.
            if found.power_word in _NOT_IMPLEMENTED and not self._has_passed:
                return
            raise _error(self._name, self._chip, found)
        self._failures = [*self._failures, found][-_FAILURES_OF_A_USELESS_CHECK:]
        if not self._has_passed and all(failure.power_word in _NOT_IMPLEMENTED for failure in self._failures):
            if len(self._failures) == _CHECKS_OF_NO_REGISTER:
                self._turn_off(f"it always reads 0x{found.power_word:04x}")
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
        self._power = None
        log.warning("%s: the power register is not used to check its readings any more: %s", self._name, reason)


def refuse_contradiction(bus: Bus, chip: I2CChip, name: str) -> None:
    """Raise SensorError if the chip's registers contradict each other, and as `Bus.read`; the path is selected."""
    if chip.power is not None:
        found = _compare(bus, chip, chip.power)
        if not found.fits and found.power_word not in _NOT_IMPLEMENTED:
            raise _error(name, chip, found)


def _compare(bus: Bus, chip: I2CChip, power: PowerRegister) -> Comparison:
    found = _read(bus, chip, power)
    for _ in range(_ATTEMPTS - 1):
        if found.fits:
            break
        bus.check_path(chip.place)
        found = _read(bus, chip, power)
    return found


def _read(bus: Bus, chip: I2CChip, power: PowerRegister) -> Comparison:
    *results, power_word = bus.read(chip.place.address, (*chip.results, power.register))
    (measured,) = chip.decode(results)
    if isinstance(measured, SensorError):
        raise measured
    product_watts, power_watts = abs(measured.volts * measured.amperes), power_word * power.watts_per_lsb
    fits = abs(product_watts - power_watts) <= _TOLERANCE_WATTS + power.watts_per_lsb
    return Comparison(tuple(results), power_word, product_watts, power_watts, fits)


def _error(name: str, chip: I2CChip, found: Comparison) -> SensorError:
    return SensorError(
        f"{name}: its registers contradict each other (voltage times current is {found.product_watts:.2f} W, the power "
        f"register reads {found.power_watts:.2f} W); are two chips at 0x{chip.place.address:02x}?"
    )
