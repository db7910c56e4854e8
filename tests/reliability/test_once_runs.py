"""`--once` from a timer: which energy between two runs counts, and which does not."""

from __future__ import annotations

import errno
import random
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.energy.state import State
from agent.energy.state_file import StateFile
from agent.errors import ExitCode
from agent.run.agent import Agent, Parts
from agent.run.once import run_once
from agent.settings import Averaging, MetricsSettings
from tests.bench import Bench, ina260, world_for
from tests.energy.disks import full, state_on_disk
from tests.reliability.noisy import EIGHT_INA260, NoisyNode
from tests.run.running import (
    CPU,
    INFO,
    HandPublisher,
    HandWaiting,
    MemoryGateway,
    agent_of,
    groups_of,
    program,
    run,
    settings_for,
    write_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.simulate.clock import HandClock
    from agent.simulate.wire import Transaction

WATTS, AMPERES = 6.0, 0.5
WITH_CHARGE = MetricsSettings(charge=True)
QUICK_CPU = replace(CPU, averaging=Averaging(1, 140e-6, 140e-6))


@pytest.mark.reliability(14, "six `--once` runs at the same time", "they wait for each other; no energy counts twice")
def test_overlapping_runs_count_no_energy_twice(
    tmp_path: Path, pushgateway_url: str, measured: Callable[[str], None]
) -> None:
    recording = tmp_path / "rail.csv"
    recording.write_text(f"seconds,volts,amperes\n0,12,{WATTS / 12}\n")
    config = write_config(tmp_path, pushgateway_url, "overlapping", more="[metrics]\ncharge = true\n")
    begun_seconds = time.monotonic()
    with ExitStack() as stack:
        arguments = ("--config", config, "--trace", f"cpu={recording}", "--once")
        runs = [stack.enter_context(program(*arguments)) for _ in range(6)]
        codes = [running.end()[0] for running in runs]
        output = "".join(running.stderr for running in runs)
    assert set(codes) <= {0, 75}, output  # a run that waited for too long gives up: its timer starts the next one
    codes.append(run(*arguments).returncode)
    elapsed_seconds = time.monotonic() - begun_seconds
    done = codes.count(0)
    assert done >= 2
    groups = groups_of(pushgateway_url, "overlapping")
    cpu = groups["cpu"]
    assert groups[""]["wattpush_agent_pushes_total"] == cpu["wattpush_device_readings_total"] == done
    assert 0 < cpu["wattpush_device_measured_seconds_total"] < elapsed_seconds
    assert cpu["wattpush_device_joules_total"] == pytest.approx(
        WATTS * cpu["wattpush_device_measured_seconds_total"], rel=0.005
    )
    assert cpu["wattpush_device_coulombs_total"] == pytest.approx(
        AMPERES * cpu["wattpush_device_measured_seconds_total"], rel=0.005
    )
    measured("the joules match the time from the first reading to the last")


@pytest.mark.reliability(
    14,
    "`--once` after a pause shorter or longer than `max_gap`, and after a reboot",
    "energy since the previous run counts up to `max_gap`, and never across a reboot",
)
def test_energy_between_runs_counts_up_to_max_gap_and_within_a_boot(
    clock: HandClock, tmp_path: Path, measured: Callable[[str], None]
) -> None:
    settings = settings_for(QUICK_CPU, max_gap_seconds=100.0, metrics=WITH_CHARGE)
    world, gateway = world_for(settings, clock), MemoryGateway()

    def measured_seconds_after(pause_seconds: float, boot: str) -> float:
        clock.sleep(pause_seconds)
        agent = agent_of(settings, world, clock, gateway, state_file=state_on_disk(tmp_path, boot))
        assert run_once(agent, clock, HandWaiting(clock)) is ExitCode.OK
        pushed = gateway.groups["device cpu"]
        seconds = pushed["wattpush_device_measured_seconds_total"]
        assert pushed["wattpush_device_joules_total"] == pytest.approx(WATTS * seconds)
        assert pushed["wattpush_device_coulombs_total"] == pytest.approx(AMPERES * seconds)
        return seconds

    assert measured_seconds_after(0, "a") == 0
    assert measured_seconds_after(60, "a") == pytest.approx(60, abs=0.1)
    assert measured_seconds_after(101, "a") == pytest.approx(60, abs=0.1)
    assert measured_seconds_after(60, "a") == pytest.approx(120, abs=0.1)
    assert measured_seconds_after(60, "b") == pytest.approx(120, abs=0.1)
    assert measured_seconds_after(60, "b") == pytest.approx(180, abs=0.1)
    # Without a boot ID, the run assumes a reboot: nothing is counted either.
    assert measured_seconds_after(60, "") == pytest.approx(180, abs=0.1)
    measured("60 of 60 s count; with `max_gap` at 100 s, none of 101 s; none across a reboot")


def test_once_whose_counters_cannot_be_saved_exits_with_74(
    clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, gateway = settings_for(QUICK_CPU), MemoryGateway()

    def once() -> ExitCode:
        state_file = state_on_disk(tmp_path, "a")
        agent = agent_of(settings, world_for(settings, clock), clock, gateway, state_file=state_file)
        return run_once(agent, clock, HandWaiting(clock))

    assert once() is ExitCode.OK
    with full():
        assert once() is ExitCode.IOERR
    assert "counters.json: cannot be written (File too large)" in caplog.text
    assert gateway.groups["device cpu"]["wattpush_device_watts"] == WATTS, "the rest is pushed"
    assert once() is ExitCode.OK


def test_a_restarted_monotonic_clock_counts_nothing(clock: HandClock, tmp_path: Path) -> None:
    settings = settings_for(QUICK_CPU)
    gateway = MemoryGateway()
    for _ in range(2):
        clock.seconds = 1000.0
        agent = agent_of(
            settings, world_for(settings, clock), clock, gateway, state_file=StateFile(tmp_path, "counters", "a")
        )
        run_once(agent, clock, HandWaiting(clock))
    assert gateway.groups["device cpu"]["wattpush_device_joules_total"] == 0


@pytest.mark.reliability(
    1.35,
    "`--once` while one of four chips holds the bus for 2 s at each transfer, or all do for a moment",
    "chips that were not read because of another one's time-outs are tried again",
)
@pytest.mark.parametrize(
    ("holding", "transfers"), [((0x40,), 1000), (range(0x40, 0x44), 2)], ids=["one", "for_moments"]
)
def test_once_reads_the_chips_beside_one_that_hangs(
    holding: Sequence[int], transfers: int, measured: Callable[[str], None]
) -> None:
    bench = Bench.of("".join(ina260(f"d{number}", "bus = 1", 0x40 + number) for number in range(4)))
    clock, gateway, left = bench.clock, MemoryGateway(), transfers

    def hangs(transaction: Transaction) -> int | None:
        nonlocal left
        if not left or transaction.messages[0].address not in holding:
            return None
        left -= 1
        clock.sleep(2.0)
        return errno.EIO

    bench.wire.faults.fail_when(hangs)
    began_seconds = clock.seconds
    agent = agent_of(bench.settings, bench.world, clock, gateway)
    code = run_once(agent, clock, HandWaiting(clock))
    up = [gateway.groups[f"device d{number}"]["wattpush_device_up"] for number in range(4)]
    lasts = transfers > 2
    assert up == ([0, 1, 1, 1] if lasts else [1, 1, 1, 1])
    assert code == (ExitCode.IOERR if lasts else ExitCode.OK)
    assert clock.seconds - began_seconds <= 12
    measured("all chips that are well are read, within 12 s")


@pytest.mark.reliability(
    1.38,
    "40 `--once` runs over eight chips, in each of which the wire is disturbed for 5 ms at a random moment",
    "a device that failed is tried once more",
)
def test_once_outlasts_a_disturbance_of_milliseconds(measured: Callable[[str], None]) -> None:
    codes = []
    for seed in range(40):
        node = NoisyNode(EIGHT_INA260)
        clock, gateway = node.clock, MemoryGateway()
        begins_seconds = clock.seconds + random.Random(seed).uniform(0.0, 0.15)

        def disturbed(_: Transaction, clock: HandClock = clock, begins_seconds: float = begins_seconds) -> int | None:
            return errno.EREMOTEIO if 0 <= clock.seconds - begins_seconds < 5e-3 else None

        node.wire.faults.fail_when(disturbed)
        agent = Agent(Parts(node.settings, INFO, clock, node.bench.sweep, gateway, HandPublisher(clock), None), State())
        codes.append(run_once(agent, clock, HandWaiting(clock)))
    assert codes == [ExitCode.OK] * 40
    measured("40 of 40 runs read all devices")
