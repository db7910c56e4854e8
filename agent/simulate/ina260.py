"""The INA260 (SBOS656): one rail, with its shunt inside the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate.chips import (
    CONFIG,
    DIE_ID,
    MANUFACTURER_ID,
    TEXAS_INSTRUMENTS,
    Register,
    RegisterChip,
    quantise,
    signed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.settings import Device
    from agent.simulate.rails import Rail

CURRENT = 0x01
VOLTAGE = 0x02
POWER = 0x03
MASK_ENABLE = 0x06
ALERT_LIMIT = 0x07

AMPERES_LSB = 1.25e-3
VOLTS_LSB = 1.25e-3
POWER_LSB_OF_PRODUCT_LSB = 6400
"""10 mW in units of 1.25 mA x 1.25 mV: the chip multiplies the two registers as integers."""

MATH_OVERFLOW = 1 << 2


class SimulatedINA260(RegisterChip):
    """An INA260 on a rail.

    Configuration (0x00), power-on 0x6127; bits 14-12 always read 110; the rest as in `chips.Plan`.

    Current (0x01), two's complement, 1.25 mA; bus voltage (0x02), 1.25 mV, bit 15 always 0::

         15-0 current                     15 = 0, 14-0 bus voltage

    Power (0x03), unsigned, 10 mW: the magnitude of current x voltage: returned power looks like delivered power.

    Mask/enable (0x06), power-on 0x0000; bits 4, 3, 2 are read-only::

         15   14   13   12   11   10     9-5   4    3     2    1     0
         OCL  UCL  BOL  BUL  POL  CNVR   0     AFF  CVRF  OVF  APOL  LEN
    """

    REGISTERS: ClassVar[Mapping[int, Register]] = {
        CONFIG: Register(0x6127, writable=0x0FFF),
        CURRENT: Register(),
        VOLTAGE: Register(),
        POWER: Register(),
        MASK_ENABLE: Register(writable=0xFC03),
        ALERT_LIMIT: Register(writable=0xFFFF),
        MANUFACTURER_ID: Register(TEXAS_INSTRUMENTS),
        DIE_ID: Register(0x2270),
    }
    MASK_ENABLE = MASK_ENABLE
    CONVERSION_READY = 1 << 3

    def __init__(self, address: int, rail: Rail, now: Callable[[], float]) -> None:
        """Power the chip on.

        Args:
            address: 0x40-0x4F.
            rail: the rail that it measures.
            now: see `RegisterChip`.
        """
        self._inputs = ((1, rail),)
        super().__init__(address, now)

    def _measured_inputs(self) -> Sequence[tuple[int, Rail]]:
        return self._inputs

    def _store_current(self, _number: int, amperes: float) -> None:
        self._words[CURRENT] = quantise(amperes, AMPERES_LSB, -0x8000, 0x7FFF) & 0xFFFF

    def _store_voltage(self, _number: int, volts: float) -> None:
        self._words[VOLTAGE] = quantise(volts, VOLTS_LSB, 0, 0x7FFF)

    def _store_derived(self) -> None:
        if not self._plan.voltage_microseconds:
            return  # power is computed after a conversion of the voltage
        power = abs(signed(self._words[CURRENT])) * self._words[VOLTAGE] // POWER_LSB_OF_PRODUCT_LSB
        overflow = MATH_OVERFLOW if power > 0xFFFF else 0
        self._words[POWER] = min(power, 0xFFFF)
        self._words[MASK_ENABLE] = (self._words[MASK_ENABLE] & ~MATH_OVERFLOW) | overflow


def build(devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]) -> RegisterChip:
    """The chip that one device of the configuration sits on; see `world.BuildChip`."""
    (device,) = devices
    return SimulatedINA260(address, rails[device.name], now)
