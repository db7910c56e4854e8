"""Finds what a server refuses of a frame: sends parts of it until everything is either taken or refused.

A part of some series with all their rows may be sent at any time. Parts of some rows are sent oldest first, each to its
end before the next: a server without an out-of-order window takes nothing that is older than what it has. So a refused
part is halved by series first, and by time only if both of these halves are refused.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from agent.history.samples import VALUE_BYTES, Labels, count_samples

if TYPE_CHECKING:
    from collections.abc import Generator

    from agent.history.samples import Frame

_MOST_REQUESTS = 120
"""For one frame; what is still unknown then counts as refused. One bad series of 64 takes 13, four of them some 50."""

_MOST_FRUITLESS_REQUESTS = (48, 8, 1)
"""After how many requests of which none was taken a frame counts as refused: fewer after each frame that was refused
whole, because a server may take nothing of an outage.
"""

_MOST_LEVELS_REFUSED = 3
"""A row of which all eighths are refused is refused itself."""

_FIRST_TAKEN = 16
_MOST_TAKEN = 4096
"""After how many requests at the size limit a larger one is tried; doubled each time that this is too large.

A limit may have been a mistake, and small requests for ever cost the server and the network far more than a try.
"""


class Outcome(Enum):
    """What became of a part."""

    TAKEN = "taken"
    STORED = "taken before, as its refusal shows"
    REFUSED = "refused"
    TOO_LARGE = "too large for one request"


@dataclass(slots=True)
class ServerProfile:
    """What earlier frames have shown about the server.

    Attributes:
        bad_series: series that were refused in every row of a frame of which others were taken.
        most_samples: how many samples one request may carry.
        refused_whole: how many frames in a row were refused whole.
    """

    bad_series: set[Labels] = field(default_factory=set)
    most_samples: float = math.inf
    refused_whole: int = 0
    _taken: int = 0
    _taken_before_more: int = _FIRST_TAKEN
    _is_trying_more: bool = False

    def note_taken(self, samples: int) -> None:
        """Note a request that was taken; after many at the limit, raise it."""
        if 2 * samples <= self.most_samples:
            return
        if self._is_trying_more:
            self._is_trying_more = False
            self._taken_before_more = _FIRST_TAKEN
        self._taken += 1
        if self._taken >= self._taken_before_more:
            self._taken = 0
            self._is_trying_more = True
            self.most_samples *= 2

    def note_too_large(self) -> None:
        """Note a request that was too large."""
        self._taken = 0
        if self._is_trying_more:
            self._is_trying_more = False
            self._taken_before_more = min(2 * self._taken_before_more, _MOST_TAKEN)


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows `first_row` to before `end_row` of some columns of the table."""

    first_row: int
    end_row: int
    columns: tuple[int, ...]


class Search:
    """Sends one frame, whole or in parts; makes no request itself.

    Attributes:
        frame: that is sent.
        part: what to send now; None once everything is taken or refused.
        accepted: samples that were taken.
        refused: samples that were refused.
        refused_parts: the parts that were refused, in the order of their answers.
    """

    def __init__(self, frame: Frame, profile: ServerProfile, *, is_perhaps_in_part: bool = False) -> None:
        """Begin.

        Args:
            frame: to send.
            profile: of the frames before; updated.
            is_perhaps_in_part: whether a run that was killed may have sent only parts of it.
        """
        self.frame = frame
        self.part: Frame | None = None
        self.accepted = 0
        self.refused = 0
        self.refused_parts: list[Frame] = []
        self._profile = profile
        self._is_perhaps_in_part = is_perhaps_in_part
        self._most_fruitless_requests = _MOST_FRUITLESS_REQUESTS[
            min(profile.refused_whole, len(_MOST_FRUITLESS_REQUESTS) - 1)
        ]
        self._suspects = set(profile.bad_series)
        self._requests = 0
        self._steps = self._deliver(_Part(0, len(frame.times_milliseconds), tuple(range(len(frame.table)))))
        self._advance(None)

    def proceed(self, outcome: Outcome) -> Frame | None:
        """Go on to the next part, after the outcome of this one."""
        self._requests += 1
        if outcome is Outcome.TAKEN and self.part is not None:
            self._profile.note_taken(self.part.samples)
        elif outcome is Outcome.TOO_LARGE:
            self._profile.note_too_large()
        self._advance(outcome)
        return self.part

    @property
    def is_part_known_bad(self) -> bool:
        """Whether every series of the part was refused before."""
        return self.part is not None and self._profile.bad_series.issuperset(self.part.table)

    def _advance(self, outcome: Outcome | None) -> None:
        try:
            self.part = next(self._steps) if outcome is None else self._steps.send(outcome)
        except StopIteration:
            self.part = None
            self._update_profile()

    def _update_profile(self) -> None:
        if not self.accepted:
            self._profile.refused_whole += bool(self.refused)
            return
        self._profile.refused_whole = 0
        rows_refused = Counter[Labels]()
        for part in self.refused_parts:
            rows_refused.update(dict.fromkeys(part.table, len(part.times_milliseconds)))
        rows = len(self.frame.times_milliseconds)
        bad = {labels for labels, refused in rows_refused.items() if refused == rows}
        self._profile.bad_series = (self._profile.bad_series - set(self.frame.table)) | bad

    def _deliver(self, part: _Part) -> Generator[Frame, Outcome, None]:
        """Send a part, and find what is refused of it."""
        divided = self._without_bad_series(part)
        for piece in divided or (part,):
            yield from self._resolve(piece, (yield from self._send(piece)))

    def _send(self, part: _Part) -> Generator[Frame, Outcome, Outcome]:
        frame = self._cut(part)
        if frame.samples == 0:
            return Outcome.TAKEN
        if 1 < frame.samples > self._profile.most_samples:
            return Outcome.TOO_LARGE
        return (yield frame)

    def _resolve(self, part: _Part, outcome: Outcome) -> Generator[Frame, Outcome, None]:
        rows = part.end_row - part.first_row
        if outcome is Outcome.TOO_LARGE:
            halves = _by_time(part) if rows > 1 else _by_series(part)
            largest = max(self._cut(half).samples for half in halves)
            self._profile.most_samples = min(self._profile.most_samples, largest)
            for half in halves:
                yield from self._deliver(half)
        elif outcome is Outcome.REFUSED:
            yield from self._find(part)
        elif outcome is Outcome.STORED and self._is_perhaps_in_part and rows > 1:
            # Some rows are stored, and those after them perhaps not.
            for row in range(part.first_row, part.end_row):
                yield from self._deliver(replace(part, first_row=row, end_row=row + 1))
        else:
            self.accepted += self._cut(part).samples

    def _find(
        self, part: _Part, *, is_by_time: bool = False, levels_refused: int = 0
    ) -> Generator[Frame, Outcome, None]:
        """Divide a part that was refused.

        Args:
            part: refused as a whole.
            is_by_time: whether halves by series of what it was in were both refused.
            levels_refused: how often in a row both halves were refused, of one row.
        """
        rows = part.end_row - part.first_row
        if self._is_over_budget() or self._is_known(part) or levels_refused >= _MOST_LEVELS_REFUSED:
            self._give_up(part)
        elif self._without_bad_series(part):  # one of them was found while this part was on its way
            yield from self._deliver(part)
        elif len(part.columns) > 1 and not (is_by_time and rows > 1):
            yield from self._find_by_series(part, levels_refused)
        elif rows > 1:
            yield from self._find_by_time(part)
        else:
            self._suspects.add(self.frame.table[part.columns[0]])
            self._give_up(part)

    def _find_by_series(self, part: _Part, levels_refused: int) -> Generator[Frame, Outcome, None]:
        first, second = _by_series(part)
        outcomes = (yield from self._send(first)), (yield from self._send(second))
        if outcomes != (Outcome.REFUSED, Outcome.REFUSED):
            yield from self._resolve(first, outcomes[0])
            yield from self._resolve(second, outcomes[1])
        elif part.end_row - part.first_row > 1:
            yield from self._find(part, is_by_time=True)
        else:
            yield from self._find(first, levels_refused=levels_refused + 1)
            yield from self._find(second, levels_refused=levels_refused + 1)

    def _find_by_time(self, part: _Part) -> Generator[Frame, Outcome, None]:
        for half in _by_time(part):
            outcome = yield from self._send(half)
            if outcome is Outcome.REFUSED:
                yield from self._find(half, is_by_time=True)
            else:
                yield from self._resolve(half, outcome)

    def _is_over_budget(self) -> bool:
        return self._requests >= (_MOST_REQUESTS if self.accepted else self._most_fruitless_requests)

    def _is_known(self, part: _Part) -> bool:
        """Whether every series of a part was refused before."""
        return all(self.frame.table[column] in self._profile.bad_series for column in part.columns)

    def _give_up(self, part: _Part) -> None:
        frame = self._cut(part)
        self.refused += frame.samples
        self.refused_parts.append(frame)

    def _without_bad_series(self, part: _Part) -> tuple[_Part, _Part] | None:
        """The series that were refused before, and the others; None if the part is all of one kind."""
        table = self.frame.table
        good = tuple(column for column in part.columns if table[column] not in self._suspects)
        bad = tuple(column for column in part.columns if table[column] in self._suspects)
        # In this order: that the others are taken then confirms the refusal.
        return (replace(part, columns=bad), replace(part, columns=good)) if good and bad else None

    def _cut(self, part: _Part) -> Frame:
        """The part as a frame of its own, at the place of the whole."""
        frame = self.frame
        rows = range(part.first_row, part.end_row)
        if len(part.columns) == len(frame.table):
            if len(rows) == len(frame.times_milliseconds):
                return frame
            table, row_bytes = frame.table, VALUE_BYTES * len(frame.table)
            values = frame.values[part.first_row * row_bytes : part.end_row * row_bytes]
        else:
            table = tuple(frame.table[column] for column in part.columns)
            places = [(row * len(frame.table) + column) * VALUE_BYTES for row in rows for column in part.columns]
            values = b"".join(frame.values[place : place + VALUE_BYTES] for place in places)
        return replace(
            frame,
            table=table,
            times_milliseconds=frame.times_milliseconds[part.first_row : part.end_row],
            values=values,
            samples=count_samples(values),
        )


def _by_time(part: _Part) -> tuple[_Part, _Part]:
    middle = (part.first_row + part.end_row) // 2
    return replace(part, end_row=middle), replace(part, first_row=middle)


def _by_series(part: _Part) -> tuple[_Part, _Part]:
    middle = len(part.columns) // 2
    return replace(part, columns=part.columns[:middle]), replace(part, columns=part.columns[middle:])
