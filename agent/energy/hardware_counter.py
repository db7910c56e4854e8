"""What flowed between two readings, by what the chip itself has added up (INA228)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.chips import ACCUMULATOR_BITS

if TYPE_CHECKING:
    from agent.chips import Accumulated

_RANGE = 1 << ACCUMULATOR_BITS

# More than the chip can measure, by what its oscillator may be fast (SLYS021, section 6.5) and a little more.
_PLAUSIBLE = 1.05

# Nobody has seen the voltage in between: a smaller difference between charge times voltage and energy is a supply that
# varies, and no sign that something flowed back. A rail that is off says nothing of the voltage that it had.
_SUPPLY_TOLERANCE = 0.2
_OFF_VOLTS = 0.5


@dataclass(frozen=True, slots=True)
class Flow:
    """Energy to the load, and energy back as a positive number."""

    delivered_joules: float
    returned_joules: float


def flow_between(
    earlier_energy_word: int, earlier_charge_word: int, now: Accumulated, volts: float, seconds: float
) -> Flow | None:
    """What flowed since the accumulators held the earlier words.

    Energy is added up whichever way it flows, charge with its sign: together they say how much flowed which way.

    ::

        energy           = delivered + returned
        charge x voltage = delivered - returned

    Args:
        earlier_energy_word: see `Accumulated`.
        earlier_charge_word: see `Accumulated`.
        now: what they hold now.
        volts: the voltage of the rail, the higher one of then and now: it may be switched off at times.
        seconds: the time in between.

    Returns:
        None where it cannot be told: more than the chip can have measured means that somebody set the accumulators to
        zero, and in a time long enough to go round once they may have done so unnoticed.
    """
    most_joules = now.most_watts * seconds * _PLAUSIBLE
    most_coulombs = now.most_amperes * seconds * _PLAUSIBLE
    if most_joules >= _RANGE * now.joules_per_step or most_coulombs >= _RANGE // 2 * now.coulombs_per_step:
        return None
    joules = (now.energy_word - earlier_energy_word) % _RANGE * now.joules_per_step
    charge_steps = (now.charge_word - earlier_charge_word) % _RANGE
    if charge_steps >= _RANGE // 2:
        charge_steps -= _RANGE
    coulombs = charge_steps * now.coulombs_per_step
    if joules > most_joules or abs(coulombs) > most_coulombs:
        return None
    net_joules = coulombs * volts
    if volts < _OFF_VOLTS or abs(net_joules) >= joules * (1 - _SUPPLY_TOLERANCE):
        return Flow(joules, 0.0) if coulombs >= 0.0 else Flow(0.0, joules)
    return Flow((joules + net_joules) / 2, (joules - net_joules) / 2)
