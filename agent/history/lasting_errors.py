"""Finds out whether 5xx that last for one frame mean its data, as when Prometheus answers 500 to samples too old.

After ten minutes later frames are tried: the next eight one by one, then frames ever further ahead. If one is taken,
the errors of the frames before it mean their data. Between two tries the frame in turn is sent again, so that a server
that has recovered takes that one first. Frames that a try skips are lost only to a server that takes nothing older than
what it has; but such a server answers 400 to old samples, not 500.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.history.answers import Verdict
    from agent.history.samples import Frame

_LASTING_SECONDS = 600.0

_ONE_BY_ONE = 8
"""So many frames are tried without skipping any."""


class LastingErrors:
    """The errors of the frame in turn.

    Attributes:
        is_due: whether a later frame is to be tried now.

    Args:
        monotonic: the clock.
        frame_after: the frame after another, noted as sent; None if there is none.
    """

    def __init__(self, monotonic: Callable[[], float], frame_after: Callable[[Frame], Frame | None]) -> None:
        self._monotonic = monotonic
        self._frame_after = frame_after
        self._since_seconds: float | None = None
        self._tried = 0
        self._last: Frame | None = None
        self.is_due = False

    def note(self, verdict: Verdict) -> None:
        """Note an answer to the frame in turn that settles nothing."""
        if not verdict.is_server_error:
            self.forget()
        elif self._since_seconds is None:
            self._since_seconds = self._monotonic()
        since_seconds = self._since_seconds
        self.is_due = since_seconds is not None and self._monotonic() - since_seconds >= _LASTING_SECONDS

    def forget(self) -> None:
        """The frame in turn is another one, or its errors have ended."""
        self._since_seconds = None
        self._tried = 0
        self._last = None
        self.is_due = False

    def frame_to_try(self, frame_in_turn: Frame) -> Frame | None:
        """The later frame to try now; None to try the one in turn again."""
        if not self.is_due:
            return None
        self.is_due = False
        frame = last = self._last or frame_in_turn
        for _ in range(2 ** max(0, self._tried - _ONE_BY_ONE)):
            following = self._frame_after(frame)
            if following is None:
                break
            frame = following
        if frame is last:  # up to the newest, none was taken
            self.forget()
            return None
        self._last = frame
        self._tried += 1
        return frame
