"""The file of a position: small, with a checksum, and replaced after every step."""

from __future__ import annotations

import json
import zlib
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.energy.state import RemoteCounters
from agent.energy.state_folder import read_file, sync_folder, write_new
from agent.errors import ConfigError
from agent.history.position import Position

if TYPE_CHECKING:
    from pathlib import Path

_FORMAT = 1


def written(position: Position) -> bytes:
    """The content of the file."""
    fields: dict[str, Any] = asdict(position)
    fields["floors"] = list(position.floors.items())
    text = json.dumps(fields)
    return f'{{"format": {_FORMAT}, "checksum": {zlib.crc32(text.encode())}, "content": {text}}}'.encode()


def read(path: Path) -> Position | None:
    """Read a file; return None if there is none, or it is damaged.

    Raises:
        ConfigError: a newer version has written it.
        OSError: it cannot be read.
    """
    try:
        data = read_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        document = json.loads(data)
        file_format = document["format"]
        if isinstance(file_format, int) and file_format > _FORMAT:
            raise newer_format_error(path)
        content = document["content"]
        if zlib.crc32(json.dumps(content).encode()) != document["checksum"]:
            return None
        content["floors"] = dict(content["floors"])
        content["dates"] = {boot: tuple(map(tuple, dates)) for boot, dates in content["dates"].items()}
        content["lost"] = tuple(map(tuple, content["lost"]))
        content["taken_ahead"] = tuple(content.get("taken_ahead", ()))
        content["counters"] = RemoteCounters(**content["counters"])
        return Position(**content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def newer_format_error(path: Path) -> ConfigError:
    """The error for a file that a newer version has written: it is left as it is."""
    return ConfigError((f"{path}: written by a newer version of wattpush; update wattpush, or move the file away",))


def write(path: Path, position: Position, *, is_synced: bool) -> None:
    """Replace the file; raises OSError, and then the old one stays."""
    new_path = path.with_suffix(".new")
    try:
        write_new(new_path, written(position), is_synced=is_synced)
        new_path.replace(path)
    except OSError:
        with suppress(OSError):
            new_path.unlink()
        raise
    if is_synced:
        sync_folder(path.parent)
