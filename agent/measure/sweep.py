"""The sweep: one reading of every device, from the buses that are free to those that are held or hang."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agent import chips
from agent.errors import BusyError
from agent.measure.bus_sweep import BusSweep
from agent.measure.kernel_sweep import KernelSweep
from agent.measure.pace import limit_seconds
from agent.measure.session import KernelSession

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from agent.chips import KernelChip
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.place import BusName
    from agent.measure.observer import ObserverSession
    from agent.measure.readings import Outcome
    from agent.measure.run_session import RunSession
    from agent.settings import Device, Settings

PATIENCE_SECONDS = 0.3
"""The longest that a sweep waits for all the buses that other processes hold: a stop has to wait for it too."""

_PATIENCE_SHARE = 0.5
"""Of the sample interval: then the devices on the other buses keep their pace."""

_TURN_SECONDS = 0.02
"""How long to wait for one held bus before the next one has its turn."""


class Sweep:
    """Reads every device once per call.

    Attributes:
        patience_seconds: how long a sweep waits for all the buses that other processes hold.
        limit_seconds: after this, chips on slow buses have to wait for the next sweep.
    """

    def __init__(  # noqa: PLR0913 - its parts, and by keyword what is known about earlier and other runs
        self,
        settings: Settings,
        buses: Sequence[Bus],
        clock: Clock,
        open_kernel_chip: Callable[[Sequence[Device]], KernelChip] = chips.kernel_chip,
        *,
        read_before: Container[str] = (),
        is_observer: bool = False,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: the devices to read.
            buses: those that the settings name.
            clock: for conversions, back-offs and time stamps.
            open_kernel_chip: makes the reader of a chip that the kernel reads, for its devices.
            read_before: devices that an earlier run has read since this boot.
            is_observer: read beside a run without disturbing it; see `ObserverSession`.
        """
        interval_seconds = settings.sample_interval_seconds
        self._clock = clock
        self.patience_seconds = min(PATIENCE_SECONDS, interval_seconds * _PATIENCE_SHARE)
        self.limit_seconds = limit_seconds(interval_seconds)
        by_name = {bus.name: bus for bus in buses}
        sessions: dict[BusName, list[RunSession | ObserverSession]] = {bus.name: [] for bus in buses}
        for chip in settings.chips():
            bus = by_name[chip.place.bus]
            session: RunSession | ObserverSession
            if is_observer:
                from agent.measure.observer import ObserverSession

                session = ObserverSession(chip.devices, bus, clock, interval_seconds)
            else:
                from agent.measure.run_session import RunSession

                was_read_before = any(device.name in read_before for device in chip.devices)
                session = RunSession(chip.devices, bus, clock, interval_seconds, was_read_before=was_read_before)
            sessions[bus.name].append(session)
        self._buses = [BusSweep(bus, sessions[bus.name], clock, interval_seconds) for bus in buses]
        kernel_sessions = [
            KernelSession(devices, open_kernel_chip(devices), clock, interval_seconds)
            for devices in settings.kernel_chips()
        ]
        self._is_alone = len(self._buses) == 1 and not kernel_sessions  # a slow bus then takes nothing from others
        self._of_the_kernel = KernelSweep(kernel_sessions, clock, interval_seconds)

    def end_if(self, has_to_end: Callable[[], bool]) -> None:
        """Read no further chips on a bus once this is true: a stop cannot wait for a slow one."""
        for bus in self._buses:
            bus.has_to_end = has_to_end

    def run(self, only: Container[str] | None = None) -> list[Outcome]:
        """One outcome for every device, or for those of the chips that `only` names, grouped by bus.

        No bus is held when it returns.
        """
        outcomes: dict[BusName, list[Outcome]] = {}
        held: dict[BusSweep, BusyError] = {}
        ends_at_seconds = self._clock.monotonic() + self.limit_seconds
        waiting = [bus for bus in self._buses if bus.is_hung or bus.pace.is_slow]
        self._try_each([bus for bus in self._buses if bus not in waiting], only, 0.0, outcomes, held)
        of_the_kernel = self._of_the_kernel.run(only)
        if held:
            self._await(held, only, outcomes)
        # Last, and in turns: a bus that hung may take 2 s again, and a slow one may take all the time that is left.
        has_time = True
        for bus in sorted(waiting, key=lambda bus: bus.ran_at_seconds):
            if (bus.is_resting and not self._is_alone) or not has_time:
                outcomes[bus.bus.name] = bus.postponed(only)
                continue
            self._try_each([bus], only, 0.0, outcomes, held, ends_at_seconds - self._clock.monotonic())
            has_time = not bus.is_hung and self._clock.monotonic() < ends_at_seconds
        held_slow = {bus: held.pop(bus) for bus in waiting if has_time and bus in held and not bus.is_hung}
        if held_slow:
            self._await(held_slow, only, outcomes, ends_at_seconds)
            held |= held_slow
        for bus, error in held.items():
            outcomes[bus.bus.name] = bus.held(error, only)
            bus.bus.close()  # the holder may have an earlier device file of an adapter that was plugged in again
        return [outcome for bus in self._buses for outcome in outcomes[bus.bus.name]] + of_the_kernel

    def _await(
        self,
        held: dict[BusSweep, BusyError],
        only: Container[str] | None,
        outcomes: dict[BusName, list[Outcome]],
        ends_at_seconds: float = math.inf,
    ) -> None:
        """Wait for the held buses in turn; those that were read leave `held`."""
        give_up_at = self._clock.monotonic() + self.patience_seconds
        turn_seconds = min(_TURN_SECONDS, self.patience_seconds / len(held))
        while held and (left_seconds := give_up_at - self._clock.monotonic()) > 0:
            limit_seconds = min(self.limit_seconds, ends_at_seconds - self._clock.monotonic())
            self._try_each(list(held)[:1], only, min(turn_seconds, left_seconds), outcomes, held, limit_seconds)

    def _try_each(  # noqa: PLR0913, PLR0917 - what a sweep knows so far
        self,
        buses: Sequence[BusSweep],
        only: Container[str] | None,
        wait_seconds: float,
        outcomes: dict[BusName, list[Outcome]],
        held: dict[BusSweep, BusyError],
        limit_seconds: float | None = None,
    ) -> None:
        """Read these buses; those that another process holds are added to the end of `held`."""
        for bus in buses:
            earlier = held.pop(bus, None)
            if bus.has_to_end():
                outcomes[bus.bus.name] = bus.postponed(only)
                continue
            try:
                outcomes[bus.bus.name] = bus.run(
                    only, wait_seconds, self.limit_seconds if limit_seconds is None else limit_seconds
                )
            except BusyError as error:
                held[bus] = earlier or error

    @property
    def was_cut_short(self) -> bool:
        """Whether the last sweep left out chips on a slow bus."""
        return any(bus.was_cut_short for bus in self._buses)

    @property
    def mux_conflicts(self) -> int:
        """How often a mux was found switched by another program since the sweep was made."""
        return sum(bus.bus.mux_conflicts for bus in self._buses)

    def last_mux_conflicts(self) -> dict[BusName, tuple[int, str]]:
        """For each bus with any: how many there were, and which mux was switched last, with what to do about it."""
        return {
            bus.bus.name: (bus.bus.mux_conflicts, bus.bus.last_mux_conflict)
            for bus in self._buses
            if bus.bus.last_mux_conflict is not None
        }

    def adapters(self) -> dict[str, str]:
        """The adapter of each numbered bus that is on USB, by its number as text; see `Bus.adapter`."""
        return {str(bus.bus.name): bus.bus.adapter for bus in self._buses if bus.bus.adapter is not None}

    def close(self) -> None:
        """Close the device files."""
        for bus in self._buses:
            bus.bus.close()
