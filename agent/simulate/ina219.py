"""The INA219 (SBOS448): one rail, with its shunt on the board."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate.chips import CONFIG, Plan, Register, quantise, signed
from agent.simulate.shunt import SimulatedShuntChip

if TYPE_CHECKING:
    from collections.abc import Mapping

SHUNT_VOLTAGE = 0x01
BUS_VOLTAGE = 0x02
POWER = 0x03
CURRENT = 0x04
CALIBRATION = 0x05

SHUNT_VOLTS_LSB = 10e-6
BUS_VOLTS_LSB = 4e-3
POWER_LSB_OF_PRODUCT_LSB = 5000

_SINGLE_MICROSECONDS = (84, 148, 276, 532)


class SimulatedINA219(SimulatedShuntChip):
    """An INA219 on a rail.

    Configuration (0x00), power-on 0x399F::

         15   14  13    12-11  10-7  6-3   2-0
         RST  0   BRNG  PGA    BADC  SADC  MODE (as in `chips.Plan`)

    BADC and SADC: 0x00-0x03 a single sample of 9 to 12 bits, 0x08-0x0F the mean of 1 to 128 samples of 12 bits. The
    shunt voltage is sampled first, then the bus voltage.

    Shunt voltage (0x01), two's complement, 10 uV, up to 40 mV x 2^PGA; bus voltage (0x02), 4 mV::

         15-3 bus voltage     2 = 0    1 CNVR    0 OVF

    Reading the power register (0x03) and writing the configuration clear CNVR. Current (0x04) and power depend on the
    calibration (0x05).
    """

    REGISTERS: ClassVar[Mapping[int, Register]] = {
        CONFIG: Register(0x399F, writable=0x3FFF),
        SHUNT_VOLTAGE: Register(),
        BUS_VOLTAGE: Register(),
        POWER: Register(),
        CURRENT: Register(),
        CALIBRATION: Register(writable=0xFFFE),
    }
    MASK_ENABLE = BUS_VOLTAGE
    CONVERSION_READY = 1 << 1
    CLEARING = POWER

    def _read_plan(self, configuration: int) -> Plan:
        return Plan(
            passes=1,
            current_microseconds=_microseconds(configuration >> 3 & 0xF) if configuration & 1 else 0,
            voltage_microseconds=_microseconds(configuration >> 7 & 0xF) if configuration & 2 else 0,
            continuous=bool(configuration & 4),
        )

    def _store_current(self, _number: int, amperes: float) -> None:
        most = 4000 << (self._words[CONFIG] >> 11 & 3)
        self._words[SHUNT_VOLTAGE] = quantise(amperes * self.shunt_ohms, SHUNT_VOLTS_LSB, -most, most) & 0xFFFF

    def _store_voltage(self, _number: int, volts: float) -> None:
        most = 8000 if self._words[CONFIG] >> 13 & 1 else 4000
        self._words[BUS_VOLTAGE] = quantise(volts, BUS_VOLTS_LSB, 0, most) << 3

    def _store_derived(self) -> None:
        current = signed(self._words[SHUNT_VOLTAGE]) * self._words[CALIBRATION] // 4096
        self._words[CURRENT] = current & 0xFFFF
        self._words[POWER] = abs(current) * (self._words[BUS_VOLTAGE] >> 3) // POWER_LSB_OF_PRODUCT_LSB & 0xFFFF


def _microseconds(code: int) -> int:
    """The conversion time for this code of BADC or SADC."""
    return _SINGLE_MICROSECONDS[3] << (code & 7) if code & 8 else _SINGLE_MICROSECONDS[code & 3]


build = SimulatedINA219.build
