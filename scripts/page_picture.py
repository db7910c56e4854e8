"""Make the pictures of the live page, docs/live-page.png and docs/live-page-phone.png, with a real Chromium.

`python -m scripts.page_picture [FOLDER]`

The page is that of a simulated node after fifteen minutes, which a clock set by hand makes pass in a moment. Fonts and
Chromium differ from machine to machine, so that no test compares the pictures.
"""

from __future__ import annotations

import math
import random
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.serve.server import ScrapeServer
from agent.settings import PushgatewaySettings
from agent.simulate.chips import RegisterChip
from agent.simulate.clock import HandClock
from agent.simulate.rails import ConstantRail
from tests.bench import ina260, ina3221, mux, settings_of, world_for
from tests.chromium import running_chromium
from tests.run.running import MemoryGateway, agent_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.run.agent import Agent
    from agent.simulate.world import World

FOLDER = Path(__file__).parents[1] / "docs"
SECONDS = 940

NODE = (
    mux("m0", 0x70)
    + ina260("compute", 'mux = "m0", channel = 0')
    + ina260("accelerator", 'mux = "m0", channel = 1')
    + ina260("disk", 'mux = "m0", channel = 2')
    + ina3221("radio", 'mux = "m0", channel = 3', 2)
    + ina3221("camera", 'mux = "m0", channel = 3', 3)
    + ina260("battery", 'mux = "m0", channel = 4')
    + '[serve]\nlisten = "127.0.0.1:0"\n'
)


def loads(second: int, noise: random.Random) -> dict[str, tuple[float, float]]:
    """Volts and amperes of every rail at one second: loads as a small machine has them."""
    is_building = 120 < second < 330 or 560 < second < 640 or second > 860
    is_inferring = second % 240 > 150
    compute = 0.62 + (0.75 + 0.1 * math.sin(second / 9)) * is_building + noise.expovariate(9.0)
    accelerator = 0.12 + (0.58 + noise.uniform(-0.22, 0.22)) * is_inferring + noise.uniform(0.0, 0.02)
    disk = 0.21 + 0.25 * (is_building and noise.random() < 0.6) + 0.3 * (second % 97 < 8)
    radio = 0.045 + 0.11 * (noise.random() < 0.25) + 0.12 * (second % 60 < 12)
    camera = 0.29 + noise.uniform(-0.02, 0.02) if 250 < second < 700 else 0.03
    solar = 0.9 * math.sin(second / 520) + noise.uniform(-0.04, 0.04)
    return {
        "compute": (5.08 - 0.05 * compute, compute),
        "accelerator": (12.04 - 0.1 * accelerator, accelerator),
        "disk": (5.02, disk),
        "radio": (3.304, radio),
        "camera": (5.056, camera),
        "battery": (7.41, 0.55 - solar),
    }


def run(agent: Agent, clock: HandClock, seconds: int, change: Callable[[], None]) -> None:
    """Read every second and push every interval, as the loop does."""
    for second in range(seconds):
        change()
        clock.sleep(agent.settings.sample_interval_seconds)
        agent.take_sweep()
        if second % agent.settings.interval_seconds == 0:
            agent.begin_push()
            report = agent.parts.publisher.take_report()
            assert report is not None
            agent.end_push(report)


def make_node(clock: HandClock) -> tuple[Agent, World]:
    """A node after fifteen minutes."""
    gateway = PushgatewaySettings("https://push.example.org:9091")
    settings = replace(settings_of(NODE), hostname="node-17", pushgateway=gateway)
    rails = {device.name: ConstantRail(0.0, 0.0, clock.monotonic) for device in settings.devices}
    world = world_for(settings, clock, rails)
    agent = agent_of(settings, world, clock, MemoryGateway(settings.pushgateway))
    noise = random.Random(17)  # noqa: S311 - no secret
    elapsed = iter(range(SECONDS))

    def change() -> None:
        for name, (volts, amperes) in loads(next(elapsed), noise).items():
            rails[name].volts, rails[name].amperes = volts, amperes

    run(agent, clock, SECONDS, change)
    return agent, world


def main(folder: Path) -> None:
    """Write the pictures into a folder."""
    clock = HandClock()
    agent, world = make_node(clock)
    assert agent.settings.serve is not None
    with ExitStack() as stack:
        server = ScrapeServer(agent.settings.serve, agent)
        stack.callback(server.close)
        url = "http://{}:{}/".format(*server.address)
        tab = stack.enter_context(running_chromium()).tab()
        tab.emulate(1080)
        tab.open(url)
        (folder / "live-page.png").write_bytes(tab.picture())
        unplugged = world.chips["disk"]
        assert isinstance(unplugged, RegisterChip)
        unplugged.unplug()
        run(agent, clock, 3, lambda: None)
        tab.emulate(360, 780, "dark", scale=1.5)
        tab.open(url)
        (folder / "live-page-phone.png").write_bytes(tab.picture(height=1010))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
