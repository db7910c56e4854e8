"""The dashboards of deploy/grafana: every query of every panel on a real Prometheus with a real fleet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.prometheus.fleet import ALIVE, CEILING_WATTS, FLOOR_VOLTS, JOBS, STALE_SECONDS, VOLTS_AND_AMPERES, WATTS
from tests.prometheus.test_rules import ALERTS, anchors
from tests.run.running import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from tests.prometheus.fleet import Fleet, Series

FOLDER = PROJECT / "deploy" / "grafana" / "dashboards"
DASHBOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]
PANEL_IDS = [f"{name}: {panel['title']}" for name, panel in PANELS]
RANGE_SECONDS = 3600


@dataclass(frozen=True, eq=False)
class Between:
    """Equal to any number between two values."""

    low: float
    high: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float | int) and self.low <= other <= self.high

    def __hash__(self) -> int:
        raise TypeError("equal to many numbers")


@dataclass(frozen=True, eq=False)
class PartOf:
    """Equal to any part of a mapping."""

    whole: Mapping[Any, Any]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and all(
            key in self.whole and value == self.whole[key] for key, value in other.items()
        )

    def __hash__(self) -> int:
        raise TypeError("equal to many mappings")


@dataclass(frozen=True)
class Chosen:
    """The values of the dashboard's variables, and the nodes and devices that they select."""

    hostnames: tuple[str, ...]
    devices: tuple[str, ...]
    variables: Mapping[str, str]
    lived_seconds: float
    times_alerts: bool
    counts_stopped: bool

    @property
    def fires_for(self) -> Between | None:
        """How many seconds an alert has fired; None if the database does not say it of all of them."""
        return Between(0, self.lived_seconds) if self.times_alerts else None

    @property
    def alive(self) -> tuple[str, ...]:
        return tuple(name for name in self.hostnames if name in ALIVE)

    @property
    def counted(self) -> tuple[str, ...]:
        """The nodes whose counters have an increase."""
        return self.hostnames if self.counts_stopped else self.alive

    def all_hosts(self, value: Callable[[str], Any], hostnames: Iterable[str] | None = None) -> dict[Any, Any]:
        return {
            (("hostname", name), ("job", JOBS[name])): value(name)
            for name in (self.alive if hostnames is None else hostnames)
        }

    def all_devices(self, value: Callable[[str, str], Any], hostnames: Iterable[str] | None = None) -> dict[Any, Any]:
        return {
            (("device", device), ("hostname", name), ("job", JOBS[name])): value(name, device)
            for name in (self.alive if hostnames is None else hostnames)
            for device in self.devices
        }

    def watts(self) -> dict[Any, Any]:
        return self.all_devices(lambda _, device: pytest.approx(WATTS[device], rel=1e-3))

    def volts(self) -> dict[Any, Any]:
        return self.all_devices(lambda _, device: pytest.approx(VOLTS_AND_AMPERES[device][0], rel=1e-3))

    def amperes(self) -> dict[Any, Any]:
        return self.all_devices(lambda _, device: pytest.approx(VOLTS_AND_AMPERES[device][1], rel=1e-3))

    def total_watts(self) -> float:
        return len(self.alive) * sum(WATTS[device] for device in self.devices)

    def kwh(self, watts: float) -> Between:
        """The energy of that power: of some seconds at least, of the fleet's whole life at most."""
        return Between(*sorted(max(0.0, watts) * seconds / 3.6e6 for seconds in (4.0, self.lived_seconds + 2)))

    def ampere_hours(self, device: str, *, back: bool = False) -> Between:
        """The charge of that device, delivered or returned, in the same times."""
        amperes = max(0.0, VOLTS_AND_AMPERES[device][1] * (-1 if back else 1))
        return Between(*(amperes * seconds / 3600 for seconds in (4.0, self.lived_seconds + 2)))

    def total_kwh(self, factor: float = 1.0) -> Between:
        return self.kwh(factor * len(self.alive) * sum(max(0.0, WATTS[device]) for device in self.devices))

    def device_kwh(self) -> dict[Any, Any]:
        return self.all_devices(lambda name, device: self.kwh(WATTS[device] if name in ALIVE else 0.0), self.counted)

    def coverage(self) -> dict[Any, Any]:
        share = Between(4.0 / RANGE_SECONDS, (self.lived_seconds + 2) / RANGE_SECONDS)
        return self.all_devices(lambda name, _: share if name in ALIVE else 0.0, self.counted)

    def state(self, name: str, device: str) -> int:
        """Its number in a table: stale, no readings, voltage low, good."""
        if name not in ALIVE:
            return 0
        return 2 if device == "disk" else 3

    def limit(self, device: str, value: float) -> dict[Any, Any]:
        """A limit that one device has."""
        found = self.all_devices(lambda *_: value, self.hostnames)
        return {labels: limit for labels, limit in found.items() if ("device", device) in labels}

    def age(self, name: str) -> Between:
        return Between(0, STALE_SECONDS) if name in ALIVE else Between(STALE_SECONDS, 1e4)


@dataclass(frozen=True, eq=False)
class Alerts:
    """Equal to the alerts that fire for these nodes, with such values. The last node is stale, or will be in a moment.

    The value None stands for any, also for alerts without one.
    """

    hostnames: tuple[str, ...]
    value: Between | float | None = 1.0

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, dict)
        fires = {
            tuple(dict(labels).get(key, "") for key in ("alertname", "severity", "hostname", "device"))
            for labels in other
        }
        alive = [name for name in self.hostnames if name in ALIVE]
        expected = {("WattpushSimulated", "warning", name, "") for name in alive}
        expected |= {("WattpushUnderVoltage", "warning", name, "disk") for name in alive}
        possible = {("WattpushNodeStale", "critical", name, "") for name in self.hostnames if name not in ALIVE}
        return (
            (self.value is None or expected <= fires)
            and fires <= expected | possible
            and (self.value is None or all(value == self.value for value in other.values()))
            and all(dict(labels)["runbook"] == dict(labels)["alertname"] for labels in other)
        )

    def __hash__(self) -> int:
        raise TypeError("equal to many mappings")


def places(chosen: Chosen) -> dict[Any, Any]:
    channels = list(WATTS)
    return {
        (
            ("address", "0x40"),
            ("bus", "1"),
            ("channel", str(channels.index(dict(labels)["device"]))),
            ("chip", "ina260"),
            *labels,
            ("mux", "m0"),
        ): 1
        for labels in chosen.all_devices(lambda *_: 1)
    }


EXPECTED: dict[tuple[str, str, str], Callable[[Chosen], Mapping[Any, Any] | PartOf | Alerts]] = {
    ("fleet", "Power now", "A"): lambda of: {(): pytest.approx(of.total_watts(), rel=1e-3)},
    ("fleet", "Energy, last 24 hours", "A"): lambda of: {(): of.total_kwh()},
    ("fleet", "Energy, last 30 days", "A"): lambda of: {(): of.total_kwh()},
    ("fleet", "Cost, last 30 days", "A"): lambda of: {(("currency", "EUR"),): of.total_kwh(0.30)},
    ("fleet", "Nodes", "A"): lambda of: {(): len(of.alive)},
    ("fleet", "Nodes", "B"): lambda of: {(): len(of.hostnames) - len(of.alive)},
    # The stopped one, if the others took half a minute to start.
    ("fleet", "Alerts firing", "A"): lambda _: {(): Between(0, 1)},
    # Three nodes are simulated, and each has a disk whose voltage is low.
    ("fleet", "Alerts firing", "B"): lambda _: {(): 6},
    ("fleet", "Alerts", "A"): lambda _: Alerts(tuple(JOBS)),
    ("fleet", "Alerts", "B"): lambda of: Alerts(tuple(JOBS), of.fires_for),
    ("fleet", "Power by node", "A"): lambda of: {
        (("hostname", name),): pytest.approx(sum(WATTS[device] for device in of.devices), rel=1e-3) for name in of.alive
    },
    ("fleet", "Devices", "A"): lambda of: of.all_devices(of.state, of.hostnames),
    ("fleet", "Devices", "B"): Chosen.watts,
    ("fleet", "Devices", "C"): Chosen.volts,
    ("fleet", "Devices", "D"): Chosen.amperes,
    ("fleet", "Devices", "E"): Chosen.device_kwh,
    ("fleet", "Devices", "F"): Chosen.coverage,
    ("fleet", "Devices", "G"): lambda of: of.all_devices(lambda name, _: of.age(name), of.hostnames),
    # Some samples of one push may wait. Nothing is lost.
    ("fleet", "Waiting for remote write, by node", "A"): lambda of: {
        (("hostname", name),): Between(0, 1e4) for name in of.alive
    },
    ("fleet", "Samples lost by node", "A"): lambda _: {},
    ("fleet", "Samples lost by node", "B"): lambda _: {},
    ("fleet", "Samples lost by node", "C"): lambda _: {},
    ("node", "Is it sending?", "A"): lambda _: {(): 1},
    ("node", "Is it sending?", "B"): lambda of: {(): of.age(of.hostnames[0])},
    ("node", "Alerts", "A"): lambda of: Alerts(of.hostnames),
    ("node", "Alerts", "B"): lambda of: Alerts(of.hostnames, of.fires_for),
    ("node", "Power now", "A"): lambda of: {(): pytest.approx(of.total_watts(), rel=1e-3)},
    ("node", "Energy", "A"): Chosen.device_kwh,
    ("node", "Coverage", "A"): Chosen.coverage,
    ("node", "Power of $device", "A"): Chosen.watts,
    ("node", "Power of $device", "B"): Chosen.watts,
    ("node", "Power of $device", "C"): Chosen.watts,
    ("node", "Power of $device", "D"): lambda of: of.limit("cpu", CEILING_WATTS),
    ("node", "Voltage of $device", "A"): Chosen.volts,
    ("node", "Voltage of $device", "B"): Chosen.volts,
    ("node", "Voltage of $device", "C"): Chosen.volts,
    ("node", "Voltage of $device", "D"): lambda of: of.limit("disk", FLOOR_VOLTS),
    ("node", "Current", "A"): Chosen.amperes,
    ("node", "Energy per hour", "A"): Chosen.device_kwh,
    ("node", "Energy per hour", "B"): lambda of: {
        labels: Between(-of.kwh(12.0).high, -of.kwh(12.0).low)
        for labels in of.all_devices(lambda *_: 0)
        if ("device", "battery") in labels
    },
    ("node", "Charge per hour", "A"): lambda of: of.all_devices(
        lambda name, device: of.ampere_hours(device) if name in ALIVE else 0.0, of.counted
    ),
    ("node", "Charge per hour", "B"): lambda of: {
        labels: Between(-charge.high, -charge.low)
        for labels, charge in of.all_devices(lambda _, device: of.ampere_hours(device, back=True)).items()
        if charge.high > 0
    },
    ("node", "Charge balance", "A"): lambda of: of.all_devices(
        lambda _, device: Between(
            of.ampere_hours(device).low - of.ampere_hours(device, back=True).high,
            of.ampere_hours(device).high - of.ampere_hours(device, back=True).low,
        )
    ),
    ("node", "Errors and missed readings", "A"): lambda of: of.all_devices(lambda *_: 0),
    ("node", "Errors and missed readings", "B"): lambda of: of.all_devices(lambda *_: 0),
    # A busy machine may miss a few.
    ("node", "Errors and missed readings", "C"): lambda of: of.all_hosts(lambda _: Between(0, 1e3)),
    ("node", "Errors and missed readings", "D"): lambda of: of.all_hosts(lambda _: Between(0, 1e3)),
    ("node", "Errors on the bus, caught", "A"): lambda of: of.all_devices(lambda *_: 0),
    ("node", "Errors on the bus, caught", "B"): lambda of: of.all_devices(lambda *_: 0),
    ("node", "Errors on the bus, caught", "C"): lambda of: of.all_hosts(lambda _: 0),
    ("node", "Time to read and to push", "A"): lambda of: of.all_hosts(lambda _: Between(1e-6, 10)),
    # A node that is only scraped pushes nothing.
    ("node", "Time to read and to push", "B"): lambda of: of.all_hosts(
        lambda _: Between(1e-6, 10), set(of.alive) - {"node-s-simulated"}
    ),
    ("node", "Processor use of the agent", "A"): lambda of: of.all_hosts(lambda _: Between(1e-6, 2)),
    ("node", "Memory of the agent", "A"): lambda of: of.all_hosts(lambda _: Between(5e6, 1e9)),
    ("node", "Waiting for remote write", "A"): lambda of: of.all_hosts(lambda _: Between(0, 1e4)),
    ("node", "Size of what waits", "A"): lambda of: of.all_hosts(lambda _: Between(0, 1e6)),
    ("node", "Size of what waits", "B"): lambda of: of.all_hosts(lambda _: 64e6),
    # Empty where nothing waits.
    ("node", "Oldest sample waiting", "A"): lambda of: PartOf(of.all_hosts(lambda _: Between(0, 60))),
    # Three devices, each with more than a dozen series, once a second.
    ("node", "Samples sent by remote write", "A"): lambda of: of.all_hosts(lambda _: Between(10, 1e3)),
    ("node", "Samples sent by remote write", "B"): lambda of: of.all_hosts(lambda _: 0),
    ("node", "Samples sent by remote write", "C"): lambda of: of.all_hosts(lambda _: 0),
    ("node", "Samples sent by remote write", "D"): lambda of: of.all_hosts(lambda _: 0),
    ("node", "Where each device is connected", "A"): places,
    ("node", "Version of the agent", "A"): lambda of: of.all_hosts(lambda _: 1),
}


def substituted(expression: str, variables: Mapping[str, str]) -> str:
    """Fill in the variables as Grafana does: with a scrape interval of 2 s, $__rate_interval is 8 s."""
    built_in = {
        "__rate_interval": "8s",
        "__interval": f"{RANGE_SECONDS}s",
        "__range": f"{RANGE_SECONDS}s",
        "__range_s": str(RANGE_SECONDS),
    }
    text = re.sub(r"\$(\w+)", lambda found: {**built_in, **variables}[found[1]], expression)
    assert "$" not in text
    return text


def normalised(found: Series) -> Series:
    """The labels without those that depend on the scrape or the agent's version."""
    drop = {"instance", "version", "python_version", "blinka_version", "machine"}
    short = {tuple(label for label in labels if label[0] not in drop): value for labels, value in found.items()}
    assert len(short) == len(found)
    return short


def choices(name: str, fleet: Fleet) -> list[Chosen]:
    every = tuple(WATTS)
    if name == "fleet":
        all_of_each = {"job": ".+", "hostname": ".+", "device": ".+"}
        everything = Chosen(
            tuple(JOBS), every, all_of_each, fleet.lived_seconds, fleet.times_alerts, fleet.counts_stopped
        )
        some = {"job": "(power)", "hostname": "(node-d-simulated|node-n-simulated)", "device": "(cpu|disk)"}
        return [
            everything,
            Chosen(
                ("node-d-simulated", "node-n-simulated"),
                ("cpu", "disk"),
                some,
                fleet.lived_seconds,
                fleet.times_alerts,
                fleet.counts_stopped,
            ),
        ]
    return [
        Chosen(
            (host,),
            every,
            {"job": ".+", "hostname": host, "device": ".+"},
            fleet.lived_seconds,
            fleet.times_alerts,
            fleet.counts_stopped,
        )
        for host in ALIVE
    ]


def repeated(panel: Mapping[str, Any], chosen: Chosen) -> list[Chosen]:
    """A repeated panel appears once for each device, with that device as `$device`."""
    if "repeat" not in panel:
        return [chosen]
    assert panel["repeat"] == "device"
    return [
        replace(chosen, devices=(device,), variables={**chosen.variables, "device": device})
        for device in chosen.devices
    ]


QUERIES = [(name, panel, target) for name, panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize(
    ("name", "panel", "target"),
    QUERIES,
    ids=[f"{name}: {panel['title']} {target['refId']}" for name, panel, target in QUERIES],
)
def test_a_panel_shows_the_right_values_in_every_grouping(
    name: str, panel: dict[str, Any], target: dict[str, Any], fleet: Fleet
) -> None:
    expected = EXPECTED[name, panel["title"], target["refId"]]
    for chosen in (one for choice in choices(name, fleet) for one in repeated(panel, choice)):
        ask = fleet.query if target["instant"] else fleet.last_of_range
        assert normalised(ask(substituted(target["expr"], chosen.variables))) == expected(chosen), chosen


def test_a_stopped_node_shows_only_its_age_and_energy(fleet: Fleet) -> None:
    variables = {"job": ".+", "hostname": "node-x-simulated", "device": ".+"}
    shown = set()
    for name, panel, target in QUERIES:
        found = fleet.query(substituted(target["expr"], variables))
        if any(("hostname", "node-x-simulated") in labels for labels in found):
            shown.add(panel["title"])
            assert name == "node" or panel["title"] == "Devices"
    # Tables about the node itself, and counters that stand still.
    expected = {
        "Devices",
        "Where each device is connected",
        "Version of the agent",
        "Power of $device",
        "Voltage of $device",
    }
    if fleet.counts_stopped:
        expected |= {"Energy", "Coverage", "Energy per hour", "Charge per hour"}
    if fleet.way == "scrape":
        expected |= {
            "Errors and missed readings",
            "Errors on the bus, caught",
            "Processor use of the agent",
            "Samples sent by remote write",
        }
    assert shown == expected


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_variables_offer_the_existing_values(name: str, fleet: Fleet) -> None:
    offered = {}
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert found is not None
            series = substituted(found[1], {"job": ".+", "hostname": ".+" if name == "fleet" else "node-n-simulated"})
            offered[variable["name"]] = fleet.label_values(series, found[2])
    assert offered == {"job": {"power", "wattpush"}, "hostname": set(JOBS), "device": set(WATTS)}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_only_multi_value_variables_are_matched_as_patterns(name: str) -> None:
    """Grafana escapes pattern characters, such as the dot in node-1.example, only in multi-value variables."""
    signs = {
        variable["name"]: '=~"' if variable.get("multi") else '="'
        for variable in DASHBOARDS[name]["templating"]["list"]
        if variable["type"] == "query"
    }
    assert signs["hostname"] == {"fleet": '=~"', "node": '="'}[name]
    used = re.findall(r'(=~?")\$(job|hostname|device)"', FOLDER.joinpath(f"{name}.json").read_text().replace("\\", ""))
    assert {sign for sign, variable in used if sign != signs[variable]} == set()
    assert {variable for _, variable in used} == set(signs)


def test_panels_of_charge_say_which_key_brings_their_series() -> None:
    charge = {
        panel["title"]: panel["fieldConfig"]["defaults"].get("noValue")
        for _, panel in PANELS
        if any("coulombs" in target["expr"] for target in panel["targets"])
    }
    assert set(charge) == {"Charge per hour", "Charge balance"}
    assert set(charge.values()) == {"No data: set [metrics] charge = true"}


def test_every_expectation_belongs_to_an_existing_query() -> None:
    assert set(EXPECTED) == {(name, panel["title"], target["refId"]) for name, panel, target in QUERIES}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="the SDK that makes the dashboards needs Python 3.11")
def test_the_dashboards_are_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "scripts.dashboards", tmp_path], cwd=PROJECT, check=True, timeout=60)
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
    assert made == committed, "run: make generated"


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=PANEL_IDS)
def test_a_panel_has_a_description_a_unit_and_any_data_source(name: str, panel: dict[str, Any]) -> None:
    del name
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    for target in panel["targets"]:
        assert target["datasource"] == panel["datasource"]
        # A fixed window leaves gaps when zoomed out and is empty where scrapes are rare.
        windows = re.findall(r"\[(.+?)\]", target["expr"])
        assert set(windows) <= {"$__rate_interval", "$__interval", "$__range"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    numbers = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=PANEL_IDS)
def test_every_column_of_a_table_has_a_title(name: str, panel: dict[str, Any]) -> None:
    del name
    if panel["type"] != "table":
        return
    (organize,) = (one["options"] for one in panel["transformations"] if one["id"] == "organize")
    targets = panel["targets"]
    values = [f"Value #{target['refId']}" for target in targets] if len(targets) > 1 else ["Value"]
    for value in values:
        assert value in organize["renameByName"] or organize["excludeByName"][value]


def test_every_link_to_a_runbook_leads_to_one() -> None:
    """Links end with an anchor, or with the value of a column, which a mapping turns into one."""
    books = anchors(PROJECT / "docs" / "alerts.md")
    linked = set()
    for _, panel in PANELS:
        for link in panel.get("links", ()):
            address, _, anchor = link["url"].partition("#")
            assert address == "${runbooks:raw}"
            linked.add(anchor)
        if panel["title"] == "Alerts":
            (override,) = [
                one["properties"]
                for one in panel["fieldConfig"]["overrides"]
                if one["matcher"]["options"] == "What to do"
            ]
            (mapping,), (link,) = (one["value"] for one in override)
            assert link["url"] == "${runbooks:raw}#${__value.text}"
            assert {name: to["text"] for name, to in mapping["options"].items()} == {
                name: name.lower() for name in ALERTS
            }
    assert linked | {name.lower() for name in ALERTS} <= set(books)
    assert len(linked) > 5


def test_panels_that_need_time_say_so_while_they_are_empty() -> None:
    slow = {panel["title"]: panel for _, panel in PANELS if "increase30d" in panel["targets"][0]["expr"]}
    assert len(slow) == 2
    for panel in slow.values():
        assert panel["fieldConfig"]["defaults"]["noValue"] == "No data yet: takes 20 minutes"


def test_a_number_with_a_curve_shows_the_present() -> None:
    """The last value that was not empty may be an old one: so every point has a value, and the last one is shown."""
    drawn = [panel for _, panel in PANELS if panel["type"] == "stat" and panel["options"]["graphMode"] == "area"]
    assert {panel["title"] for panel in drawn} == {"Power now", "Nodes", "Alerts firing"}
    for panel in drawn:
        assert panel["options"]["reduceOptions"]["calcs"] == ["last"]
        assert (panel["timeFrom"], panel["maxDataPoints"]) == ("1h", 240)
        assert all(target["expr"].endswith(" or vector(0)") for target in panel["targets"])


def test_annotations_mark_the_start_of_every_agent(fleet: Fleet) -> None:
    variables = {"job": ".+", "hostname": "node-n-simulated", "device": ".+"}
    for dashboard in DASHBOARDS.values():
        starts, resets = dashboard["annotations"]["list"]
        assert starts["useValueForTime"]
        (start_ms,) = fleet.query(substituted(starts["expr"], variables)).values()
        assert fleet.at_seconds - fleet.lived_seconds <= start_ms / 1000 <= fleet.at_seconds
        # No chip of the fleet has lost its power.
        assert fleet.query(substituted(resets["expr"], variables)) == {}
