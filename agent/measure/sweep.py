"""The sweep: one reading of every device, in an order that switches each mux channel once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from agent.chips import hwmon
from agent.errors import AgentError
from agent.measure.session import KernelSession, ObserverSession, RunSession, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from agent.chips import KernelChip
    from agent.clock import Clock
    from agent.i2c.bus import Bus
    from agent.i2c.place import BusName, Place
    from agent.measure.readings import Outcome
    from agent.settings import Device, Settings

_Session = TypeVar("_Session", bound=Session)


class Sweep:
    """Reads every device once a call."""

    def __init__(  # noqa: PLR0913 - what is read, with what, and what is known of it
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
            settings: what to read.
            buses: those that the settings name.
            clock: for conversions, back-offs and time stamps.
            open_kernel_chip: makes the reader of a chip that the kernel owns.
            read_before: devices that an earlier run has read since this boot.
            is_observer: only look on beside a run; see `ObserverSession`.
        """
        interval_seconds = settings.sample_interval_seconds
        session_type = ObserverSession if is_observer else RunSession
        self._buses = {bus.name: bus for bus in buses}
        self._sessions: dict[BusName, list[RunSession]] = {bus.name: [] for bus in buses}
        for place, devices in _chips(settings.devices):
            was_read_before = any(device.name in read_before for device in devices)
            session = session_type(
                devices, self._buses[place.bus], clock, interval_seconds, was_read_before=was_read_before
            )
            self._sessions[place.bus].append(session)
        for sessions in self._sessions.values():
            sessions.sort(key=lambda session: _way_to(session.place))
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

    def close(self) -> None:
        """Give the device files back."""
        for bus in self._buses.values():
            bus.close()

    @staticmethod
    def _sweep_bus(bus: Bus, sessions: list[RunSession]) -> list[Outcome]:
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


def _chips(devices: Iterable[Device]) -> list[tuple[Place, tuple[Device, ...]]]:
    chips: dict[Place, list[Device]] = {}
    for device in devices:
        if device.place is not None:
            chips.setdefault(device.place, []).append(device)
    return [(place, tuple(devices)) for place, devices in chips.items()]


def _way_to(place: Place) -> tuple[tuple[int, int], ...]:
    """The addresses and channels on the way to a chip: sorted by it, each channel is opened once.

    The trunk comes last, when the muxes have been closed anyway.
    """
    hops: list[tuple[int, int]] = []
    mux, channel = place.mux, place.channel
    while mux is not None and channel is not None:
        hops.append((mux.address, channel))
        channel, mux = mux.parent_channel, mux.parent
    return (*reversed(hops), (0x80, place.address))
