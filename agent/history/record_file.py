"""An append-only file of records: it is written at once or not at all, and a torn end is cut off."""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from agent.energy.state_folder import AS_A_FILE, read_file
from agent.history.frame_records import (
    FRAME,
    HEADER,
    TABLE,
    DamagedError,
    Packed,
    checked_body,
    frame_record,
    packed_of,
    record_bytes,
    table_at_of,
    table_of,
    table_record,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.history.samples import Labels

Table = tuple[str, tuple["Labels", ...]]
"""A boot, and the series of its frames."""


class Found(NamedTuple):
    """A frame and where it was found.

    Attributes:
        next_at: where the next record begins.
    """

    packed: Packed
    next_at: int


class RecordFile:
    """A file of tables and frames.

    Args:
        path: of the file, which is created by the first `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._table: Table | None = None
        self._table_at = 0
        self._file: int | None = None
        self._closer: weakref.finalize[[int], RecordFile] | None = None

    def repair(self) -> tuple[list[Packed], int]:
        """Read the file and cut its torn end; return its frames, and how many bytes were cut off.

        Raises:
            OSError: it cannot be read or cut.
        """
        data = read_file(self.path)
        frames: list[Packed] = []
        tables: dict[int, Table] = {}
        at = 0
        with suppress(DamagedError):
            while at < len(data):
                end = at + record_bytes(data[at : at + HEADER.size])
                kind, body = checked_body(data[at:end])
                if kind == TABLE:
                    self._table = tables[at] = table_of(body)
                    self._table_at = at
                elif kind == FRAME and self._table is not None:
                    frames.append(packed_of(body, *self._table))
                at = end
        self.size_bytes = at
        if at < len(data):
            os.truncate(self.path, at)
        return frames, len(data) - at

    def append(self, frames: Sequence[Packed], *, is_synced: bool) -> None:
        """Append frames, all of them or none.

        Raises:
            OSError: none was appended; the disk is full or broken.
        """
        table, table_at, data = self._table, self._table_at, bytearray()
        for packed in frames:
            if table != (packed.boot, packed.table):
                table, table_at = (packed.boot, packed.table), self.size_bytes + len(data)
                data += table_record(packed.boot, packed.table)
            data += frame_record(packed, table_at)
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | AS_A_FILE, 0o644)
            self._closer = weakref.finalize(self, os.close, self._file)
        try:
            _write(self._file, data, self.size_bytes)
            if is_synced:
                os.fdatasync(self._file)
        except OSError:
            # What was written in part is cut off, or else overwritten by the next append, or cut by the next start.
            with suppress(OSError):
                os.ftruncate(self._file, self.size_bytes)
            raise
        self.size_bytes += len(data)
        self._table, self._table_at = table, table_at

    def clear(self) -> None:
        """Cut the file to nothing; raises OSError."""
        if self._file is not None:
            os.ftruncate(self._file, 0)
        elif self.size_bytes:
            os.truncate(self.path, 0)
        self.size_bytes, self._table = 0, None

    def close(self) -> None:
        """Close the file; `append` opens it again."""
        if self._closer is not None:
            self._closer()
        self._file = None


def _write(file: int, data: bytearray, at: int) -> None:
    """Write all of it; a disk that becomes full takes a part first."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view = view[written:]
        at += written


def find_frame(file: int, at: int, place: int, size_bytes: int, tables: dict[int, Table]) -> Found | None:
    """The first frame from a place in the file on that ends behind a place in the backlog; None if there is none.

    Args:
        file: open for reading.
        at: where a record begins.
        place: in the backlog.
        size_bytes: up to where to read.
        tables: those of this file that are known, by where they are; completed.

    Raises:
        DamagedError: a record on the way is damaged.
        OSError: the file cannot be read.
    """
    while at < size_bytes:
        kind, body, end = _read_record(file, at)
        if kind == TABLE:
            tables[at] = table_of(body)
        elif kind == FRAME:
            table_at = table_at_of(body)
            if table_at not in tables:
                tables[table_at] = table_of(_read_record(file, table_at)[1])
            packed = packed_of(body, *tables[table_at])
            if packed.end > place:
                return Found(packed, end)
        at = end
    return None


def _read_record(file: int, at: int) -> tuple[int, bytes, int]:
    """The kind and body of the record at this place of a file, and where the next one begins."""
    size = record_bytes(os.pread(file, HEADER.size, at))
    if size > os.fstat(file).st_size - at:
        raise DamagedError("a record is cut off")
    kind, body = checked_body(os.pread(file, size, at))
    return kind, body, at + size
