"""The log lines of the sender: one when it starts to fail, one when it works again, and what was refused."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.errors import RejectedError
from agent.history.answers import Meaning, Verdict
from agent.log import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.errors import AgentError
    from agent.history.refusal import Refusal

_log = logging.getLogger(__name__)

_FAILURES_UNTIL_WARNING = 2
"""A server that is busy for a moment is not worth two lines."""

_REPEAT_SECONDS = 3600.0
"""Samples that are refused for good are logged at once, and then once an hour."""


class SenderLog:
    """Logs the outcome of requests.

    Attributes:
        failure: why the last request failed; None if it did not.

    Args:
        monotonic: the clock.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.failure: AgentError | None = None
        self._monotonic = monotonic
        self._began_at_seconds = 0.0
        self._failures = 0
        self._warned: Meaning | None = None
        self._has_logged_size = False
        self._given_up = 0
        self._logged_at_seconds: float | None = None

    def note(self, verdict: Verdict) -> None:
        """Note the outcome of a request."""
        self.failure = verdict.as_error()
        if verdict.meaning is Meaning.TAKEN:
            self._works()
        elif verdict.meaning is Meaning.TOO_LARGE:
            if not self._has_logged_size:
                _log.warning("remote write: %s", verdict.words)
                self._has_logged_size = True
        elif verdict.meaning is not Meaning.REFUSED:
            self._fails(verdict)

    def hold(self, words: str) -> None:
        """All there is was refused, again."""
        words = f"{words}; the server refuses everything"
        self._fails(Verdict(Meaning.HOLD, words, error=RejectedError))

    def give_up(self, refusal: Refusal, samples: int) -> None:
        """Samples are refused for good."""
        self._given_up += samples
        now_seconds = self._monotonic()
        if self._logged_at_seconds is not None and now_seconds - self._logged_at_seconds < _REPEAT_SECONDS:
            return
        more = "" if self._logged_at_seconds is None else "more "
        _log.warning(
            "remote write: %s refused for good, while the server takes others; the last were %s",
            counted(self._given_up, f"{more}sample"),
            refusal,
        )
        self._logged_at_seconds = now_seconds
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
        _log.warning("remote write: %s; samples are kept until it works", verdict.words)

    def _works(self) -> None:
        if self._warned:
            seconds = self._monotonic() - self._began_at_seconds
            failures = counted(self._failures, "failed request")
            _log.info("remote write works again after %.0f s and %s", seconds, failures)
        self._failures = 0
        self._warned = None
