"""Compares voltage times current with the power register of a chip that has one: two chips at one address contradict.

The bits of two chips that answer together are ANDed, in voltage, current and power alike, so the product is not the
power. According to the datasheets the power register is the product of the two result registers. Should a chip average
the product instead, its load makes the two differ slightly, every time: such a check turns itself off.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from agent.chips import Measurement
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

_NOT_IMPLEMENTED = (0x0000, 0xFFFF)


class Contradiction(NamedTuple):
    """Registers that do not fit together.

    Attributes:
        results: the words of voltage and current.
        power_word: that of the power register.
        product_watts: the magnitude of voltage times current.
        power_watts: what the power register says.
    """

    results: tuple[int, ...]
    power_word: int
    product_watts: float
    power_watts: float


class PowerCheck:
    """The check of one chip."""

    def __init__(self, bus: Bus, chip: I2CChip, name: str) -> None:
        self._bus = bus
        self._chip = chip
        self._name = name
        self._is_on = chip.power is not None
        self._failures: list[Contradiction] = []  # in a row

    def run(self) -> None:
        """Make sure that the chip's registers fit together. Raises SensorError if they do not, and as `Bus.read`."""
        if not self._is_on:
            return
        found = _contradiction(self._bus, self._chip)
        if found is None:
            self._failures.clear()
        elif found.power_word in _NOT_IMPLEMENTED:
            self._turn_off(f"it always reads 0x{found.power_word:04x}")
        else:
            self._failures.append(found)
            if not self._is_averaged():
                raise _error(self._name, self._chip, found)
            self._turn_off("it never equals voltage times current, and is close to it")

    def _is_averaged(self) -> bool:
        """Whether so many failures show a chip that computes power in another way, rather than two chips."""
        failures = self._failures = self._failures[-_FAILURES_OF_A_USELESS_CHECK:]
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
    """Raise SensorError if the chip's registers contradict each other, and as `Bus.read`; the path is selected."""
    found = _contradiction(bus, chip)
    if found is not None and found.power_word not in _NOT_IMPLEMENTED:
        raise _error(name, chip, found)


def _contradiction(bus: Bus, chip: I2CChip) -> Contradiction | None:
    return None if chip.power is None else _read_contradiction(bus, chip, chip.power)


def _read_contradiction(bus: Bus, chip: I2CChip, power: PowerRegister) -> Contradiction | None:
    found = None
    for _ in range(_ATTEMPTS):
        *results, power_word = bus.read(chip.place.address, (*chip.results, power.register))
        (measured,) = chip.decode(results)
        if isinstance(measured, Measurement):
            product_watts = abs(measured.volts * measured.amperes)
            found = Contradiction(tuple(results), power_word, product_watts, power_word * power.watts_per_lsb)
            if abs(found.product_watts - found.power_watts) <= _TOLERANCE_WATTS + power.watts_per_lsb:
                return None
    return found


def _error(name: str, chip: I2CChip, found: Contradiction) -> SensorError:
    return SensorError(
        f"{name}: its registers contradict each other (voltage times current is {found.product_watts:.2f} W, the power "
        f"register reads {found.power_watts:.2f} W); are two chips at 0x{chip.place.address:02x}?"
    )
