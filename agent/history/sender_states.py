"""What the sender knows of the frames that are not settled: one in turn, some that are answered, what was tried before.

These are values without any rule of their own; sender.py decides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.history.refusal import Refusal

if TYPE_CHECKING:
    from agent.history.answers import Verdict
    from agent.history.samples import Frame
    from agent.history.search import Search


@dataclass(slots=True)
class InTurn:
    """The frame that is sent now.

    Attributes:
        search: says which part to send.
        refusal: of parts of this frame; None if none was refused.
        is_taken_since: a part was taken after the last refusal.
        is_unanswered: the part may be stored, because an attempt at it had no answer.
        is_partly_stored: parts may be stored, because Mimir and Thanos store what they do not refuse of a request.
        errors_of_part: how many 5xx the part has met that may mean its data.
    """

    search: Search
    refusal: Refusal | None = None
    is_taken_since: bool = False
    is_unanswered: bool = False
    is_partly_stored: bool = False
    errors_of_part: int = 0

    @property
    def frame(self) -> Frame:
        """The whole frame."""
        return self.search.frame

    @property
    def part(self) -> Frame:
        """What to send; there is a part until the frame is answered."""
        if self.search.part is None:
            raise RuntimeError("no part to send")
        return self.search.part

    @property
    def may_be_stored(self) -> bool:
        """Whether the part may be stored by an earlier attempt of this turn."""
        return self.is_unanswered or self.is_partly_stored

    def refuse(self, verdict: Verdict) -> None:
        """Note that the part was refused."""
        self.is_partly_stored |= not verdict.is_stored_already
        self.is_taken_since = False
        if self.refusal is None:
            self.refusal = Refusal(verdict, self.part)
        self.refusal.note(verdict)

    def begin_next_part(self) -> None:
        """Forget what concerns only the part that is answered."""
        self.errors_of_part = 0
        self.is_unanswered = False


@dataclass(slots=True)
class Answered:
    """A frame that is answered, and waits for those before it.

    Attributes:
        start: the place of the frame.
    """

    start: int
    accepted: int
    refused: int


@dataclass(slots=True)
class Unsettled:
    """Frames that are answered, and kept because of what was refused.

    Attributes:
        frames: oldest first.
        last: the last of them; None if there is none.
        refusal: of parts of them; None if nothing was refused.
        is_confirm_due: a request was taken after the last refusal, so the refused part is sent once more.
        again: parts to send again one by one, because the server has taken one of those that it had refused.
        is_again_unanswered: the first of these may be stored, because an attempt at it had no answer.
        errors_of_part: how many 5xx a part that is sent again has met.
        holds: how often the sender has waited because the server refuses everything.
        is_oldest_retried: since the last of these waits, what was refused first was sent once more.
    """

    frames: list[Answered] = field(default_factory=list)
    last: Frame | None = None
    refusal: Refusal | None = None
    is_confirm_due: bool = False
    again: list[Frame] = field(default_factory=list)
    is_again_unanswered: bool = False
    errors_of_part: int = 0
    holds: int = 0
    is_oldest_retried: bool = False

    def add(self, in_turn: InTurn) -> None:
        """Add a frame that is answered."""
        search, refusal = in_turn.search, in_turn.refusal
        if refusal is not None and search.refused:
            for part in search.refused_parts:
                refusal.add(part)
            self.is_confirm_due |= in_turn.is_taken_since
            if self.refusal is None:
                self.refusal = refusal
            else:
                self.refusal.join(refusal)
        self.frames.append(Answered(search.frame.start, search.accepted, search.refused))
        self.last = search.frame

    def accept(self, part: Frame) -> None:
        """Count a part as accepted that was refused before."""
        for frame in self.frames:
            if frame.start == part.start:
                frame.accepted += part.samples
                frame.refused -= part.samples

    def remove_before(self, start: int) -> None:
        """Forget the frames that the backlog has dropped since."""
        self.frames = [frame for frame in self.frames if frame.start >= start]
        self.again = [part for part in self.again if part.start >= start]


@dataclass(slots=True)
class Tried:
    """What was tried before its turn, and so what the refusal of a frame as out of order means.

    Attributes:
        until: frames before this place may be stored: a run that was killed has tried them, or they are sent once more.
        ahead: the places of later frames that were tried out of turn.
        overtaken_until: frames before this place were overtaken in a run that was killed, but for `taken_ahead`.
        taken_ahead: the places of frames that this run had taken whole.
        errors_mean_data_until: frames before this place meet 5xx while a later one was taken.
    """

    until: int
    overtaken_until: int
    taken_ahead: frozenset[int]
    ahead: set[int] = field(default_factory=set)
    errors_mean_data_until: int = 0

    def may_be_stored(self, frame: Frame) -> bool:
        """Whether the frame may have been stored before its turn."""
        return frame.start < self.until or frame.start in self.ahead

    def do_errors_mean_data(self, frame: Frame) -> bool:
        """Whether a later frame was taken while this one meets 5xx."""
        return frame.start < self.errors_mean_data_until

    def is_overtaken(self, frame: Frame) -> bool:
        """Whether a later frame was taken: then this one is out of order, whether it is stored or not."""
        was_overtaken = frame.start < self.overtaken_until and frame.start not in self.taken_ahead
        return was_overtaken or self.do_errors_mean_data(frame)
