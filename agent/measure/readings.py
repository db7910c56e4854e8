"""The outcome of a sweep for each device: a reading, a failure, or that its chip is settling.

Values that every reading creates, here and in `energy/`, are named tuples: a frozen dataclass takes four times as long
to create. They are used by name, never by position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent.chips import HardwareCounters
    from agent.errors import AgentError


class Disturbance(NamedTuple):
    """What a chip's step met on its bus, whatever the outcome.

    Attributes:
        retries: transfers that were repeated at once.
        implausible: readings that were discarded because a check contradicted them.
    """

    retries: int = 0
    implausible: int = 0


UNDISTURBED = Disturbance()


class Reading(NamedTuple):
    """One V/I/P triple of one device.

    Attributes:
        power_watts: positive towards the load, negative when it flows back.
        at_seconds: when it was read, on the monotonic clock.
        unix_seconds: when it was read, as Unix time.
        window_seconds: the time that the chip averaged over. It ended before `at_seconds`, by less than this.
        is_new: whether that conversion ended since the last reading; otherwise this is the same result again.
        hardware_counters: those of the chip, if it has any.
    """

    device: str
    volts: float
    amperes: float
    power_watts: float
    at_seconds: float
    unix_seconds: float
    window_seconds: float
    is_new: bool = True
    hardware_counters: HardwareCounters | None = None
    disturbance: Disturbance = UNDISTURBED


class Failure(NamedTuple):
    """A device was not read. With `tried` False its chip was skipped: it or its bus backs off, or there was no time."""

    device: str
    error: AgentError
    tried: bool = True
    disturbance: Disturbance = UNDISTURBED


class Settling(NamedTuple):
    """A chip has just been opened, and has no result before `ready_at_seconds` (monotonic).

    With `power_lost`, it had lost its power while it was in use, and was configured again.
    """

    device: str
    ready_at_seconds: float
    power_lost: bool = False
    disturbance: Disturbance = UNDISTURBED


Outcome = Reading | Failure | Settling
