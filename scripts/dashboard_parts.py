"""The parts that scripts/dashboards.py builds the Grafana dashboards from. The Grafana SDK needs Python 3.11."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
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
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    ValueMap,
    ValueMappingResult,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

Panel = TypeVar("Panel", stat.Panel, table.Panel, timeseries.Panel)

PLAIN, GOOD, NOTE, BAD = "text", "green", "orange", "red"
"""Colours. Red calls for action."""


def named(panel: Panel, title: str, description: str, unit: str) -> Panel:
    panel.title(title).description(description).datasource(SOURCE).unit(unit)
    return panel


def query(expression: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).range().ref_id(ref).datasource(SOURCE)


def instant(expression: str, legend: str = "", ref: str = "A") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).instant().ref_id(ref).datasource(SOURCE)


def cells(expression: str, ref: str) -> prometheus.Dataquery:
    return instant(expression, ref=ref).format(PromQueryFormat.TABLE)


def coloured_by(*levels: tuple[float | None, str]) -> tuple[DynamicConfigValue, ...]:
    """The colour of a value is that of the highest level that it reaches; the first level is None."""
    steps = [{"value": value, "color": colour} for value, colour in levels]
    return (
        DynamicConfigValue("color", {"mode": "thresholds"}),
        DynamicConfigValue("thresholds", {"mode": "absolute", "steps": steps}),
    )


def texts(of: Mapping[str, tuple[str, str]]) -> list[ValueMap]:
    """Show these texts, in these colours, instead of these values."""
    return [ValueMap({value: ValueMappingResult(text=text, color=colour) for value, (text, colour) in of.items()})]


def runbook(alert: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"What to do: {alert}")
        .type(DashboardLinkType.LINK)
        .url(f"${{runbooks:raw}}#{alert.lower()}")
        .target_blank(True)
    )


def number(title: str, description: str, unit: str, *queries: prometheus.Dataquery) -> stat.Panel:
    panel = named(stat.Panel(), title, description, unit).span(4).height(4)
    panel.graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE).color_scheme(
        dashboard.FieldColor().mode("fixed").fixed_color(PLAIN)
    )
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    for target in queries:
        panel.with_target(target)
    return panel


def with_names(panel: stat.Panel) -> stat.Panel:
    """Show each number with the name of its series."""
    return panel.text_mode(BigValueTextMode.VALUE_AND_NAME)


def with_last_hour(panel: stat.Panel) -> stat.Panel:
    """Draw the last hour behind the number, which is its last point.

    So every query has a value at every point: the last value that was not empty may be an old one. An hour in 240
    points has its last one within 15 seconds of now, whatever time range is selected.
    """
    return (
        panel.graph_mode(BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["last"]))
        .time_from("1h")
        .max_data_points(240)
    )


def curves(title: str, description: str, unit: str, *queries: prometheus.Dataquery) -> timeseries.Panel:
    panel = named(timeseries.Panel(), title, description, unit).span(12).height(8)
    legend(panel, "mean", "max", "lastNotNull")
    panel.tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel.line_width(1).fill_opacity(0)
    for target in queries:
        panel.with_target(target)
    return panel


def legend(panel: timeseries.Panel, *columns: str) -> timeseries.Panel:
    return panel.legend(
        common.VizLegendOptions()
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(list(columns))
    )


def hourly_bars(title: str, description: str, unit: str, *queries: prometheus.Dataquery) -> timeseries.Panel:
    """Amounts, which the legend adds up."""
    panel = curves(title, description, unit, *queries)
    return (
        legend(panel, "sum")
        .interval("1h")
        .draw_style(GraphDrawStyle.BARS)
        .fill_opacity(60)
        .stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    )


def with_limit(panel: timeseries.Panel, name: str) -> timeseries.Panel:
    """Draw the series of this name as a limit."""
    panel.override_by_name(
        name,
        [
            DynamicConfigValue("color", {"mode": "fixed", "fixedColor": BAD}),
            DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
        ],
    )
    return panel


@dataclass(frozen=True)
class Column:
    """A column of numbers in a table: its query, unit, and what else Grafana is to do with it.

    One that is not shown only brings its labels.
    """

    expression: str
    unit: str = "none"
    decimals: int | None = None
    look: tuple[DynamicConfigValue, ...] = ()
    shown: bool = True


def rows(
    title: str,
    description: str,
    columns: Mapping[str, Column],
    labels: Mapping[str, str],
    sort: Mapping[str, bool],
) -> table.Panel:
    """One row per set of labels.

    `columns` and `labels` have the titles, which `sort` names with whether the order is descending.
    """
    panel = named(table.Panel(), title, description, "none")
    values: dict[str, str] = {}
    hidden = {"Time", "__name__", "instance"} - set(labels)
    for ref, (name, column) in zip("ABCDEFGH", columns.items(), strict=False):
        panel.with_target(cells(column.expression, ref))
        # Grafana names the values of several queries this way; those of a single query are just "Value".
        value = f"Value #{ref}" if len(columns) > 1 else "Value"
        if not column.shown:
            hidden.add(value)
            continue
        values[value] = name
        properties = [DynamicConfigValue("unit", column.unit), *column.look]
        if column.decimals is not None:
            properties.append(DynamicConfigValue("decimals", column.decimals))
        panel.override_by_name(name, properties)
    options: dict[str, Any] = {
        "excludeByName": dict.fromkeys(sorted(hidden), True),
        "indexByName": {name: place for place, name in enumerate((*labels, *values))},
        "renameByName": {**labels, **values},
    }
    panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel.with_transformation(DataTransformerConfig("organize", options=options))
    return panel.sort_by(
        [common.TableSortByFieldState().display_name(name).desc(descending) for name, descending in sort.items()]
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
