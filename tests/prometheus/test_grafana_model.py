"""The dashboards against the model that Grafana publishes; and that a mistake in them is found."""

from __future__ import annotations

import copy
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.prometheus.grafana_model import dashboard_faults
from tests.prometheus.test_dashboards import DASHBOARDS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's model needs Python 3.11")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_nothing_that_grafana_does_not_know(name: str) -> None:
    assert dashboard_faults(DASHBOARDS[name]) == []


def panel(document: dict[str, Any], title: str) -> Any:
    return next(one for one in document["panels"] if one["title"] == title)


def override(document: dict[str, Any], title: str, field: str, option: str) -> Any:
    (found,) = [
        one
        for override in panel(document, title)["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == field
        for one in override["properties"]
        if one["id"] == option
    ]
    return found


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a misspelt key of the dashboard": (lambda of: of.update(timeZone="browser"), "'timeZone' is no key of Dashboard"),
    "a misspelt key of a panel": (lambda of: panel(of, "Nodes").update(timefrom="1h"), "'timefrom' is no key of Panel"),
    "a misspelt option": (
        lambda of: panel(of, "Nodes")["options"].update(graphmode="area"),
        "'graphmode' is no key of Options",
    ),
    "an unknown word": (
        lambda of: panel(of, "Nodes")["options"].update(colorMode="rainbow"),
        "'rainbow' is no BigValueColorMode",
    ),
    "a word for a number": (
        lambda of: panel(of, "Nodes")["fieldConfig"]["defaults"].update(decimals="2"),
        "'2' is no",
    ),
    "a misspelt key of a query": (
        lambda of: panel(of, "Nodes")["targets"][0].update(expression="up"),
        "'expression' is no key of Dataquery",
    ),
    "a misspelt field option": (
        lambda of: panel(of, "Power by node")["fieldConfig"]["defaults"]["custom"].update(fillOpacty=40),
        "'fillOpacty' is no key of GraphFieldConfig",
    ),
    "a field option that this kind of panel has not": (
        lambda of: panel(of, "Nodes")["fieldConfig"]["defaults"].update(custom={"lineWidth": 1}),
        "'lineWidth' is no key of",
    ),
    "a misspelt override": (
        lambda of: override(of, "Devices", "State", "custom.cellOptions").update(id="custom.cellOption"),
        "'cellOption' is no key of TableFieldOptions",
    ),
    "an override of the wrong type": (
        lambda of: override(of, "Nodes", "stale", "thresholds").update(value=[1]),
        "[1] is no",
    ),
    "a misspelt key inside an override": (
        lambda of: override(of, "Nodes", "stale", "thresholds")["value"]["steps"][0].update(colour="red"),
        "'colour' is no key of Threshold",
    ),
    "a table that is sorted by a number": (
        lambda of: panel(of, "Devices")["options"].update(sortBy=[{"displayName": 3}]),
        "3 is no str",
    ),
    "a misspelt key of an annotation": (
        lambda of: of["annotations"]["list"][0].update(titleformat="x"),
        "'titleformat' is no key of AnnotationQuery",
    ),
    "a misspelt key of a variable": (
        lambda of: of["templating"]["list"][0].update(includeall=True),
        "'includeall' is no key of VariableModel",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_dashboard_is_found(mistake: str) -> None:
    make, told = MISTAKES[mistake]
    document = copy.deepcopy(DASHBOARDS["fleet"])
    make(document)
    (fault,) = dashboard_faults(document)
    assert told in fault
