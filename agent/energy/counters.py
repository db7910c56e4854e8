"""What only ever rises, and what one run hands over to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Counters:
    """What only ever rises.

    Attributes:
        joules: energy delivered while power was positive.
        returned_joules: energy that flowed back, as a positive number.
        measured_seconds: the time that those two cover.
    """

    joules: float = 0.0
    returned_joules: float = 0.0
    measured_seconds: float = 0.0
    readings: int = 0
    read_errors: int = 0
    resets: int = 0


@dataclass(frozen=True, slots=True)
class LastReading:
    """The end of the time that is accounted for: where the next reading carries on from.

    Attributes:
        assumed_seconds: of the time before `at_seconds`, how much the chip has not reported on yet: for this its last
            power was assumed, and will be corrected.
        excess_joules: delivered energy that was assumed and then not confirmed. The counter is ahead by this much; it
            waits, since it never goes back.
        returned_excess_joules: the same for energy that flowed back.
        energy_word: what the chip itself had added up by then, where it does; see `chips.HardwareCounters`.
        charge_word: the same for charge.
        volts: the voltage of the rail, where those two are there.
    """

    at_seconds: float
    power_watts: float
    assumed_seconds: float = 0.0
    excess_joules: float = 0.0
    returned_excess_joules: float = 0.0
    energy_word: int | None = None
    charge_word: int | None = None
    volts: float = 0.0


@dataclass(frozen=True, slots=True)
class Saved:
    """What a device's account hands over to the next run.

    Attributes:
        last: only of use during the same boot, and to readings of the same source.
        source: where the device is measured, as `settings.Device` has it; None in a state file of before.
    """

    counters: Counters = Counters()
    last: LastReading | None = None
    last_read_unix_seconds: float | None = None
    source: str | None = None

    def measured_at(self, source: str | None) -> Saved:
        """The same for a source; another one's first reading says nothing of the time before it."""
        is_same = self.source is None or source is None or self.source == source
        return replace(self, last=self.last if is_same else None, source=source)
