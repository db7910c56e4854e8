"""The log lines about dropped samples: one when dropping begins, and one with their number when it has ended."""

from __future__ import annotations

import logging

from agent.log import counted

_END_SECONDS = 3600.0
"""Dropping has ended when nothing was dropped for so long."""

log = logging.getLogger(__name__)


class DropLog:
    """Logs dropped samples, by reason."""

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

    def end_if_quiet(self, now_seconds: float) -> None:
        """Log the numbers once nothing was dropped for an hour."""
        if now_seconds - self._last_seconds >= _END_SECONDS:
            self.end()

    def end(self) -> None:
        """Log the numbers."""
        for reason, samples in self._samples.items():
            log.warning("remote write dropped %s in all: %s", counted(samples, "sample"), reason)
        self._samples.clear()
