"""Energy and charge between two readings, each in both directions."""

from __future__ import annotations

from typing import NamedTuple

Flow = tuple[float, float]
"""What flowed to the load, and what flowed back from it as a positive number: joules or coulombs.

A plain tuple, because each reading makes two of them, and a named one takes longer than the arithmetic.
"""


class Flows(NamedTuple):
    """The energy in joules and the charge in coulombs that flowed in the same time."""

    energy: Flow
    charge: Flow


NOTHING: Flow = (0.0, 0.0)


def flow(last_rate: float, last_seconds: float, rate: float, seconds: float) -> Flow:
    """What flows at one rate, in watts or amperes, and then at another one; each has the direction of its sign.

    A time may be negative: it takes back what was assumed.
    """
    delivered = returned = 0.0
    if last_rate > 0.0:
        delivered = last_rate * last_seconds
    else:
        returned = -last_rate * last_seconds
    if rate > 0.0:
        delivered += rate * seconds
    else:
        returned -= rate * seconds
    return delivered, returned
