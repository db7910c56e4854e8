"""The file of a position: small, with a checksum, and replaced after every step."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from agent.energy.state import RemoteCounters
from agent.energy.state_folder import AS_A_FILE, read_file
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
    """Replace the file; raises OSError."""
    new_path = path.with_suffix(".new")
    with suppress(FileNotFoundError):
        new_path.unlink()  # of a run that was killed; a link is removed, not followed
    new = os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | AS_A_FILE, 0o644)
    try:
        with os.fdopen(new, "wb") as file:
            file.write(written(position))
            file.flush()
            if is_synced:
                os.fsync(new)
        new_path.replace(path)
    except OSError:
        with suppress(OSError):
            new_path.unlink()
        raise
    if is_synced:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk; raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
