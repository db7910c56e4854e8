"""What one run hands to the next: the counters, and what it needs to continue them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.energy.counters import Saved

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class AgentCounters:
    """The agent's own counters."""

    pushes: int = 0
    push_failures: int = 0
    missed_samples: int = 0
    mux_conflicts: int = 0


@dataclass(frozen=True, slots=True)
class RemoteCounters:
    """The counters of remote write. What was produced is these four and the backlog.

    Attributes:
        accepted: samples that the server has taken.
        refused: samples that the server will never take.
        dropped: samples given up because of the bound, their age or the disk.
        undated: samples of a boot that never got a clock.
    """

    accepted: int = 0
    refused: int = 0
    dropped: int = 0
    undated: int = 0
    requests: int = 0
    request_failures: int = 0

    @property
    def settled(self) -> int:
        """The samples that are no longer in the backlog."""
        return self.accepted + self.refused + self.dropped + self.undated


@dataclass(frozen=True, slots=True)
class State:
    """Everything that one run hands to the next.

    Attributes:
        run_start_seconds: the start time of the run that counted this, which it also publishes; None in files of early
            versions.
        is_unconfirmed: the counters were carried over a reboot, and nothing has confirmed yet that no later run pushed.
        adapters: the `Bus.adapter` of each bus, by its number as text.
        hostname: under which all this was published; None in files of early versions.
        remote: the counters of remote write.
    """

    devices: Mapping[str, Saved] = field(default_factory=dict)
    agent: AgentCounters = AgentCounters()
    run_start_seconds: float | None = None
    is_unconfirmed: bool = False
    adapters: Mapping[str, str] = field(default_factory=dict)
    hostname: str | None = None
    remote: RemoteCounters = RemoteCounters()

    def is_of(self, hostname: str) -> bool:
        """Whether a run under this hostname continues the counters.

        The series of another one are others. If these came back at their old values, with what was counted under the
        new name in between, Prometheus would count that energy under both.
        """
        return self.hostname is None or self.hostname == hostname

    def with_sources(self, sources: Mapping[str, str]) -> State:
        """Return a copy for a configuration that measures each of these devices at its source; see `Saved`."""
        known = {name: self.devices.get(name, Saved()).with_source(source) for name, source in sources.items()}
        return replace(self, devices={**self.devices, **known})

    def devices_read_in_this_boot(self) -> frozenset[str]:
        """The devices whose last reading the next one can continue from."""
        return frozenset(name for name, saved in self.devices.items() if saved.last is not None)
