"""Counters that are carried over a reboot: an ordinary one continues, a file that comes back does not."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from agent.clock import SystemClock
from agent.energy.state import State
from agent.errors import UnreachableError
from agent.measure.readings import Settling
from agent.push.gateway import Pushgateway
from agent.run.agent import Agent, Parts
from agent.run.loop import Loop
from agent.run.once import run_once
from agent.run.state_opening import of_this_node
from agent.settings import Averaging, MetricsSettings, PushgatewaySettings
from agent.simulate.clock import HandClock
from tests.energy.disks import state_on_disk
from tests.run.running import (
    CPU,
    INFO,
    NO_MANAGER,
    HandPublisher,
    HandWaiting,
    InlineSaver,
    MemoryGateway,
    groups_of,
    settings_for,
    sweep_of,
    world_for,
)
from tests.servers import Server, answering, free_port, hanging, in_turn, raw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.metrics.groups import Group
    from agent.push.delivery import PushResult
    from agent.run.destination import Destination
    from tests.servers import Client

QUICK_CPU = replace(CPU, averaging=Averaging(1, 140e-6, 140e-6))
JOULES, READINGS = "wattpush_device_joules_total", "wattpush_device_readings_total"
COULOMBS = "wattpush_device_coulombs_total"
SECONDS = 10
POWER_WATTS = 6.0


@dataclass
class Node:
    """A node whose runs push to one gateway; `seen` is what Prometheus scrapes there after each push."""

    folder: Path
    gateway: str
    job: str
    seen: list[float] = field(default_factory=list)
    flowed_joules: float = 0.0
    runs: int = 0
    hostname: str = "node-17"

    def run(self, boot: str, pushes: int = 3, *, is_once: bool = False) -> None:
        """One run that ends well: each push covers ten seconds at 6 W."""
        self.runs += 1
        clock = HandClock()
        settings = settings_for(
            QUICK_CPU,
            pushgateway=PushgatewaySettings(self.gateway, job=self.job, timeout_seconds=20.0),
            interval_seconds=60.0,
            metrics=MetricsSettings(charge=True),
        )
        system = SystemClock()
        assert settings.pushgateway is not None
        destination = Pushgateway(settings.pushgateway, clock=system, sleep=system.sleep, environ={})
        file = state_on_disk(self.folder, boot)
        settings = replace(settings, hostname=self.hostname)
        state = of_this_node(file.load(), file, settings).with_sources({"cpu": QUICK_CPU.source})
        sweep = sweep_of(settings, world_for(settings, clock), clock, state.devices_read_in_this_boot())
        info = replace(INFO, start_time_seconds=1.7e9 + 100 * self.runs)
        saver = InlineSaver(file)
        agent = Agent(Parts(settings, info, clock, sweep, destination, HandPublisher(clock), saver), state)
        if is_once:
            assert run_once(agent, clock, HandWaiting(clock)) == 0
            destination.close()
            self.scrape()
            return
        for _ in range(2):  # the first conversion takes less than a millisecond
            agent.take_sweep()
            clock.sleep(0.001)
        for _ in range(pushes):
            for _ in range(SECONDS):
                clock.sleep(1.0)
                agent.take_sweep()
            self.flowed_joules += SECONDS * POWER_WATTS
            agent.begin_push()
            report = agent.parts.publisher.take_report()
            assert report is not None
            assert agent.end_push(report) == []
            self.scrape()
        agent.save_last()
        destination.close()

    def scrape(self) -> None:
        groups = groups_of(self.gateway, self.job, self.hostname)
        if JOULES in groups.get("cpu", {}):
            self.seen.append(groups["cpu"][JOULES])
            assert groups["cpu"][COULOMBS] == pytest.approx(groups["cpu"][JOULES] / 12.0), "at 12 V, in every scrape"

    def rise(self) -> float:
        """What Prometheus adds up: of a value that fell, all."""
        return sum(after - before if after >= before else after for before, after in pairwise([0.0, *self.seen]))


@pytest.fixture
def node(tmp_path: Path, pushgateway_url: str, request: pytest.FixtureRequest) -> Node:
    (tmp_path / "state").mkdir()
    return Node(tmp_path / "state", pushgateway_url, request.node.name)


@pytest.mark.reliability(12.4, "an ordinary reboot", "the counters carry on once the gateway has confirmed them")
def test_an_ordinary_reboot_carries_on(node: Node, measured: Callable[[str], None]) -> None:
    for boot in ("a", "b", "c"):
        node.run(boot)
    assert node.seen == pytest.approx([60.0 * push for push in range(1, 10)], abs=1)
    assert node.rise() == pytest.approx(node.flowed_joules, abs=1)
    measured("three boots, nine pushes: 540 J of 540")


def test_a_reboot_before_the_first_push_carries_on(node: Node) -> None:
    node.run("a")
    node.run("b", pushes=0)
    node.run("c")
    assert node.rise() == pytest.approx(node.flowed_joules, abs=1)


@pytest.mark.reliability(
    12.42,
    "an image or snapshot with an older state file is restored",
    "the gateway shows a later run: counters start from zero",
)
@pytest.mark.parametrize("evidence", ["start time", "counters"])
def test_a_restored_file_is_not_carried_on(
    node: Node, caplog: pytest.LogCaptureFixture, evidence: str, measured: Callable[[str], None]
) -> None:
    node.run("a", pushes=4)
    image = node.folder / "counters.json"
    shutil.copy(image, node.folder / "image")
    node.run("b", pushes=5)
    # Without a start time in the file, only one that is behind is recognised.
    for boot in ("c", "d", "e") if evidence == "start time" else ("c",):
        shutil.copy(node.folder / "image", image)
        if evidence == "counters":  # as early versions wrote it
            file = state_on_disk(node.folder, "a")
            assert file.save(replace(file.load(), run_start_seconds=None), ended_well=True)
        node.run(boot, pushes=3)
    assert node.rise() <= node.flowed_joules + 1
    # The first push after each restored image has no counters, and those after it begin with its energy.
    assert node.seen[-1] == pytest.approx(3 * SECONDS * POWER_WATTS, abs=1)
    assert "counters start from zero" in caplog.text
    assert node.flowed_joules - node.rise() < 300
    measured("three boots from one image: no rise that did not flow")


@pytest.mark.reliability(
    12.44,
    "a state file of another hostname: a node that is renamed and named back, a cloned card, two files of one folder",
    "counters start from zero: energy that was counted under one name is not counted under another",
)
@pytest.mark.parametrize("boots", ["abcdef", "aaaaaa"])
def test_no_energy_counts_under_two_hostnames(node: Node, boots: str, measured: Callable[[str], None]) -> None:
    other = Node(node.folder, node.gateway, node.job, hostname="localhost", runs=100)
    for number, boot in enumerate(boots):
        (node, other)[number % 2].run(boot)
    flowed_joules = node.flowed_joules + other.flowed_joules
    assert 0.8 * flowed_joules < node.rise() + other.rise() <= flowed_joules + 1
    measured("two names in turn, six runs: no rise that did not flow")


def test_a_reload_with_another_hostname_counts_from_zero(tmp_path: Path, clock: HandClock) -> None:
    gateway = MemoryGateway()
    agent = carried_agent(tmp_path, clock, gateway)
    push(agent)
    settings = settings_for(QUICK_CPU)
    settings = replace(settings, hostname="localhost")
    sweep = sweep_of(settings, world_for(settings, clock), clock)
    later = Agent(replace(agent.parts, settings=settings, sweep=sweep), State())
    later.take_over_from(agent)
    later.take_sweep()
    clock.sleep(1.0)
    later.take_sweep()
    push(later)
    assert gateway.groups["device cpu"][READINGS] == 1


def test_a_reload_without_a_gateway_publishes_carried_counters(tmp_path: Path, clock: HandClock) -> None:
    gateway = MemoryGateway()
    gateway.held_error = UnreachableError("gateway.invalid: no route to host")
    agent = carried_agent(tmp_path, clock, gateway)
    push(agent)
    settings = replace(agent.settings, pushgateway=None)
    sweep = sweep_of(settings, world_for(settings, clock), clock)
    later = Agent(replace(agent.parts, settings=settings, sweep=sweep, destination=None), agent.state())
    later.take_over_from(agent)
    later.take_sweep()
    later.begin_push()
    registry = later.scrape_registry()
    assert registry is not None
    assert registry.get_sample_value(READINGS, {"device": "cpu", "hostname": settings.hostname}) == 8
    assert not later.state().is_unconfirmed


def test_once_from_a_restored_file_starts_from_zero(node: Node) -> None:
    node.run("a", pushes=4)
    shutil.copy(node.folder / "counters.json", node.folder / "image")
    node.run("b", pushes=5)
    shutil.copy(node.folder / "image", node.folder / "counters.json")
    before = list(node.seen)
    node.run("c", is_once=True)
    assert node.seen == before, "its only push has no counters"
    node.run("c", is_once=True)
    assert node.seen[-1] < 1
    assert state_on_disk(node.folder, "c").load().is_unconfirmed is False


def test_one_group_for_all_is_judged_by_its_device_labels(tmp_path: Path, clock: HandClock) -> None:
    gateway = MemoryGateway()
    gateway.groups = {"device cpu": {READINGS: 1e6}}
    settings = settings_for(QUICK_CPU, pushgateway=PushgatewaySettings("http://gateway.invalid", group_by="node"))
    gateway._settings = settings.pushgateway or gateway._settings
    agent = carried_agent(tmp_path, clock, gateway)
    agent.settings = settings
    push(agent)
    assert not agent.state().is_unconfirmed
    assert agent.meters.devices["cpu"].saved.counters.readings == 1, "what was counted in this run"


def carried_agent(folder: Path, clock: HandClock, gateway: Destination) -> Agent:
    """An agent after a reboot, with 7 readings of the boot before."""
    settings = settings_for(QUICK_CPU)
    if not (folder / "counters.json").exists():
        before = State().with_sources({"cpu": QUICK_CPU.source})
        saved = before.devices["cpu"]
        saved = saved._replace(counters=saved.counters._replace(readings=7, joules=42.0))
        assert state_on_disk(folder, "a").save(State({"cpu": saved}, run_start_seconds=1.6e9), ended_well=True)
    file = state_on_disk(folder, "b")
    sweep = sweep_of(settings, world_for(settings, clock), clock)
    state = file.load()
    assert state.is_unconfirmed
    agent = Agent(Parts(settings, INFO, clock, sweep, gateway, HandPublisher(clock), InlineSaver(file)), state)
    agent.take_sweep()
    clock.sleep(1.0)
    agent.take_sweep()
    return agent


def push(agent: Agent) -> list[str]:
    agent.begin_push()
    report = agent.parts.publisher.take_report()
    assert report is not None
    return [str(error) for error in agent.end_push(report)]


def test_nothing_is_pushed_while_the_gateway_cannot_be_asked(tmp_path: Path, clock: HandClock) -> None:
    """A push without an answer would replace what the gateway knows of a later run."""
    gateway = MemoryGateway()
    gateway.held_error = UnreachableError("gateway.invalid: no route to host")
    agent = carried_agent(tmp_path, clock, gateway)
    assert push(agent) == ["gateway.invalid: no route to host"]
    assert gateway.history == []
    assert agent.state().is_unconfirmed
    assert agent.meters.has_unpushed_readings
    agent = carried_agent(tmp_path, clock, gateway)  # restarted within the boot: still unconfirmed
    gateway.held_error = None
    assert push(agent) == []
    assert gateway.groups["device cpu"][READINGS] > 7
    assert state_on_disk(tmp_path, "b").load().is_unconfirmed is False


def test_a_scrape_shows_no_carried_counters_before_the_gateway_was_asked(tmp_path: Path, clock: HandClock) -> None:
    gateway = MemoryGateway()
    agent = carried_agent(tmp_path, clock, gateway)
    agent.publish()
    assert agent.published is not None
    assert not agent.published.has_counters
    push(agent)
    agent.publish()
    assert agent.published.has_counters


def test_a_file_of_another_boot_is_marked_before_the_first_reading(tmp_path: Path, clock: HandClock) -> None:
    agent = carried_agent(tmp_path, clock, MemoryGateway())
    agent.save(ended_well=False)  # as assembly does
    assert state_on_disk(tmp_path, "c").load() == State(), "carried on a second time"


def test_a_save_while_the_gateway_is_asked_is_not_undone(tmp_path: Path, clock: HandClock) -> None:
    class SlowGateway(MemoryGateway):
        def held(self, hostname: str, budget_seconds: float) -> Mapping[tuple[str, str], float]:
            agent.meters.devices["cpu"].add(Settling("cpu", 0.0, power_lost=True))
            agent.save(ended_well=False)
            return {}

    agent = carried_agent(tmp_path, clock, SlowGateway())
    assert push(agent) == []
    saved = state_on_disk(tmp_path, "b").load().devices["cpu"]
    assert saved.counters.resets == 1
    assert saved.last is None, "otherwise the next run would count energy across the power loss"


def test_a_confirmation_survives_a_push_that_is_left_behind(tmp_path: Path, clock: HandClock) -> None:
    """Its groups may have arrived: a second question would take them for those of a later run."""

    class HangingGateway(MemoryGateway):
        def push(self, groups: Sequence[Group], budget_seconds: float) -> Sequence[PushResult]:
            results = super().push(groups, budget_seconds)
            waiting.stop_requested_at_seconds = clock.seconds
            loop.finish()
            return results

    agent = carried_agent(tmp_path, clock, HangingGateway())
    waiting = HandWaiting(clock)
    loop = Loop(agent, clock, waiting, NO_MANAGER)
    agent.begin_push()
    assert state_on_disk(tmp_path, "b").load().is_unconfirmed is False


@pytest.mark.parametrize(
    "behave",
    [
        answering("403 Forbidden"),
        answering("404 Not Found", b"<html>"),
        answering("405 Method Not Allowed"),
        answering("200 OK", b'wattpush_agent_start_time_seconds{hostname="node-17",job="power" 1\n\xff\xfe'),
        answering("200 OK", b"x" * (5 * 2**20)),
        in_turn(hanging, answering("200 OK")),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ],
    ids=["403", "404", "405", "garbage", "endless", "only its metrics hang", "empty"],
)
def test_a_gateway_that_may_not_be_read_holds_nothing(behave: Callable[[Client], None]) -> None:
    with Server(behave) as server:
        assert held(server.url) == {}


@pytest.mark.reliability(
    13,
    "an older state file is restored, and the gateway hangs at the start, or its proxy answers 502, 503 or 504",
    "nothing is pushed until it answers, and has shown what it holds",
)
@pytest.mark.parametrize(
    "behave",
    [hanging, *(answering(status) for status in ("429 Slow", "502 Bad", "503 Wait", "504 Late"))],
    ids=["hangs", "429", "502", "503", "504"],
)
def test_a_gateway_that_may_answer_soon_is_asked_again(
    behave: Callable[[Client], None], measured: Callable[[str], None]
) -> None:
    with Server(behave) as server, pytest.raises(UnreachableError, match="not pushed"):
        held(server.url)
    measured("not pushed; asked again at the next push")


def test_a_gateway_that_is_away_cannot_be_asked() -> None:
    with pytest.raises(UnreachableError, match="not pushed"):
        held(f"http://127.0.0.1:{free_port()}")


def held(url: str, hostname: str = "node-17") -> dict[tuple[str, str], float]:
    clock = SystemClock()
    settings = PushgatewaySettings(url, timeout_seconds=1.0)
    return Pushgateway(settings, clock=clock, sleep=clock.sleep, environ={}).held(hostname, 1.0)


def test_only_series_of_this_hostname_and_job_are_held() -> None:
    lines = [
        'wattpush_agent_start_time_seconds{hostname="node-17",instance="",job="power"} 1.7e+09',
        'wattpush_agent_start_time_seconds{hostname="node-1",instance="",job="power"} 1',
        'wattpush_agent_start_time_seconds{hostname="node-17",instance="",job="other"} 2',
        'wattpush_device_joules_total{device="a\\\\b \\"c\\"",hostname="node-17",job="power"} 570',
        'process_cpu_seconds_total{hostname="node-17",job="power"} 3',
        'wattpush_device_joules_total{device="cut",hostname="node-17",job="power"} 5',
    ]
    with Server(answering("200 OK", "\n".join(lines).encode())) as server:
        assert held(server.url) == {
            ("", "wattpush_agent_start_time_seconds"): 1.7e9,
            ('a\\b "c"', JOULES): 570,
        }
