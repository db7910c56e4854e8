"""The base of INA226, INA230, INA231, INA232, INA234 and INA236: one rail, with its shunt on the board.

Datasheets: SBOS547, SBOS601, SBOS644, SBOSAA2, SBOS844, SBOSA81.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate.chips import CONFIG, TEXAS_INSTRUMENTS, Register, SamplingWindows, quantise, signed
from agent.simulate.shunt import SimulatedShuntChip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.simulate.rails import Rail

SHUNT_VOLTAGE = 0x01
BUS_VOLTAGE = 0x02
POWER = 0x03
CURRENT = 0x04
CALIBRATION = 0x05
MASK_ENABLE = 0x06
ALERT_LIMIT = 0x07
NEWER_MANUFACTURER_ID = 0x3E
NEWER_DEVICE_ID = 0x3F

ADC_RANGE = 1 << 12
NEUTRAL_CALIBRATION = 0x0800
POWER_LSB_OF_PRODUCT_LSB = 20_000
"""In all of them: 25 x 2.5 uV x 1.25 mV, or 32 x 2.5 uV x 1.6 mV, is 20,000 times the product of the two LSBs."""

MATH_OVERFLOW = 1 << 2

LOAD_SHUNT_VOLTS = 0.075
"""What a simulated load causes at most; see `world`."""


class SimulatedINA226Family(SimulatedShuntChip):
    """A chip of the family on a rail.

    Configuration (0x00), power-on 0x4127; bits 14-13 always read 10, and bit 12 too has a fixed value of 0 in an
    INA226, INA230 or INA231; the rest as in `chips.Plan`::

         15   14-13  12        11-9  8-6     5-3    2-0
         RST  10     ADCRANGE  AVG   VBUSCT  VSHCT  MODE

    Shunt voltage (0x01) and current (0x04), two's complement, and bus voltage (0x02), bit 15 always 0, have `BITS`,
    left-aligned; with ADCRANGE 1 the LSB of the shunt voltage is a quarter. Current is the shunt voltage x calibration
    (0x05) / 2048, and power (0x03) the magnitude of current x bus voltage / 20,000: both are 0 without a calibration.

    Mask/enable (0x06), power-on 0x0000; bits 5-2 are read-only::

         15   14   13   12   11   10    9-6  5         4    3     2    1     0
         SOL  SUL  BOL  BUL  POL  CNVR  0    MEMERROR  AFF  CVRF  OVF  APOL  LEN
    """

    MASK_ENABLE = MASK_ENABLE
    CONVERSION_READY = 1 << 3

    BITS: ClassVar[int] = 16
    SHUNT_VOLTS_LSB: ClassVar[float] = 2.5e-6
    BUS_VOLTS_LSB: ClassVar[float] = 1.25e-3
    AVERAGES_POWER: ClassVar[bool] = True
    """Whether the power register is the mean of the power of every sample (SBOS547, section 6.3.1.1), rather than the
    product of the two means; then current is the mean of the samples, too, each of them rounded down."""

    def __init__(self, address: int, rail: Rail, shunt_ohms: float, now: Callable[[], float]) -> None:
        """See `SimulatedShuntChip`."""
        self._samples: tuple[tuple[int, int], ...] = ()
        super().__init__(address, rail, shunt_ohms, now)

    def _aligned(self, value: float, lsb: float, lowest: int, highest: int) -> int:
        """The value in a register, as a number of 16 bits."""
        return quantise(value, lsb, lowest, highest) << (16 - self.BITS)

    def _shunt(self, amperes: float) -> int:
        half = 1 << (self.BITS - 1)
        lsb = self.SHUNT_VOLTS_LSB / 4 if self._words[CONFIG] & ADC_RANGE else self.SHUNT_VOLTS_LSB
        return self._aligned(amperes * self.shunt_ohms, lsb, -half, half - 1)

    def _bus(self, volts: float) -> int:
        return self._aligned(volts, self.BUS_VOLTS_LSB, 0, (1 << (self.BITS - 1)) - 1)

    def _store_current(self, _number: int, amperes: float) -> None:
        self._words[SHUNT_VOLTAGE] = self._shunt(amperes) & 0xFFFF

    def _store_voltage(self, _number: int, volts: float) -> None:
        self._words[BUS_VOLTAGE] = self._bus(volts)

    def _convert(self, inputs: Sequence[tuple[int, Rail]], start_seconds: float) -> None:
        super()._convert(inputs, start_seconds)
        self._samples = tuple(self._samples_from(start_seconds)) if self.AVERAGES_POWER else ()

    def _samples_from(self, start_seconds: float) -> list[tuple[int, int]]:
        """Shunt and bus voltage of each pass; empty if the registers say the same, as with a constant load."""
        plan = self._plan
        if plan.passes == 1 or not (plan.current_microseconds and plan.voltage_microseconds):
            return []
        pass_seconds, current_seconds = plan.pair_microseconds * 1e-6, plan.current_microseconds * 1e-6
        if len(tuple(self.rail.segments(start_seconds, start_seconds + plan.passes * pass_seconds))) == 1:
            return []
        samples = []
        for number in range(plan.passes):
            begin = start_seconds + number * pass_seconds
            segments = tuple(self.rail.segments(begin, begin + pass_seconds))
            current = SamplingWindows(begin, current_seconds, pass_seconds, 1)
            voltage = SamplingWindows(begin + current_seconds, pass_seconds - current_seconds, pass_seconds, 1)
            amperes = current.mean((segment.end, segment.amperes) for segment in segments)
            volts = voltage.mean((segment.end, segment.volts) for segment in segments)
            samples.append((self._shunt(amperes), self._bus(volts)))
        return samples

    def _store_derived(self) -> None:
        samples = self._samples or ((signed(self._words[SHUNT_VOLTAGE]), self._words[BUS_VOLTAGE]),)
        current = sum(self._current_of(shunt) for shunt, _ in samples) // len(samples)
        if not self._plan.voltage_microseconds:  # power is computed after a conversion of the voltage
            self._words[CURRENT] = min(max(current, -0x8000), 0x7FFF) & 0xFFFF & -1 << (16 - self.BITS)
            return
        products = [abs(self._current_of(shunt)) * bus for shunt, bus in samples]
        power = sum(products) // len(products) // POWER_LSB_OF_PRODUCT_LSB
        stored_current, stored_power = min(max(current, -0x8000), 0x7FFF), min(power, 0xFFFF)
        overflow = MATH_OVERFLOW if (stored_current, stored_power) != (current, power) else 0
        self._words[CURRENT] = stored_current & 0xFFFF & -1 << (16 - self.BITS)
        self._words[POWER] = stored_power
        self._words[MASK_ENABLE] = (self._words[MASK_ENABLE] & ~MATH_OVERFLOW) | overflow

    def _current_of(self, shunt: int) -> int:
        return shunt * self._words[CALIBRATION] // NEUTRAL_CALIBRATION


class SimulatedNewerINA226Family(SimulatedINA226Family):
    """An INA232, INA234 or INA236: a choice of two ranges, and other ID registers."""

    BUS_VOLTS_LSB = 1.6e-3
    AVERAGES_POWER = False


def registers(ids: Mapping[int, int]) -> dict[int, Register]:
    """The registers of an INA226, INA230 or INA231, with its ID registers."""
    return {
        CONFIG: Register(0x4127, writable=0x0FFF),
        **{pointer: Register() for pointer in (SHUNT_VOLTAGE, BUS_VOLTAGE, POWER, CURRENT)},
        CALIBRATION: Register(writable=0x7FFF),
        MASK_ENABLE: Register(writable=0xFC03),
        ALERT_LIMIT: Register(writable=0xFFFF),
        **{pointer: Register(word) for pointer, word in ids.items()},
    }


def newer_registers(device_id: int | None) -> dict[int, Register]:
    """The registers of an INA232, INA234 or INA236, with its device ID if it has one."""
    ids = {NEWER_MANUFACTURER_ID: TEXAS_INSTRUMENTS} | ({} if device_id is None else {NEWER_DEVICE_ID: device_id})
    return registers(ids) | {CONFIG: Register(0x4127, writable=0x1FFF)}
