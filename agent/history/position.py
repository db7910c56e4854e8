"""How far a backlog has been sent: a small file that is replaced after every step."""

from __future__ import annotations

import json
import os
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from agent.energy.state import RemoteCounters
from agent.energy.state_folder import AS_A_FILE, read_file
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Position:
    """How far a backlog has been sent.

    Attributes:
        boot: in which this was written.
        cursor: the samples before this place are settled.
        tried_until: what is before this place may be stored by the server.
        newest_milliseconds: Unix time of the newest row that was sent; None before the first.
        floors: for each frame that was tried and is not settled, by its end: the Unix time after which its rows are
            sent. A retry leaves out the same rows.
        lost: ranges of places behind the cursor that were dropped, and counted, before it came there.
        accepted_milliseconds: Unix time of the newest row that the server has taken; None before the first.
        dates: for each boot, places and offsets: what is before a place and has no offset gets this one.
        counters: as published.
    """

    boot: str = ""
    cursor: int = 0
    tried_until: int = 0
    newest_milliseconds: int | None = None
    floors: Mapping[int, int | None] = field(default_factory=dict)
    lost: tuple[tuple[int, int], ...] = ()
    accepted_milliseconds: int | None = None
    dates: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    counters: RemoteCounters = field(default_factory=RemoteCounters)

    def count_lost(self, start: int, end: int) -> int:
        """How many of these places are lost."""
        return sum(max(min(end, lost_end) - max(start, lost_start), 0) for lost_start, lost_end in self.lost)

    def date_of(self, boot: str, start: int) -> int | None:
        """The offset of a frame without one of its own; None if its boot was not dated since."""
        return next((offset for until, offset in self.dates.get(boot, ()) if start < until), None)


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
