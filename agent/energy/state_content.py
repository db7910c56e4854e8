"""The content of a state file: a State as JSON, with a checksum."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.energy.counters import Counters, LastReading, Saved
from agent.energy.state import AgentCounters, RemoteCounters, State

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

_FORMAT = 1

# The fields of `LastReading` that have another name on disk.
_NAMES_ON_DISK = {
    "overcounted_joules": "excess_joules",
    "returned_overcounted_joules": "returned_excess_joules",
}
_NAMES_IN_MEMORY = {on_disk: name for name, on_disk in _NAMES_ON_DISK.items()}

# Fields of `Counters` and of `LastReading` that earlier versions do not know. They would refuse a device that has them,
# and lose its energy, but they ignore what stands beside the devices. A run of such a version forgets the charge.
_CHARGE_COUNTERS = ("coulombs", "returned_coulombs")
_CHARGE_OF_LAST = ("amperes", "overcounted_coulombs", "returned_overcounted_coulombs")


class Content(NamedTuple):
    """What a state file holds.

    Attributes:
        boot: identifies the boot in which it was written.
        ended_well: nothing was pushed afterwards that it does not hold.
    """

    boot: str
    ended_well: bool
    state: State


def written(content: Content) -> str:
    """The text of a state file."""
    state = content.state
    fields: dict[str, Any] = {
        "boot": content.boot,
        "ended_well": content.ended_well,
        "devices": {name: _fields_of(saved) for name, saved in state.devices.items()},
        "node": asdict(state.agent),
        "run": {
            "start_seconds": state.run_start_seconds,
            "is_unconfirmed": state.is_unconfirmed,
            "hostname": state.hostname,
        },
    }
    if state.remote != RemoteCounters():
        fields["remote"] = asdict(state.remote)
    if state.adapters:
        fields["adapters"] = dict(state.adapters)
    charge = {name: _charge_of(saved) for name, saved in state.devices.items()}
    if any(charge.values()):
        fields["charge"] = {name: of_device for name, of_device in charge.items() if of_device}
    text = json.dumps(fields)
    return f'{{"format": {_FORMAT}, "checksum": {zlib.crc32(text.encode())}, "content": {text}}}'


def read(data: bytes) -> Content:
    """Read the content of a state file. Raises ValueError if `written` did not write it."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r:.20} is not {_FORMAT}")
        content = document["content"]
        if zlib.crc32(json.dumps(content).encode()) != document["checksum"]:
            raise ValueError("its checksum does not fit")
        charge = content.get("charge", {})  # not in files of earlier versions
        devices = {name: _saved_from(charge.get(name, {}), **device) for name, device in content["devices"].items()}
        adapters = dict(content.get("adapters", {}))  # not in files of earlier versions
        run = content.get("run", {})
        state = State(
            devices,
            AgentCounters(**content["node"]),
            run.get("start_seconds"),
            run.get("is_unconfirmed", False),
            adapters,
            run.get("hostname"),
            RemoteCounters(**content.get("remote", {})),  # not in files of earlier versions
        )
        return Content(content["boot"], content["ended_well"], state)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a state file: {type(error).__name__}") from error


def _fields_of(saved: Saved) -> dict[str, Any]:
    """A device's entry in the file."""
    return {
        "counters": _without(saved.counters._asdict(), _CHARGE_COUNTERS),
        "last": None
        if saved.last is None
        else _renamed(_without(saved.last._asdict(), _CHARGE_OF_LAST), _NAMES_ON_DISK),
        "last_read_unix_seconds": saved.last_read_unix_seconds,
        "source": saved.source,
    }


def _charge_of(saved: Saved) -> dict[str, float]:
    """A device's entry under "charge"; what is zero is left out."""
    fields = {name: getattr(saved.counters, name) for name in _CHARGE_COUNTERS}
    if saved.last is not None:
        fields |= {name: getattr(saved.last, name) for name in _CHARGE_OF_LAST}
    return {name: value for name, value in fields.items() if value}


def _saved_from(
    charge: dict[str, float],
    counters: dict[str, Any],
    last: dict[str, Any] | None,
    last_read_unix_seconds: float | None,
    source: str | None = None,
) -> Saved:
    """The reverse of `_fields_of` and `_charge_of`. Files of early versions lack `source` and some fields of `last`."""
    return Saved(
        Counters(**counters, **_only(charge, _CHARGE_COUNTERS)),
        None if last is None else LastReading(**_renamed(last, _NAMES_IN_MEMORY), **_only(charge, _CHARGE_OF_LAST)),
        last_read_unix_seconds,
        source,
    )


def _only(fields: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: fields[name] for name in names if name in fields}


def _without(fields: dict[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def _renamed(fields: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in fields.items()}
