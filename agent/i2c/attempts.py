"""Transfers that are repeated when they fail, within the time that the failures of one session may take.

A NACK may be a disturbance, so a transfer that fails with one is repeated at once: every transfer may happen twice, as
a register or a control byte then only holds the same value again. What fails slowly is a time-out and is not repeated.
The failures of one session may take `_FAILING_SECONDS` together; after that everything fails at once.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from agent.errors import BusError
from agent.i2c.failures import is_gone, is_nack, is_time_out
from agent.i2c.place import bus_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.i2c.place import BusName
    from agent.i2c.transfers import Transfer

ATTEMPTS = 5
"""Where one transfer in five fails, one in 3,000 still fails this often in a row."""

# The kernel waits a second or more for a bus; with some USB adapters the failure is then EIO, that of a NACK.
_LONGEST_NACK_SECONDS = 0.5

# A lost arbitration: no adapter waits for a held line for less.
_LONGEST_DISTURBANCE_SECONDS = 0.01

# Consecutive ones: each may block for a second, and there may be 64 chips.
_TIME_OUTS_OF_A_STUCK_BUS = 2
# Also spent by one time-out of 2 s, or by two of 1 s with answers between them.
_FAILING_SECONDS = 1.5


def stuck_error(bus: BusName) -> BusError:
    """The error of a bus whose transfers time out."""
    return BusError(
        f"{bus_path(bus)}: stuck, transactions time out; is a chip holding SDA or SCL low?", errno.ETIMEDOUT
    )


def is_stuck_error(error: AgentError | None) -> bool:
    """Whether it is the error of a bus whose transfers time out."""
    return isinstance(error, BusError) and error.errno == errno.ETIMEDOUT


class Attempts:
    """Does the transfers of one bus.

    Attributes:
        retries: how many transfers were repeated at once; only rises.
        has_answered: whether a chip has answered in this session, and the adapter is not gone.
        has_timed_out: whether a transfer of this session took as long as a time-out, and failed.
    """

    def __init__(self, name: BusName, clock: Clock) -> None:
        """Prepare: the name of the bus is for errors, the clock for time-outs."""
        self.retries = 0
        self.has_answered = False
        self.has_timed_out = False
        self._name = name
        self._clock = clock
        self._time_outs_in_a_row = 0
        self._failing_seconds = 0.0

    def begin(self) -> None:
        """Begin a session: failures of earlier ones no longer count."""
        self.has_answered = False
        self.has_timed_out = False
        self._time_outs_in_a_row = 0
        self._failing_seconds = 0.0

    @property
    def is_stuck(self) -> bool:
        """Whether transfers timed out too often in this session: all fail at once now."""
        return self._time_outs_in_a_row >= _TIME_OUTS_OF_A_STUCK_BUS or self._failing_seconds >= _FAILING_SECONDS

    def do(self, transfers: Iterable[Transfer], attempts: int = ATTEMPTS) -> None:
        """Do transfers, repeat what a NACK ends, and record the outcome.

        Raises:
            BusError: the bus is stuck.
            OSError: what the back end raised; without a number if it raised something else, as a time-out if it took
                as long as one.
        """
        if self.is_stuck:
            raise stuck_error(self._name)
        for transfer in transfers:
            self._try(transfer, attempts)
        self.has_answered = True

    def _try(self, transfer: Transfer, attempts: int) -> None:
        """Do one transfer, and repeat it while it ends with a NACK or a lost arbitration."""
        is_probe = attempts == 1  # one disturbance shows nothing about the bus
        while True:
            began = self._clock.monotonic()
            try:
                transfer()
            except Exception as error:  # USB back ends raise anything
                seconds = self._clock.monotonic() - began
                failure = self._failure(error, seconds)
                attempts -= 1
                may_pass = is_nack(failure) or (is_time_out(failure) and seconds <= _LONGEST_DISTURBANCE_SECONDS)
                if not attempts or not may_pass or self.is_stuck:
                    if not is_time_out(failure):
                        self._time_outs_in_a_row = 0
                    elif not (is_probe and may_pass):
                        self._time_outs_in_a_row += 1
                    raise failure from error
                self.retries += 1
            else:
                self._time_outs_in_a_row = 0
                return

    def _failure(self, error: Exception, seconds: float) -> OSError:
        """The failure of a transfer as an OSError; a slow one is a time-out, whatever the adapter calls it."""
        failure = OSError(*error.args if isinstance(error, OSError) else (f"{type(error).__name__}: {error}",))
        if is_gone(failure):
            self.has_answered = False
        elif seconds > _LONGEST_NACK_SECONDS:
            self.has_timed_out = True
            failure = OSError(errno.ETIMEDOUT, f"time-out, {seconds:.1f} s")
        self._failing_seconds += seconds
        return failure
