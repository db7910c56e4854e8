"""The log lines about samples that are dropped: one when it begins, and one with their number when it has ended."""

from __future__ import annotations

import logging

_END_SECONDS = 3600.0
"""After this time without any."""

log = logging.getLogger(__name__)


class Losses:
    """One line when samples begin to be dropped for some reason, and one with their number when that has ended."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}
        self._last_seconds = 0.0

    def add(self, reason: str, samples: int, now_seconds: float) -> None:
        """Count samples."""
        if reason not in self._samples:
            self._samples[reason] = 0
            log.warning("remote write drops samples: %s", reason)
        self._samples[reason] += samples
        self._last_seconds = now_seconds

    def end_if_over(self, now_seconds: float) -> None:
        """End it when nothing was dropped for long."""
        if now_seconds - self._last_seconds >= _END_SECONDS:
            self.end()

    def end(self) -> None:
        """Log the numbers."""
        for reason, samples in self._samples.items():
            log.warning("remote write dropped %d samples in all: %s", samples, reason)
        self._samples.clear()
