"""Where a position is kept: in the runtime folder after every step, on disk as seldom as a reboot allows.

Within a boot the file in the runtime folder says how far the backlog was sent, however the process ended. After a
reboot only the one on disk is left. It is needed where segments are, because those that are settled must not be sent
again, and for the time that was sent last, because times have to rise.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.history import position_file
from agent.history.position import Position

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DISK_SECONDS = 60.0
"""The shortest time between two writes to disk, as long as the runtime folder has every step."""


class PositionStore:
    """The files of one position.

    Args:
        in_runtime_folder: the file there; None if there is no such folder.
        on_disk: the file there; None if there is no folder.
        monotonic: the clock.

    Raises:
        ConfigError: a newer version has written one of them.
    """

    def __init__(self, in_runtime_folder: Path | None, on_disk: Path | None, monotonic: Callable[[], float]) -> None:
        self._in_runtime_folder = in_runtime_folder
        self._on_disk = on_disk
        self._monotonic = monotonic
        self._had_segments = False
        self._written = _read(on_disk) or Position()  # to disk
        self._written_at_seconds = monotonic()

    def read(self) -> list[Position]:
        """The positions that earlier runs have left; an empty one if there are none."""
        in_runtime_folder = _read(self._in_runtime_folder)
        return [self._written] if in_runtime_folder is None else [in_runtime_folder, self._written]

    def write(self, position: Position, *, has_segments: bool, must_reach_disk: bool = False) -> None:
        """Write a step; raises OSError if the disk fails."""
        is_in_runtime_folder = False
        if self._in_runtime_folder is not None:
            with suppress(OSError):  # it is full, or was removed: then the disk has every step
                position_file.write(self._in_runtime_folder, position, is_synced=False)
                is_in_runtime_folder = True
        self._had_segments |= has_segments
        if not has_segments:
            return
        written = self._written
        if is_in_runtime_folder:
            has_waited = self._monotonic() - self._written_at_seconds >= _DISK_SECONDS
            is_due = has_waited and position.cursor != written.cursor
        else:
            is_due = (position.cursor, position.tried_until) != (written.cursor, written.tried_until)
        if is_due or must_reach_disk:
            self._write_to_disk(position, is_synced=must_reach_disk)

    def write_before_segment(self, position: Position) -> None:
        """Before frames go to disk, bring the time there after which they may be sent; raises OSError."""
        self._had_segments = True
        if position.newest_milliseconds != self._written.newest_milliseconds:
            self._write_to_disk(position, is_synced=True)

    def write_last(self, position: Position) -> None:
        """Write what the next boot needs, at the end of a run; raises OSError.

        Synced only where segments were: a power cut may bring back those that were removed. Without them, all that a
        cut can lose is the time that was sent last, and `--once` on a timer costs the card no sync every minute.
        """
        # The state file has the counters.
        has_changed = replace(position, counters=self._written.counters, boot=self._written.boot) != self._written
        if self._had_segments or (has_changed and position.newest_milliseconds is not None):
            self._write_to_disk(position, is_synced=self._had_segments)

    def _write_to_disk(self, position: Position, *, is_synced: bool) -> None:
        if self._on_disk is None:
            return
        self._on_disk.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        position_file.write(self._on_disk, position, is_synced=is_synced)
        self._written = position
        self._written_at_seconds = self._monotonic()


def _read(path: Path | None) -> Position | None:
    if path is not None:
        with suppress(OSError):
            return position_file.read(path)
    return None
