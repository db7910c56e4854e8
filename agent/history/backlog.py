"""The backlog: frames that the server has not answered for, in memory first and on disk in an outage.

    place    0 ............ cursor ................................... end
                settled       | segments, on disk | frames in memory |

    produced = accepted + refused + dropped + undated + backlog

Every sample has a place: how many were produced before it. The backlog is what lies between the cursor and the end of
the newest frame; whatever the cursor passes is accepted, refused, dropped or undated. So the sum always holds, also
over a frame that is damaged or missing.

All of it may be used from several threads; `status` and `add` never wait for a disk, everything else may.
"""

from __future__ import annotations

import errno
import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agent import access
from agent.energy.state_folder import foreign_folder_error, sync_folder
from agent.errors import PermissionDeniedError
from agent.history.drop_log import DropLog
from agent.history.frame_records import DamagedError, Packed, pack, unpack
from agent.history.memory import Memory
from agent.history.merging import merged
from agent.history.position import newest_milliseconds
from agent.history.position_store import PositionStore
from agent.history.runtime_folder import key_of
from agent.history.samples import VALUE_BYTES, Frame, count_samples
from agent.history.segments import FORMAT, Segments
from agent.metrics.catalogue import RemoteStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.clock import Clock
    from agent.energy.state import RemoteCounters
    from agent.history.dating import Dating
    from agent.history.position import Position
    from agent.history.samples import Labels

LONGEST_IN_MEMORY_SECONDS: Final = 60.0
"""What waits for longer goes to disk: one append a minute in an outage, none while the server answers."""

MOST_IN_MEMORY_BYTES: Final = 1_000_000
"""Of frames that cannot go to disk."""

_MOST_WHILE_DISK_STALLS_BYTES = 4 * MOST_IN_MEMORY_BYTES
"""Of frames in memory while the disk does not answer, neither well nor with an error: some hours."""

_LARGEST_LEAD_MILLISECONDS = 2 * 3_600_000
"""A clock that was set back by more was badly wrong. Up to this, what repeats a time is dropped, so that times rise."""

_STATUS_SECONDS = 0.05
"""How long `add` waits to renew the status: longer than any step that needs no disk."""

_MISSING = "they are damaged or missing"
_DISK_FAILS = "the disk cannot be written"

log = logging.getLogger(__name__)


class Backlog:
    """The backlog in one folder.

    Args:
        folder: on disk, made when it is first needed; None keeps everything in this process.
        runtime_folder: in memory that outlives the process but not the boot; None if there is none. Its files belong to
            `folder`.
        dating: dates frames.
        clock: for ages.
        max_bytes: on disk; beyond it the oldest is dropped.
        max_age_seconds: what is older is dropped.
        saved: the counters of the state file, from which these continue.

    Raises:
        ConfigError: a newer version of wattpush has written into the folder; nothing is changed.
        PermissionDeniedError: this user may not read the folder.
    """

    def __init__(  # noqa: PLR0913 - two places, two clocks and what bounds it
        self,
        folder: Path | None,
        runtime_folder: Path | None,
        dating: Dating,
        clock: Clock,
        *,
        max_bytes: int,
        max_age_seconds: float,
        saved: RemoteCounters,
    ) -> None:
        self._lock = threading.Lock()
        self._folder = folder
        self._dating = dating
        self._clock = clock
        self._max_bytes = max_bytes
        self._max_age_milliseconds = round(max_age_seconds * 1000)
        self._drops = DropLog()
        self._disk_failures = 0
        self._is_full = False
        in_runtime_folder = mirror = None
        if folder is not None and runtime_folder is not None:
            key = key_of(folder)
            in_runtime_folder = runtime_folder / f"{key}.json"
            mirror = runtime_folder / f"{key}.v{FORMAT}"
        on_disk = None if folder is None else folder / "position.json"
        self._positions = PositionStore(in_runtime_folder, on_disk, clock.monotonic)
        self._segments = self._open_segments()
        self._memory = Memory(mirror, 0 if self._segments is None else self._segments.end, clock.monotonic())
        self._position = self._open_position(saved)
        self._memory.remove_lost(self._position.lost)
        self._handed_until = 0
        self._undated_ahead: dict[int, int] = {}  # samples of frames behind the cursor's that will be counted undated
        self._head: Packed | None = None
        # A place is never used twice, also after frames were lost with a killed run.
        self._end = max(self._position.cursor, self._position.tried_until, self._end_of_frames())
        # Whether frames of this boot without an offset are left is not known yet: their end is that of all frames.
        self._undated_end = self._end
        self._is_unreadable = False
        self._is_closed = False
        self._drop_missing()
        self._write_position()
        self._forget_settled()
        self._publish()

    # Opening

    def _open_segments(self) -> Segments | None:
        if self._folder is None:
            return None
        try:
            return Segments(self._folder, self._max_bytes)
        except PermissionError as error:
            path = error.filename or self._folder
            raise foreign_folder_error(self._folder) or PermissionDeniedError(
                f"{path}: permission denied; sudo chown {access.this_user()} {path}"
            ) from error
        except OSError as error:
            log.error("%s: cannot be read (%s); history stays in memory; check the disk", self._folder, error.strerror)  # noqa: TRY400 - a broken disk, not a bug
            return None

    def _open_position(self, saved: RemoteCounters) -> Position:
        boot = self._dating.boot
        known = self._positions.read()
        same_boot = [position for position in known if position.boot == boot != ""]
        if same_boot:
            newest = max(same_boot, key=lambda one: (one.cursor, one.tried_until, one.counters.settled))
            return replace(newest, counters=max(newest.counters, saved, key=lambda counters: counters.settled))
        # After a reboot the file may be older than what was sent and removed: begin at the oldest frame that there is.
        newest = max(known, key=lambda position: position.cursor)
        end = self._end_of_frames()
        cursor = max(newest.cursor, self._start_of_frames() or 0)
        floors = {place: floor for place, floor in newest.floors.items() if place <= end}
        return replace(newest, boot=boot, cursor=cursor, tried_until=max(end, cursor), floors=floors, counters=saved)

    def _start_of_frames(self) -> int | None:
        starts = (self._memory.start, None if self._segments is None else self._segments.start)
        return min((start for start in starts if start is not None), default=None)

    def _end_of_frames(self) -> int:
        return max(self._memory.end or 0, 0 if self._segments is None else self._segments.end)

    def _drop_missing(self) -> None:
        """Count what is missing before the oldest frame that there is."""
        start = self._start_of_frames()
        self._drop_until(self._end if start is None else start, _MISSING)

    # Adding

    def add(self, table: tuple[Labels, ...], times_milliseconds: Sequence[int], values: bytes) -> None:
        """Add rows, of this boot, as a frame; it is in the runtime folder when this returns. For one thread.

        This never waits for the disk, not even while another thread does; `maintain` moves frames there.
        """
        samples = count_samples(values)
        if not samples:
            return
        offset = self._dating.offset_milliseconds()
        frame = Frame(table, self._dating.boot, offset, tuple(times_milliseconds), values, samples, self._end)
        if self._memory.size_bytes < _MOST_WHILE_DISK_STALLS_BYTES:
            self._memory.add(pack(frame), self._clock.monotonic())
        if offset is None:
            self._undated_end = frame.end
        self._end = frame.end  # last: whoever sees this end finds the frame; without one it counts as missing
        if self._lock.acquire(timeout=_STATUS_SECONDS):
            try:
                self._publish()
            finally:
                self._lock.release()

    def _keep_memory_small(self) -> None:
        """Drop the oldest if the disk cannot be written for long."""
        if self._memory.size_bytes <= MOST_IN_MEMORY_BYTES or self._spill():
            return
        segments = self._segments
        if segments is not None and segments.start is not None and self._is_full:
            self._drop_until(segments.end_of_oldest, _DISK_FAILS)
            if self._spill():  # there was room in the removed segment
                return
        while self._memory.size_bytes > MOST_IN_MEMORY_BYTES:
            oldest = self._memory.frames()[0]
            if segments is None or segments.start is None:
                self._drop_until(oldest.end, _DISK_FAILS)
            else:
                self._lose(oldest)
                self._memory.remove_before(oldest.end)

    def _lose(self, packed: Packed) -> None:
        """Drop a frame of the memory while older ones are on disk and can still be sent."""
        self._position = self._position.without(packed.start, packed.end)
        self._drops.add(_DISK_FAILS, packed.samples, self._clock.monotonic())
        self._write_position()

    # Reading

    def next(self, after: Frame | None = None) -> Frame | None:
        """The oldest frame, or the one after another, dated; None if none can be sent now.

        What is too old is dropped on the way, rows that are not later than what was sent before are dropped, and frames
        of other boots that were never dated are counted as undated.
        """
        with self._lock:
            if self._is_closed:
                return None
            self._fix_dates()
            self._forget_the_future()
            try:
                return self._next(self._position.cursor if after is None else max(after.end, self._position.cursor))
            finally:
                self._publish()

    def _next(self, place: int) -> Frame | None:
        end = self._end  # before frames are read: another thread may add some meanwhile
        while (packed := self._read(place)) is not None:
            is_head = place <= self._position.cursor
            if is_head and packed.start > place:
                self._drop_until(packed.start, _MISSING)
            offset = self._offset_of(packed)
            if offset is None and packed.boot == self._dating.boot and not self._is_too_old(packed, None):
                return None
            frame = None
            if offset is not None and not self._is_too_old(packed, offset):
                frame = self._dated(packed, offset)
            if frame is not None:
                self._handed_until = max(self._handed_until, frame.end)
                return frame
            place = packed.end
            if not is_head:
                if offset is None:
                    self._undated_ahead[packed.start] = packed.samples
            elif offset is None:
                self._settle_until(place, undated=packed.samples)
            else:
                reason = "older than max_age" if self._is_too_old(packed, offset) else "not later than what was sent"
                self._drop_until(place, reason)
        if place <= self._position.cursor < end and not self._is_unreadable:
            self._drop_until(end, _MISSING)
        return None

    def _read(self, place: int) -> Packed | None:
        """The first frame that ends behind this place; None if there is none, or it `_is_unreadable` at this moment."""
        self._is_unreadable = False
        if self._segments is not None and place < self._segments.end:
            try:
                packed = self._segments.read(place)
            except OSError as error:
                self._note_disk_failure(error)
                self._is_unreadable = True
                return None
            if packed is not None:
                return packed
        return self._memory.read(place)

    def _dated(self, packed: Packed, offset: int) -> Frame | None:
        """The frame, without the rows that are not later than what was sent before; None if none is left."""
        try:
            frame = unpack(packed)
        except DamagedError:
            return None
        floor = self._position.floor_of(packed.end)
        skipped = 0 if floor is None else sum(time + offset <= floor for time in frame.times_milliseconds)
        if skipped == 0:
            return replace(frame, offset_milliseconds=offset)
        width = len(frame.table) * VALUE_BYTES
        values = frame.values[skipped * width :]
        samples = count_samples(values)
        if not samples:
            return None
        # What is left out lies before the start, and is dropped when the frame is settled.
        return Frame(
            frame.table,
            frame.boot,
            offset,
            frame.times_milliseconds[skipped:],
            values,
            samples,
            frame.end - samples,
        )

    def _offset_of(self, packed: Packed) -> int | None:
        if packed.offset_milliseconds is not None:
            return packed.offset_milliseconds
        return self._position.date_of(packed.boot, packed.start)

    def _fix_dates(self) -> None:
        """Date the frames of this boot that could not be dated before."""
        offset = self._dating.offset_milliseconds()
        if offset is None:
            return
        position = self._position.dated(self._dating.boot, self._undated_end, offset)
        if position is not self._position:
            self._position = position
            self._write_position(must_reach_disk=True)

    def _forget_the_future(self) -> None:
        """Forget times that were sent by a clock that was far ahead: until then, nothing would be sent any more."""
        offset, newest = self._dating.offset_milliseconds(), self._position.newest_milliseconds
        if offset is None or newest is None:
            return
        latest = self._dating.now_milliseconds() + offset + _LARGEST_LEAD_MILLISECONDS
        if newest <= latest:
            return
        accepted = self._position.accepted_milliseconds
        log.warning(
            "remote write: the clock was set back by %.1f h; samples are now sent with the new time",
            (newest - latest + _LARGEST_LEAD_MILLISECONDS) / 3_600_000,
        )
        self._position = replace(
            self._position,
            newest_milliseconds=None,
            accepted_milliseconds=None if accepted is None or accepted > latest else accepted,
        )
        self._write_position(must_reach_disk=True)

    def _is_too_old(self, packed: Packed, offset: int | None) -> bool:
        now = self._dating.now_milliseconds()
        if packed.boot == self._dating.boot:
            # Whatever the clock is set to: one that is wrong for a moment must not cost the backlog.
            return now - packed.last_milliseconds > self._max_age_milliseconds
        now_offset = self._dating.offset_milliseconds()
        if offset is None or now_offset is None:
            return False
        return now + now_offset - packed.last_milliseconds - offset > self._max_age_milliseconds

    # Sending

    @property
    def tried_until(self) -> int:
        """Frames before this place may be stored, perhaps because a run that was killed has sent them."""
        return self._position.tried_until

    def about_to_send(self, frame: Frame) -> None:
        """Note that the frame may be stored from now on; kept in the runtime folder."""
        with self._lock:
            if self._is_closed:
                return
            position = self._position.tried(frame)
            if position is not self._position:
                self._position = position
                self._write_position()

    @property
    def overtaken(self) -> tuple[int, frozenset[int]]:
        """A place, and starts of frames: a frame before that place whose start is not among these was overtaken.

        A server without an out-of-order window calls it out of order from then on, whether it has stored it or not.
        """
        with self._lock:
            return self._position.overtaken_until, frozenset(self._position.taken_ahead)

    def note_sending(self, frame: Frame) -> None:
        """Note that the frame, or a part of it, is sent now, perhaps before older ones are settled."""
        with self._lock:
            position = self._position.sent_ahead(frame)
            if position is not self._position and not self._is_closed:
                self._position = position
                self._write_position()

    def note_taken(self, frame: Frame) -> None:
        """Note that the frame was taken whole, and is not settled because older ones are not."""
        with self._lock:
            if not self._is_closed:
                self._position = self._position.taken(frame)
                self._write_position()

    def settle(self, frame: Frame, *, accepted: int, refused: int) -> None:
        """End everything up to this frame, which is included; what is neither accepted nor refused is dropped.

        Args:
            frame: the last one that ends.
            accepted: samples of all these frames that the server took.
            refused: samples that it never will.
        """
        with self._lock:
            if self._is_closed:
                return
            if accepted:
                newest = newest_milliseconds(frame)
                known = self._position.accepted_milliseconds
                self._position = replace(self._position, accepted_milliseconds=max(newest, known or newest))
            self._settle_until(frame.end, accepted=accepted, refused=refused)
            self._publish()

    def _settle_until(self, end: int, *, accepted: int = 0, refused: int = 0, undated: int = 0) -> int:
        """Move the cursor and count what it passes; return how many samples of it are dropped.

        The position is written first: what was removed before would count as missing after a kill -9.
        """
        undated += sum(samples for start, samples in self._undated_ahead.items() if start < end)
        dropped_before = self._position.counters.dropped
        self._position = self._position.settled(end, accepted=accepted, refused=refused, undated=undated)
        self._write_position()
        self._forget_settled()
        return self._position.counters.dropped - dropped_before

    def _drop_until(self, end: int, reason: str) -> None:
        dropped = self._settle_until(end)
        if dropped:
            self._drops.add(reason, dropped, self._clock.monotonic())

    def _forget_settled(self) -> None:
        """Remove what lies before the cursor."""
        cursor = self._position.cursor
        self._undated_ahead = {start: samples for start, samples in self._undated_ahead.items() if start >= cursor}
        if self._segments is not None:
            self._segments.remove_before(cursor)
        self._memory.remove_before(cursor)
        if self._head is not None and self._head.end <= cursor:
            self._head = None

    def count_request(self, *, failed: bool) -> None:
        """Count a request."""
        with self._lock:
            if self._is_closed:
                return
            self._position = self._position.with_request(failed=failed)
            self._write_position()
            self._publish()

    def forget(self, carried: RemoteCounters) -> None:
        """Take carried counters off: see `run.carried`."""
        with self._lock:
            self._position = self._position.without_counters(carried)
            self._write_position()
            self._publish()

    # From memory to disk

    def maintain(self) -> float:
        """Move what has waited for long from memory to disk, and drop what is too old; return when to call it again.

        Returns:
            After how many seconds.
        """
        with self._lock:
            self._fix_dates()
            self._drop_too_old()
            since = self._memory.waiting_since
            if since is not None and self._clock.monotonic() - since >= LONGEST_IN_MEMORY_SECONDS:
                self._spill()
            self._keep_memory_small()
            self._keep_bound()
            self._drops.end_if_quiet(self._clock.monotonic())
            self._publish()
            since = self._memory.waiting_since
            if since is None or self._disk_failures or self._segments is None:
                return LONGEST_IN_MEMORY_SECONDS
            return since + LONGEST_IN_MEMORY_SECONDS - self._clock.monotonic()

    def _drop_too_old(self) -> None:
        """Drop the oldest frames that are too old."""
        while (packed := self._read(self._position.cursor)) is not None:
            offset = self._offset_of(packed)
            if not self._is_too_old(packed, offset):
                break
            if offset is None:
                self._settle_until(packed.start)
                self._settle_until(packed.end, undated=packed.samples)
            else:
                self._drop_until(packed.end, "older than max_age")

    def _spill(self) -> bool:
        """Move all frames from memory to disk; return whether that succeeded."""
        segments = self._segments
        if segments is None or self._folder is None:
            return False
        try:
            if not self._folder.exists():
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
                sync_folder(self._folder.parent)
            frozen_until = max(self._position.tried_until, self._handed_until)
            self._positions.write_before_segment(self._position)
            segments.append(merged(self._memory.frames(), frozen_until, self._offset_of))
        except OSError as error:
            self._note_disk_failure(error)
            self._memory.remove_before(segments.end)
            return False
        self._memory.remove_before(segments.end)
        if self._disk_failures:
            log.info("%s: can be written again", self._folder)
            self._disk_failures = 0
        return True

    def _note_disk_failure(self, error: OSError) -> None:
        self._disk_failures += 1
        self._is_full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
        if self._disk_failures == 1:
            log.error(
                "%s: cannot be used (%s); samples stay in memory, up to 1 MB; free some space or check the disk",
                self._folder,
                error.strerror,
            )

    def _keep_bound(self) -> None:
        """Remove the oldest segments beyond the bound."""
        segments = self._segments
        while segments is not None and segments.size_bytes > self._max_bytes and not segments.is_one:
            self._drop_until(segments.end_of_oldest, "the backlog is full (max_backlog)")

    def _write_position(self, *, must_reach_disk: bool = False) -> None:
        has_segments = self._segments is not None and self._segments.start is not None
        try:
            self._positions.write(self._position, has_segments=has_segments, must_reach_disk=must_reach_disk)
        except OSError as error:
            self._note_disk_failure(error)

    # Status

    @property
    def status(self) -> RemoteStatus:
        """At this moment; never waits."""
        return self._status

    def _publish(self) -> None:
        """Make the status, after every change and before the lock is left."""
        position, segments = self._position, self._segments
        backlog = position.count_waiting(self._end)
        oldest = None
        if backlog:
            if self._head is None:
                self._head = self._read(position.cursor)
            if self._head is not None:
                offset = self._offset_of(self._head)
                oldest = None if offset is None else (self._head.first_milliseconds + offset) / 1000
        accepted = position.accepted_milliseconds
        self._status = RemoteStatus(
            position.counters,
            backlog,
            self._memory.size_bytes + (0 if segments is None else segments.size_bytes),
            self._max_bytes if segments is not None else MOST_IN_MEMORY_BYTES,
            oldest,
            None if accepted is None else accepted / 1000,
        )

    def close(self) -> None:
        """Write everything to disk and sync it, with the counters.

        An answer that comes later changes nothing: the next run may have opened the folder, and sends the frame again.
        """
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            if self._memory.start is not None:
                self._spill()
                self._keep_bound()
            self._drop_missing()  # the next boot begins at the oldest frame, and could not tell
            self._drops.end()
            self._write_position()
            if self._segments is not None:
                try:
                    self._positions.write_last(self._position)
                except OSError as error:
                    self._note_disk_failure(error)
                self._segments.close()
            self._memory.close()
            self._publish()
