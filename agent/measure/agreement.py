"""Double reading: what a chip measured is read twice in one go, so that a flipped bit is never a measurement.

No chip of these families has a checksum: a bit that flips on the way arrives acknowledged, like any other, and so does
the answer of another chip while another program switches a mux. If the two readings are equal, no transfer had to be
repeated, and the bits that we wrote are there, that is the result. Otherwise the reading is in doubt: the chip is read
again, with the muxes read back before and after it, and those beside its path after each register (`/`), until two
readings in a row are equal::

    V I V I status  path                                  undisturbed
    V I V I status  path V/I/status/path V/I/status/path  in doubt: a conversion ended in between, or a disturbance
    path V/I/V/I/status/path                              a mux was found switched in the last minute: always in doubt

A chip whose conversions are faster than this may never read equal: the middle one of several readings in doubt counts
then. So a chip that works never fails this check, whatever its load does.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from agent.chips import ExpectedBits
from agent.errors import SensorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.chips import I2CChip
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.transfers import Register

_T = TypeVar("_T")

_ATTEMPTS = 6
_READINGS_OF_A_FAST_CHIP = 3

# Less than the time of a conversion, which may be shorter than typical: at most one can end in between.
_OF_A_CONVERSION = 0.8

# Hardware counters rise with every single conversion, which takes less than this.
_COUNTING_SECONDS = 0.01


class Taken(NamedTuple):
    """What a chip measured.

    Attributes:
        words: those of the results, and of the hardware counters unless they contradict each other.
        expected_words: those of the registers with bits that we wrote.
        implausible: how many readings were discarded, counting only those that no conversion explains.
    """

    words: tuple[int, ...]
    expected_words: tuple[int, ...]
    implausible: int = 0


class DoubleReader:
    """Reads the results and hardware counters of a chip, and then the registers with bits that we wrote."""

    def __init__(self, bus: Bus, chip: I2CChip, clock: Clock) -> None:
        self._bus = bus
        self._chip = chip
        self._clock = clock
        self._address = chip.place.address
        self._measured = (*chip.results, *chip.counter_registers)

    def take(self, expected: Sequence[ExpectedBits], last_results: tuple[int, ...]) -> Taken:
        """Read the chip.

        Args:
            expected: bits that should be there; their absence counts only when two readings agree.
            last_results: the results of the last reading; empty before the first.

        Raises:
            SensorError: its readings keep contradicting each other.
            MuxSwitchedError: a mux on the path was switched; otherwise as `Bus.read`.
        """
        began_seconds, retries_before = self._clock.monotonic(), self._bus.retries
        count, result_count = len(self._measured), len(self._chip.results)
        registers = tuple([bits.register for bits in expected])
        words = self._bus.read(self._address, (*self._measured, *self._measured, *registers))
        first, second, expected_words = words[:count], words[count : 2 * count], words[2 * count :]
        results, counters = first[:result_count], first[result_count:]
        implausible = 0
        if (
            results != second[:result_count]
            or self._bus.retries != retries_before
            or not all(map(ExpectedBits.is_written, expected, expected_words))
            or (results != last_results and self._may_be_of_no_register(results))
        ):
            readings = [results, second[:result_count]]
            with self._bus.guarding(self._chip.place):
                settled, settled_words = self._settle(readings, expected, began_seconds)
            implausible += not all(map(ExpectedBits.is_written, expected, expected_words)) and all(
                map(ExpectedBits.is_written, expected, settled_words)
            )
            implausible += self._is_unexplained(readings, began_seconds)
            results = settled
            # The first reading clears the flag.
            expected_words = tuple(
                word | (earlier & ~bits.bits)
                for bits, word, earlier in zip(expected, settled_words, expected_words, strict=True)
            )
        if counters != second[result_count:]:
            counters, is_flipped = self._settle_counters([counters, second[result_count:]], began_seconds)
            implausible += is_flipped
        return Taken((*results, *counters), expected_words, implausible)

    def _may_be_of_no_register(self, results: tuple[int, ...]) -> bool:
        """Whether a chip may have answered so for a register that it does not have: its number was flipped."""
        return any(
            word in (0, (1 << 8 * register.length_bytes) - 1)
            for register, word in zip(self._chip.results, results, strict=True)
        )

    def _settle(
        self, readings: list[tuple[int, ...]], expected: Sequence[ExpectedBits], began_seconds: float
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Read until two readings in a row are equal; add them to `readings`."""
        count, unsettled = len(self._chip.results), len(readings)
        registers = (*self._chip.results, *[bits.register for bits in expected])
        last: tuple[tuple[int, ...], tuple[int, ...]] | None = None
        flags = [0] * len(expected)
        for attempt in range(1, _ATTEMPTS + 1):
            words = self._bus.read(self._address, registers)
            results, expected_words = words[:count], words[count:]
            readings.append(results)
            flags = [flag | word & ~bits.bits for flag, word, bits in zip(flags, expected_words, expected, strict=True)]
            ours = tuple([word & bits.bits for word, bits in zip(expected_words, expected, strict=True)])
            if last == (results, ours):
                return results, tuple([word | flag for word, flag in zip(ours, flags, strict=True)])
            last = results, ours
            is_written = all(map(ExpectedBits.is_written, expected, expected_words))
            enough = _ATTEMPTS if self._bus.is_doubted else _READINGS_OF_A_FAST_CHIP
            if attempt >= enough and is_written and self._is_fast(len(readings), began_seconds):
                return _middle_of(self._chip.results, readings[unsettled:]), expected_words
        raise SensorError(f"{self._chip}: its readings contradict each other; is the bus disturbed?")

    def _is_fast(self, readings: int, began_seconds: float) -> bool:
        """Whether a conversion is likely to end between any two readings."""
        return self._chip.conversion_seconds < 3 * (self._clock.monotonic() - began_seconds) / readings

    def _is_unexplained(self, readings: Sequence[tuple[int, ...]], began_seconds: float) -> bool:
        """Whether a register changed more than once in less than a conversion."""
        if self._clock.monotonic() - began_seconds >= self._chip.conversion_seconds * _OF_A_CONVERSION:
            return False
        return any(
            sum(before != after for before, after in pairwise(words)) > 1 for words in zip(*readings, strict=True)
        )

    def _settle_counters(self, readings: list[tuple[int, ...]], began_seconds: float) -> tuple[tuple[int, ...], bool]:
        """The middle one of three readings, or nothing if they contradict each other; whether one did."""
        registers = self._chip.counter_registers
        readings.append(self._bus.read(self._address, registers))
        counters = _middle_of(registers, readings)
        took_seconds = self._clock.monotonic() - began_seconds + _COUNTING_SECONDS
        most_lsbs = self._chip.counter_lsbs_per_second * took_seconds
        apart = sorted(_apart(registers, counters, reading) for reading in readings)
        # The nearest is the middle one itself.
        return () if apart[1] > most_lsbs else counters, apart[-1] > most_lsbs


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
    """The distance of two words on the circle of all words, which is the same for signed and unsigned ones."""
    size = 1 << 8 * register.length_bytes
    return min((word - other) % size, (other - word) % size)
