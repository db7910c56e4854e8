"""What the loop hands to the live page: the last outcomes, the recent power, and how the last push ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.serve.live_view import DeviceView, GatewayView, RemoteView, View
from agent.serve.recent_power import RecentPower

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.run.agent import Agent


class Live:
    """Takes every sweep and every push of an agent in the main thread, and makes views of them in another."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        settings = agent.settings
        self._recent_power = RecentPower(
            {device.name: device.source for device in settings.devices}, settings.sample_interval_seconds
        )
        self._parts_of_sums = settings.parts_of_sums()
        self._outcomes: Sequence[Outcome] = ()
        self._changes = 0
        self._push: tuple[float, tuple[str, ...]] | None = None

    def add_sweep(self, outcomes: Sequence[Outcome]) -> None:
        """Add a sweep of all devices that has just ended."""
        self._recent_power.add(outcomes)
        self._outcomes = outcomes
        self._changes += 1

    def add_push(self, errors: Sequence[AgentError]) -> None:
        """Add the end of a push."""
        since_seconds = self._agent.parts.clock.monotonic()
        if errors and self._push is not None and self._push[1]:
            since_seconds = self._push[0]
        self._push = since_seconds, tuple(map(str, errors))
        self._changes += 1

    def take_over_from(self, earlier: Live) -> None:
        """Keep the plots over a reload."""
        self._recent_power.adopt(earlier._recent_power)
        self._changes += 1  # a page of this agent may have been made already

    def view(self) -> View:
        """Make the view of this moment."""
        agent = self._agent
        clock, history, destination = agent.parts.clock, agent.parts.history, agent.parts.destination
        push, published = self._push, agent.published
        outcomes = {outcome.device: outcome for outcome in self._outcomes}
        now_seconds = clock.monotonic()
        counters = (
            {device.device: device.counters for device in published.devices}
            if published is not None and published.has_counters
            else {}
        )
        since_seconds, errors = (None, ()) if push is None else push
        return View(
            changes=self._changes,
            hostname=agent.settings.hostname,
            version=agent.parts.info.version,
            is_simulated=agent.parts.info.is_simulated,
            problem=agent.health(),
            sample_interval_seconds=agent.settings.sample_interval_seconds,
            interval_seconds=agent.settings.interval_seconds,
            now_seconds=now_seconds,
            swept_at_seconds=agent.swept_at_seconds,
            unix_seconds=clock.time(),
            devices=tuple(
                DeviceView(
                    name,
                    outcomes.get(name),
                    meter.is_up,
                    counters.get(name),
                    name in self._parts_of_sums,
                )
                for name, meter in agent.meters.devices.items()
            ),
            recent=self._recent_power.recent(now_seconds),
            gateway=None if destination is None else GatewayView(destination.name, since_seconds, errors),
            remote=None if history is None else RemoteView(history.words, history.status),
        )
