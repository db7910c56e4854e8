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
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

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

Panel = TypeVar("Panel", stat.Panel, table.Panel, timeseries.Panel)


def named(panel: Panel, title: str, description: str, unit: str) -> Panel:
    panel.title(title).description(description).datasource(SOURCE).unit(unit)
    return panel


def query(expression: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).range().ref_id(ref).datasource(SOURCE)


def instant(expression: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).instant().ref_id(ref).datasource(SOURCE)


def cells(expression: str, ref: str) -> prometheus.Dataquery:
    return instant(expression, ref=ref).format(PromQueryFormat.TABLE)


def number(title: str, description: str, unit: str, *queries: prometheus.Dataquery) -> stat.Panel:
    panel = named(stat.Panel(), title, description, unit).span(4).height(4)
    panel.graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE).color_scheme(
        dashboard.FieldColor().mode("fixed").fixed_color("text")
    )
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for target in queries:
        panel.with_target(target)
    return panel


def with_names(panel: stat.Panel) -> stat.Panel:
    """Show each number with the name of its series."""
    return panel.text_mode(BigValueTextMode.VALUE_AND_NAME)


def curves(title: str, description: str, unit: str, *queries: prometheus.Dataquery) -> timeseries.Panel:
    panel = named(timeseries.Panel(), title, description, unit).span(12).height(8)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["mean", "max", "lastNotNull"])
    ).tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel.line_width(1).fill_opacity(0)
    for target in queries:
        panel.with_target(target)
    return panel


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


def rows(title: str, description: str, columns: dict[str, tuple[str, str]], hidden: tuple[str, ...]) -> table.Panel:
    """One row per set of labels; `columns` maps a title to a query and its unit."""
    panel = named(table.Panel(), title, description, "none")
    renamed = {}
    for ref, (column, (expression, unit)) in zip("ABCDEFGH", columns.items(), strict=False):
        panel.with_target(cells(expression, ref))
        # Grafana names the values of several queries this way; those of a single query are just "Value".
        renamed[f"Value #{ref}" if len(columns) > 1 else "Value"] = column
        properties = [DynamicConfigValue("unit", unit)]
        if unit in {"volt", "amp", "watt", "kwatth"}:
            properties.append(DynamicConfigValue("decimals", 2 if unit != "kwatth" else 3))
        panel.override_by_name(column, properties)
    panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel.with_transformation(
        DataTransformerConfig(
            "organize", options={"excludeByName": dict.fromkeys(("Time", *hidden), True), "renameByName": renamed}
        )
    )
    return panel


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
    )


def choice(name: str, label: str, series: str) -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query(f"label_values({series}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def any_of(variable: dashboard.QueryVariable) -> dashboard.QueryVariable:
    return variable.multi(True).include_all(True).all_value(".+")


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


def fleet_numbers() -> list[stat.Panel]:
    return [
        number(
            "Power now",
            "The sum over all devices of the last mean power. Stale nodes are left out. Where one device feeds "
            "another, that power counts twice: select devices above.",
            "watt",
            instant(f"sum(wattpush:device_watts:fresh{{{DEVICE}}})"),
        ),
        number(
            "Energy, last 24 hours",
            "Energy delivered to all devices. Unmeasured time is left out: see the coverage below.",
            "kwatth",
            instant(f"sum(wattpush:device_kwh:increase1d{{{DEVICE}}})"),
        ).decimals(2),
        number(
            "Energy, last 30 days",
            "The same over 30 days, or over the retention time of Prometheus if that is shorter.",
            "kwatth",
            instant(f"sum(wattpush:device_kwh:increase30d{{{DEVICE}}})"),
        ).decimals(1),
        with_names(
            number(
                "Cost, last 30 days",
                "At the tariff in deploy/prometheus/rules/limits.yml.",
                "none",
                instant(f"sum by (currency) (wattpush:device_cost:increase30d{{{DEVICE}}})", "{{currency}}"),
            ).decimals(2)
        ),
        with_names(
            number(
                "Nodes",
                "Fresh: pushed, scraped or received by remote write within wattpush:stale_after:seconds. Stale: a "
                "gateway only shows the node's last values.",
                "none",
                instant(f"count(wattpush:node_age:fresh{{{NODE}}}) or vector(0)", "fresh", "A"),
                instant(
                    f"count(wattpush:node_age:seconds{{{NODE}}} unless wattpush:node_age:fresh) or vector(0)",
                    "stale",
                    "B",
                ),
            )
        ),
        number(
            "Alerts firing",
            "All alerts from deploy/prometheus/rules/alerts.yml, for every node; docs/alerts.md has the runbooks.",
            "none",
            instant('count(ALERTS{alertname=~"Wattpush.*", alertstate="firing"}) or vector(0)'),
        ),
    ]


def fleet_power() -> timeseries.Panel:
    return (
        curves(
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
        .span(24)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
        .fill_opacity(40)
    )


def fleet_table() -> table.Panel:
    def last(series: str) -> str:
        return f"sum by ({BY_DEVICE}) ({series}{{{DEVICE}}} {FRESH})"

    link = {
        "title": "This node",
        "url": "/d/wattpush-node?var-hostname=${__value.text}&${datasource:queryparam}&${job:queryparam}",
    }
    return (
        rows(
            "Devices",
            "The last values of each device; empty if its node is stale or the device cannot be read. Energy and "
            "coverage are for the selected time range; where the coverage is below 100 %, the true energy is higher.",
            {
                "Power": (last("wattpush_device_watts"), "watt"),
                "Voltage": (last("wattpush_device_volts"), "volt"),
                "Current": (last("wattpush_device_amperes"), "amp"),
                "Energy": (energy("[$__range]"), "kwatth"),
                "Coverage": (coverage(), "percentunit"),
                "Newest data": (f"sum by ({BY_DEVICE}) (wattpush:device_age:seconds{{{DEVICE}}})", "s"),
            },
            (),
        )
        .override_by_name("hostname", [DynamicConfigValue("links", [link])])
        .span(24)
        .height(12)
    )


def lost(counter: str) -> str:
    """Samples per node that will never be in the history, within a short window."""
    return f"sum by (hostname) (increase(wattpush_agent_remote_{counter}_samples_total{{{NODE}}}{WINDOW})) > 0"


def fleet_history() -> list[timeseries.Panel]:
    return [
        curves(
            "Backlog by node",
            "Samples that wait on each node for its remote write server. They become more while the server is away, "
            "and fewer while the node catches up. A healthy node has those of one push at most.",
            "short",
            query(
                f"max by (hostname) ({recent('wattpush_agent_remote_backlog_samples')})",
                "{{hostname}}",
            ),
        ),
        curves(
            "Samples lost by node",
            "Samples that the history will never have: refused by the remote write server for good, given up because "
            "of the backlog's size, their age or the disk, or measured while the time was not known. Should be empty.",
            "short",
            query(lost("refused"), "{{hostname}} refused", "A"),
            query(lost("dropped"), "{{hostname}} dropped", "B"),
            query(lost("undated"), "{{hostname}} undated", "C"),
        ),
    ]


def fleet() -> dashboard.Dashboard:
    board = new_dashboard(
        "wattpush-fleet", "wattpush: fleet", "All nodes: power, energy, and which nodes still send.", "now-6h"
    )
    for variable in (JOBS, any_of(choice("hostname", "Node", HOSTNAME)), DEVICES):
        board.with_variable(variable)
    for panel in (*fleet_numbers(), fleet_power(), fleet_table(), *fleet_history()):
        board.with_panel(panel)
    return board


def node_numbers() -> list[stat.Panel]:
    return [
        number(
            "Newest data",
            "Time since the last push, by the gateway's clock, since the last scrape, or since the newest sample by "
            "remote write.",
            "s",
            instant(f"max(wattpush:node_age:seconds{{{NODE}}})"),
        ),
        number(
            "Power now",
            "The sum over all devices of the last mean power; empty if the node is stale.",
            "watt",
            instant(f"sum(wattpush:device_watts:fresh{{{DEVICE}}})"),
        ),
        with_names(
            number(
                "Energy",
                "Energy delivered to each device in the selected time range.",
                "kwatth",
                instant(energy("[$__range]"), "{{device}}"),
            )
        )
        .decimals(3)
        .span(8),
        with_names(
            number(
                "Coverage",
                "The measured share of the selected time range. The energy leaves out unmeasured time.",
                "percentunit",
                instant(coverage(), "{{device}}"),
            )
        ).span(8),
    ]


def node_bands() -> list[timeseries.Panel]:
    def rate(counter: str) -> str:
        return f"rate(wattpush_device_{counter}_total{{{DEVICE}}}{WINDOW})"

    return [
        band(
            "Power of $device",
            "The true mean, computed from the energy counters and so exact at any zoom, with the band between the "
            "lowest and the highest reading. Negative values flow back.",
            "watt",
            f"({rate('joules')} - {rate('returned_joules')}) / ({rate('measured_seconds')} > 0)",
            "watts",
        ),
        band(
            "Voltage of $device",
            "The mean, with the band between the lowest and the highest reading. It shows a supply that sags.",
            "volt",
            f"avg_over_time(wattpush_device_volts{{{DEVICE}}}{WINDOW}) {SHOWN}",
            "volts",
        ),
    ]


def node_curves() -> list[timeseries.Panel]:
    current = curves(
        "Current",
        "Mean current. Negative values flow back.",
        "amp",
        query(f"avg_over_time(wattpush_device_amperes{{{DEVICE}}}{WINDOW}) {SHOWN}", "{{device}}"),
    )
    returned = f"increase(wattpush_device_returned_joules_total{{{DEVICE}}}[$__interval])"
    bars = (
        curves(
            "Energy per hour",
            "Each bar covers one hour, or longer if the time range is long. Bars below zero are returned energy.",
            "kwatth",
            query(energy("[$__interval]"), "{{device}}", "A"),
            query(f"sum by ({BY_DEVICE}) ({returned}) / -3.6e6 < 0", "{{device}} returned", "B"),
        )
        .interval("1h")
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
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

    bars = (
        curves(
            "Charge per hour",
            "Each bar covers one hour, or longer if the time range is long. Bars below zero are returned charge.",
            "amph",
            query(f"{increase('coulombs')} / 3600", "{{device}}", "A"),
            query(f"{increase('returned_coulombs')} / -3600 < 0", "{{device}} returned", "B"),
        )
        .interval("1h")
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
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
        "Errors",
        "Chip resets after a power loss, failed readings, readings skipped because a sweep took too long, and pushes "
        "in which a group failed: the number within a short window before each point. All should be zero.",
        "none",
        query(f"increase(wattpush_device_resets_total{{{DEVICE}}}{WINDOW})", "{{device}} chip resets", "A"),
        query(f"increase(wattpush_device_read_errors_total{{{DEVICE}}}{WINDOW})", "{{device}} read errors", "B"),
        query(f"increase(wattpush_agent_missed_samples_total{{{NODE}}}{WINDOW})", "missed samples", "C"),
        query(f"increase(wattpush_agent_push_failures_total{{{NODE}}}{WINDOW})", "push failures", "D"),
    )
    bus = curves(
        "Bus errors",
        "Transfers repeated at once, readings discarded because a check contradicted them, and muxes that somebody "
        "else switched: the number within a short window before each point. A healthy bus has none.",
        "none",
        query(f"increase(wattpush_device_retries_total{{{DEVICE}}}{WINDOW})", "{{device}} retries", "A"),
        query(f"increase(wattpush_device_implausible_total{{{DEVICE}}}{WINDOW})", "{{device}} discarded", "B"),
        query(f"increase(wattpush_agent_mux_conflicts_total{{{NODE}}}{WINDOW})", "mux conflicts", "C"),
    )
    return [errors, bus]


def agent_curves() -> list[timeseries.Panel]:
    return [
        curves(
            "Sweep and push duration",
            "How long the last sweep of all devices and the last push took. A sweep has to fit into sample_interval.",
            "s",
            query(recent("wattpush_agent_sweep_seconds"), "sweep", "A"),
            query(recent("wattpush_agent_push_seconds"), "push", "B"),
        ),
        curves(
            "Agent CPU",
            "Share of one core.",
            "percentunit",
            query(f"rate(process_cpu_seconds_total{{{NODE}}}{WINDOW})", "CPU"),
        ),
        curves("Agent memory", "Resident memory.", "bytes", query(recent("process_resident_memory_bytes"), "memory")),
    ]


def node_history() -> list[timeseries.Panel]:
    def last(series: str) -> str:
        return recent(f"wattpush_agent_remote_{series}")

    def rate(counter: str) -> str:
        return f"rate(wattpush_agent_remote_{counter}_total{{{NODE}}}{WINDOW})"

    panels = [
        curves(
            "Backlog",
            "Samples that wait for the remote write server. They become more while it is away, and fewer while the "
            "node catches up.",
            "short",
            query(last("backlog_samples"), "samples"),
        ),
        curves(
            "Backlog size",
            "On disk and in memory. At the limit, the oldest samples are given up.",
            "bytes",
            query(last("backlog_bytes"), "backlog", "A"),
            query(last("backlog_limit_bytes"), "limit", "B"),
        ),
        curves(
            "Oldest sample waiting",
            "Its age. Empty if nothing waits, or if its time is not known because the clock is not set.",
            "s",
            query(f"time() - ({last('oldest_timestamp_seconds')})", "age"),
        ),
        curves(
            "Remote write",
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
    hidden = ("Value", "Value #A", "__name__", "instance")
    return [
        rows(
            "Device wiring",
            "Chip, bus, mux, channel, address and input, from the agent's configuration.",
            {"info": (f"wattpush_device_info{{{DEVICE}}}", "none")},
            hidden,
        )
        .span(14)
        .height(6),
        rows(
            "Agent",
            "Versions, and a short hash of the machine id.",
            {"info": (f"wattpush_agent_info{{{NODE}}}", "none")},
            hidden,
        )
        .span(10)
        .height(6),
    ]


def node() -> dashboard.Dashboard:
    board = new_dashboard("wattpush-node", "wattpush: node", "One node: its devices, and the agent itself.", "now-1h")
    for variable in (JOBS, choice("hostname", "Node", HOSTNAME), DEVICES):
        board.with_variable(variable)
    for panel in (*node_numbers(), *node_bands(), *node_curves(), *node_history(), *node_tables()):
        board.with_panel(panel)
    return board


def render(board: dashboard.Dashboard) -> str:
    built = board.build()
    # A link to a panel contains its id, so ids stay fixed.
    for place, panel in enumerate(built.panels or [], 1):
        panel.id_val = place
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


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
