"""The counters of a device, which only rise, and the state that one run hands to the next."""

from __future__ import annotations

from typing import NamedTuple


class Counters(NamedTuple):
    """The counters of a device. They only rise.

    Attributes:
        joules: energy delivered while power was positive.
        returned_joules: energy that flowed back, as a positive number.
        measured_seconds: the time that the energies and the charges cover.
        retries: transfers to the device's chip, or to a mux on its path, that were repeated at once.
        implausible: readings that were discarded because a check contradicted them.
        coulombs: charge delivered while current was positive.
        returned_coulombs: charge that flowed back, as a positive number.
    """

    joules: float = 0.0
    returned_joules: float = 0.0
    measured_seconds: float = 0.0
    readings: int = 0
    read_errors: int = 0
    resets: int = 0
    retries: int = 0
    implausible: int = 0
    coulombs: float = 0.0
    returned_coulombs: float = 0.0


class LastReading(NamedTuple):
    """The last reading, up to which energy and charge are counted. The next reading continues from here.

    Attributes:
        assumed_seconds: the part of the time before `at_seconds` that no finished conversion covers yet. Its power and
            current are assumed, and the next new reading corrects them.
        overcounted_joules: delivered energy that was assumed and then not confirmed. The counter is ahead by this much
            and waits, because it must not fall.
        returned_overcounted_joules: the same for energy that flowed back.
        energy_word: the chip's own energy counter, raw; None if the chip has none.
        charge_word: the chip's own charge counter, raw; None if the chip has none.
        volts: the bus voltage; set only together with `energy_word` and `charge_word`.
        amperes: 0 in state files of early versions.
        overcounted_coulombs: the same as `overcounted_joules` for charge.
        returned_overcounted_coulombs: the same for charge that flowed back.
    """

    at_seconds: float
    power_watts: float
    assumed_seconds: float = 0.0
    overcounted_joules: float = 0.0
    returned_overcounted_joules: float = 0.0
    energy_word: int | None = None
    charge_word: int | None = None
    volts: float = 0.0
    amperes: float = 0.0
    overcounted_coulombs: float = 0.0
    returned_overcounted_coulombs: float = 0.0


class Saved(NamedTuple):
    """The state of a device's energy meter that one run hands to the next.

    Attributes:
        last: valid only during the same boot and for readings of the same source.
        source: the chip and input of the device, see `settings.Device.source`; None in state files of early versions.
    """

    counters: Counters = Counters()
    last: LastReading | None = None
    last_read_unix_seconds: float | None = None
    source: str | None = None

    def with_source(self, source: str | None) -> Saved:
        """Return a copy for this source. If it changed, the last reading is dropped: the energy since is unknown."""
        is_same = self.source is None or source is None or self.source == source
        return self._replace(last=self.last if is_same else None, source=source)
