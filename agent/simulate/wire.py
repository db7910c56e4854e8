"""One I2C bus: transactions, the wired AND of all parts that answer, the cost in bits, and faults on demand."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.simulate.part import Part

Buffer = bytes | bytearray | memoryview
Message = tuple[int, bool, Buffer]
"""Address, whether it is a read, and the bytes to write or the writable buffer to fill."""

BITS_OF_A_BYTE = 9  # eight and the acknowledge


@dataclass(frozen=True, slots=True)
class LoggedMessage:
    """One message of a transaction; `data` of a read is the answer, or zeros before there is one."""

    address: int
    is_read: bool
    data: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """Everything on the wire between a START and its STOP.

    Attributes:
        index: 0 for the first transaction of the wire.
        seconds: when it began, on the clock of the wire.
        messages: separated by repeated STARTs.
        error: the errno that the host got; None for success.
    """

    index: int
    seconds: float
    messages: tuple[LoggedMessage, ...]
    error: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed transaction: the errno that the host gets, and whether the parts act before it."""

    code: int
    after_effect: bool


class Faults:
    """The planned faults. With `after_effect` the parts act as usual and only the host gets an error.

    A host cannot tell the two cases apart: a NACK of the address (nothing happened) and, for example, a time-out at the
    end (everything happened). The first planned fault that matches a transaction wins; all stay until `clear()`.

    Attributes:
        flip: what becomes of each byte that is written or read, although it is acknowledged; None changes nothing.
    """

    def __init__(self) -> None:
        self._planned: list[Callable[[Transaction], Fault | None]] = []
        self.flip: Callable[[int], int] | None = None

    def __bool__(self) -> bool:
        return bool(self._planned)

    def fail_at(self, index: int, code: int = errno.EREMOTEIO, *, after_effect: bool = False) -> None:
        """Fail the transaction with this index (`Wire.transactions` is the index of the next one).

        Args:
            index: counted from the wire's first transaction, 0.
            code: the errno of the OSError.
            after_effect: let the parts act before the host gets the error.
        """
        self.fail_when(lambda transaction: code if transaction.index == index else None, after_effect=after_effect)

    def fail_when(self, errno_of: Callable[[Transaction], int | None], *, after_effect: bool = False) -> None:
        """Fail each transaction for which `errno_of` gives an errno.

        Args:
            errno_of: gets the transaction before it happens (reads hold zeros); None lets it pass.
            after_effect: let the parts act before the host gets the error.
        """

        def fault_of(transaction: Transaction) -> Fault | None:
            code = errno_of(transaction)
            return None if code is None else Fault(code, after_effect)

        self._planned.append(fault_of)

    def clear(self) -> None:
        """Remove all planned faults."""
        self._planned.clear()
        self.flip = None

    def flipped(self, data: bytes) -> bytes:
        """The bytes as they arrive."""
        return data if self.flip is None else bytes(map(self.flip, data))

    def find(self, transaction: Transaction) -> Fault | None:
        """The first fault planned for this transaction, or None."""
        return next(filter(None, (fault_of(transaction) for fault_of in self._planned)), None)


class Wire:
    """A bus with its adapter, which does one transaction at a time, like the kernel's adapters.

    Attributes:
        transactions: how many began.
        bits: their cost: one bit for each START, repeated START and STOP, nine for each byte.
        refuses_zero_length: whether the adapter refuses writes without data, as several do (kernel
            documentation, i2c: `I2C_AQ_NO_ZERO_LEN`).
        faults: the planned faults.
        log: set it to a list to have every transaction appended; None records nothing.
    """

    def __init__(self, now: Callable[[], float], *, refuses_zero_length: bool = False) -> None:
        """An empty bus.

        Args:
            now: the clock that stamps the log, in seconds.
            refuses_zero_length: see the attribute.
        """
        self.transactions = 0
        self.bits = 0
        self.refuses_zero_length = refuses_zero_length
        self.faults = Faults()
        self.log: list[Transaction] | None = None
        self._now = now
        self._trunk: list[Part] = []
        self._adapter = threading.Lock()

    def attach(self, part: Part) -> None:
        """Put a part on the trunk."""
        self._trunk.append(part)

    def transfer(self, messages: Sequence[Message]) -> None:
        """Do one transaction: START, the messages with repeated STARTs between them, STOP.

        Every part at a message's address takes part, on the trunk and behind every open channel: all receive a write,
        and a read is the wired AND of all. Read buffers are filled only if the whole transaction succeeds.

        Raises:
            OSError: EREMOTEIO if no part acknowledges an address; EOPNOTSUPP if the adapter refuses a write without
                data (then nothing reaches the wire or is counted); a planned fault's errno.
        """
        if self.refuses_zero_length and any(not is_read and not buffer for _, is_read, buffer in messages):
            raise _os_error(errno.EOPNOTSUPP)
        with self._adapter:
            self._transact(messages)

    def _transact(self, messages: Sequence[Message]) -> None:
        index = self.transactions
        self.transactions += 1
        answers: list[bytes] = []
        fault = self.faults.find(self._logged(index, messages, answers)) if self.faults else None
        code = None
        try:
            self._drive_or_fail(messages, answers, fault)
        except OSError as error:
            code = error.errno
            raise
        finally:
            if self.log is not None:
                self.log.append(self._logged(index, messages, answers, code))
        reads = (buffer for _, is_read, buffer in messages if is_read)
        for buffer, answer in zip(reads, answers, strict=True):
            memoryview(buffer)[:] = answer

    def _drive_or_fail(self, messages: Sequence[Message], answers: list[bytes], fault: Fault | None) -> None:
        if fault is None:
            self._drive(messages, answers)
            return
        if fault.after_effect:
            self._drive(messages, answers)
        else:
            self.bits += 1 + BITS_OF_A_BYTE + 1  # START, an address without an acknowledge, STOP
        raise _os_error(fault.code)

    def _drive(self, messages: Sequence[Message], answers: list[bytes]) -> None:
        addressed: list[Part] = []
        try:
            for address, is_read, buffer in messages:
                self.bits += 1 + BITS_OF_A_BYTE
                answering = [part for trunk_part in self._trunk for part in trunk_part.reached_at(address)]
                if not answering:
                    raise _os_error(errno.EREMOTEIO)
                addressed += answering
                self.bits += BITS_OF_A_BYTE * len(buffer)
                if is_read:
                    answers.append(self.faults.flipped(wired_and([part.read(len(buffer)) for part in answering])))
                else:
                    arriving = self.faults.flipped(bytes(buffer))
                    for part in answering:
                        part.write(arriving)
        finally:
            self.bits += 1
            for part in addressed:
                part.stop()

    def _logged(
        self, index: int, messages: Sequence[Message], answers: Sequence[bytes], code: int | None = None
    ) -> Transaction:
        unused_answers = iter(answers)
        logged = tuple(
            LoggedMessage(address, is_read, next(unused_answers, bytes(len(buffer))) if is_read else bytes(buffer))
            for address, is_read, buffer in messages
        )
        return Transaction(index, self._now(), logged, code)


def wired_and(answers: Sequence[bytes]) -> bytes:
    """The bytes on an open-drain line that several parts drive: a bit is 1 only if no part pulls it low."""
    combined = answers[0]
    for answer in answers[1:]:
        combined = bytes(a & b for a, b in zip(combined, answer, strict=True))
    return combined


def _os_error(code: int) -> OSError:
    return OSError(code, os.strerror(code))
