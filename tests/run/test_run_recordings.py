"""Energy against the truth: recordings of real rails, or others of the same kind, through the whole chain.

The folder of real recordings is $WATTPUSH_TEST_TRACES, else `../shared/traces` beside the repository. Where there is
none, recordings of the same length and kind are made.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.run.loop import Loop
from agent.settings import MetricsSettings
from agent.simulate.recordings import read_recording
from tests.prometheus_server import running_prometheus, scraped
from tests.run.running import (
    CPU,
    LONG_SECONDS,
    NO_MANAGER,
    PROJECT,
    HandPublisher,
    HandWaiting,
    MemoryGateway,
    agent_of,
    program,
    settings_for,
    until,
    world_for,
    write_config,
)

if TYPE_CHECKING:
    from agent.simulate.clock import HandClock

FEW_SAMPLES = 3

TRACES = Path(os.environ.get("WATTPUSH_TEST_TRACES") or PROJECT.parent / "shared" / "traces")


def made_recording(file: Path, span_seconds: float, step_seconds: float, burst_milliamperes: int) -> Path:
    """A bursty module at 5 W, in the 8 mV and 8 mA steps of an INA3221 with a small shunt."""
    chance = random.Random(17)
    with gzip.open(file, "wt", compresslevel=1) as rows:
        rows.write("seconds,volts,amperes\n")
        busy, until_seconds = False, 0.0
        for number in range(round(span_seconds / step_seconds)):
            seconds = number * step_seconds
            if seconds >= until_seconds:
                busy = not busy
                until_seconds = seconds + chance.expovariate(2.0 / (100 * step_seconds))
            milliamperes = 8 * round((980 + burst_milliamperes * busy) / 8 + chance.gauss(0, 2))
            rows.write(f"{seconds:.3f},5.08,{milliamperes / 1000}\n")
    return file


def recording_named(name: str, folder: Path, span_seconds: float, step_seconds: float) -> Path:
    real = TRACES / name
    return real if real.is_file() else made_recording(folder / "made.csv.gz", span_seconds, step_seconds, 150)


def longest_stretch(missed: dict[float, float]) -> tuple[float, float]:
    """The scrapes between which the process was not paused. Energy in a pause is not counted, as metrics show."""
    pairs = [(first, last) for first in missed for last in missed if missed[last] - missed[first] <= FEW_SAMPLES]
    return max(pairs, key=lambda pair: pair[1] - pair[0])


@pytest.mark.parametrize(
    ("name", "span_seconds"),
    [
        pytest.param("made", 10.0, id="made"),
        pytest.param("jetson_orin_vdd_in_resnet50.csv.gz", 43.9, id="resnet50", marks=pytest.mark.long),
    ],
)
def test_prometheus_scrapes_the_energy_that_flowed(
    tmp_path: Path, pushgateway_url: str, name: str, span_seconds: float
) -> None:
    """At real speed: a recording, a simulated INA260 behind a mux, the program, a Pushgateway, a Prometheus.

    The short one has no bursts: of those, a busy machine would see too few. They are in the whole day below.
    """
    if name == "made":
        file = made_recording(tmp_path / "made.csv.gz", span_seconds, 0.012, 0)
    else:
        file = recording_named(name, tmp_path, span_seconds, 0.012)
    job = f"recorded-{name.partition('.')[0]}"
    config = write_config(tmp_path, pushgateway_url, job, top='interval = "1s"\nsample_interval = "100ms"')
    # The chip averages as much as it can instead of being fast.
    config.write_text(config.read_text().replace("averaging =", "#averaging ="))
    with running_prometheus(tmp_path, pushgateway_url) as prometheus:
        # Scraping begins some seconds after Prometheus listens.
        until(lambda: scraped(prometheus, 'up{job="gateway"}'), "a first scrape")
        with program("--config", config, "--trace", f"cpu={file}") as running:

            def samples(metric: str) -> dict[float, float]:
                return scraped(prometheus, f'{metric}{{job="{job}"}}')

            def seconds_seen() -> float:
                read_at = samples("wattpush_device_last_read_timestamp_seconds").values()
                return max(read_at, default=0.0) - min(read_at, default=0.0)

            until(lambda: seconds_seen() > 0.7 * span_seconds, "most of the recording", span_seconds + LONG_SECONDS)
            read_at = samples("wattpush_device_last_read_timestamp_seconds")
            joules = samples("wattpush_device_joules_total")
            measured_seconds = samples("wattpush_device_measured_seconds_total")
            missed = samples("wattpush_agent_missed_samples_total")
            (start_seconds,) = set(samples("wattpush_agent_start_time_seconds").values())
            assert running.end(signal.SIGTERM)[0] == 0
    first, last = longest_stretch(
        {at: missed[at] for at in set(read_at) & set(joules) & set(measured_seconds) & set(missed)}
    )
    # Second 0 is when the simulated chips are built, shortly after the start time that the agent reports.
    truth = read_recording(file).beginning_at(start_seconds).integral(read_at[first], read_at[last])
    rise = joules[last] - joules[first]
    assert rise == pytest.approx(truth, rel=0.005)
    mean_watts = truth / (read_at[last] - read_at[first])
    assert rise / (measured_seconds[last] - measured_seconds[first]) == pytest.approx(mean_watts, rel=0.005)


def test_a_day_is_counted_within_a_thousandth(clock: HandClock, tmp_path: Path) -> None:
    recording = read_recording(recording_named("jetson_orin_vdd_in_24h.csv.gz", tmp_path, 86_400.0, 0.5))
    settings = settings_for(CPU, interval_seconds=60.0, metrics=MetricsSettings(charge=True))
    gateway, begins_seconds = MemoryGateway(), clock.seconds
    world = world_for(settings, clock, {"cpu": recording})
    agent = agent_of(settings, world, clock, gateway, HandPublisher(clock))
    gateway.history = _Forgetful()
    Loop(agent, clock, HandWaiting(clock, begins_seconds + 86_400.5), NO_MANAGER).run()
    agent.begin_push()
    pushed = gateway.groups["device cpu"]
    rail = recording.beginning_at(begins_seconds)
    truth = rail.integral(begins_seconds + 2, begins_seconds + 86_400)
    assert pushed["wattpush_device_joules_total"] == pytest.approx(truth, rel=0.001)
    charge = sum(
        part.amperes * (part.end - part.start) for part in rail.segments(begins_seconds + 2, begins_seconds + 86_400)
    )
    assert pushed["wattpush_device_coulombs_total"] == pytest.approx(charge, rel=0.001)
    assert pushed["wattpush_device_measured_seconds_total"] == pytest.approx(86_398)
    assert pushed["wattpush_device_readings_total"] == 86_399
    assert pushed["wattpush_device_read_errors_total"] == 0
    mean_watts = pushed["wattpush_device_joules_total"] / pushed["wattpush_device_measured_seconds_total"]
    assert mean_watts == pytest.approx(truth / 86_398, rel=0.001)


class _Forgetful(list[Any]):
    """Drops a day of pushes."""

    def append(self, item: object) -> None:
        pass
