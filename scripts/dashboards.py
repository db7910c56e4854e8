"""Writes the Grafana dashboards: python -m scripts.dashboards [FOLDER], else deploy/grafana/dashboards.

Needs Python 3.11, for the SDK.

What is shown of a gateway is masked by `wattpush:device_age:fresh` of deploy/prometheus/rules/recordings.yml, since a
gateway goes on showing the last values of the dead. What is made of counters needs no mask: those of the dead stand
still.
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
    """Numbers with their names."""
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
    """The mean of one device within the band of its lowest and highest readings; repeated for each device."""
    panel = curves(
        title,
        description,
        unit,
        query(mean, "mean", "A"),
        query(f"min_over_time(wattpush_device_min_{quantity}{{{DEVICE}}}{WINDOW}) {FRESH}", "lowest", "B"),
        query(f"max_over_time(wattpush_device_max_{quantity}{{{DEVICE}}}{WINDOW}) {FRESH}", "highest", "C"),
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
    """A row for each set of labels; `columns` are a query and a unit by title."""
    panel = named(table.Panel(), title, description, "none")
    renamed = {}
    for ref, (column, (expression, unit)) in zip("ABCDEFGH", columns.items(), strict=False):
        panel.with_target(cells(expression, ref))
        # So does Grafana name the values of several queries; those of a single one are just "Value".
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


def started(uid: str, title: str, description: str, time_from: str) -> dashboard.Dashboard:
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
    """Kilowatt-hours of each device within a window."""
    return f"sum by ({BY_DEVICE}) (increase(wattpush_device_joules_total{{{DEVICE}}}{window})) / 3.6e6"


def coverage() -> str:
    """The share of the chosen time that was measured, of each device."""
    measured = f"increase(wattpush_device_measured_seconds_total{{{DEVICE}}}[$__range])"
    return f"clamp_max(sum by ({BY_DEVICE}) ({measured}) / $__range_s, 1)"


def fleet_numbers() -> list[stat.Panel]:
    return [
        number(
            "Power now",
            "The sum of the last means of all devices. Nodes that have stopped pushing are left out. A device that "
            "feeds another one counts twice: choose the devices above.",
            "watt",
            instant(f"sum(wattpush:device_watts:fresh{{{DEVICE}}})"),
        ),
        number(
            "Energy, last 24 hours",
            "What flowed into all devices. What was not measured is not in it: see the coverage below.",
            "kwatth",
            instant(f"sum(wattpush:device_kwh:increase1d{{{DEVICE}}})"),
        ).decimals(2),
        number(
            "Energy, last 30 days",
            "The same of 30 days; less if Prometheus keeps less.",
            "kwatth",
            instant(f"sum(wattpush:device_kwh:increase30d{{{DEVICE}}})"),
        ).decimals(1),
        with_names(
            number(
                "Cost, last 30 days",
                "At the tariff of deploy/prometheus/rules/limits.yml.",
                "none",
                instant(f"sum by (currency) (wattpush:device_cost:increase30d{{{DEVICE}}})", "{{currency}}"),
            ).decimals(2)
        ),
        with_names(
            number(
                "Nodes",
                "Alive: pushed, or was scraped, within wattpush:stale_after:seconds. Stale: the gateway shows only "
                "what it said last.",
                "none",
                instant(f"count(wattpush:node_age:fresh{{{NODE}}}) or vector(0)", "alive", "A"),
                instant(
                    f"count(wattpush:node_age:seconds{{{NODE}}} unless wattpush:node_age:fresh) or vector(0)",
                    "stale",
                    "B",
                ),
            )
        ),
        number(
            "Alerts firing",
            "All alerts of deploy/prometheus/rules/alerts.yml, of every node; docs/alerts.md says what to do.",
            "none",
            instant('count(ALERTS{alertname=~"Wattpush.*", alertstate="firing"}) or vector(0)'),
        ),
    ]


def fleet_power() -> timeseries.Panel:
    return (
        curves(
            "Power of each node",
            "Means, one node upon the other. A node that has stopped pushing leaves the stack.",
            "watt",
            # At each point only of those that are fresh then: the mean alone would keep the dead for a window.
            query(
                f"sum by (hostname) (avg_over_time(wattpush:device_watts:fresh{{{DEVICE}}}{WINDOW}) "
                "and wattpush:device_watts:fresh)",
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
            "The last values of each device; empty where its node has stopped pushing or the device cannot be read. "
            "Energy and coverage are those of the chosen time; where the coverage is under 100 %, the true energy is "
            "higher.",
            {
                "Power": (last("wattpush_device_watts"), "watt"),
                "Voltage": (last("wattpush_device_volts"), "volt"),
                "Current": (last("wattpush_device_amperes"), "amp"),
                "Energy": (energy("[$__range]"), "kwatth"),
                "Coverage": (coverage(), "percentunit"),
                "Last push": (f"sum by ({BY_DEVICE}) (wattpush:device_age:seconds{{{DEVICE}}})", "s"),
            },
            (),
        )
        .override_by_name("hostname", [DynamicConfigValue("links", [link])])
        .span(24)
        .height(12)
    )


def fleet() -> dashboard.Dashboard:
    board = started("wattpush-fleet", "wattpush: fleet", "All nodes: power, energy, and which still push.", "now-6h")
    for variable in (JOBS, any_of(choice("hostname", "Node", HOSTNAME)), DEVICES):
        board.with_variable(variable)
    for panel in (*fleet_numbers(), fleet_power(), fleet_table()):
        board.with_panel(panel)
    return board


def node_numbers() -> list[stat.Panel]:
    return [
        number(
            "Last push",
            "How long ago, by the gateway's own clock.",
            "s",
            instant(f"max(wattpush:node_age:seconds{{{NODE}}})"),
        ),
        number(
            "Power now",
            "The sum of the last means of the devices; empty if the node has stopped pushing.",
            "watt",
            instant(f"sum(wattpush:device_watts:fresh{{{DEVICE}}})"),
        ),
        with_names(
            number(
                "Energy",
                "What flowed into each device in the chosen time.",
                "kwatth",
                instant(energy("[$__range]"), "{{device}}"),
            )
        )
        .decimals(3)
        .span(8),
        with_names(
            number(
                "Coverage",
                "The share of the chosen time that was measured. What was not is not in the energy.",
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
            "The true mean, from the energy counters and so right at any zoom, within the band of the lowest and the "
            "highest reading. Negative: flows back.",
            "watt",
            f"({rate('joules')} - {rate('returned_joules')}) / ({rate('measured_seconds')} > 0)",
            "watts",
        ),
        band(
            "Voltage of $device",
            "The mean within the band of the lowest and the highest reading: a supply that sags under load shows here.",
            "volt",
            f"avg_over_time(wattpush_device_volts{{{DEVICE}}}{WINDOW}) {FRESH}",
            "volts",
        ),
    ]


def node_curves() -> list[timeseries.Panel]:
    current = curves(
        "Current",
        "Means. Negative: flows back.",
        "amp",
        query(f"avg_over_time(wattpush_device_amperes{{{DEVICE}}}{WINDOW}) {FRESH}", "{{device}}"),
    )
    returned = f"increase(wattpush_device_returned_joules_total{{{DEVICE}}}[$__interval])"
    bars = (
        curves(
            "Energy of each bar",
            "Each bar covers the time since the one before, an hour at least. Below zero: what flowed back.",
            "kwatth",
            query(energy("[$__interval]"), "{{device}}", "A"),
            query(f"sum by ({BY_DEVICE}) ({returned}) / -3.6e6 < 0", "{{device}} returned", "B"),
        )
        .interval("1h")
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    )
    trouble = curves(
        "Trouble",
        "Power losses of the chips, readings that failed, readings left out because a sweep took too long, and pushes "
        "in which a group failed: how many in a short while before each point. All are best at zero.",
        "none",
        query(f"increase(wattpush_device_resets_total{{{DEVICE}}}{WINDOW})", "{{device}} chip resets", "A"),
        query(f"increase(wattpush_device_read_errors_total{{{DEVICE}}}{WINDOW})", "{{device}} read errors", "B"),
        query(f"increase(wattpush_agent_missed_samples_total{{{NODE}}}{WINDOW})", "missed samples", "C"),
        query(f"increase(wattpush_agent_push_failures_total{{{NODE}}}{WINDOW})", "push failures", "D"),
    )
    return [current, bars, trouble, *agent_curves()]


def agent_curves() -> list[timeseries.Panel]:
    def last(series: str) -> str:
        return f"{series}{{{NODE}}} and on (job, hostname) wattpush:node_age:fresh"

    return [
        curves(
            "Time of a sweep and of a push",
            "How long the last sweep of all sensors took, and the last push. A sweep has to fit into sample_interval.",
            "s",
            query(last("wattpush_agent_sweep_seconds"), "sweep", "A"),
            query(last("wattpush_agent_push_seconds"), "push", "B"),
        ),
        curves(
            "The agent's CPU",
            "The share of one core.",
            "percentunit",
            query(f"rate(process_cpu_seconds_total{{{NODE}}}{WINDOW})", "CPU"),
        ),
        curves(
            "The agent's memory", "Resident memory.", "bytes", query(last("process_resident_memory_bytes"), "memory")
        ),
    ]


def node_tables() -> list[table.Panel]:
    hidden = ("Value", "Value #A", "__name__", "instance")
    return [
        rows(
            "Where each device is measured",
            "Chip, bus, mux, channel, address and input, as the agent's configuration has them.",
            {"info": (f"wattpush_device_info{{{DEVICE}}}", "none")},
            hidden,
        )
        .span(14)
        .height(6),
        rows(
            "Agent",
            "Versions, and a short hash of the machine's id.",
            {"info": (f"wattpush_agent_info{{{NODE}}}", "none")},
            hidden,
        )
        .span(10)
        .height(6),
    ]


def node() -> dashboard.Dashboard:
    board = started("wattpush-node", "wattpush: node", "One node: each of its devices, and the agent itself.", "now-1h")
    for variable in (JOBS, choice("hostname", "Node", HOSTNAME), DEVICES):
        board.with_variable(variable)
    for panel in (*node_numbers(), *node_bands(), *node_curves(), *node_tables()):
        board.with_panel(panel)
    return board


def written(board: dashboard.Dashboard) -> str:
    built = board.build()
    # What is addressed by its number keeps it.
    for place, panel in enumerate(built.panels or [], 1):
        panel.id_val = place
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def dashboards() -> dict[str, str]:
    """The text of each file, by its name."""
    # Of a node one is chosen, and what is chosen alone Grafana does not escape for a regular expression.
    one_node = written(node()).replace('hostname=~\\"$hostname\\"', 'hostname=\\"$hostname\\"')
    return {"fleet.json": written(fleet()), "node.json": one_node}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    for name, text in dashboards().items():
        (folder / name).write_text(text, encoding="utf-8")
