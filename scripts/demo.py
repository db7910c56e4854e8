"""Demo: the agent on simulated chips against real servers, through an outage, with proof that nothing is lost.

The simulated load is computed from the second of the monotonic clock, so this program knows what really flowed. The
history goes to a real VictoriaMetrics, which keeps what it is sent twice twice, so that doubled samples would show.
Every row of the history says how many samples the agent had produced before it; as many must be there.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from agent import chips
from agent.config import parse
from agent.config.builtin_node import BUILTIN_NODE
from agent.simulate.world import build_world
from scripts.stack import Stack, fetch, find_program, free_address, run, samples

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prometheus_client.samples import Sample

    from agent.simulate.rails import Rail

BEFORE, OUTAGE, AFTER = 5, 5, 5
"""Seconds."""

LARGEST_DIFFERENCE = 0.02
"""Of counted and true energy. A reading is the mean of a conversion that ended up to 50 ms before it, and the load may
change by its whole size meanwhile, at the start and at the end.
"""

PRODUCED = {
    "wattpush_agent_remote_samples_total",
    "wattpush_agent_remote_refused_samples_total",
    "wattpush_agent_remote_dropped_samples_total",
    "wattpush_agent_remote_undated_samples_total",
    "wattpush_agent_remote_backlog_samples",
}
"""Where produced samples can be: their sum is what the agent produced."""

COUNTED = (
    "wattpush_device_joules_total",
    "wattpush_device_measured_seconds_total",
    "wattpush_device_last_read_timestamp_seconds",
)

INTERVALS = """\
interval = "1s"
sample_interval = "50ms"
"""

DESTINATIONS = """\
[pushgateway]
url = "http://{gateway}"
# A push ends before the next one is due.
timeout = "500ms"

[remote_write]
url = "http://{history}/api/v1/write"
# The demo does not wait for time synchronisation, which a container cannot see.
clock = "system"

[serve]
listen = "{page}"
"""

ABOUT = """\
The real agent reads simulated chips twenty times a second: two INA260 and an
INA3221 behind a TCA9548A. The servers are real: a Pushgateway, and for history
a VictoriaMetrics. "waiting" counts the samples that it has yet to take.
"""

NEXT = """\
Everything is stopped. What to type next:

  .venv-demo/bin/wattpush watch --simulate        a live table; q quits
  .venv-demo/bin/wattpush --simulate --dry-run    what a push contains
  .venv-demo/bin/wattpush scan                    the chips on your own wires
  make live                                       its page, and Prometheus
"""


class Counted(NamedTuple):
    """What the gateway holds of a device: joules over `seconds`, which end at a Unix time."""

    joules: float
    seconds: float
    ends_unix_seconds: float


def main() -> int:
    gateway_program = find_program("prometheus-pushgateway", "pushgateway")
    history_program = find_program("victoria-metrics")
    gateway_address, history_address, page_address = free_address(), free_address(), free_address()
    with Stack() as stack:
        say(ABOUT)
        gateway_flags = (f"--web.listen-address={gateway_address}", "--persistence.file=")
        gateway = stack.start("gateway", gateway_program, *gateway_flags)
        history_flags = (f"-storageDataPath={stack.folder / 'history'}", f"-httpListenAddr={history_address}")
        history = stack.start("history", history_program, *history_flags)
        gateway.wait_for_answer(f"http://{gateway_address}/-/ready")
        history.wait_for_answer(f"http://{history_address}/health")
        destinations = DESTINATIONS.format(gateway=gateway_address, history=history_address, page=page_address)
        agent = stack.start_agent(INTERVALS, destinations)
        agent.wait_for_answer(f"http://{page_address}/metrics")

        live = Live(f"http://{page_address}/metrics")
        live.show(BEFORE)
        gateway.kill()
        history.end()
        say(f"-- the gateway is killed, and VictoriaMetrics is stopped, for {OUTAGE} s --")
        live.show(OUTAGE)
        history.begin()
        gateway.begin()
        say("-- both are back; the gateway has forgotten everything --")
        live.show(AFTER)
        agent.wait_until(lambda: live.waiting() == 0, "the backlog to drain")
        counted = counted_at(f"http://{gateway_address}/metrics")
        produced, lost, doubled = count_history(f"http://{history_address}")
    is_true = show_energy(counted, destinations)
    say(f"History, with the {OUTAGE} s of the outage: {produced} samples made, {lost} lost, {doubled} doubled.\n")
    if not is_true or lost or doubled:
        say("This is not what wattpush promises. Please report it with everything above.")
        return 1
    say(NEXT)
    return 0


class Live:
    """Prints the readings that the agent serves, a line each second, in at most 80 columns."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._began_seconds = self._next_seconds = time.monotonic()
        self._failures = 0.0
        self._has_titles = False

    def show(self, seconds: int) -> None:
        """Print for this long."""
        for _ in range(seconds):
            self._next_seconds += 1.0
            time.sleep(max(0.0, self._next_seconds - time.monotonic()))
            self._show_line()

    def _show_line(self) -> None:
        values = samples(self._url)
        watts = {s.labels["device"]: s.value for s in values if s.name == "wattpush_device_watts"}
        joules = {s.labels["device"]: s.value for s in values if s.name == "wattpush_device_joules_total"}
        if not self._has_titles:
            self._has_titles = True
            say("     " + "".join(f"{name:^19}" for name in joules) + "  gateway waiting")
        columns = "".join(f"{watts.get(name, 0.0):7.2f} W{joules[name]:8.2f} J" for name in joules)
        elapsed = f"{self._next_seconds - self._began_seconds:2.0f} s"
        say(f"{elapsed} {columns}  {self._gateway(values):6}{self.waiting():9.0f}")

    def _gateway(self, values: Sequence[Sample]) -> str:
        failures = value_of(values, "wattpush_agent_push_failures_total")
        state = "fails" if failures > self._failures else "pushed"
        self._failures = failures
        return state

    def waiting(self) -> float:
        """The samples that the agent keeps until VictoriaMetrics has answered for them."""
        return value_of(samples(self._url), "wattpush_agent_remote_backlog_samples")


def counted_at(url: str) -> Mapping[str, Counted]:
    """The energy of each device that the gateway holds."""
    found: dict[str, dict[str, float]] = {}
    for sample in samples(url):
        if sample.name in COUNTED:
            found.setdefault(sample.labels["device"], {})[sample.name] = sample.value
    return {device: Counted(*(values[name] for name in COUNTED)) for device, values in found.items()}


def show_energy(counted: Mapping[str, Counted], destinations: str) -> bool:
    """Print counted and true energy; return whether they agree."""
    settings = parse(BUILTIN_NODE + destinations, chips.options(), default_hostname="demo", environ={"HOME": "/"})
    rails = build_world(settings, time.monotonic).rails
    differences = []
    say("\nEnergy since the start, as the gateway has it, and as the simulation knows it:")
    for device, energy in counted.items():
        flowed_joules = joules_of(rails[device], energy)
        difference = abs(energy.joules / flowed_joules - 1)
        differences.append(difference)
        say(f"  {device:12} counted {energy.joules:6.2f} J, flowed {flowed_joules:6.2f} J, off by {difference:.1%}")
    return bool(differences) and max(differences) <= LARGEST_DIFFERENCE


def joules_of(rail: Rail, energy: Counted) -> float:
    """What flowed in the time that was counted."""
    end_seconds = energy.ends_unix_seconds - time.time() + time.monotonic()
    segments = rail.segments(end_seconds - energy.seconds, end_seconds)
    return sum(segment.volts * segment.amperes * (segment.end - segment.start) for segment in segments)


def count_history(url: str) -> tuple[int, int, int]:
    """Samples that the agent had produced before the newest row in VictoriaMetrics, lost ones and doubled ones."""
    fetch(f"{url}/internal/force_flush")
    text = fetch(f"{url}/api/v1/export?match[]=%7Bjob=%22power%22%7D") or ""
    held: Counter[int] = Counter()
    produced: Counter[int] = Counter()
    doubled = 0
    for series in map(json.loads, text.splitlines()):
        times = set(series["timestamps"])
        held.update(times)
        doubled += len(series["timestamps"]) - len(times)
        if series["metric"]["__name__"] in PRODUCED:
            for at, value in zip(series["timestamps"], series["values"], strict=True):
                produced[at] += int(value or 0)
    newest = max(produced)
    return produced[newest], produced[newest] - sum(held[at] for at in held if at < newest), doubled


def value_of(values: Sequence[Sample], name: str) -> float:
    """The value of a series that the node has once; 0 if there is none."""
    return next((sample.value for sample in values if sample.name == name), 0.0)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    run(main, on_interrupt=lambda: 130)
