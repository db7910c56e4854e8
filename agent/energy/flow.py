"""Energy and charge between two readings, each in both directions."""

from __future__ import annotations

from typing import NamedTuple


class Flow(NamedTuple):
    """What flowed to the load, and what flowed back from it as a positive number: joules or coulombs."""

    delivered: float
    returned: float


class Flows(NamedTuple):
    """The energy in joules and the charge in coulombs that flowed in the same time."""

    energy: Flow
    charge: Flow


NOTHING = Flows(Flow(0.0, 0.0), Flow(0.0, 0.0))


def flow(last_rate: float, last_seconds: float, rate: float, seconds: float) -> Flow:
    """What flows at one rate, in watts or amperes, and then at another one; each has the direction of its sign.

    A time may be negative: it takes back what was assumed.
    """
    return Flow(
        max(0.0, last_rate) * last_seconds + max(0.0, rate) * seconds,
        max(0.0, -last_rate) * last_seconds + max(0.0, -rate) * seconds,
    )
