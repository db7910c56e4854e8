"""What a server refuses, for the log line about it and for another try."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.history.answers import Verdict
    from agent.history.samples import Frame, Labels

_MOST_BYTES_KEPT = 256_000
"""Of values that were refused, to be sent again if the server takes them after all."""


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
