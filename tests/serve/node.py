"""A node whose live page is looked at: an agent on simulated chips that pushes to a gateway in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.i2c.place import Place
from agent.settings import Device, ServeSettings
from agent.simulate.rails import ConstantRail
from tests.run.running import CPU, DISK, M0, MemoryGateway, agent_of, settings_for, world_for

if TYPE_CHECKING:
    from agent.run.agent import Agent
    from agent.simulate.clock import HandClock
    from agent.simulate.world import World

SERVE = ServeSettings("127.0.0.1", 0)


class Node:
    """An agent, the world that it measures, and the gateway that it pushes to."""

    def __init__(self, clock: HandClock, *more: str) -> None:
        """Measure cpu, disk, and a device with each further name."""
        self.clock = clock
        others = [Device(name, "ina260", Place(1, M0, 1, 0x41 + number)) for number, name in enumerate(more)]
        self.settings = settings_for(CPU, DISK, *others, serve=SERVE)
        self.rails = {device.name: ConstantRail(12.0, 0.5, clock.monotonic) for device in self.settings.devices}
        self.world: World = world_for(self.settings, clock, self.rails)
        self.gateway = MemoryGateway()
        self.agent: Agent = agent_of(self.settings, self.world, clock, self.gateway)

    def sweep(self, times: int = 1) -> None:
        for _ in range(times):
            self.agent.take_sweep()
            self.clock.sleep(self.settings.sample_interval_seconds)

    def push(self) -> None:
        self.agent.begin_push()
        report = self.agent.parts.publisher.take_report()
        assert report is not None
        self.agent.end_push(report)

    def unplug(self, device: str) -> None:
        chip: Any = self.world.chips[device]
        chip.unplug()
