"""The thread that pushes, so that a gateway that hangs never keeps a reading waiting."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.metrics.groups import Group


class GroupResult(Protocol):
    """What became of one group."""

    @property
    def grouping_key(self) -> Mapping[str, str]:
        """Of the group, as it was handed in."""

    @property
    def name(self) -> str:
        """Of the group, for messages."""

    @property
    def error(self) -> AgentError | None:
        """Why it failed; None if it was accepted."""


class Sink(Protocol):
    """Where groups of metrics are pushed to."""

    def push(self, groups: Sequence[Group], budget_seconds: float) -> Sequence[GroupResult]:
        """Replace the groups; a result for each, in order."""

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], budget_seconds: float) -> Sequence[GroupResult]:
        """Remove the groups; a result for each, in order."""

    def stop(self) -> None:
        """End everything under way at once; from any thread."""

    def close(self) -> None:
        """Let go of idle connections."""


@dataclass(frozen=True, slots=True)
class PushReport:
    """The end of a push: a result for each group, or the exception that should not have happened."""

    results: Sequence[GroupResult]
    seconds: float
    crash: BaseException | None = None


class Publisher:
    """Runs one push at a time in a thread of its own."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._under_way: list[PushReport] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a push is under way, or has ended and its report has not been taken."""
        return self._under_way is not None

    def start(self, job: Callable[[], Sequence[GroupResult]]) -> None:
        """Begin a push; only when none is under way."""
        if self._under_way is not None:
            raise RuntimeError("a push is under way")
        # A thread a push: it costs 50 us, and one that is stuck for good can simply be left behind.
        reports: list[PushReport] = []
        self._under_way = reports
        threading.Thread(target=self._run, args=(job, reports), name="push", daemon=True).start()

    def take_report(self) -> PushReport | None:
        """The report of the push that has ended since the last call, if one has."""
        if not self._under_way:
            return None
        (report,) = self._under_way
        self._under_way = None
        return report

    def abandon(self) -> None:
        """Have nothing more to do with the push that is under way; whatever it still brings is dropped."""
        self._under_way = None

    def _run(self, job: Callable[[], Sequence[GroupResult]], reports: list[PushReport]) -> None:
        begun_seconds = self._clock.monotonic()
        results: Sequence[GroupResult] = ()
        crash: BaseException | None = None
        try:
            results = job()
        except BaseException as error:  # noqa: BLE001 - it is raised again in the main thread
            crash = error
        reports.append(PushReport(results, self._clock.monotonic() - begun_seconds, crash))
        self._wake()
