"""The INA700 (SBOSAB4A) at register level: one rail, with the shunt inside the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate.chips import (
    AVERAGING_COUNTS,
    CONFIG,
    TEXAS_INSTRUMENTS,
    Plan,
    Register,
    RegisterChip,
    quantise,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.simulate.chips import Device, Rail

ADC_CONFIG = 0x01
VBUS = 0x05
DIETEMP = 0x06
CURRENT = 0x07
POWER = 0x08
ENERGY = 0x09
CHARGE = 0x0A
ALERT_DIAG = 0x0B
LIMITS = {0x0C: 0x7FFF, 0x0D: 0x8000, 0x0E: 0x7FFF, 0x0F: 0x0000, 0x10: 0x7FFF, 0x11: 0xFFFF}
NEWER_MANUFACTURER_ID = 0x3E

CONVERSION_MICROSECONDS = (50, 84, 150, 280, 540, 1052, 2074, 4120)

VOLTS_LSB = 3.125e-3
AMPERES_LSB = 480e-6
POWER_LSB_OF_PRODUCT_LSB = 64
"""96 uW in units of 480 uA x 3.125 mV: the chip multiplies the two registers as integers."""

ROOM_CELSIUS_WORD = 200 << 4
"""25 degrees Celsius in bits 15-4, 0.125 degrees each."""


class SimulatedINA700(RegisterChip):
    """An INA700 on a rail.

    ADC configuration (0x01), power-on 0xFB68::

         15-12                                   11-9    8-6     5-3  2-0
         MODE: continuous, temp, current, bus    VBUSCT  VSENCT  TCT  AVG

    Current comes only with the temperature. Bus voltage (0x05), never negative, and current (0x07) have 16 bits, two's
    complement. Power (0x08) has 24, and is the magnitude of their product. The counters of energy and charge stay 0.
    """

    REGISTERS: ClassVar[Mapping[int, Register]] = {
        CONFIG: Register(writable=0x3FC0),
        ADC_CONFIG: Register(0xFB68, writable=0xFFFF),
        VBUS: Register(),
        DIETEMP: Register(ROOM_CELSIUS_WORD),
        CURRENT: Register(),
        POWER: Register(length_bytes=3),
        ENERGY: Register(length_bytes=5),
        CHARGE: Register(length_bytes=5),
        ALERT_DIAG: Register(0x0001, writable=0xF000),
        **{pointer: Register(default, writable=0xFFFF) for pointer, default in LIMITS.items()},
        NEWER_MANUFACTURER_ID: Register(TEXAS_INSTRUMENTS),
    }
    MASK_ENABLE = ALERT_DIAG
    CONVERSION_READY = 1 << 1
    PLANNING = ADC_CONFIG

    def __init__(self, address: int, rail: Rail, now: Callable[[], float]) -> None:
        """Power the chip on.

        Args:
            address: 0x44-0x47.
            rail: the rail that it measures.
            now: see `RegisterChip`.
        """
        self._inputs = ((1, rail),)
        super().__init__(address, now)

    def _read_plan(self, configuration: int) -> Plan:
        mode = configuration >> 12
        has_temperature = bool(mode & 0b0100)
        return Plan(
            passes=AVERAGING_COUNTS[configuration & 7],
            current_microseconds=CONVERSION_MICROSECONDS[configuration >> 6 & 7] if mode & 2 and has_temperature else 0,
            voltage_microseconds=CONVERSION_MICROSECONDS[configuration >> 9 & 7] if mode & 1 else 0,
            continuous=bool(mode & 8),
            other_microseconds=CONVERSION_MICROSECONDS[configuration >> 3 & 7] if has_temperature else 0,
        )

    def _measured_inputs(self) -> Sequence[tuple[int, Rail]]:
        return self._inputs

    def _store_current(self, _number: int, amperes: float) -> None:
        self._words[CURRENT] = quantise(amperes, AMPERES_LSB, -0x8000, 0x7FFF) & 0xFFFF

    def _store_voltage(self, _number: int, volts: float) -> None:
        self._words[VBUS] = quantise(volts, VOLTS_LSB, 0, 0x7FFF)

    def _store_derived(self) -> None:
        self._words[POWER] = abs(signed(self._words[CURRENT])) * self._words[VBUS] // POWER_LSB_OF_PRODUCT_LSB


def build(devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]) -> RegisterChip:
    """The chip that one device of the configuration sits on; see `BuildChip` in `agent.simulate.world`."""
    (device,) = devices
    return SimulatedINA700(address, rails[device.name], now)
