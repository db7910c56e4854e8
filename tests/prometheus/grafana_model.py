"""Grafana's published model of a dashboard, applied to JSON: unknown keys, wrong types and unknown words are faults.

The model is that of the Python package `grafana-foundation-sdk`, which Grafana generates from its schemas. The package
itself decodes anything: it drops keys that it does not know, and checks no type. So this reads its classes only: their
type hints, and the JSON key of each attribute. It needs Python 3.11.
"""

from __future__ import annotations

import enum
import importlib
import types
import typing
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "grafana_foundation_sdk.models"
# Keys that only the Prometheus data source has in an annotation; Grafana's model has those of all data sources.
ANNOTATION_KEYS = {"titleFormat": str, "textFormat": str, "tagKeys": str, "step": str, "useValueForTime": bool}


def model(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"{PACKAGE}.{module}"), name)


def dashboard_faults(document: dict[str, Any]) -> list[str]:
    """Everything in a dashboard that Grafana's model does not know, each with its place."""
    found = list(_faults(document, model("dashboard", "Dashboard"), "dashboard"))
    for panel in document["panels"]:
        found += _panel_faults(panel, f"panel {panel['title']!r}")
    return found


def _panel_faults(panel: dict[str, Any], at: str) -> Iterator[str]:
    """The parts of a panel that the general model leaves open, because each kind of panel has its own."""
    kind = panel["type"]
    yield from _faults(panel["options"], model(kind, "Options"), f"{at}.options")
    for target in panel["targets"]:
        yield from _faults(target, model("prometheus", "Dataquery"), f"{at}.targets")
    custom = _custom(kind)
    config = panel["fieldConfig"]
    yield from _faults(config["defaults"].get("custom", {}), custom, f"{at}.custom")
    for override in config["overrides"]:
        for one in override["properties"]:
            name = one["id"].removeprefix("custom.")
            owner = model("dashboard", "FieldConfig") if name == one["id"] else custom
            yield from _faults({name: one["value"]}, owner, f"{at}.overrides")


class _Nothing:
    """The options of a field in a kind of panel that has none."""

    from_json = None

    def to_json(self) -> dict[str, object]:
        return {}


def _custom(kind: str) -> Any:
    """The options of a field in this kind of panel."""
    if kind == "table":
        return model("common", "TableFieldOptions")
    return model("timeseries", "FieldConfig") if kind == "timeseries" else _Nothing


def _faults(value: Any, kind: Any, at: str) -> Iterator[str]:
    origin = get_origin(kind)
    if kind in {object, Any} or getattr(kind, "__module__", "").endswith("cog.variants"):
        return  # left open by the model; in a panel, `_panel_faults` looks at it
    if origin in {Union, types.UnionType}:
        choices = [list(_faults(value, one, at)) for one in get_args(kind)]
        if all(choices):
            yield from min(choices, key=len)
    elif origin in {list, dict} and isinstance(value, origin):
        for key, one in value.items() if origin is dict else enumerate(value):
            yield from _faults(one, get_args(kind)[-1], f"{at}.{key}")
    elif isinstance(value, dict) and hasattr(kind, "from_json"):
        yield from _object_faults(value, kind, at)
    elif not _is_plain(value, kind):
        yield f"{at}: {value!r} is no {getattr(kind, '__name__', kind)}"


def _object_faults(value: dict[str, Any], kind: Any, at: str) -> Iterator[str]:
    known = _keys(kind)
    if kind.__name__ == "AnnotationQuery":
        known |= ANNOTATION_KEYS
    for key, one in value.items():
        if key in known:
            yield from _faults(one, known[key], f"{at}.{key}")
        else:
            yield f"{at}: {key!r} is no key of {kind.__name__}"


def _keys(kind: Any) -> dict[str, Any]:
    """The JSON keys of a class with their types: which attribute becomes which key is asked with marks for values."""
    hints = typing.get_type_hints(kind)
    blank = kind()
    for name in hints:
        setattr(blank, name, _Mark(name))
    return {key: hints[mark.name] for key, mark in blank.to_json().items() if isinstance(mark, _Mark)}


class _Mark:
    def __init__(self, name: str) -> None:
        self.name = name


def _is_plain(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if not isinstance(kind, type):
        return False
    if issubclass(kind, enum.Enum):
        return value in [member.value for member in kind] and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind in {str, bool, types.NoneType} and isinstance(value, kind)
