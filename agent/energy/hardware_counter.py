"""Energy and charge between two readings, from the counters of both in the chip itself (INA228)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent.chips import HARDWARE_COUNTER_BITS
from agent.energy.flow import Flows

if TYPE_CHECKING:
    from agent.chips import HardwareCounters
    from agent.energy.counters import LastReading
    from agent.measure.readings import Reading

_RANGE = 1 << HARDWARE_COUNTER_BITS

# The chip's oscillator may run 1 % fast (SLYS021, section 6.5); the rest is a margin.
_PLAUSIBLE = 1.05

# Each counter is read with the fraction of an LSB cut off, and the difference has two of them.
_UNCERTAIN_LSBS = 2


class _Counted(NamedTuple):
    """What the counters show of the time between two readings.

    Attributes:
        joules: delivered and returned, together.
        coulombs: to the load, less what came back.
        uncertain_coulombs: by which the charge may differ, in either direction.
    """

    joules: float
    coulombs: float
    uncertain_coulombs: float


def flows_between(last: LastReading, reading: Reading) -> Flows | None:
    """Return the energy and the charge that flowed between two readings of a chip with counters.

    The energy counter adds up the energy in both directions, the charge counter has a sign::

        energy = delivered + returned
        charge = charge to the load - charge back

    Only a voltage turns charge into energy, and the voltage between two readings is unknown: the supply may have been
    at 20 V meanwhile. The charge proves these directions and no others:

    - Its sign: more charge flowed that way than the other way. All energy is counted in this direction, unless there
      is evidence of the other one.
    - Its size: if even the highest voltage that the chip can measure, times the charge, is less than the energy, then
      charge flowed back as well, and cancelled out. The energy is split by the voltage of the readings::

          charge x voltage = delivered - returned

    A reading whose power goes against the charge is evidence too, but of a little: what flows the other way is at most
    this power for all the time, and at most what the voltage of the readings says. So the offset of an idle input does
    not turn the energy of a changing supply around.

    Of the charge only the difference is known, and what cancelled out is found from the energy by the same evidence::

        energy / voltage = charge to the load + charge back

    Without evidence of the other direction, all charge is counted in its own. The voltage is that of the readings. If
    the energy could not have flowed at it with the highest current that the chip can measure, then the rail was mostly
    at another one, and only what is certain cancels out: the energy at the highest voltage.

    Returns:
        None if there are no counters, or if they are useless: they show more than the chip can measure, so another
        program cleared them, or they may have overflowed unnoticed in so long a time.
    """
    now = reading.hardware_counters
    counted = None if now is None else _counted(last, now, reading.at_seconds - last.at_seconds)
    if now is None or counted is None:
        return None
    joules, coulombs = counted.joules, abs(counted.coulombs)
    direction = 1 if counted.coulombs >= 0.0 else -1
    seconds = reading.at_seconds - last.at_seconds
    highest_volts = now.most_watts / now.most_amperes * _PLAUSIBLE
    volts = max(last.volts, reading.volts)  # the rail may be off at one of them
    is_possible = volts * now.most_amperes * seconds * _PLAUSIBLE > joules
    against_joules = max(0.0, joules - coulombs * volts) / 2
    against_coulombs = max(0.0, joules / (volts if is_possible else highest_volts) - coulombs) / 2
    if joules <= (coulombs + counted.uncertain_coulombs) * highest_volts:
        against_watts = max(0.0, -direction * last.power_watts, -direction * reading.power_watts)
        against_joules = min(against_joules, against_watts * seconds)
        against_amperes = max(0.0, -direction * last.amperes, -direction * reading.amperes)
        against_coulombs = min(against_coulombs, against_amperes * seconds)
    with_joules, with_coulombs = joules - against_joules, coulombs + against_coulombs
    if direction > 0:
        return Flows((with_joules, against_joules), (with_coulombs, against_coulombs))
    return Flows((against_joules, with_joules), (against_coulombs, with_coulombs))


def _counted(last: LastReading, now: HardwareCounters, seconds: float) -> _Counted | None:
    """What the counters have added since the last reading; None if that cannot be known."""
    if last.energy_word is None or last.charge_word is None:
        return None
    most_joules = now.most_watts * seconds * _PLAUSIBLE
    most_coulombs = now.most_amperes * seconds * _PLAUSIBLE
    if most_joules >= _RANGE * now.joules_per_lsb or most_coulombs >= _RANGE // 2 * now.coulombs_per_lsb:
        return None
    joules = (now.energy_word - last.energy_word) % _RANGE * now.joules_per_lsb
    charge_lsbs = (now.charge_word - last.charge_word) % _RANGE
    if charge_lsbs >= _RANGE // 2:
        charge_lsbs -= _RANGE
    coulombs = charge_lsbs * now.coulombs_per_lsb
    if joules > most_joules or abs(coulombs) > most_coulombs:
        return None
    return _Counted(joules, coulombs, _UNCERTAIN_LSBS * now.coulombs_per_lsb)
