"""The newest frames, in memory, mirrored in a file of the runtime folder: that outlives a killed process."""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.history.record_file import RecordFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.history.frame_records import Packed

_SMALLEST_COMPACTED_BYTES = 65_536

log = logging.getLogger(__name__)


class Memory:
    """Frames in memory; for any number of threads. It never waits for a disk.

    Args:
        mirror: the file in the runtime folder; None if there is no such folder.
        after: frames of the mirror before this place are on disk already.
        now_seconds: since when those of the mirror count as waiting.
    """

    def __init__(self, mirror: Path | None, after: int, now_seconds: float) -> None:
        self._lock = threading.RLock()
        self._frames: deque[tuple[Packed, float]] = deque()
        self.size_bytes = 0
        self._mirror = None if mirror is None else RecordFile(mirror)
        self._is_failing = False
        if self._mirror is not None:
            for packed in self._mirrored(self._mirror):
                if packed.start >= max(after, self.end or 0):
                    self._push(packed, now_seconds)
            if not self._frames:
                self._empty_mirror()

    def _mirrored(self, mirror: RecordFile) -> list[Packed]:
        try:
            return mirror.repair()[0]
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning(
                "%s: cannot be read (%s); the newest samples of the last run are lost", mirror.path, error.strerror
            )
            return []

    @property
    def start(self) -> int | None:
        """The place of the oldest frame; None if there is none."""
        with self._lock:
            return self._frames[0][0].start if self._frames else None

    @property
    def end(self) -> int | None:
        """Where the newest frame ends; None if there is none."""
        with self._lock:
            return self._frames[-1][0].end if self._frames else None

    @property
    def waiting_since(self) -> float | None:
        """When the oldest frame was added; None if there is none."""
        with self._lock:
            return self._frames[0][1] if self._frames else None

    def frames(self) -> list[Packed]:
        """All frames, oldest first."""
        with self._lock:
            return [packed for packed, _ in self._frames]

    def add(self, packed: Packed, now_seconds: float) -> None:
        """Add a frame; it is in the mirror when this returns, unless the runtime folder is full."""
        with self._lock:
            self._push(packed, now_seconds)
            self._write_to_mirror(packed)

    def _write_to_mirror(self, packed: Packed) -> None:
        if self._mirror is None:
            return
        try:
            if self._mirror.size_bytes > 2 * self.size_bytes + _SMALLEST_COMPACTED_BYTES:
                self._mirror = self._compacted(self._mirror)
            else:
                self._mirror.append([packed], is_synced=False)
        except OSError as error:
            if not self._is_failing:
                log.warning(
                    "%s: cannot be written (%s); samples in memory are lost if this process is killed",
                    self._mirror.path,
                    error.strerror,
                )
            self._is_failing = True
        else:
            self._is_failing = False

    def _compacted(self, mirror: RecordFile) -> RecordFile:
        """The mirror without what is settled: without this it would grow until there is no frame for a moment."""
        new_path = mirror.path.with_suffix(".compacted")
        new_path.unlink(missing_ok=True)
        new = RecordFile(new_path)
        try:
            new.append(self.frames(), is_synced=False)
            new_path.replace(mirror.path)
        except OSError:
            new.close()
            raise
        mirror.close()
        new.path = mirror.path
        return new

    def _push(self, packed: Packed, now_seconds: float) -> None:
        self._frames.append((packed, now_seconds))
        self.size_bytes += packed.size_bytes

    def read(self, place: int) -> Packed | None:
        """The first frame that ends behind this place."""
        with self._lock:
            return next((packed for packed, _ in self._frames if packed.end > place), None)

    def remove_before(self, place: int) -> None:
        """Forget the frames that end before this place."""
        with self._lock:
            had_frames = bool(self._frames)
            while self._frames and self._frames[0][0].end <= place:
                packed, _ = self._frames.popleft()
                self.size_bytes -= packed.size_bytes
            if had_frames and not self._frames:
                self._empty_mirror()

    def remove_lost(self, lost: Sequence[tuple[int, int]]) -> None:
        """Forget the frames in these ranges of places: the mirror may still have them."""
        with self._lock:
            kept = [entry for entry in self._frames if not any(a <= entry[0].start < b for a, b in lost)]
            self._frames = deque(kept)
            self.size_bytes = sum(packed.size_bytes for packed, _ in kept)

    def _empty_mirror(self) -> None:
        if self._mirror is not None:
            with suppress(OSError):
                self._mirror.clear()

    def close(self) -> None:
        """Close the mirror."""
        if self._mirror is not None:
            self._mirror.close()
