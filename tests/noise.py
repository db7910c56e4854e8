"""Disturbances of a wire, drawn from a seed: errors at random, bits that flip, and programs that switch a mux.

All of them can act on one wire at the same time. Those that need to know the time share a `WireClock`, which each
transfer advances by its bits: the wire then is as slow as a real one, although nobody waits for it.
"""

from __future__ import annotations

import errno
import fcntl
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.simulate.clock import HandClock

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from agent.simulate.part import Part
    from agent.simulate.wire import Message, Transaction, Wire

    Program = Callable[[], Iterator[list[Message]]]
    """Makes the transactions of one visit."""

HERTZ = 100_000
"""The standard speed of an I2C bus, and the default of a Raspberry Pi."""


class WireClock(HandClock):
    """A clock that the transfers of a wire advance, and that does what is planned when its time comes."""

    def __init__(self) -> None:
        super().__init__()
        self._planned: list[tuple[float, Callable[[], None]]] = []

    def runs_with(self, wire: Wire, hertz: int = HERTZ) -> None:
        """Let each transfer of this wire take the time of its bits."""
        inner = wire.transfer

        def transfer(messages: Sequence[Message]) -> None:
            bits_before = wire.bits
            try:
                inner(messages)
            finally:
                self.sleep((wire.bits - bits_before) / hertz)

        wire.transfer = transfer

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Call this once the clock has reached that time."""
        self._planned.append((seconds, act))

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        while due := [plan for plan in self._planned if plan[0] <= self.seconds]:
            for plan in due:
                self._planned.remove(plan)
                plan[1]()


def before_each_transfer(wire: Wire, act: Callable[[], None]) -> None:
    """Let something else happen between two transfers."""
    inner = wire.transfer

    def transfer(messages: Sequence[Message]) -> None:
        act()
        inner(messages)

    wire.transfer = transfer


def random_nacks(wire: Wire, share: float, draws: random.Random, code: int = errno.EREMOTEIO) -> None:
    """Let this share of all transfers fail, a third of them after they took effect."""

    def before(_: Transaction) -> int | None:
        return code if draws.random() < share * 2 / 3 else None

    def after(_: Transaction) -> int | None:
        return code if draws.random() < share / 3 / (1 - share * 2 / 3) else None

    wire.faults.fail_when(before)
    wire.faults.fail_when(after, after_effect=True)


def random_flips(wire: Wire, share: float, draws: random.Random) -> None:
    """Flip one bit in this share of all data bytes that are written or read.

    The address byte is not among them: `random_wrong_addresses` flips those. There a flip is usually a NACK, because
    no part has the other address; it is worth a test of its own where one has.
    """
    wire.faults.flip = lambda byte: byte ^ (1 << draws.randrange(8)) if draws.random() < share else byte


def random_wrong_addresses(wire: Wire, share: float, draws: random.Random) -> None:
    """Flip one of the seven bits in this share of all addresses: another part answers, or none."""
    inner = wire.transfer

    def transfer(messages: Sequence[Message]) -> None:
        inner(
            [
                (address ^ (1 << draws.randrange(7)) if draws.random() < share else address, is_read, buffer)
                for address, is_read, buffer in messages
            ]
        )

    wire.transfer = transfer


def random_bursts(
    wire: Wire, clock: WireClock, share: float, draws: random.Random, longest_seconds: float = 5e-3
) -> None:
    """Before this share of all transfers, begin a disturbance of 0.1 ms or more in which all of them fail."""
    ends_seconds = 0.0

    def fails(*, after_effect: bool) -> Callable[[Transaction], int | None]:
        def code(_: Transaction) -> int | None:
            nonlocal ends_seconds
            if clock.seconds >= ends_seconds and draws.random() < share / 2:
                ends_seconds = clock.seconds + draws.uniform(1e-4, longest_seconds)
            is_disturbed = clock.seconds < ends_seconds and (after_effect or draws.random() < 2 / 3)
            return draws.choice([errno.EREMOTEIO, errno.EIO, errno.ENXIO]) if is_disturbed else None

        return code

    wire.faults.fail_when(fails(after_effect=False))
    wire.faults.fail_when(fails(after_effect=True), after_effect=True)


def nacks_in_a_row(wire: Wire, share: float, draws: random.Random, longest: int = 8) -> None:
    """Before this share of all transfers, begin a row of up to `longest` failures; half of them take effect."""
    left = 0

    def fails(*, after_effect: bool) -> Callable[[Transaction], int | None]:
        def code(_: Transaction) -> int | None:
            nonlocal left
            if not left and not after_effect and draws.random() < share:
                left = draws.randint(1, longest)
            if left and (after_effect or draws.random() < 0.5):
                left -= 1
                return errno.EREMOTEIO
            return None

        return code

    wire.faults.fail_when(fails(after_effect=False))
    wire.faults.fail_when(fails(after_effect=True), after_effect=True)


def random_silence(wire: Wire, clock: WireClock, addresses: Sequence[int], share: float, draws: random.Random) -> None:
    """Before this share of all transfers, let an address fall silent for up to 3 s; its part keeps its state."""
    silent_until = dict.fromkeys(addresses, 0.0)

    def is_silent(transaction: Transaction) -> int | None:
        if draws.random() < share:
            silent_until[draws.choice(addresses)] = clock.seconds + draws.uniform(0.0, 3.0)
        address = transaction.messages[0].address
        return errno.EREMOTEIO if clock.seconds < silent_until.get(address, 0.0) else None

    wire.faults.fail_when(is_silent)


def slow_adapter(wire: Wire, clock: HandClock, draws: random.Random, *, is_hung: Callable[[], bool]) -> None:
    """While it hangs, let each transfer take 2 to 3 s and fail with EIO, as i2c-tiny-usb does."""

    def hangs(_: Transaction) -> int | None:
        if not is_hung():
            return None
        clock.sleep(draws.uniform(2.0, 3.0))
        return errno.EIO

    wire.faults.fail_when(hangs)


def random_power_losses(
    clock: WireClock, parts: Sequence[Part], mean_seconds: float, draws: random.Random, until_seconds: float
) -> int:
    """Plan power losses of random parts, muxes included; return how many there will be."""
    count, at_seconds = 0, clock.seconds
    while (at_seconds := at_seconds + draws.expovariate(1 / mean_seconds)) < until_seconds:
        clock.at(at_seconds, draws.choice(parts).power_loss)
        count += 1
    return count


def random_holds(
    clock: WireClock,
    device_file: Path,
    draws: random.Random,
    *,
    mean_seconds: float,
    longest_seconds: float,
    until_seconds: float,
) -> int:
    """Plan times at which another program holds the lock on a device file; return how many there will be."""

    def hold(seconds: float) -> Callable[[], None]:
        def begin() -> None:
            file = device_file.open("rb")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # the agent has it: try again between two of its sweeps
                file.close()
                clock.at(clock.seconds + 5e-3, begin)
                return
            clock.at(clock.seconds + seconds, file.close)

        return begin

    count, at_seconds = 0, clock.seconds
    while (at_seconds := at_seconds + draws.expovariate(1 / mean_seconds)) < until_seconds:
        clock.at(at_seconds, hold(draws.uniform(0.05, longest_seconds)))
        count += 1
    return count


class Stranger:
    """A program that does not lock the bus: every now and then it does its transfers, wherever ours happen to be.

    The kernel serves whichever comes first. Between two of its own transactions the stranger takes 0.1 to 1 ms, as
    Python on a small board does, so that some of ours may pass.

    Attributes:
        visits: how often it came.
    """

    def __init__(
        self,
        wire: Wire,
        clock: WireClock,
        draws: random.Random,
        program: Program,
        *,
        pause_seconds: tuple[float, float] = (0.05, 1.0),
    ) -> None:
        self.visits = 0
        self._clock = clock
        self._draws = draws
        self._program = program
        self._pause_seconds = pause_seconds
        self._wire = wire
        self._visit: Iterator[list[Message]] | None = None
        self._next_seconds = clock.seconds + draws.uniform(0.0, pause_seconds[1])
        before_each_transfer(wire, self._act)

    def _act(self) -> None:
        while self._next_seconds <= self._clock.seconds:
            if self._visit is None:
                self._visit = self._program()
                self.visits += 1
            messages = next(self._visit, None)
            if messages is None:
                self._visit = None
                self._next_seconds += self._draws.uniform(*self._pause_seconds)
            else:
                self._transfer(messages)

    def _transfer(self, messages: list[Message]) -> None:
        """Do a transfer that was due a moment ago: it may be over, or ours has to wait for its end."""
        bits_before = self._wire.bits
        with suppress(OSError):
            type(self._wire).transfer(self._wire, messages)  # without what disturbs ours
        self._next_seconds += (self._wire.bits - bits_before) / HERTZ
        self._clock.sleep(max(0.0, self._next_seconds - self._clock.seconds))
        self._next_seconds += self._draws.uniform(1e-4, 1e-3)


def leaves_open(mux: int, channels: Sequence[int], draws: random.Random) -> Program:
    """A display driver, or `i2cset`: it selects a channel of its own and leaves it open."""

    def visit() -> Iterator[list[Message]]:
        yield [(mux, False, bytes((1 << draws.choice(channels),)))]
        yield [(0x3C, False, b"\x00\xae")]

    return visit


def reads_a_chip(mux: int, channels: Sequence[int], address: int, draws: random.Random) -> Program:
    """`i2cset` and `i2cget` by hand: a channel, then a register of the chip behind it; the channel stays open."""

    def visit() -> Iterator[list[Message]]:
        yield [(mux, False, bytes((1 << draws.choice(channels),)))]
        yield [(address, False, b"\x02"), (address, True, bytearray(2))]

    return visit


def stock_script(mux: int, channels: Sequence[int], address: int, draws: random.Random) -> Program:
    """A script on Adafruit's drivers: for each property of each chip it selects, reads and deselects."""

    def visit() -> Iterator[list[Message]]:
        for channel in draws.sample(channels, len(channels)):
            for register in (b"\x02", b"\x01", b"\x03"):
                yield [(mux, False, bytes((1 << channel,)))]
                yield [(address, False, register), (address, True, bytearray(2))]
                yield [(mux, False, b"\x00")]

    return visit
