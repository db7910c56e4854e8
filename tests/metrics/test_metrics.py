"""The published metrics: names, types, labels and help, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest

from agent.build_info import AgentInfo
from agent.energy.counters import Counters
from agent.energy.interval import Extremes, Means
from agent.energy.meter import DeviceSnapshot
from agent.energy.state import AgentCounters
from agent.metrics.catalogue import Snapshot
from agent.metrics.groups import grouping_keys, make_groups, scrape_registry
from agent.settings import Device, MetricsSettings, Settings
from agent.simulate.clock import HandClock
from tests.bench import constant
from tests.run.running import CPU, GOLDEN, MODEM, RADIO, MemoryGateway, agent_of, settings_for, world_for

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

assert CPU.place is not None
FAN = replace(CPU, name="fan", place=replace(CPU.place, channel=7))
NODE = settings_for(CPU, RADIO, MODEM, FAN)
GROUPINGS = ("device", "node")


def text_of(registry: CollectorRegistry) -> str:
    """The exposition without the `process_` metrics, whose values are those of this process."""
    blocks = generate_latest(registry).decode().split("# HELP ")
    return "".join(f"# HELP {block}" for block in blocks if block and not block.startswith("process_"))


def simulated_snapshot() -> Snapshot:
    """A snapshot of 20 s of sweeps over simulated chips, one of them unplugged."""
    clock = HandClock()
    world = world_for(NODE, clock)
    world.chips["fan"].unplug()
    gateway = MemoryGateway()
    agent = agent_of(NODE, world, clock, gateway)
    for second in range(21):
        for name, rail in world.rails.items():
            amperes = {"cpu": 1.0, "radio": 0.25, "modem": -0.5, "fan": 0.0}[name]
            constant(rail).amperes = amperes * (1 + second % 3)
        clock.sleep(1.0)
        agent.take_sweep()
    agent.begin_push()
    assert agent.published is not None
    return agent.published


def golden_files() -> dict[str, str]:
    snapshot = simulated_snapshot()
    per_device = "".join(
        f"# {' '.join(f'{key}={value}' for key, value in group.grouping_key.items())}\n{text_of(group.registry)}"
        for group in make_groups(snapshot, NODE, "device")
    )
    ina260_names = replace(NODE, metrics=MetricsSettings(extremes=False, ina260_names=True))
    charge = replace(NODE, metrics=MetricsSettings(extremes=False, charge=True))
    return {
        "group_by_device.prom": per_device,
        "group_by_node.prom": text_of(make_groups(snapshot, NODE, "node")[0].registry),
        "scrape.prom": text_of(scrape_registry(snapshot, NODE)),
        "ina260_names_without_extremes.prom": text_of(scrape_registry(snapshot, ina260_names)),
        "group_by_node_with_charge.prom": text_of(make_groups(snapshot, charge, "node")[0].registry),
    }


NAMES_OF_NODES = (
    "group_by_node.prom",
    "scrape.prom",
    "ina260_names_without_extremes.prom",
    "group_by_node_with_charge.prom",
)


@pytest.mark.parametrize("name", ["group_by_device.prom", *NAMES_OF_NODES])
def test_the_exposition_matches_the_golden_file(name: str, request: pytest.FixtureRequest) -> None:
    made = golden_files()[name]
    if request.config.getoption("--update-golden", default=False):
        (GOLDEN / name).write_text(made, encoding="utf-8")
    assert made == (GOLDEN / name).read_text(encoding="utf-8"), (
        "intended? then run pytest tests/metrics --update-golden"
    )


@pytest.mark.parametrize("name", NAMES_OF_NODES)
def test_promtool_accepts_the_exposition(name: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        message = "needs promtool: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=(GOLDEN / name).read_bytes(), capture_output=True, timeout=30, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_no_label_repeats_the_grouping_key() -> None:
    for group_by in GROUPINGS:
        for group in make_groups(simulated_snapshot(), NODE, group_by):
            for family in group.registry.collect():
                for sample in family.samples:
                    assert not set(sample.labels) & {*group.grouping_key, "job", "instance"}, sample


def test_there_are_no_created_series() -> None:
    for group_by in GROUPINGS:
        for group in make_groups(simulated_snapshot(), NODE, group_by):
            names = {sample.name for family in group.registry.collect() for sample in family.samples}
            assert not {name for name in names if name.endswith("_created")}
            assert names


def test_groups_and_grouping_keys_have_the_same_order() -> None:
    snapshot = simulated_snapshot()
    for group_by in GROUPINGS:
        made = [group.grouping_key for group in make_groups(snapshot, NODE, group_by)]
        assert made == grouping_keys(NODE, group_by)
    assert grouping_keys(NODE, "node") == [{"hostname": "node-17"}]
    assert grouping_keys(NODE, "device")[0] == {"hostname": "node-17", "device": "cpu"}
    assert grouping_keys(NODE, "device")[-1] == {"hostname": "node-17"}


def names_in(registry: CollectorRegistry) -> set[str]:
    return {sample.name for family in registry.collect() for sample in family.samples}


def test_the_configuration_switches_the_optional_series() -> None:
    snapshot = simulated_snapshot()

    def names(**metrics: bool) -> set[str]:
        return names_in(scrape_registry(snapshot, replace(NODE, metrics=MetricsSettings(**metrics))))

    usual = names()
    assert {"wattpush_device_min_volts", "wattpush_device_max_watts"} <= usual
    assert usual - names(extremes=False) == {
        f"wattpush_device_{which}_{unit}" for which in ("min", "max") for unit in ("volts", "amperes", "watts")
    }
    assert names(charge=True) - usual == {"wattpush_device_coulombs_total", "wattpush_device_returned_coulombs_total"}
    assert names(ina260_names=True) - usual == {
        "ina260_voltage_volts",
        "ina260_current_amperes",
        "ina260_power_watts",
    }


def test_only_ina260s_have_the_ina260_names() -> None:
    settings = replace(NODE, metrics=MetricsSettings(ina260_names=True))
    made = make_groups(simulated_snapshot(), settings, "device")
    with_names = [group.grouping_key["device"] for group in made if "ina260_power_watts" in names_in(group.registry)]
    assert with_names == ["cpu"]  # the other INA260 is unplugged, so it has no means


@pytest.mark.parametrize("charge", [False, True])
def test_counters_that_could_not_be_saved_are_not_published(*, charge: bool) -> None:
    snapshot = replace(simulated_snapshot(), has_counters=False)
    for group in make_groups(snapshot, replace(NODE, metrics=MetricsSettings(charge=charge)), "device"):
        names = {name for name in names_in(group.registry) if not name.startswith("process_")}
        assert not {name for name in names if name.endswith("_total")}
        assert names & {"wattpush_device_up", "wattpush_agent_info"}


def test_a_device_read_by_the_kernel_has_empty_bus_labels() -> None:
    module = Device("module", "hwmon", sensor="ina3221", label="VDD_IN")
    device = DeviceSnapshot(
        "module", Counters(), Means(1, 2, 2), Extremes(1, 1, 2, 2, 2, 2), is_up=True, last_read_unix_seconds=5.0
    )
    info = AgentInfo("1", "3", "", "", is_simulated=False, start_time_seconds=0)
    snapshot = Snapshot((device,), info, AgentCounters(), None, None, has_counters=True)
    text = text_of(make_groups(snapshot, Settings("node-17", (module,)), "device")[0].registry)
    assert 'wattpush_device_info{address="",bus="",channel="",chip="hwmon",input="",mux=""} 1.0' in text


def test_unknown_durations_are_left_out() -> None:
    snapshot = replace(simulated_snapshot(), push_seconds=None, sweep_seconds=None)
    names = names_in(make_groups(snapshot, NODE, "device")[-1].registry)
    assert not names & {"wattpush_agent_push_seconds", "wattpush_agent_sweep_seconds"}
    assert "wattpush_agent_pushes_total" in names


def test_the_agents_memory_and_cpu_time_are_published() -> None:
    names = names_in(make_groups(simulated_snapshot(), NODE, "device")[-1].registry)
    assert {"process_resident_memory_bytes", "process_cpu_seconds_total"} <= names
