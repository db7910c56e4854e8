"""The backlog on disk: a folder of append-only files, of which the oldest are removed.

A segment is named by the place of its first frame, so that names and sizes say what there is. Only the newest is read
at the start, because only its end can be torn.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from bisect import bisect_right
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.energy.state_folder import AS_A_FILE, sync_folder
from agent.history.frame_records import DamagedError
from agent.history.position_file import newer_format_error
from agent.history.record_file import RecordFile, Table, find_frame
from agent.log import counted

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.history.frame_records import Packed

FORMAT = 1

_NAME = re.compile(r"(\d{20})\.v(\d+)")

_LARGEST_SEGMENT_BYTES = 1_000_000
_SEGMENTS = 16
"""The bound is kept by removing whole segments: a sixteenth of the backlog at a time."""

_MOST_HINTS = 32

log = logging.getLogger(__name__)


class Segments:
    """The segments in a folder.

    Args:
        folder: created by the first `append`.
        max_bytes: of all segments; `append` does not keep it, but makes segments small enough for it.

    Raises:
        ConfigError: a newer version of wattpush has written into the folder; nothing is changed.
        OSError: the folder cannot be read.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._segment_bytes = min(_LARGEST_SEGMENT_BYTES, max_bytes // _SEGMENTS)
        self._sizes: dict[int, int] = {}
        self._starts: list[int] = []
        self._newest: RecordFile | None = None
        self._hints: dict[int, tuple[int, int]] = {}  # by place: the segment and the place in its file
        self._tables: tuple[int, dict[int, Table]] = (-1, {})  # of the segment that was read last
        self._damaged: set[int] = set()
        self.end = 0
        self._open()

    def _open(self) -> None:
        try:
            entries = list(os.scandir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            match = _NAME.fullmatch(entry.name)
            if match is None:
                continue
            if int(match[2]) > FORMAT:
                raise newer_format_error(self._folder / entry.name)
            self._sizes[int(match[1])] = entry.stat(follow_symlinks=False).st_size
        self._starts = sorted(self._sizes)
        while self._starts and not self._open_newest():
            self._forget(self._starts[-1])

    def _open_newest(self) -> bool:
        """Repair the newest segment; return whether it has any frame."""
        start = self._starts[-1]
        file = RecordFile(self._path(start))
        frames, cut_bytes = file.repair()
        if cut_bytes:
            log.warning("%s: cut off %s at the end, written only in part", file.path, counted(cut_bytes, "byte"))
        self.end = max(self.end, start)
        if not frames:
            return False
        self.end = max(self.end, frames[-1].end)
        self._sizes[start] = file.size_bytes
        self._newest = file
        return True

    @property
    def start(self) -> int | None:
        """The place of the first frame; None if there is no segment."""
        return self._starts[0] if self._starts else None

    @property
    def size_bytes(self) -> int:
        """Of all segments."""
        return sum(self._sizes.values())

    def append(self, frames: Sequence[Packed]) -> None:
        """Append frames and sync them; `end` says how far that succeeded.

        Raises:
            OSError: the disk is full or broken.
        """
        todo = list(frames)
        while todo:
            if self._newest is None or self._newest.size_bytes >= self._segment_bytes:
                self._begin(todo[0].start)
            newest = self._newest
            if newest is None:
                raise AssertionError
            count = _count_fitting(todo, self._segment_bytes - newest.size_bytes)
            try:
                newest.append(todo[:count], is_synced=True)
                if newest.size_bytes and self._starts[-1] not in self._sizes:
                    sync_folder(self._folder)
            except OSError:
                if self._starts[-1] not in self._sizes:
                    self._forget(self._starts[-1])
                raise
            self._sizes[self._starts[-1]] = newest.size_bytes
            self.end = todo[count - 1].end
            del todo[:count]

    def _begin(self, start: int) -> None:
        """Begin a segment."""
        if self._newest is not None:
            self._newest.close()
        path = self._path(start)
        with suppress(FileNotFoundError):
            path.unlink()
        self._newest = RecordFile(path)
        self._starts.append(start)

    def read(self, place: int) -> Packed | None:
        """The first frame that ends behind this place; what is damaged is skipped, to the next segment.

        Raises:
            OSError: it cannot be read at this moment.
        """
        while self._starts and place < self.end:
            index = max(bisect_right(self._starts, place) - 1, 0)
            packed = self._read_in(self._starts[index], place)
            if packed is not None:
                return packed
            if index + 1 == len(self._starts):
                return None
            place = self._starts[index + 1]
        return None

    def _read_in(self, start: int, place: int) -> Packed | None:
        """The first frame of a segment that ends behind this place; None if the rest is damaged."""
        segment, at = self._hints.get(place, (start, 0))
        if segment != start:
            at = 0
        if self._tables[0] != start:
            self._tables = (start, {})
        try:
            file = os.open(self._path(start), os.O_RDONLY | os.O_CLOEXEC | AS_A_FILE)
            try:
                found = find_frame(file, at, place, self._sizes[start], self._tables[1])
            finally:
                os.close(file)
        except (DamagedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in (errno.EIO, errno.ENOENT):
                raise
            self._note_damage(start, error)
            return None
        if found is None:
            return None
        self._hints[found.packed.end] = (start, found.next_at)
        if len(self._hints) > _MOST_HINTS:
            del self._hints[next(iter(self._hints))]
        return found.packed

    def _note_damage(self, start: int, error: Exception) -> None:
        if start in self._damaged:
            return
        self._damaged.add(start)
        log.error("%s: damaged (%s); the samples from there to the next segment are lost", self._path(start), error)
        if self._newest is not None and start == self._starts[-1]:
            self._newest.close()
            self._newest = None  # what is appended to it could not be found

    def remove_before(self, place: int) -> None:
        """Remove the segments that end before this place."""
        while self._starts and self.end_of_oldest <= place:
            self._forget(self._starts[0])

    @property
    def is_one(self) -> bool:
        """Whether there is but one segment."""
        return len(self._starts) == 1

    @property
    def end_of_oldest(self) -> int:
        """Where the oldest segment ends: there are segments."""
        return self._starts[1] if len(self._starts) > 1 else self.end

    def _forget(self, start: int) -> None:
        """Remove a segment. One that cannot be removed is known to be settled by the position."""
        if self._newest is not None and start == self._starts[-1]:
            self._newest.close()
            self._newest = None
        self._starts.remove(start)
        self._sizes.pop(start, None)
        self._damaged.discard(start)
        self._hints = {place: hint for place, hint in self._hints.items() if hint[0] != start}
        with suppress(OSError):
            self._path(start).unlink()

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:020d}.v{FORMAT}"

    def close(self) -> None:
        """Close the newest segment."""
        if self._newest is not None:
            self._newest.close()


def _count_fitting(frames: Sequence[Packed], free_bytes: int) -> int:
    """How many frames fit; at least one."""
    count = 0
    for packed in frames:
        free_bytes -= packed.size_bytes
        if count and free_bytes < 0:
            break
        count += 1
    return count
