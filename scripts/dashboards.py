"""Write the Grafana dashboards: python -m scripts.dashboards [FOLDER], by default to deploy/grafana/dashboards.

The Grafana SDK needs Python 3.11.

A gateway keeps showing the last values of a stale node, so gauges are masked with `wattpush:device_age:fresh` from
deploy/prometheus/rules/recordings.yml. Counters need no mask: those of a stale node stand still. Nor do the curves of a
node without a gateway: its series end by themselves, and a mask would hide what remote write brought after an outage,
because no rule evaluates the past again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from grafana_foundation_sdk.builders import common, dashboard, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import StackingMode
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, DynamicConfigValue

from scripts.dashboard_parts import (
    BAD,
    GOOD,
    NOTE,
    PLAIN,
    SOURCE,
    Column,
    any_of,
    choice,
    coloured_by,
    curves,
    hourly_bars,
    instant,
    legend,
    number,
    query,
    rows,
    runbook,
    texts,
    with_last_hour,
    with_limit,
    with_names,
)

DEPLOY = Path(__file__).parents[1] / "deploy"
FOLDER = DEPLOY / "grafana" / "dashboards"

NODE = 'job=~"$job", hostname=~"$hostname"'
DEVICE = f'{NODE}, device=~"$device"'
BY_DEVICE = "job, hostname, device"
FRESH = f"and on ({BY_DEVICE}) wattpush:device_age:fresh"
# The masks of curves; the first is per device, the second per node.
SHOWN = (
    f"and on ({BY_DEVICE}) (wattpush:device_age:fresh{{{DEVICE}}} or "
    f"(wattpush_device_up{{{DEVICE}}} unless on (job, hostname) push_time_seconds{{{NODE}}}))"
)
NODE_SHOWN = (
    f"and on (job, hostname) (wattpush:node_age:fresh{{{NODE}}} or "
    f"(wattpush_agent_info{{{NODE}}} unless on (job, hostname) push_time_seconds{{{NODE}}}))"
)
WINDOW = "[$__rate_interval]"
MONTH_NEEDS = "No data yet: takes 20 minutes"

ALERTS = [
    rule["alert"]
    for rule in yaml.safe_load((DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text())["groups"][0]["rules"]
]

# Low coverage is no fault: a new node has it over any long range.
COVERED = coloured_by((None, NOTE), (0.9, "yellow"), (0.99, GOOD))


def band(title: str, description: str, unit: str, mean: str, quantity: str) -> timeseries.Panel:
    """The mean of one device inside the band between its lowest and highest readings, repeated for each device."""
    panel = curves(
        title,
        description,
        unit,
        query(mean, "mean", "A"),
        query(f"min_over_time(wattpush_device_min_{quantity}{{{DEVICE}}}{WINDOW}) {SHOWN}", "lowest", "B"),
        query(f"max_over_time(wattpush_device_max_{quantity}{{{DEVICE}}}{WINDOW}) {SHOWN}", "highest", "C"),
    )
    legend(panel, "mean", "min", "max", "lastNotNull")
    edge = [
        DynamicConfigValue("custom.lineWidth", 0),
        DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "blue"}),
    ]
    panel.override_by_name("lowest", edge)
    panel.override_by_name(
        "highest",
        [*edge, DynamicConfigValue("custom.fillBelowTo", "lowest"), DynamicConfigValue("custom.fillOpacity", 25)],
    )
    panel.override_by_name("mean", [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": "blue"})])
    return panel.repeat("device").repeat_direction("h")


def new_dashboard(uid: str, title: str, description: str, time_from: str) -> dashboard.Dashboard:
    return (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["wattpush"])
        .timezone("browser")
        .time(time_from, "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .editable()
        .link(
            dashboard.DashboardLink("wattpush")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["wattpush"])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .annotations(
            [
                dashboard.AnnotationQuery()
                .name(name)
                .datasource(SOURCE)
                .enable(True)
                .icon_color(colour)
                .expr(expression)
                for name, (expression, colour, _) in EVENTS.items()
            ]
        )
    )


# Vertical lines in all curves: the query, its colour, and keys that only Grafana's Prometheus data source knows.
EVENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "Agent restarts": (
        # The value is the time of the event: one line for each start, however long the agent was away.
        f"1000 * wattpush_agent_start_time_seconds{{{NODE}}}",
        "blue",
        {"titleFormat": "Agent started", "textFormat": "{{hostname}}", "useValueForTime": True},
    ),
    "Chip resets": (
        f"increase(wattpush_device_resets_total{{{DEVICE}}}{WINDOW}) > 0",
        NOTE,
        {"titleFormat": "Chip lost power", "textFormat": "{{device}} of {{hostname}}"},
    ),
}

RUNBOOKS = (
    dashboard.TextBoxVariable("runbooks")
    .label("Runbooks at")
    .description("The address of your copy of docs/alerts.md. Links to runbooks begin with it.")
    .default_value("https://git.example.org/wattpush/docs/alerts.md")
)
JOBS = any_of(choice("job", "Job", "wattpush_agent_info"))
HOSTNAME = 'wattpush_agent_info{job=~"$job"}'
DEVICES = any_of(choice("device", "Device", f"wattpush_device_up{{{NODE}}}"))


def energy(window: str) -> str:
    """Kilowatt-hours per device within a window."""
    return f"sum by ({BY_DEVICE}) (increase(wattpush_device_joules_total{{{DEVICE}}}{window})) / 3.6e6"


def recent(series: str) -> str:
    """The last value per node, within a short window: without it, a value stays for five minutes."""
    return f"last_over_time({series}{{{NODE}}}{WINDOW}) {NODE_SHOWN}"


def coverage() -> str:
    """The measured share of the selected time range, per device."""
    measured = f"increase(wattpush_device_measured_seconds_total{{{DEVICE}}}[$__range])"
    return f"clamp_max(sum by ({BY_DEVICE}) ({measured}) / $__range_s, 1)"


def power_now(description: str) -> stat.Panel:
    # Zero is "none": the sum over no device that sends is no measurement.
    return with_last_hour(
        number(
            "Power now",
            f"The sum over all devices of the last mean power, and its last hour. {description}",
            "watt",
            query(f"sum(wattpush:device_watts:fresh{{{DEVICE}}}) or vector(0)"),
        ).mappings(texts({"0": ("none", NOTE)}))
    )


def fleet_numbers() -> list[stat.Panel]:
    return [
        power_now(
            "Stale nodes are left out. Where one device feeds another, that power counts twice: select devices above."
        ),
        number(
            "Energy, last 24 hours",
            "Energy delivered to all devices. Unmeasured time is left out: see the coverage below.",
            "kwatth",
            instant(f"sum(wattpush:device_kwh:increase1d{{{DEVICE}}})"),
        )
        .decimals(2)
        .no_value("No data yet: takes 4 minutes"),
        number(
            "Energy, last 30 days",
            "The same over 30 days, or over the time that there are samples of, if that is shorter.",
            "kwatth",
            instant(f"sum(wattpush:device_kwh:increase30d{{{DEVICE}}})"),
        )
        .decimals(1)
        .no_value(MONTH_NEEDS),
        with_names(
            number(
                "Cost, last 30 days",
                "At the tariff in deploy/prometheus/rules/limits.yml.",
                "none",
                instant(f"sum by (currency) (wattpush:device_cost:increase30d{{{DEVICE}}})", "{{currency}}"),
            )
            .decimals(2)
            .no_value(MONTH_NEEDS)
        ),
        fleet_nodes(),
        alerts_firing(),
    ]


def fleet_nodes() -> stat.Panel:
    panel = number(
        "Nodes",
        "Sending: data arrived within wattpush:stale_after:seconds, by a push, a scrape or remote write. Stale: none "
        "did; a gateway only shows the node's last values.",
        "none",
        query(f"count(wattpush:node_age:fresh{{{NODE}}}) or vector(0)", "sending", "A"),
        query(f"count(wattpush:node_age:seconds{{{NODE}}} unless wattpush:node_age:fresh) or vector(0)", "stale", "B"),
    )
    panel.override_by_name("stale", coloured_by((None, PLAIN), (1, BAD)))
    return with_last_hour(with_names(panel)).links([runbook("WattpushNodeStale")])


def alerts_firing() -> stat.Panel:
    def count(severity: str) -> str:
        alerts = f'ALERTS{{alertname=~"Wattpush.*", alertstate="firing", severity="{severity}"}}'
        return f"count({alerts}) or vector(0)"

    panel = number(
        "Alerts firing",
        "All alerts from deploy/prometheus/rules/alerts.yml, for every node: see the list below.",
        "none",
        query(count("critical"), "critical", "A"),
        query(count("warning"), "warning", "B"),
    )
    panel.override_by_name("critical", coloured_by((None, GOOD), (1, BAD)))
    panel.override_by_name("warning", coloured_by((None, GOOD), (1, NOTE)))
    return with_last_hour(with_names(panel))


def alert_list(description: str, selected: str = "") -> table.Panel:
    which = f'alertname=~"Wattpush.*"{selected}'
    firing = f'ALERTS{{{which}, alertstate="firing"}}'
    since = f"time() - ALERTS_FOR_STATE{{{which}}} and ignoring (alertstate) {firing}"

    def per_alert(values: str) -> str:
        by = "severity, alertname, hostname, device, job, instance"
        return f'label_join(max by ({by}) ({values}), "runbook", "", "alertname")'

    panel = rows(
        "Alerts",
        f"{description} The last column links to the runbook in docs/alerts.md: set the address of your copy above.",
        {
            "firing": Column(per_alert(firing), shown=False),
            # An older vmalert does not say it of alerts without `for`.
            "Firing for": Column(per_alert(since), "s", decimals=0),
        },
        {
            "severity": "Severity",
            "alertname": "Alert",
            "hostname": "Node",
            "device": "Device",
            "instance": "Address",
            "job": "Job",
            "runbook": "What to do",
        },
        sort={"Severity": False, "Firing for": True},
    )
    panel.override_by_name(
        "Severity",
        [
            DynamicConfigValue("mappings", texts({"critical": ("critical", BAD), "warning": ("warning", NOTE)})),
            DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
        ],
    )
    # The anchors of the document are in small letters.
    panel.override_by_name(
        "What to do",
        [
            DynamicConfigValue("mappings", texts({alert: (alert.lower(), PLAIN) for alert in ALERTS})),
            DynamicConfigValue(
                "links", [{"title": "Runbook", "url": "${runbooks:raw}#${__value.text}", "targetBlank": True}]
            ),
        ],
    )
    return panel.no_value("No alert fires").span(24).height(6)


def fleet_power() -> timeseries.Panel:
    panel = curves(
        "Power by node",
        "Mean power, stacked. A stale node is left out.",
        "watt",
        # Only devices that have a value at that point: the mean alone would keep one for one more window. Not the
        # recorded series, which has a hole where remote write has filled one.
        query(
            f"sum by (hostname) (avg_over_time(wattpush_device_watts{{{DEVICE}}}{WINDOW}) "
            f"and wattpush_device_watts {SHOWN})",
            "{{hostname}}",
        ),
    )
    panel.span(24).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A")).fill_opacity(40)
    return panel


# The order of the numbers is that of the table: what needs attention first.
STATES = {
    "0": ("stale", BAD),
    "1": ("no readings", BAD),
    "2": ("voltage low", NOTE),
    "3": ("good", GOOD),
}


TOO_LOW = f"< on ({BY_DEVICE}) group_left () wattpush:device_volts:floor"


def state() -> str:
    """Per device, the number of the first in STATES that applies."""
    up = f"sum by ({BY_DEVICE}) (wattpush_device_up{{{DEVICE}}} {FRESH})"
    lowest = f"wattpush_device_min_volts{{{DEVICE}}} or wattpush_device_volts{{{DEVICE}}}"
    return (
        f"0 * (wattpush:device_age:seconds{{{DEVICE}}} unless on ({BY_DEVICE}) wattpush:device_age:fresh)"
        f" or 1 + ({up} == 0)"
        f" or 2 + 0 * sum by ({BY_DEVICE}) (({lowest}) {TOO_LOW} {FRESH})"
        f" or 2 + {up}"
    )


def fleet_table() -> table.Panel:
    def last(series: str) -> str:
        return f"sum by ({BY_DEVICE}) ({series}{{{DEVICE}}} {FRESH})"

    link = {
        "title": "This node",
        "url": "/d/wattpush-node?var-hostname=${__value.text}&${datasource:queryparam}&${job:queryparam}",
    }
    background = DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"})
    text = DynamicConfigValue("custom.cellOptions", {"type": "color-text"})
    panel = rows(
        "Devices",
        "The last values of each device; empty if its node is stale or the device cannot be read. Voltage low: below "
        "the limit in limits.yml. Energy and coverage are for the selected time range; where the coverage is below "
        "100 %, the true energy is higher.",
        {
            "State": Column(state(), look=(DynamicConfigValue("mappings", texts(STATES)), background)),
            "Power": Column(last("wattpush_device_watts"), "watt", 2),
            "Voltage": Column(last("wattpush_device_volts"), "volt", 2),
            "Current": Column(last("wattpush_device_amperes"), "amp", 2),
            "Energy": Column(energy("[$__range]"), "kwatth", 3),
            "Coverage": Column(coverage(), "percentunit", look=(*COVERED, text)),
            "Newest data": Column(f"sum by ({BY_DEVICE}) (wattpush:device_age:seconds{{{DEVICE}}})", "s"),
        },
        {"hostname": "Node", "device": "Device", "job": "Job"},
        sort={"State": False, "Power": True},
    )
    panel.override_by_name("Node", [DynamicConfigValue("links", [link])])
    return panel.span(24).height(12)


def lost(counter: str) -> str:
    """Samples per node that will never be in the history, within a short window."""
    return f"sum by (hostname) (increase(wattpush_agent_remote_{counter}_samples_total{{{NODE}}}{WINDOW})) > 0"


def fleet_history() -> list[timeseries.Panel]:
    return [
        curves(
            "Waiting for remote write, by node",
            "Samples that wait on each node for its remote write server. They become more while the server is away, "
            "and fewer while the node catches up. A healthy node has those of one push at most.",
            "short",
            query(
                f"max by (hostname) ({recent('wattpush_agent_remote_backlog_samples')})",
                "{{hostname}}",
            ),
        ).links([runbook("WattpushBacklogGrows")]),
        curves(
            "Samples lost by node",
            "Samples that the history will never have: refused by the remote write server for good, given up because "
            "of the backlog's size, their age or the disk, or measured while the time was not known. Should be empty.",
            "short",
            query(lost("refused"), "{{hostname}} refused", "A"),
            query(lost("dropped"), "{{hostname}} dropped", "B"),
            query(lost("undated"), "{{hostname}} undated", "C"),
        )
        .no_value("None lost")
        .links([runbook(f"WattpushSamples{how}") for how in ("Refused", "Dropped", "Undated")]),
    ]


def fleet() -> dashboard.Dashboard:
    board = new_dashboard(
        "wattpush-fleet", "wattpush: fleet", "All nodes: power, energy, and which nodes still send.", "now-6h"
    )
    for variable in (JOBS, any_of(choice("hostname", "Node", HOSTNAME)), DEVICES, RUNBOOKS):
        board.with_variable(variable)
    alerts = alert_list("What fires now, for every node.")
    for panel in (*fleet_numbers(), fleet_power(), alerts, fleet_table(), *fleet_history()):
        board.with_panel(panel)
    return board


def node_numbers() -> list[stat.Panel]:
    return [
        node_state(),
        power_now("None if the node is stale."),
        with_names(
            number(
                "Energy",
                "Energy delivered to each device in the selected time range.",
                "kwatth",
                instant(energy("[$__range]"), "{{device}}"),
            )
        )
        .decimals(3)
        .no_value("No data yet")
        .span(8),
        with_names(
            number(
                "Coverage",
                "The measured share of the selected time range. The energy leaves out unmeasured time.",
                "percentunit",
                instant(coverage(), "{{device}}"),
            )
            .override_by_query("A", [*COVERED])
            .no_value("No data yet")
        ).span(8),
    ]


def node_state() -> stat.Panel:
    panel = number(
        "Is it sending?",
        "Stale: nothing arrived within wattpush:stale_after:seconds. Newest data: the time since the last push, by the "
        "gateway's clock, since the last scrape, or since the newest sample by remote write.",
        "none",
        instant(f"clamp_max(count(wattpush:node_age:fresh{{{NODE}}}), 1) or vector(0)", "state", "A"),
        instant(f"max(wattpush:node_age:seconds{{{NODE}}})", "newest data", "B"),
    )
    panel.override_by_name(
        "state", [DynamicConfigValue("mappings", texts({"0": ("stale", BAD), "1": ("sending", GOOD)}))]
    )
    panel.override_by_name("newest data", [DynamicConfigValue("unit", "s")])
    return with_names(panel).links([runbook("WattpushNodeStale")])


def node_bands() -> list[timeseries.Panel]:
    def rate(counter: str) -> str:
        return f"rate(wattpush_device_{counter}_total{{{DEVICE}}}{WINDOW})"

    watts = query(f"wattpush:device_watts:ceiling{{{DEVICE}}}", "highest allowed", "D")
    volts = query(f"wattpush:device_volts:floor{{{DEVICE}}}", "lowest allowed", "D")
    panels = (
        band(
            "Power of $device",
            "The true mean, computed from the energy counters and so exact at any zoom, with the band between the "
            "lowest and the highest reading. Negative values flow back. The dashed line is the limit in limits.yml.",
            "watt",
            f"({rate('joules')} - {rate('returned_joules')}) / ({rate('measured_seconds')} > 0)",
            "watts",
        ).with_target(watts),
        band(
            "Voltage of $device",
            "The mean, with the band between the lowest and the highest reading: it shows a supply that sags. The "
            "dashed line is the limit in limits.yml.",
            "volt",
            f"avg_over_time(wattpush_device_volts{{{DEVICE}}}{WINDOW}) {SHOWN}",
            "volts",
        ).with_target(volts),
    )
    return [with_limit(panel, name) for panel, name in zip(panels, ("highest allowed", "lowest allowed"), strict=True)]


def node_curves() -> list[timeseries.Panel]:
    current = curves(
        "Current",
        "Mean current. Negative values flow back.",
        "amp",
        query(f"avg_over_time(wattpush_device_amperes{{{DEVICE}}}{WINDOW}) {SHOWN}", "{{device}}"),
    )
    returned = f"increase(wattpush_device_returned_joules_total{{{DEVICE}}}[$__interval])"
    bars = hourly_bars(
        "Energy per hour",
        "Each bar covers one hour, or longer if the time range is long; the legend has their sums. Bars below zero are "
        "returned energy.",
        "kwatth",
        query(energy("[$__interval]"), "{{device}}", "A"),
        query(f"sum by ({BY_DEVICE}) ({returned}) / -3.6e6 < 0", "{{device}} returned", "B"),
    )
    return [current, bars, *node_charge(), *error_curves(), *(panel.span(8) for panel in agent_curves())]


def node_charge() -> list[timeseries.Panel]:
    """For batteries and solar panels. The series are there only with `[metrics] charge = true`."""

    def counter(name: str) -> str:
        return f"wattpush_device_{name}_total{{{DEVICE}}}"

    def increase(name: str) -> str:
        return f"sum by ({BY_DEVICE}) (increase({counter(name)}[$__interval]))"

    def last(name: str) -> str:
        return f"last_over_time({counter(name)}{WINDOW})"

    bars = hourly_bars(
        "Charge per hour",
        "Each bar covers one hour, or longer if the time range is long; the legend has their sums. Bars below zero are "
        "returned charge.",
        "amph",
        query(f"{increase('coulombs')} / 3600", "{{device}}", "A"),
        query(f"{increase('returned_coulombs')} / -3600 < 0", "{{device}} returned", "B"),
    )
    balance = curves(
        "Charge balance",
        "Charge delivered minus charge returned, since counting began: how far a battery is from where it was. The "
        "curve starts again at zero if the counters do.",
        "amph",
        query(f"({last('coulombs')} - {last('returned_coulombs')}) / 3600 {SHOWN}", "{{device}}"),
    )
    return [panel.no_value("No data: set [metrics] charge = true") for panel in (bars, balance)]


def error_curves() -> list[timeseries.Panel]:
    errors = curves(
        "Errors and missed readings",
        "Chip resets after a power loss, failed readings, readings skipped because a sweep took too long, and pushes "
        "in which a group failed: the number within a short window before each point. All should be zero.",
        "none",
        query(f"increase(wattpush_device_resets_total{{{DEVICE}}}{WINDOW})", "{{device}} chip resets", "A"),
        query(f"increase(wattpush_device_read_errors_total{{{DEVICE}}}{WINDOW})", "{{device}} read errors", "B"),
        query(f"increase(wattpush_agent_missed_samples_total{{{NODE}}}{WINDOW})", "missed samples", "C"),
        query(f"increase(wattpush_agent_push_failures_total{{{NODE}}}{WINDOW})", "push failures", "D"),
    )
    bus = curves(
        "Errors on the bus, caught",
        "Transfers repeated at once, readings discarded because a check contradicted them, and muxes that somebody "
        "else switched: the number within a short window before each point. A healthy bus has none.",
        "none",
        query(f"increase(wattpush_device_retries_total{{{DEVICE}}}{WINDOW})", "{{device}} retries", "A"),
        query(f"increase(wattpush_device_implausible_total{{{DEVICE}}}{WINDOW})", "{{device}} discarded", "B"),
        query(f"increase(wattpush_agent_mux_conflicts_total{{{NODE}}}{WINDOW})", "mux conflicts", "C"),
    )
    return [
        errors.links([runbook(f"Wattpush{alert}") for alert in ("ChipReset", "DeviceDown", "MissedSamples")]),
        bus.links([runbook(f"Wattpush{alert}") for alert in ("BusErrors", "ImplausibleReadings", "MuxConflict")]),
    ]


def agent_curves() -> list[timeseries.Panel]:
    return [
        curves(
            "Time to read and to push",
            "How long the last sweep of all devices and the last push took. A sweep has to fit into sample_interval.",
            "s",
            query(recent("wattpush_agent_sweep_seconds"), "sweep", "A"),
            query(recent("wattpush_agent_push_seconds"), "push", "B"),
        ),
        curves(
            "Processor use of the agent",
            "Share of one core.",
            "percentunit",
            query(f"rate(process_cpu_seconds_total{{{NODE}}}{WINDOW})", "CPU"),
        ),
        curves(
            "Memory of the agent", "Resident memory.", "bytes", query(recent("process_resident_memory_bytes"), "memory")
        ),
    ]


def node_history() -> list[timeseries.Panel]:
    def last(series: str) -> str:
        return recent(f"wattpush_agent_remote_{series}")

    def rate(counter: str) -> str:
        return f"rate(wattpush_agent_remote_{counter}_total{{{NODE}}}{WINDOW})"

    panels = [
        curves(
            "Waiting for remote write",
            "Samples that wait for the remote write server. They become more while it is away, and fewer while the "
            "node catches up.",
            "short",
            query(last("backlog_samples"), "samples"),
        ).links([runbook("WattpushBacklogGrows")]),
        with_limit(
            curves(
                "Size of what waits",
                "On disk and in memory. At the limit, the oldest samples are given up.",
                "bytes",
                query(last("backlog_bytes"), "backlog", "A"),
                query(last("backlog_limit_bytes"), "limit", "B"),
            ),
            "limit",
        ),
        curves(
            "Oldest sample waiting",
            "Its age. Empty if nothing waits, or if its time is not known because the clock is not set.",
            "s",
            query(f"time() - ({last('oldest_timestamp_seconds')})", "age"),
        ).no_value("Nothing waits"),
        curves(
            "Samples sent by remote write",
            "Samples per second that the server has accepted and refused, that the node has given up because of the "
            "backlog's size, their age or the disk, and those measured while the time was not known.",
            "cps",
            query(rate("samples"), "accepted", "A"),
            query(rate("refused_samples"), "refused", "B"),
            query(rate("dropped_samples"), "dropped", "C"),
            query(rate("undated_samples"), "undated", "D"),
        ),
    ]
    return [panel.span(6) for panel in panels]


def node_tables() -> list[table.Panel]:
    places = ("chip", "bus", "mux", "channel", "address", "input")
    return [
        rows(
            "Where each device is connected",
            "Chip, bus, mux, channel, address and input, from the agent's configuration.",
            {"info": Column(f"wattpush_device_info{{{DEVICE}}}", shown=False)},
            {"hostname": "Node", "device": "Device", **{place: place.capitalize() for place in places}, "job": "Job"},
            sort={"Device": False},
        )
        .span(14)
        .height(6),
        rows(
            "Version of the agent",
            "Versions, and a short hash of the machine id.",
            {"info": Column(f"wattpush_agent_info{{{NODE}}}", shown=False)},
            {
                "hostname": "Node",
                "version": "wattpush",
                "python_version": "Python",
                "blinka_version": "Blinka",
                "machine": "Machine",
                "job": "Job",
            },
            sort={"Node": False},
        )
        .span(10)
        .height(6),
    ]


def node() -> dashboard.Dashboard:
    board = new_dashboard("wattpush-node", "wattpush: node", "One node: its devices, and the agent itself.", "now-1h")
    for variable in (JOBS, choice("hostname", "Node", HOSTNAME), DEVICES, RUNBOOKS):
        board.with_variable(variable)
    alerts = alert_list("What fires now for this node.", f", {NODE}")
    for panel in (*node_numbers(), *node_bands(), alerts, *node_curves(), *node_history(), *node_tables()):
        board.with_panel(panel)
    return board


def render(board: dashboard.Dashboard) -> str:
    document: dict[str, Any] = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    # A link to a panel contains its id, so ids stay fixed.
    for place, panel in enumerate(document["panels"], 1):
        panel["id"] = place
    for annotation in document["annotations"]["list"]:
        annotation.update(EVENTS[annotation["name"]][2])
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def dashboards() -> dict[str, str]:
    """The text of each file by its name."""
    # Grafana escapes a value for a regular expression only in variables with several values. The node has one value, so
    # compare it exactly.
    one_node = render(node()).replace('hostname=~\\"$hostname\\"', 'hostname=\\"$hostname\\"')
    return {"fleet.json": render(fleet()), "node.json": one_node}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, text in dashboards().items():
        (folder / name).write_text(text, encoding="utf-8")
