"""When the next request is due: paced while the server takes requests, backed off while it does not.

All waits are jittered, because an outage hits a whole fleet at once, and all of it returns at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.history.answers import Verdict
    from agent.history.samples import Frame

_LONGEST_START_SECONDS = 5.0

_FIRST_BACK_OFF_SECONDS = 0.5
_LONGEST_BACK_OFF_SECONDS = 300.0
_MOST_DOUBLINGS = 10
_LONGEST_RETRY_AFTER_SECONDS = 3600.0

_FIRST_HOLD_SECONDS = 5.0
"""The shortest wait once all there is was refused; the next sample is a push interval away."""

_SEARCH_SECONDS = 0.25
"""The longest wait between two parts of a frame that was refused."""


class Pace:
    """The wait after each request.

    Attributes:
        wait_seconds: from the end of the last request to the next one.
        failures: how many requests in a row have failed.

    Args:
        interval_seconds: the time that a frame of one row stands for.
        catch_up: how many times faster than real time to send.
        random: as `random.random`, for jitter.
    """

    def __init__(self, interval_seconds: float, catch_up: float, random: Callable[[], float]) -> None:
        self._interval_seconds = interval_seconds
        self._catch_up = catch_up
        self._random = random
        # A site whose power returns starts all its nodes at once.
        self.wait_seconds = random() * min(interval_seconds, _LONGEST_START_SECONDS)
        self.failures = 0

    def follow(self, part: Frame, whole: Frame | None = None, *, is_search: bool) -> None:
        """After a request that was answered: wait as long as its samples took, but for `catch_up`.

        Args:
            part: that was sent.
            whole: the frame that it is a part of; all parts together wait as long as the frame.
            is_search: whether other parts of a refused frame follow, which are sent quickly.
        """
        whole = whole or part
        times = whole.times_milliseconds
        seconds = ((times[-1] - times[0]) / 1000 + self._interval_seconds) / self._catch_up
        seconds *= part.samples / whole.samples
        if is_search:
            seconds = min(seconds, _SEARCH_SECONDS)
        self.failures = 0
        self.wait_seconds = seconds * (0.5 + self._random())

    def back_off(self, verdict: Verdict) -> None:
        """After a request that failed: wait longer each time, and at least as long as the server asks for."""
        wait_seconds = self._backed_off(_FIRST_BACK_OFF_SECONDS, self.failures)
        self.failures += 1
        asked_seconds = min(verdict.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS)
        # The server may have asked all nodes at once: they do not return at once.
        self.wait_seconds = max(wait_seconds, asked_seconds * (1 + 0.25 * self._random()))

    def hold(self, holds: int) -> None:
        """When all there is was refused, after `holds` times before: wait for what comes next."""
        self.wait_seconds = self._backed_off(max(_FIRST_HOLD_SECONDS, self._interval_seconds), holds)

    def _backed_off(self, first_seconds: float, times: int) -> float:
        seconds = first_seconds * (1 << min(times, _MOST_DOUBLINGS))
        return min(seconds, _LONGEST_BACK_OFF_SECONDS) * (0.5 + 0.5 * self._random())
