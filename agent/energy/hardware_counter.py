"""Energy between two readings, from the energy and charge counters in the chip itself (INA228)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.chips import HARDWARE_COUNTER_BITS

if TYPE_CHECKING:
    from agent.chips import HardwareCounters

_RANGE = 1 << HARDWARE_COUNTER_BITS

# The chip's oscillator may run 1 % fast (SLYS021, section 6.5); the rest is a margin.
_PLAUSIBLE = 1.05

# The voltage between the two readings is unknown. A smaller difference between charge x voltage and energy means that
# the supply varied, not that energy flowed back. The earlier voltage of a rail that is off is unknown.
_SUPPLY_TOLERANCE = 0.2
_OFF_VOLTS = 0.5


class Flow(NamedTuple):
    """Energy to the load, and energy back from it as a positive number."""

    delivered_joules: float
    returned_joules: float


def flow_between(
    earlier_energy_word: int, earlier_charge_word: int, now: HardwareCounters, volts: float, seconds: float
) -> Flow | None:
    """Return the energy that flowed since the counters held the earlier words.

    The energy counter adds up the energy in both directions, the charge counter has a sign. Together they give the
    energy in each direction::

        energy           = delivered + returned
        charge x voltage = delivered - returned

    Args:
        earlier_energy_word: the raw energy counter at the earlier reading.
        earlier_charge_word: the raw charge counter at the earlier reading.
        now: both counters now, and the size of their LSBs.
        volts: the higher bus voltage of the two readings, because the rail may be off at one of them.
        seconds: the time between the two readings.

    Returns:
        None if the counters are useless: they show more than the chip can measure, so another program cleared them, or
        they may have overflowed unnoticed in so long a time.
    """
    most_joules = now.most_watts * seconds * _PLAUSIBLE
    most_coulombs = now.most_amperes * seconds * _PLAUSIBLE
    if most_joules >= _RANGE * now.joules_per_lsb or most_coulombs >= _RANGE // 2 * now.coulombs_per_lsb:
        return None
    joules = (now.energy_word - earlier_energy_word) % _RANGE * now.joules_per_lsb
    charge_lsbs = (now.charge_word - earlier_charge_word) % _RANGE
    if charge_lsbs >= _RANGE // 2:
        charge_lsbs -= _RANGE
    coulombs = charge_lsbs * now.coulombs_per_lsb
    if joules > most_joules or abs(coulombs) > most_coulombs:
        return None
    net_joules = coulombs * volts
    if volts < _OFF_VOLTS or abs(net_joules) >= joules * (1 - _SUPPLY_TOLERANCE):
        return Flow(joules, 0.0) if coulombs >= 0.0 else Flow(0.0, joules)
    return Flow((joules + net_joules) / 2, (joules - net_joules) / 2)
