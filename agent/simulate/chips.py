"""The register machine that TI's power monitors share: pointer, registers, conversions (SBOS656, SBOS576).

`__all__` has everything that the simulated twin of a chip needs, also for other packages: see `agent.chips`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from agent.settings import Device
from agent.simulate.part import Part
from agent.simulate.rails import Rail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "AVERAGING_COUNTS",
    "CONFIG",
    "CONVERSION_MICROSECONDS",
    "DIE_ID",
    "MANUFACTURER_ID",
    "RESET",
    "TEXAS_INSTRUMENTS",
    "Device",
    "Part",
    "Plan",
    "Rail",
    "Register",
    "RegisterChip",
    "SamplingWindows",
    "quantise",
    "signed",
]

AVERAGING_COUNTS = (1, 4, 16, 64, 128, 256, 512, 1024)
CONVERSION_MICROSECONDS = (140, 204, 332, 588, 1100, 2116, 4156, 8244)

CONFIG = 0x00
MANUFACTURER_ID = 0xFE
DIE_ID = 0xFF
TEXAS_INSTRUMENTS = 0x5449

RESET = 1 << 15
"""Bit of the configuration register: sets all registers to their power-on values and clears itself."""


@dataclass(frozen=True, slots=True)
class Register:
    """A register: its power-on value, a mask of the bits that a host can write, and its length."""

    default: int = 0
    writable: int = 0
    length_bytes: int = 2


@dataclass(frozen=True, slots=True)
class Plan:
    """The work of the converter, as the configuration register sets it.

    ::

         15   14-12   11-9   8-6     5-3     2-0
         RST  (chip)  AVG    VBUSCT  ISHCT   MODE

    MODE: bit 0 = current (shunt), bit 1 = bus voltage, bit 2 = continuous; 000 and 100 = powered down.

    Attributes:
        passes: how many conversions of each quantity are averaged.
        current_microseconds: conversion time of current or shunt voltage in a pass; 0 if it is not measured.
        voltage_microseconds: the same for the bus voltage, which follows.
        continuous: whether the next conversion starts by itself; otherwise each configuration write starts one.
        other_microseconds: the same for the temperature, which comes last and which no twin reports.
    """

    passes: int
    current_microseconds: int
    voltage_microseconds: int
    continuous: bool
    other_microseconds: int = 0

    @classmethod
    def of(cls, config: int) -> Plan:
        """Decode a configuration register."""
        return cls(
            passes=AVERAGING_COUNTS[config >> 9 & 7],
            current_microseconds=CONVERSION_MICROSECONDS[config >> 3 & 7] if config & 1 else 0,
            voltage_microseconds=CONVERSION_MICROSECONDS[config >> 6 & 7] if config & 2 else 0,
            continuous=bool(config & 4),
        )

    @property
    def pair_microseconds(self) -> int:
        """One conversion of all quantities at one input; 0 when powered down."""
        return self.current_microseconds + self.voltage_microseconds + self.other_microseconds


@dataclass(frozen=True, slots=True)
class SamplingWindows:
    """The times at which a converter samples one quantity: `count` windows, one every period.

    ::

        start          one period
          |<------------------------------>|
          ##########                       ##########                       ##########
          | window |      not sampled      |
    """

    start_seconds: float
    window_seconds: float
    period_seconds: float
    count: int

    def seconds_before(self, seconds: float) -> float:
        """The sampling time up to a moment. In closed form, so that 1024 passes cost no more than one."""
        since = max(seconds - self.start_seconds, 0.0)
        whole = min(int(since / self.period_seconds), self.count)
        rest = min(since - whole * self.period_seconds, self.window_seconds) if whole < self.count else 0.0
        return whole * self.window_seconds + rest

    def mean(self, steps: Iterable[tuple[float, float]]) -> float:
        """The mean of a quantity over the windows.

        Args:
            steps: the end in seconds and the value of each piece of a piecewise constant quantity, in order. They cover
                at least all windows.
        """
        sampled = weighted = 0.0
        for end_seconds, value in steps:
            by_then = self.seconds_before(end_seconds)
            weighted += value * (by_then - sampled)
            sampled = by_then
        return weighted / (self.count * self.window_seconds)


class RegisterChip(Part):
    """A monitor chip: registers behind a pointer, most of 16 bits, and a converter that fills some of them.

    On the bus (SBOS656, "Writing to and reading from the INA260"; SBOS576 the same)::

        set the pointer   S addr W A | pointer A | P
        write a register  S addr W A | pointer A | bits 15-8 A | bits 7-0 A | P
        read              S addr R A | bits 15-8 A | bits 7-0 N | P            from the pointer, which stays

    The chip computes the results of the last finished conversion when the host accesses it. The ALERT pins are not
    connected: limit registers keep what is written, and their flags keep their power-on values.
    """

    REGISTERS: ClassVar[Mapping[int, Register]]
    MASK_ENABLE: ClassVar[int]
    CONVERSION_READY: ClassVar[int]
    """Bit of the mask/enable register, set when a conversion with all its averages is complete."""
    CLEARING: ClassVar[int | None] = None
    """The register whose reading clears that bit; None for the mask/enable register itself."""
    PLANNING: ClassVar[int] = CONFIG
    """The register that controls the converter; writing it starts a conversion."""

    def __init__(self, address: int, now: Callable[[], float]) -> None:
        """Power the chip on.

        Args:
            address: the 7-bit address that its straps select.
            now: a monotonic clock in seconds, shared with the rails.
        """
        super().__init__(address)
        self._now = now
        self._pointer = 0
        self._words: dict[int, int] = {}
        self._plan = Plan(0, 0, 0, continuous=False)
        self._started_seconds = 0.0
        self._finished = 0
        self.power_loss()

    @abstractmethod
    def _measured_inputs(self) -> Sequence[tuple[int, Rail]]:
        """The enabled inputs and their rails, in the order of conversion."""

    @abstractmethod
    def _store_current(self, number: int, amperes: float) -> None:
        """Store the mean current of a finished conversion of this input."""

    @abstractmethod
    def _store_voltage(self, number: int, volts: float) -> None:
        """Store the mean bus voltage of a finished conversion of this input."""

    @abstractmethod
    def _store_derived(self) -> None:
        """Compute the registers that depend on the others after a conversion."""

    def power_loss(self) -> None:
        """Restore all power-on values: results are zero until the first conversion has finished."""
        self._pointer = 0
        self._restore_defaults()

    def write(self, data: bytes) -> None:
        """Set the pointer; with two more bytes, write the register there. Half a register changes nothing."""
        if not data:
            return
        self._pointer = data[0]
        if len(data) >= 3:
            self._update_results()
            self._write_register(self._pointer, int.from_bytes(data[1:3], "big"))

    def read(self, length: int) -> bytes:
        """Return the register at the pointer, then 0xFF: the chip does not drive the bus after the last byte."""
        self._update_results()
        word = self._words.get(self._pointer, 0)
        if self._pointer == (self.MASK_ENABLE if self.CLEARING is None else self.CLEARING) and length:
            self._words[self.MASK_ENABLE] &= ~self.CONVERSION_READY
        length_bytes = self.REGISTERS.get(self._pointer, Register()).length_bytes
        return word.to_bytes(length_bytes, "big")[:length].ljust(length, b"\xff")

    def _write_register(self, pointer: int, word: int) -> None:
        if pointer == CONFIG and word & RESET:
            self._restore_defaults()
            return
        writable = self.REGISTERS.get(pointer, Register()).writable
        if not writable:
            return
        self._words[pointer] = (self._words[pointer] & ~writable) | (word & writable)
        if pointer == self.PLANNING:
            self._restart()

    def _restore_defaults(self) -> None:
        self._words = {pointer: register.default for pointer, register in self.REGISTERS.items()}
        self._restart()

    def _read_plan(self, configuration: int) -> Plan:
        """Decode a word of the register `PLANNING`."""
        return Plan.of(configuration)

    def _restart(self) -> None:
        """Start a conversion with the present configuration."""
        self._plan = self._read_plan(self._words[self.PLANNING])
        self._started_seconds = self._now()
        self._finished = 0
        if self._plan.pair_microseconds:  # powering down does not change the flag
            self._words[self.MASK_ENABLE] &= ~self.CONVERSION_READY

    def _update_results(self) -> None:
        """Bring the result registers up to date."""
        plan = self._plan
        inputs = self._measured_inputs()
        conversion_microseconds = plan.passes * plan.pair_microseconds * len(inputs)
        if not conversion_microseconds:
            return
        # In whole nanoseconds: a host that waits exactly one conversion time must find the result.
        elapsed_nanoseconds = round((self._now() - self._started_seconds) * 1e9)
        finished = elapsed_nanoseconds // (conversion_microseconds * 1000)
        if not plan.continuous:
            finished = min(finished, 1)
        if finished <= self._finished:
            return
        self._finished = finished
        self._convert(inputs, self._started_seconds + (finished - 1) * conversion_microseconds * 1e-6)
        self._store_derived()
        self._words[self.MASK_ENABLE] |= self.CONVERSION_READY

    def _convert(self, inputs: Sequence[tuple[int, Rail]], start_seconds: float) -> None:
        plan = self._plan
        current_seconds = plan.current_microseconds * 1e-6
        voltage_seconds = plan.voltage_microseconds * 1e-6
        pass_seconds = plan.pair_microseconds * len(inputs) * 1e-6
        for position, (number, rail) in enumerate(inputs):
            current_start = start_seconds + position * plan.pair_microseconds * 1e-6
            segments = tuple(rail.segments(start_seconds, start_seconds + plan.passes * pass_seconds))
            if plan.current_microseconds:
                windows = SamplingWindows(current_start, current_seconds, pass_seconds, plan.passes)
                self._store_current(number, windows.mean((segment.end, segment.amperes) for segment in segments))
            if plan.voltage_microseconds:
                windows = SamplingWindows(current_start + current_seconds, voltage_seconds, pass_seconds, plan.passes)
                self._store_voltage(number, windows.mean((segment.end, segment.volts) for segment in segments))


def quantise(value: float, lsb: float, lowest: int, highest: int) -> int:
    """The nearest number of LSBs that the register can hold."""
    return round(min(max(value / lsb, lowest), highest))


def signed(word: int, bits: int = 16) -> int:
    """The value of a two's complement word with this many bits."""
    return word - ((word >> (bits - 1) & 1) << bits)
