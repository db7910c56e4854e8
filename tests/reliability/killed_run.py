"""A fast run in a separate process that reports its pushes and can be killed at any moment."""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.clock import SystemClock
from agent.push.base import GatewayDestination
from agent.push.delivery import PushResult
from agent.run.agent import Agent, Parts
from agent.run.publisher import Publisher
from agent.run.saver import Saver
from agent.simulate.rails import ConstantRail
from tests.bench import ina260, mux, settings_of, sweep_of, world_for
from tests.energy.disks import state_on_disk
from tests.run.running import GATEWAY, INFO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection
    from pathlib import Path

    from agent.metrics.groups import Group
    from agent.settings import PushgatewaySettings

CONFIG = "[metrics]\ncharge = true\n" + mux("m0", 0x70) + ina260("cpu", 'mux = "m0", channel = 0')
VOLTS, AMPERES = 12.0, 0.5
SWEEPS_PER_PUSH = 5


@dataclass(frozen=True, slots=True)
class TellingDestination(GatewayDestination):
    """Accepts every push and reports the counters of the device and the time."""

    _settings: PushgatewaySettings
    received: Connection

    def push(self, groups: Sequence[Group], budget_seconds: float) -> Sequence[PushResult]:
        counters = {
            s.name: s.value for f in groups[0].registry.collect() for s in f.samples if s.name.endswith("_total")
        }
        self.received.send((time.monotonic(), counters))
        return [PushResult(group.grouping_key, 1, None) for group in groups]

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], budget_seconds: float) -> Sequence[PushResult]:
        raise AssertionError("this run deletes nothing")

    def held(self, hostname: str, budget_seconds: float) -> Mapping[tuple[str, str], float]:
        return {}

    def stop(self) -> None:
        pass

    def close(self) -> None:
        pass


class InlinePublisher(Publisher):
    """Pushes in the same thread."""

    def _begin(self, job: Any) -> None:
        self._run(job)


def run_until_killed(folder: Path, boot: str, received: Connection, *, disk_is_full: bool) -> None:
    """Sample and push without a pause."""
    if disk_is_full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    clock = SystemClock()
    settings = settings_of(CONFIG, 'sample_interval = "10ms"\n')
    rails = {"cpu": ConstantRail(VOLTS, AMPERES, clock.monotonic)}
    world = world_for(settings, clock, rails)
    state_file = state_on_disk(folder, boot)
    publisher = InlinePublisher(clock, lambda: None)
    sweep, destination = sweep_of(settings, world, clock), TellingDestination(GATEWAY, received)
    saver = Saver(state_file, lambda: None)
    agent = Agent(Parts(settings, INFO, clock, sweep, destination, publisher, saver), state_file.load())
    received.send((time.monotonic(), None))
    while True:
        for _ in range(SWEEPS_PER_PUSH):
            agent.take_sweep()
        agent.begin_push()
        report = publisher.take_report()
        assert report is not None
        agent.end_push(report)
