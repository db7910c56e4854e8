"""The sweep: one reading of every device, in an order that switches each mux channel once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agent.chips import hwmon
from agent.errors import AgentError
from agent.measure.observer import ObserverSession
from agent.measure.run_session import RunSession
from agent.measure.session import KernelSession, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from agent.chips import KernelChip
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.place import BusName, Place
    from agent.measure.readings import Outcome
    from agent.settings import Device, Settings

_Session = TypeVar("_Session", bound=Session)
_OnBus = RunSession | ObserverSession


class Sweep:
    """Reads every device once per call."""

    def __init__(  # noqa: PLR0913 - its parts, and by keyword what is known about earlier and other runs
        self,
        settings: Settings,
        buses: Sequence[Bus],
        clock: Clock,
        open_kernel_chip: Callable[[Device], KernelChip] = hwmon.Chip,
        *,
        read_before: Container[str] = (),
        is_observer: bool = False,
    ) -> None:
        """Prepare; nothing is opened yet.

        Args:
            settings: the devices to read.
            buses: those that the settings name.
            clock: for conversions, back-offs and time stamps.
            open_kernel_chip: makes the reader of a chip that the kernel owns.
            read_before: devices that an earlier run has read since this boot.
            is_observer: read beside a run without disturbing it; see `ObserverSession`.
        """
        interval_seconds = settings.sample_interval_seconds
        self._buses = {bus.name: bus for bus in buses}
        self._sessions: dict[BusName, list[_OnBus]] = {bus.name: [] for bus in buses}
        for chip in settings.chips():
            bus = self._buses[chip.place.bus]
            session: _OnBus
            if is_observer:
                session = ObserverSession(chip.devices, bus, clock, interval_seconds)
            else:
                was_read_before = any(device.name in read_before for device in chip.devices)
                session = RunSession(chip.devices, bus, clock, interval_seconds, was_read_before=was_read_before)
            self._sessions[bus.name].append(session)
        for sessions in self._sessions.values():
            sessions.sort(key=lambda session: _visiting_order(session.place))
        self._kernel_sessions = [
            KernelSession(device, open_kernel_chip(device), clock, interval_seconds)
            for device in settings.devices
            if device.place is None
        ]

    def run(self, only: Container[str] | None = None) -> list[Outcome]:
        """One outcome for every device, or for those of the chips that `only` names, grouped by bus.

        No bus is held when it returns.
        """
        outcomes: list[Outcome] = []
        for name, sessions in self._sessions.items():
            outcomes += self._sweep_bus(self._buses[name], _of(sessions, only))
        for session in _of(self._kernel_sessions, only):
            outcomes += session.backing_off() or session.step()
        return outcomes

    @property
    def mux_conflicts(self) -> int:
        """How often a mux was found switched by somebody else since the sweep was made."""
        return sum(bus.mux_conflicts for bus in self._buses.values())

    def adapters(self) -> dict[str, str]:
        """The adapter of each numbered bus that is on USB, by its number as text; see `Bus.adapter`."""
        return {str(bus.name): bus.adapter for bus in self._buses.values() if bus.adapter is not None}

    def close(self) -> None:
        """Close the device files."""
        for bus in self._buses.values():
            bus.close()

    @staticmethod
    def _sweep_bus(bus: Bus, sessions: Sequence[_OnBus]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        backing_off = [session.backing_off() for session in sessions]
        if None not in backing_off:  # not one chip is due, also because the bus itself could not be opened or locked
            return [outcome for known in backing_off for outcome in known or ()]
        try:
            with bus.session():
                for session, known in zip(sessions, backing_off, strict=True):
                    outcomes += known or session.step()
        except AgentError as error:  # the bus cannot be opened or locked
            outcomes = []
            for session, known in zip(sessions, backing_off, strict=True):
                outcomes += known or session.fail(error)
        return outcomes


def _of(sessions: list[_Session], only: Container[str] | None) -> list[_Session]:
    """The sessions with any of these devices; all of them for None."""
    if only is None:
        return sessions
    return [session for session in sessions if any(device.name in only for device in session.devices)]


def _visiting_order(place: Place) -> tuple[tuple[int, int], ...]:
    """Sorts chips by the addresses and channels on their paths, so that a sweep opens each channel once.

    0x80 is above every address: chips on a segment come after those behind its muxes, which are closed by then anyway.
    """
    return (*((hop.mux.address, hop.channel) for hop in place.path), (0x80, place.address))
