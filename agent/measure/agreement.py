"""Double reading: what a chip measured is read twice in one go, so that a flipped bit is never a measurement.

No chip of these families has a checksum: a bit that flips on the way arrives acknowledged, like any other. If the two
readings differ, a bit flipped or a conversion ended between them. A third reading decides, register by register::

    first   second   third   result
      A       A              A
      A       B        A     A: the second was flipped, unless conversions are faster than the reading
      A       B        B     B: a new result, or the first was flipped
      A       B        C     the middle one of five readings: conversions are faster, or two of three were flipped

So healthy silicon never fails this check, whatever its load does, and a flip shows in the result only if it is smaller
than the change of the load between the readings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.chips import I2CChip
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.transfers import Register

_T = TypeVar("_T")

_ATTEMPTS = 5

# Less than the time of a conversion, which may be shorter than typical: at most one can end in between.
_OF_A_CONVERSION = 0.8

# Hardware counters rise with every single conversion, which takes less than this.
_COUNTING_SECONDS = 0.01


class Taken(NamedTuple):
    """What a chip measured.

    Attributes:
        words: those of the results, and of the hardware counters unless they contradict each other.
        status_word: read after them; 0 if it was not read.
        implausible: how many readings were discarded, counting only those that no conversion explains.
    """

    words: tuple[int, ...]
    status_word: int
    implausible: int = 0


class DoubleReader:
    """Reads the results and hardware counters of a chip, and then its status."""

    def __init__(self, bus: Bus, chip: I2CChip, clock: Clock, *, with_status: bool) -> None:
        self._bus = bus
        self._chip = chip
        self._clock = clock
        measured = (*chip.results, *chip.counter_registers)
        self._count = len(measured)
        self._has_status = with_status and chip.status is not None
        status = (chip.status.register,) if with_status and chip.status is not None else ()
        self._registers = (*measured, *measured, *status)

    def take(self) -> Taken:
        """Read the chip. Raises as `Bus.read`."""
        began_seconds, count = self._clock.monotonic(), self._count
        words = self._bus.read(self._chip.place.address, self._registers)
        first, second = words[:count], words[count : 2 * count]
        status_word = words[-1] if self._has_status else 0
        if first == second:
            return Taken(first, status_word)
        return self._decide(first, second, status_word, began_seconds)

    def _decide(self, first: tuple[int, ...], second: tuple[int, ...], status_word: int, began_seconds: float) -> Taken:
        result_count, implausible = len(self._chip.results), 0
        results, counters = first[:result_count], first[result_count:]
        if results != second[:result_count]:
            readings = [results, second[:result_count], self._read(self._chip.results)]
            took_seconds = self._clock.monotonic() - began_seconds
            if took_seconds < self._chip.conversion_seconds * _OF_A_CONVERSION:
                implausible += any(b not in (a, c) for a, b, c in zip(*readings, strict=True))
            if any(len({*words}) == len(readings) for words in zip(*readings, strict=True)):
                readings += [self._read(self._chip.results) for _ in range(2)]
            results = _middle_of(self._chip.results, readings)
        if counters != second[result_count:]:
            registers = self._chip.counter_registers
            readings = [counters, second[result_count:], self._read(registers)]
            counters = _middle_of(registers, readings)
            took_seconds = self._clock.monotonic() - began_seconds + _COUNTING_SECONDS
            most_lsbs = self._chip.counter_lsbs_per_second * took_seconds
            apart = [_apart(registers, counters, reading) for reading in readings]
            implausible += max(apart) > most_lsbs
            if sorted(apart)[1] > most_lsbs:  # the nearest of them is the middle one itself
                counters = ()
        return Taken((*results, *counters), status_word, implausible)

    def _read(self, registers: tuple[Register, ...]) -> tuple[int, ...]:
        return self._bus.read(self._chip.place.address, registers)


def until_agreed(read: Callable[[], _T]) -> _T | None:
    """What two readings in a row agree on; None if none do within a few attempts."""
    word = read()
    for _ in range(_ATTEMPTS):
        word, previous = read(), word
        if word == previous:
            return word
    return None


def _middle_of(registers: Sequence[Register], readings: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """For each register, the one of its words that is closest to the others."""
    return tuple(
        min(words, key=lambda word: sum(_distance(register, word, other) for other in words))
        for register, *words in zip(registers, *readings, strict=True)
    )


def _apart(registers: Sequence[Register], words: Sequence[int], others: Sequence[int]) -> int:
    return max(map(_distance, registers, words, others))


def _distance(register: Register, word: int, other: int) -> int:
    """The way from one word to another on the circle of all words, so that signed and unsigned ones need no telling."""
    size = 1 << 8 * register.length_bytes
    return min((word - other) % size, (other - word) % size)
