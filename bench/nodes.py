"""The measured nodes: configurations as users write them, and the pushed data of such a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent import chips
from agent.build_info import agent_info
from agent.config import parse
from agent.energy.meter import EnergyMeters
from agent.energy.state import AgentCounters
from agent.measure.readings import Reading
from agent.metrics.catalogue import Snapshot

if TYPE_CHECKING:
    from agent.settings import Settings

# A conversion of 1.12 ms instead of one of the whole sample interval: the first reading takes no second.
SHORT_CONVERSION = 'averaging = { count = 4, voltage = "140us", current = "140us" }'


def configuration(
    devices: int, *, top: str = "", url: str = "http://127.0.0.1:9091", pushgateway: str = "", each: str = ""
) -> str:
    """INA260 at 0x40 on the channels of as many muxes as it takes.

    Args:
        devices: how many; up to 64.
        top: more keys of the file.
        url: of the Pushgateway.
        pushgateway: more keys of that section.
        each: more keys of every device.
    """
    text = f'hostname = "node-0"\n{top}\n[pushgateway]\nurl = "{url}"\n{pushgateway}\n'
    for mux in range((devices + 7) // 8):
        text += f'\n[[mux]]\nname = "m{mux}"\nchip = "tca9548a"\nbus = 1\naddress = {0x70 + mux}\n'
    for device in range(devices):
        text += (
            f'\n[[device]]\nname = "rail-{device}"\nchip = "ina260"\nmux = "m{device // 8}"\n'
            f"channel = {device % 8}\naddress = 0x40\n{each}\n"
        )
    return text


def settings_of(text: str) -> Settings:
    """The settings, as the agent parses them."""
    return parse(text, chips.options(), default_hostname="node-0", environ={"HOME": "/nonexistent"})


def snapshot_of(settings: Settings, seed: int = 0) -> Snapshot:
    """The data of a node after a minute of readings; another seed gives other values."""
    meters = EnergyMeters((device.name for device in settings.devices), 600.0, {})
    for second in range(60):
        for number, device in enumerate(settings.devices):
            volts = 5.0 + 0.00125 * ((second * 7 + number * 3 + seed) % 40)
            amperes = 0.7 + 0.00125 * ((second * 11 + number * 5 + seed * 13) % 800)
            at = float(second)
            reading = Reading(device.name, volts, amperes, volts * amperes, at, 1.7e9 + at, 1.0)
            meters.add([reading])
    agent = agent_info(is_simulated=False, start_time_seconds=1.7e9)
    devices = tuple(interval.pending for interval in meters.close_intervals())
    return Snapshot(devices, agent, AgentCounters(pushes=4), 0.014, 0.021, has_counters=True)
