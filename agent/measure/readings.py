"""What a sweep brings back: for every device a reading, a failure, or word that its chip is still converting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.chips import HardwareCounters
    from agent.errors import AgentError


@dataclass(frozen=True, slots=True)
class Reading:
    """One V/I/P triple of one device.

    Attributes:
        power_watts: positive towards the load, negative when it flows back.
        at_seconds: when it was read, on the monotonic clock.
        unix_seconds: when it was read, for people.
        window_seconds: how much time the chip has averaged over; its last conversion ended some time before
            `at_seconds`, by less than this.
        is_new: whether that conversion ended since the chip was read last; otherwise the same is said again.
        accumulated: what the chip has added up by itself, where it does.
    """

    device: str
    volts: float
    amperes: float
    power_watts: float
    at_seconds: float
    unix_seconds: float
    window_seconds: float
    is_new: bool = True
    accumulated: HardwareCounters | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A device could not be read. With `tried` False nobody asked it: its chip rests after earlier failures."""

    device: str
    error: AgentError
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Converting:
    """A chip was configured a moment ago and its first result is not there before `ready_at_seconds` (monotonic).

    `power_lost` says why it had to be configured: it had fallen back to its power-on state while it was in use.
    """

    device: str
    ready_at_seconds: float
    power_lost: bool = False


Outcome = Reading | Failure | Converting
