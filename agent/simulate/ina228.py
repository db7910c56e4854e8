"""The INA228 (SLYS021): 20 bits, and hardware counters of energy and charge."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent.simulate import ina228_family
from agent.simulate.chips import CONFIG, Register

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.simulate.rails import Rail

ENERGY = 0x09
CHARGE = 0x0A

RESET_COUNTERS = 1 << 14
ENERGY_LSB_OF_CURRENT_LSB = 16 * 3.2

_RANGE = 1 << 40


class SimulatedINA228(ina228_family.SimulatedINA228Family):
    """An INA228.

    Energy (0x09), unsigned, and charge (0x0A), two's complement, have 40 bits and wrap around. In continuous mode every
    single conversion adds to them, whatever is averaged. Bit 14 of the configuration clears them.
    """

    REGISTERS: ClassVar[Mapping[int, Register]] = {
        **ina228_family.registers(
            bits=24, device_id=0x2281, temperature_word=round(ina228_family.ROOM_CELSIUS / 7.8125e-3)
        ),
        ina228_family.SHUNT_TEMPERATURE_COEFFICIENT: Register(writable=0x3FFF),
        ENERGY: Register(length_bytes=5),
        CHARGE: Register(length_bytes=5),
    }
    BITS = 20
    PADDING_BITS = 4
    SHUNT_VOLTS_LSB = 312.5e-9
    BUS_VOLTS_LSB = 195.3125e-6
    POWER_LSB_OF_CURRENT_LSB = 3.2

    def __init__(self, address: int, rail: Rail, shunt_ohms: float, now: Callable[[], float]) -> None:
        """See `SimulatedShuntChip`."""
        self._energy_lsbs = self._charge_lsbs = 0.0
        self._added_up_to_seconds = 0.0
        super().__init__(address, rail, shunt_ohms, now)

    def _write_register(self, pointer: int, word: int) -> None:
        if pointer == CONFIG and word & RESET_COUNTERS:
            self._energy_lsbs = self._charge_lsbs = 0.0
        super()._write_register(pointer, word)

    def _restore_defaults(self) -> None:
        self._energy_lsbs = self._charge_lsbs = 0.0
        super()._restore_defaults()

    def _restart(self) -> None:
        super()._restart()
        self._added_up_to_seconds = self._started_seconds

    def _update_results(self) -> None:
        super()._update_results()
        plan = self._plan
        if plan.continuous and plan.current_microseconds and plan.voltage_microseconds:
            elapsed_nanoseconds = round((self._now() - self._started_seconds) * 1e9)
            cycles = elapsed_nanoseconds // (plan.pair_microseconds * 1000)
            self._add_up(self._started_seconds + cycles * plan.pair_microseconds * 1e-6)
        self._words[ENERGY] = round(self._energy_lsbs) % _RANGE
        self._words[CHARGE] = round(self._charge_lsbs) % _RANGE

    def _add_up(self, end_seconds: float) -> None:
        if end_seconds <= self._added_up_to_seconds:
            return
        coulombs = joules = 0.0
        for segment in self.rail.segments(self._added_up_to_seconds, end_seconds):
            seconds = segment.end - segment.start
            coulombs += segment.amperes * seconds
            joules += abs(segment.volts * segment.amperes) * seconds
        self._added_up_to_seconds = end_seconds
        self._charge_lsbs += coulombs * self.current_lsbs_per_ampere
        self._energy_lsbs += joules * self.current_lsbs_per_ampere / ENERGY_LSB_OF_CURRENT_LSB


build = SimulatedINA228.build
