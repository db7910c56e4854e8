"""The content of a state file: a State as JSON, with a checksum."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.energy.counters import Counters, LastReading, Saved
from agent.energy.state import AgentCounters, RemoteCounters, State

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = 1

# The fields of `LastReading` that have another name on disk.
_NAMES_ON_DISK = {
    "overcounted_joules": "excess_joules",
    "returned_overcounted_joules": "returned_excess_joules",
}
_NAMES_IN_MEMORY = {on_disk: name for name, on_disk in _NAMES_ON_DISK.items()}


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
        devices = {name: _saved_from(**device) for name, device in content["devices"].items()}
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
        "counters": saved.counters._asdict(),
        "last": None if saved.last is None else _renamed(saved.last._asdict(), _NAMES_ON_DISK),
        "last_read_unix_seconds": saved.last_read_unix_seconds,
        "source": saved.source,
    }


def _saved_from(
    counters: dict[str, Any],
    last: dict[str, Any] | None,
    last_read_unix_seconds: float | None,
    source: str | None = None,
) -> Saved:
    """The reverse of `_fields_of`. Files of early versions lack `source` and some fields of `last`."""
    return Saved(
        Counters(**counters),
        None if last is None else LastReading(**_renamed(last, _NAMES_IN_MEMORY)),
        last_read_unix_seconds,
        source,
    )


def _renamed(fields: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in fields.items()}
