"""The INA3221 (SBOS576): three rails, with their shunts on the board."""

from __future__ import annotations

from dataclasses import dataclass
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
from agent.simulate.rails import ConstantRail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.settings import Device
    from agent.simulate.rails import Rail

INPUTS = (1, 2, 3)
SHUNT_VOLTAGE = {1: 0x01, 2: 0x03, 3: 0x05}
BUS_VOLTAGE = {1: 0x02, 2: 0x04, 3: 0x06}
CRITICAL_AND_WARNING_LIMITS = range(0x07, 0x0D)
SHUNT_VOLTAGE_SUM = 0x0D
SHUNT_VOLTAGE_SUM_LIMIT = 0x0E
MASK_ENABLE = 0x0F
POWER_VALID_UPPER_LIMIT = 0x10
POWER_VALID_LOWER_LIMIT = 0x11

SHUNT_VOLTS_LSB = 40e-6
BUS_VOLTS_LSB = 8e-3


@dataclass(frozen=True, slots=True)
class Input:
    """A rail that is wired to an input, and its shunt on the board."""

    rail: Rail
    shunt_ohms: float


class SimulatedINA3221(RegisterChip):
    """An INA3221 on up to three rails; an input without one reads 0 V and 0 A.

    Configuration (0x00), power-on 0x7127; bits 14, 13, 12 enable inputs 1, 2, 3; the rest as in `chips.Plan`.
    A pass converts shunt and bus voltage of each enabled input in turn.

    Shunt voltage (0x01, 0x03, 0x05), 40 uV, and bus voltage (0x02, 0x04, 0x06), 8 mV, two's complement, left-aligned::

         15-3 value      2-0 = 0

    Sum of the shunt voltages that bits 14-12 of mask/enable select (0x0D), two's complement, left-aligned::

         15-1 value      0 = 0

    Mask/enable (0x0F), power-on 0x0002; bits 9-0 are read-only::

         15   14-12          11   10   9-7     6   5-3     2    1    0
         0    SCC1 to SCC3   WEN  CEN  CF1-3   SF  WF1-3   PVF  TCF  CVRF
    """

    REGISTERS: ClassVar[Mapping[int, Register]] = {
        CONFIG: Register(0x7127, writable=0x7FFF),
        **{pointer: Register() for pointer in (*SHUNT_VOLTAGE.values(), *BUS_VOLTAGE.values())},
        **{pointer: Register(0x7FF8, writable=0xFFF8) for pointer in CRITICAL_AND_WARNING_LIMITS},
        SHUNT_VOLTAGE_SUM: Register(),
        SHUNT_VOLTAGE_SUM_LIMIT: Register(0x7FFE, writable=0xFFFE),
        MASK_ENABLE: Register(0x0002, writable=0x7C00),
        POWER_VALID_UPPER_LIMIT: Register(0x2710, writable=0xFFF8),
        POWER_VALID_LOWER_LIMIT: Register(0x2328, writable=0xFFF8),
        MANUFACTURER_ID: Register(TEXAS_INSTRUMENTS),
        DIE_ID: Register(0x3220),
    }
    MASK_ENABLE = MASK_ENABLE
    CONVERSION_READY = 1 << 0

    def __init__(self, address: int, inputs: Mapping[int, Input], now: Callable[[], float]) -> None:
        """Power the chip on.

        Args:
            address: 0x40-0x43.
            inputs: the rails that are wired to inputs 1, 2, 3.
            now: see `RegisterChip`.
        """
        nothing = Input(ConstantRail(0.0, 0.0, now), shunt_ohms=0.0)
        self._inputs = {number: inputs.get(number, nothing) for number in INPUTS}
        super().__init__(address, now)

    def _measured_inputs(self) -> Sequence[tuple[int, Rail]]:
        config = self._words[CONFIG]
        return [(number, wired.rail) for number, wired in self._inputs.items() if _selects(config, number)]

    def _store_current(self, number: int, amperes: float) -> None:
        shunt_volts = amperes * self._inputs[number].shunt_ohms
        self._words[SHUNT_VOLTAGE[number]] = (quantise(shunt_volts, SHUNT_VOLTS_LSB, -0x1000, 0x0FFF) << 3) & 0xFFFF

    def _store_voltage(self, number: int, volts: float) -> None:
        self._words[BUS_VOLTAGE[number]] = quantise(volts, BUS_VOLTS_LSB, 0, 0x0FFF) << 3

    def _store_derived(self) -> None:
        mask_enable = self._words[MASK_ENABLE]
        summands = (self._words[SHUNT_VOLTAGE[number]] for number in INPUTS if _selects(mask_enable, number))
        total = sum(signed(word) >> 3 for word in summands)
        self._words[SHUNT_VOLTAGE_SUM] = (total << 1) & 0xFFFF


def _selects(word: int, number: int) -> bool:
    """Whether the bit of this input is set, in both registers: bit 14 for input 1, 13 for 2, 12 for 3."""
    return bool(word >> (15 - number) & 1)


def build(devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]) -> RegisterChip:
    """The chip that these devices of the configuration share, one input each; see `world.BuildChip`."""
    inputs = {
        device.input: Input(rails[device.name], device.shunt_ohms)
        for device in devices
        if device.input is not None and device.shunt_ohms is not None
    }
    return SimulatedINA3221(address, inputs, now)
