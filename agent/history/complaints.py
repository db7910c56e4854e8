"""What the log says of remote write: once when it starts to fail, once when it works again, and what was refused."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from agent.errors import RejectedError
from agent.history.answers import Meaning, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.errors import AgentError
    from agent.history.samples import Frame, Labels

_log = logging.getLogger(__name__)

_FAILURES_UNTIL_WARNING = 2
"""A server that is busy for a moment is not worth two lines."""

_MOST_BYTES_KEPT = 256_000
"""Of values that were refused, to be sent again if the server takes them after all."""

_TOLD_AGAIN_SECONDS = 3600.0


class Complaints:
    """Tells of failures.

    Attributes:
        failure: why the last request failed; None if it did not.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.failure: AgentError | None = None
        self._monotonic = monotonic
        self._began_at_seconds = 0.0
        self._failures = 0
        self._warned: Meaning | None = None
        self._has_told_size = False
        self._given_up = 0
        self._told_at_seconds: float | None = None

    def note(self, verdict: Verdict) -> None:
        """Note the outcome of a request."""
        self.failure = verdict.as_error()
        if verdict.meaning is Meaning.TAKEN:
            self._works()
        elif verdict.meaning is Meaning.TOO_LARGE:
            if not self._has_told_size:
                _log.warning("remote write: %s", verdict.words)
                self._has_told_size = True
        elif verdict.meaning is not Meaning.REFUSED:
            self._fails(verdict)

    def hold(self, words: str) -> None:
        """All there is was refused, again."""
        words = f"{words}; everything that is left is refused"
        self._fails(Verdict(Meaning.HOLD, words, error=RejectedError))

    def give_up(self, refusal: Refusal, samples: int) -> None:
        """Samples are refused for good; told at once, and then once an hour."""
        self._given_up += samples
        now_seconds = self._monotonic()
        if self._told_at_seconds is not None and now_seconds - self._told_at_seconds < _TOLD_AGAIN_SECONDS:
            return
        more = "" if self._told_at_seconds is None else " more"
        _log.warning(
            "remote write: %d%s samples are refused for good, while others are taken; the last were %s",
            self._given_up,
            more,
            refusal,
        )
        self._told_at_seconds = now_seconds
        self._given_up = 0

    def _fails(self, verdict: Verdict) -> None:
        if not self._failures:
            self._began_at_seconds = self._monotonic()
        self._failures += 1
        if self._warned is verdict.meaning:
            return
        if verdict.meaning is Meaning.LATER and (self._failures < _FAILURES_UNTIL_WARNING or self._warned):
            _log.debug("remote write: %s; trying again", verdict.words)
            return
        self._warned = verdict.meaning
        _log.warning("remote write: %s; nothing is dropped: samples are kept until it works", verdict.words)

    def _works(self) -> None:
        if self._warned:
            seconds = self._monotonic() - self._began_at_seconds
            _log.info("remote write works again, after %.0f s and %d failed requests", seconds, self._failures)
        self._failures = 0
        self._warned = None


class Refusal:
    """What a server refuses of some frames in a row.

    Attributes:
        words: of the last answer.
        is_server_error: whether that answer was a 5xx.
        first_part: that was refused.
        last_part: that was refused.
        parts: all that were refused; empty if these are too much to keep.
    """

    def __init__(self, verdict: Verdict, part: Frame) -> None:
        self.words = verdict.words
        self.is_server_error = verdict.is_server_error
        self.first_part = part
        self.last_part = part
        self.parts: list[Frame] = []
        self._left_bytes = _MOST_BYTES_KEPT
        self._first_milliseconds: int | None = None
        self._last_milliseconds = 0
        self._series: set[Labels] = set()

    def note(self, verdict: Verdict) -> None:
        """Note another refusal."""
        self.words = verdict.words
        self.is_server_error = verdict.is_server_error

    def add(self, part: Frame) -> None:
        """Add a part whose samples are refused."""
        if self._first_milliseconds is None:
            self.first_part = part
        self.last_part = part
        self._keep([part])
        offset = part.offset_milliseconds or 0
        if self._first_milliseconds is None:
            self._first_milliseconds = part.times_milliseconds[0] + offset
        self._last_milliseconds = part.times_milliseconds[-1] + offset
        self._series.update(part.table)

    def join(self, later: Refusal) -> None:
        """Add a refusal of later frames."""
        self.words = later.words
        self.is_server_error = later.is_server_error
        self.last_part = later.last_part
        self._keep(later.parts)
        self._last_milliseconds = later._last_milliseconds
        self._series |= later._series

    def _keep(self, parts: Sequence[Frame]) -> None:
        self._left_bytes -= sum(len(part.values) for part in parts)
        if self._left_bytes < 0 or not parts:  # also if those of later frames are too much
            self._left_bytes = -1
            self.parts = []
        else:
            self.parts += parts

    def __str__(self) -> str:
        """The time, the series and the words of the server."""
        return (
            f"from {_utc(self._first_milliseconds or 0)} to {_utc(self._last_milliseconds)}, of {len(self._series)} "
            f"series such as {_selector(min(self._series, default=()))}: {self.words}"
        )


def _utc(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc).isoformat(sep=" ", timespec="seconds")


def _selector(labels: Labels) -> str:
    name = dict(labels).get("__name__", "")
    matchers = ", ".join(f'{label}="{value}"' for label, value in labels if label != "__name__")
    return f"{name}{{{matchers}}}"
