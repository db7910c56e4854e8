"""Counters that were carried over a reboot: whether the gateway knows of a later run than their file does.

A restored image or snapshot brings back a state file that ended well, but long ago. Continued from there, the counters
would rise over values that were pushed before, and Prometheus would count that energy a second time.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from agent.energy.counters import Counters
from agent.energy.state import AgentCounters, RemoteCounters

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.energy.counters import Saved
    from agent.energy.state import State
    from agent.metrics.groups import Group

_START_TIME = "wattpush_agent_start_time_seconds"

_CLOCK_TOLERANCE_SECONDS = 1.0
"""The same start time may differ by this much in the file and at the gateway, if the clock was set in between."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Counters as they were read from the file.

    Attributes:
        run_start_seconds: the start time of the run that wrote them; None if that is unknown.
    """

    run_start_seconds: float | None
    devices: Mapping[str, Saved]
    agent: AgentCounters
    remote: RemoteCounters

    @classmethod
    def of(cls, state: State) -> Carried:
        """Those of a state."""
        return cls(state.run_start_seconds, state.devices, state.agent, state.remote)

    def are_outdated(self, held: Mapping[tuple[str, str], float], groups: Iterable[Group]) -> bool:
        """Whether a run that the file does not know has pushed, as far as can be seen.

        The start time at the gateway is that of the run that pushed last. Each run continues from the file of the run
        before, so a later start time means that the file is not the last one. So does a counter that is ahead.

        Args:
            held: by device and series; empty if nothing is known.
            groups: the next push, with the carried counters.
        """
        pushed_start_seconds = held.get(("", _START_TIME), -math.inf)
        known_seconds = math.inf if self.run_start_seconds is None else self.run_start_seconds
        if pushed_start_seconds > known_seconds + _CLOCK_TOLERANCE_SECONDS:
            return True
        for group in groups:
            device = group.grouping_key.get("device", "")
            for family in group.registry.collect():
                for sample in family.samples:
                    key = sample.labels.get("device", device), sample.name
                    if sample.name.endswith("_total") and held.get(key, 0.0) > sample.value:
                        return True
        return False

    def counted_since(self, device: str, counters: Counters) -> Counters:
        """The counters of a device without what was carried over."""
        carried = self.devices[device].counters if device in self.devices else Counters()
        return Counters._make(max(0, now - before) for now, before in zip(counters, carried, strict=True))

    def agent_counted_since(self, counters: AgentCounters) -> AgentCounters:
        """The agent's own counters without what was carried over."""
        pairs = zip(astuple(counters), astuple(self.agent), strict=True)
        return AgentCounters(*(max(0, now - before) for now, before in pairs))
