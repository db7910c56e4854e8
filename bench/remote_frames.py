"""What a node with remote write keeps and sends: frames of simulated INA260 that are swept once a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.build_info import agent_info
from agent.energy.meter import EnergyMeters
from agent.energy.state import AgentCounters
from agent.history.rows import IntervalRows, SweepRows
from agent.history.samples import ABSENT, Frame, count_samples
from agent.metrics.catalogue import Snapshot
from agent.simulate.clock import HandClock
from agent.simulate.world import build_world
from bench.nodes import configuration, settings_of
from tests.bench import sweep_of

if TYPE_CHECKING:
    from agent.history.samples import Labels

INTERVAL_SECONDS = 15
HOSTNAME = "node-00000"
_JOB = "power"
_BOOT = "00000000-0000-0000-0000-000000000000"
_SETTLING_SWEEPS = 5
_CLOSED_LATER_MILLISECONDS = 3


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one table; see `samples.Frame`."""

    table: tuple[Labels, ...]
    times_milliseconds: tuple[int, ...]
    values: bytes

    def frame(self, offset_milliseconds: int, start: int = 0) -> Frame:
        """The frame of these rows."""
        samples = count_samples(self.values)
        return Frame(self.table, _BOOT, offset_milliseconds, self.times_milliseconds, self.values, samples, start)


def recorded(resolution: Literal["interval", "sample"], intervals: int, devices: int = 8) -> list[Rows]:
    """The rows of each push interval of a node on the simulator's loads.

    With `resolution = "sample"` there is a row for each sweep, and a last one of what is sent once an interval; see
    `history.remote_write`.
    """
    top = f'sample_interval = "1s"\ninterval = "{INTERVAL_SECONDS}s"\nhostname = "{HOSTNAME}"\n'
    settings = settings_of(configuration(devices, top=top).replace('hostname = "node-0"\n', "", 1))
    clock = HandClock()
    sweep = sweep_of(settings, build_world(settings, clock.monotonic), clock)
    meters = EnergyMeters((device.name for device in settings.devices), settings.max_gap_seconds, {})
    sweep_rows = SweepRows(settings, _JOB, None)
    interval_rows = IntervalRows(settings, _JOB, sweep_rows.table if resolution == "sample" else ())
    agent = agent_info(is_simulated=True, start_time_seconds=clock.time())
    for _ in range(_SETTLING_SWEEPS):
        meters.add(sweep.run())
        clock.sleep(1.0)
    kept = []
    for number in range(intervals):
        times, values = [], []
        for _ in range(INTERVAL_SECONDS):
            clock.sleep(1.0)
            outcomes = sweep.run()
            meters.add(outcomes)
            times.append(round(clock.monotonic() * 1000))
            values.append(sweep_rows.row(outcomes, meters.devices))
        devices_closed = tuple(closed.pending for closed in meters.close_intervals())
        snapshot = Snapshot(devices_closed, agent, AgentCounters(pushes=number), 0.014, 0.021, has_counters=True)
        meters.acknowledge_all(pushed=True)
        last = interval_rows.row(snapshot)
        closed_at = times[-1] + _CLOSED_LATER_MILLISECONDS
        if resolution == "sample":
            absent = ABSENT * len(interval_rows.table)
            table = (*sweep_rows.table, *interval_rows.table)
            every = [*(value + absent for value in values), sweep_rows.interval_row(devices_closed) + last]
            kept.append(Rows(table, (*times, closed_at), b"".join(every)))
        else:
            kept.append(Rows(interval_rows.table, (closed_at,), last))
    return kept
