"""How far a backlog has been sent, and the counters: a value that each step replaces as a whole."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.energy.state import RemoteCounters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.history.samples import Frame


@dataclass(frozen=True, slots=True)
class Position:
    """How far a backlog has been sent.

    Attributes:
        boot: in which this was written.
        cursor: the samples before this place are settled.
        tried_until: what is before this place may be stored by the server.
        overtaken_until: what is before this place, and not settled, was overtaken by a later frame that was sent.
        taken_ahead: the starts of frames that were taken whole before older ones were settled.
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
    overtaken_until: int = 0
    taken_ahead: tuple[int, ...] = ()
    newest_milliseconds: int | None = None
    floors: Mapping[int, int | None] = field(default_factory=dict)
    lost: tuple[tuple[int, int], ...] = ()
    accepted_milliseconds: int | None = None
    dates: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    counters: RemoteCounters = field(default_factory=RemoteCounters)

    def _count_lost(self, start: int, end: int) -> int:
        """How many of these places are lost."""
        return sum(max(min(end, lost_end) - max(start, lost_start), 0) for lost_start, lost_end in self.lost)

    def date_of(self, boot: str, start: int) -> int | None:
        """The offset of a frame without one of its own; None if its boot was not dated since."""
        return next((offset for until, offset in self.dates.get(boot, ()) if start < until), None)

    def count_waiting(self, end: int) -> int:
        """How many samples between the cursor and this place are not counted yet."""
        return max(end - self.cursor, 0) - self._count_lost(self.cursor, end)

    def settled(self, end: int, *, accepted: int = 0, refused: int = 0, undated: int = 0) -> Position:
        """Move the cursor and count what it passes: what is neither accepted, refused nor undated is dropped.

        Samples that were dropped meanwhile are counted already, whatever the server said about them.
        """
        passed = self.count_waiting(end)
        accepted = min(accepted, passed)
        refused = min(refused, passed - accepted)
        undated = min(undated, passed - accepted - refused)
        counters = replace(
            self.counters,
            accepted=self.counters.accepted + accepted,
            refused=self.counters.refused + refused,
            dropped=self.counters.dropped + passed - accepted - refused - undated,
            undated=self.counters.undated + undated,
        )
        dates = {boot: tuple(date for date in of_boot if date[0] > end) for boot, of_boot in self.dates.items()}
        return replace(
            self,
            cursor=max(self.cursor, end),
            taken_ahead=tuple(start for start in self.taken_ahead if start >= end),
            floors={place: floor for place, floor in self.floors.items() if place > end},
            lost=tuple(lost for lost in self.lost if lost[1] > end),
            dates={boot: of_boot for boot, of_boot in dates.items() if of_boot},
            counters=counters,
        )

    def without(self, start: int, end: int) -> Position:
        """Drop a frame behind the cursor, while older ones can still be sent."""
        lost = list(self.lost)
        samples = end - start
        if lost and lost[-1][1] == start:
            start = lost.pop()[0]
        counters = replace(self.counters, dropped=self.counters.dropped + samples)
        return replace(self, lost=(*lost, (start, end)), counters=counters)

    def tried(self, frame: Frame) -> Position:
        """Note that a frame may be stored from now on."""
        if frame.end in self.floors:
            return self
        newest = newest_milliseconds(frame)
        return replace(
            self,
            tried_until=max(self.tried_until, frame.end),
            floors={**self.floors, frame.end: self.newest_milliseconds},
            newest_milliseconds=max(newest, self.newest_milliseconds or newest),
        )

    def sent_ahead(self, frame: Frame) -> Position:
        """Note that a frame is sent, perhaps before older ones are settled."""
        if frame.start <= max(self.cursor, self.overtaken_until):
            return self
        return replace(self, overtaken_until=frame.start)

    def taken(self, frame: Frame) -> Position:
        """Note that a frame was taken whole before older ones are settled."""
        return replace(self, taken_ahead=(*self.taken_ahead, frame.start))

    def floor_of(self, end: int) -> int | None:
        """The Unix time after which the rows of the frame with this end are sent: for a retry as at the first time."""
        return self.floors.get(end, self.newest_milliseconds)

    def dated(self, boot: str, until: int, offset: int) -> Position:
        """Date the frames of a boot up to this place that could not be dated before, once and for all."""
        dates = self.dates.get(boot, ())
        if until <= max(self.cursor, dates[-1][0] if dates else 0):
            return self
        return replace(self, dates={**self.dates, boot: (*dates, (until, offset))})

    def with_request(self, *, failed: bool) -> Position:
        """Count a request."""
        counters = replace(
            self.counters,
            requests=self.counters.requests + 1,
            request_failures=self.counters.request_failures + failed,
        )
        return replace(self, counters=counters)

    def without_counters(self, carried: RemoteCounters) -> Position:
        """Take carried counters off."""
        left = {
            name: max(getattr(self.counters, name) - getattr(carried, name), 0) for name in RemoteCounters.__slots__
        }
        return replace(self, counters=RemoteCounters(**left))


def newest_milliseconds(frame: Frame) -> int:
    """The Unix time of the last row; raises ValueError if the frame is not dated."""
    if frame.offset_milliseconds is None:
        raise ValueError("the frame is not dated")
    return frame.times_milliseconds[-1] + frame.offset_milliseconds
