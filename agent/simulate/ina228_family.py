"""The base of INA228 (SLYS021), INA237 (SBOSA20) and INA238 (SLYS025): one rail, with its shunt on the board."""

from __future__ import annotations

from typing import ClassVar

from agent.simulate.chips import AVERAGING_COUNTS, CONFIG, TEXAS_INSTRUMENTS, Plan, Register, quantise, signed
from agent.simulate.shunt import SimulatedShuntChip

ADC_CONFIG = 0x01
SHUNT_CALIBRATION = 0x02
SHUNT_TEMPERATURE_COEFFICIENT = 0x03
SHUNT_VOLTAGE = 0x04
BUS_VOLTAGE = 0x05
DIE_TEMPERATURE = 0x06
CURRENT = 0x07
POWER = 0x08
DIAGNOSTICS = 0x0B
LIMITS = {0x0C: 0x7FFF, 0x0D: 0x8000, 0x0E: 0x7FFF, 0x0F: 0x0000, 0x10: 0x7FFF, 0x11: 0xFFFF}
NEWER_MANUFACTURER_ID = 0x3E
DEVICE_ID = 0x3F

CONVERSION_MICROSECONDS = (50, 84, 150, 280, 540, 1052, 2074, 4120)
NEUTRAL_CALIBRATION = 0x1000
ADC_RANGE = 1 << 4

ROOM_CELSIUS = 25.0


class SimulatedINA228Family(SimulatedShuntChip):
    """A chip of the family on a rail.

    Configuration (0x00), power-on 0x0000, and ADC configuration (0x01), power-on 0xFB68::

         15   14      13-6     5         4         3-0
         RST  RSTACC  CONVDLY  TEMPCOMP  ADCRANGE  0

         15-12                                  11-9    8-6    5-3   2-0
         MODE: continuous, temp, shunt, bus     VBUSCT  VSHCT  VTCT  AVG

    Shunt voltage (0x04) and current (0x07), two's complement, and bus voltage (0x05) have `BITS`, left-aligned; in the
    narrow range (ADCRANGE 1) the LSB of the shunt voltage is a quarter. Current is the shunt voltage x 4096 / shunt
    calibration (0x02), or 0 where that is 0; power (0x08) is the magnitude of current x bus voltage.

    Diagnostics (0x0B), power-on 0x0001, the bits that the twin implements::

         15      14    13         12     1      0
         ALATCH  CNVR  SLOWALERT  APOL   CNVRF  MEMSTAT
    """

    MASK_ENABLE = DIAGNOSTICS
    CONVERSION_READY = 1 << 1
    PLANNING = ADC_CONFIG

    BITS: ClassVar[int] = 16
    PADDING_BITS: ClassVar[int] = 0
    SHUNT_VOLTS_LSB: ClassVar[float] = 5e-6
    BUS_VOLTS_LSB: ClassVar[float] = 3.125e-3
    POWER_LSB_OF_CURRENT_LSB: ClassVar[float] = 0.2
    """The LSB of the power register in watts, divided by that of the current register in amperes."""

    @property
    def current_lsbs_per_ampere(self) -> float:
        """LSBs of the current register for one ampere, by range and calibration."""
        calibration = self._words[SHUNT_CALIBRATION]
        return self.shunt_ohms / self._shunt_volts_lsb() * NEUTRAL_CALIBRATION / calibration if calibration else 0.0

    def _shunt_volts_lsb(self) -> float:
        return self.SHUNT_VOLTS_LSB / 4 if self._words[CONFIG] & ADC_RANGE else self.SHUNT_VOLTS_LSB

    def _read_plan(self, configuration: int) -> Plan:
        return Plan(
            passes=AVERAGING_COUNTS[configuration & 7],
            current_microseconds=CONVERSION_MICROSECONDS[configuration >> 6 & 7] if configuration >> 13 & 1 else 0,
            voltage_microseconds=CONVERSION_MICROSECONDS[configuration >> 9 & 7] if configuration >> 12 & 1 else 0,
            continuous=bool(configuration >> 15),
            other_microseconds=CONVERSION_MICROSECONDS[configuration >> 3 & 7] if configuration >> 14 & 1 else 0,
        )

    def _put(self, pointer: int, value: int) -> None:
        mask = (1 << self.BITS) - 1
        self._words[pointer] = (value & mask) << self.PADDING_BITS

    def _value(self, pointer: int) -> int:
        return signed(self._words[pointer] >> self.PADDING_BITS, self.BITS)

    def _store_current(self, _number: int, amperes: float) -> None:
        half = 1 << (self.BITS - 1)
        self._put(SHUNT_VOLTAGE, quantise(amperes * self.shunt_ohms, self._shunt_volts_lsb(), -half, half - 1))

    def _store_voltage(self, _number: int, volts: float) -> None:
        self._put(BUS_VOLTAGE, quantise(volts, self.BUS_VOLTS_LSB, 0, (1 << (self.BITS - 1)) - 1))

    def _store_derived(self) -> None:
        calibration = self._words[SHUNT_CALIBRATION]
        current = self._value(SHUNT_VOLTAGE) * NEUTRAL_CALIBRATION // calibration if calibration else 0
        self._put(CURRENT, current)
        if not self._plan.voltage_microseconds:
            return  # power is computed after a conversion of the voltage (SLYS021, section 7.3.2)
        volts = self._value(BUS_VOLTAGE) * self.BUS_VOLTS_LSB
        self._words[POWER] = min(round(abs(current) * volts / self.POWER_LSB_OF_CURRENT_LSB), 0xFFFFFF)


_ROOM_TEMPERATURE_OF_16_BITS = round(ROOM_CELSIUS / 125e-3) << 4


def registers(
    device_id: int | None, bits: int = 16, temperature_word: int = _ROOM_TEMPERATURE_OF_16_BITS
) -> dict[int, Register]:
    """The registers of a chip of the family, with its device ID if it has one.

    `bits` is the length of its voltage registers.
    """
    return {
        CONFIG: Register(writable=0x3FF0),
        ADC_CONFIG: Register(0xFB68, writable=0xFFFF),
        SHUNT_CALIBRATION: Register(NEUTRAL_CALIBRATION, writable=0x7FFF),
        SHUNT_VOLTAGE: Register(length_bytes=bits // 8),
        BUS_VOLTAGE: Register(length_bytes=bits // 8),
        DIE_TEMPERATURE: Register(temperature_word),
        CURRENT: Register(length_bytes=bits // 8),
        POWER: Register(length_bytes=3),
        DIAGNOSTICS: Register(0x0001, writable=0xF001),
        **{pointer: Register(default, writable=0xFFFF) for pointer, default in LIMITS.items()},
        NEWER_MANUFACTURER_ID: Register(TEXAS_INSTRUMENTS),
        **({} if device_id is None else {DEVICE_ID: Register(device_id)}),
    }
