"""Gateway outages: the energy of an outage arrives with the first push after it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from agent.errors import UnreachableError
from agent.run.loop import Loop
from agent.settings import Averaging, MetricsSettings
from agent.simulate.recordings import Recording
from tests.bench import world_for
from tests.prometheus_server import running_prometheus, scraped
from tests.run.running import (
    CPU,
    NO_MANAGER,
    HandPublisher,
    HandWaiting,
    MemoryGateway,
    agent_of,
    ask,
    program,
    settings_for,
    until,
    write_config,
)
from tests.servers import free_port, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.errors import AgentError
    from agent.metrics.groups import Group
    from agent.simulate.clock import HandClock

WATTS = 6.0
AWAY = UnreachableError("gateway.invalid: no answer")


@pytest.mark.reliability(
    10,
    "the gateway is killed and restarts empty",
    "counters continue, and the energy of the outage arrives with the next push",
)
def test_prometheus_sees_all_energy_of_an_outage(tmp_path: Path, measured: Callable[[str], None]) -> None:
    """With the real program, a Pushgateway that is killed and restarted, and a Prometheus that scrapes it."""
    port = free_port()
    url, job = f"http://127.0.0.1:{port}", "outage"
    recording = tmp_path / "rail.csv"
    recording.write_text(f"seconds,volts,amperes\n0,12,{WATTS / 12}\n")
    config = write_config(
        tmp_path,
        url,
        job,
        top='interval = "400ms"\nsample_interval = "50ms"',
        push='timeout = "1s"',
        more="[metrics]\ncharge = true\n",
    )
    first, later = ExitStack(), ExitStack()
    with first, later, running_prometheus(tmp_path, url) as prometheus:

        def samples(name: str) -> dict[float, float]:
            return scraped(prometheus, f'wattpush_device_{name}{{job="{job}"}}')

        def scrapes() -> list[float]:
            return sorted(samples("joules_total").keys() & samples("last_read_timestamp_seconds").keys())

        until(lambda: ask(f"{prometheus}/-/ready")[0] == 200, "Prometheus to answer queries")
        first.enter_context(running_pushgateway(port=port))
        with program("--config", config, "--trace", f"cpu={recording}") as running:
            until(lambda: len(scrapes()) >= 2, "two scrapes")
            not_pushed, again = "the next push covers this interval too", "push: works again"
            not_pushed_before, again_before = running.stderr.count(not_pushed), running.stderr.count(again)
            first.close()
            failed_before = failed_scrapes(prometheus)
            running.logs(not_pushed, not_pushed_before + 1)
            until(lambda: failed_scrapes(prometheus) >= failed_before + 3, "three seconds without a gateway")
            before = scrapes()[-1]
            later.enter_context(running_pushgateway(port=port))
            running.logs(again, again_before + 1)
            until(lambda: scrapes()[-1] > before, "a scrape after the outage")
            assert running.end(signal.SIGTERM)[0] == 0
        joules, coulombs = samples("joules_total"), samples("coulombs_total")
        read_at = samples("last_read_timestamp_seconds")
        errors = samples("read_errors_total")
    after = min(at for at in joules.keys() & read_at.keys() if at > before)
    away_seconds = read_at[after] - read_at[before]
    assert away_seconds > 1
    assert joules[after] - joules[before] == pytest.approx(WATTS * away_seconds, rel=0.005)
    assert coulombs[after] - coulombs[before] == pytest.approx(WATTS / 12 * away_seconds, rel=0.005)
    assert set(errors.values()) == {0}
    measured("the rise over the outage, as scraped by a real Prometheus, is within 0.5 % of the truth")


def failed_scrapes(prometheus: str) -> int:
    return sum(value == 0 for value in scraped(prometheus, 'up{job="gateway"}').values())


@pytest.mark.reliability(
    10,
    "an outage of a minute, an hour, a day",
    "readings keep counting, and averages and extremes cover the whole outage",
)
@pytest.mark.parametrize("outage_seconds", [60, 3600, 86_400])
def test_no_energy_is_lost_however_long_an_outage_lasts(clock: HandClock, outage_seconds: int) -> None:
    # The load steps half-way between two readings, each of which stands for half of the time between them.
    rows = [(10.0 * number + 1.0, 12.0, 0.25 * (1 + number % 5)) for number in range(outage_seconds // 10 + 60)]
    recording = Recording(rows)
    settings = settings_for(
        replace(CPU, averaging=Averaging(1, 140e-6, 140e-6)),
        interval_seconds=60.0,
        sample_interval_seconds=2.0,
        metrics=MetricsSettings(charge=True),
    )
    gateway, begins_seconds = MemoryGateway(), clock.seconds
    truth = recording.beginning_at(begins_seconds)
    agent = agent_of(settings, world_for(settings, clock, {"cpu": recording}), clock, gateway, HandPublisher(clock))
    ends_seconds = begins_seconds + 90.0 + outage_seconds

    def fail(group: Group) -> AgentError | None:
        return AWAY if begins_seconds + 90.0 <= clock.seconds < ends_seconds else None

    gateway.fail = fail
    waiting = HandWaiting(clock, ends_seconds + 90.0)
    Loop(agent, clock, waiting, NO_MANAGER).run()
    cpu = [pushed["device cpu"] for pushed in gateway.history]
    received = {of["wattpush_device_last_read_timestamp_seconds"]: of["wattpush_device_joules_total"] for of in cpu}
    (before_unix, before), (after_unix, after) = max(
        pairwise(received.items()), key=lambda pair: pair[1][0] - pair[0][0]
    )
    assert after_unix - before_unix >= outage_seconds
    offset = clock.time() - clock.monotonic()
    flowed = truth.integral(before_unix - offset, after_unix - offset)
    assert after - before == pytest.approx(flowed, rel=0.005)
    # At 12 V all the time.
    assert [of["wattpush_device_coulombs_total"] for of in cpu] == pytest.approx(
        [of["wattpush_device_joules_total"] / 12.0 for of in cpu]
    )
    assert agent.counters.missed_samples == 0
