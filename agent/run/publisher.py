"""The thread that pushes, so that a destination that hangs never delays a reading."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.http.threads import NoThreadError, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.clock import Clock
    from agent.errors import AgentError
    from agent.run.destination import GroupResult


@dataclass(frozen=True, slots=True)
class PushReport:
    """The end of a push.

    Attributes:
        results: one for each group that was pushed or deleted.
        error: why the push did not start; None if it did.
        seconds: how long the push took.
        crash: an exception that is a bug; the main thread raises it again.
    """

    results: Sequence[GroupResult]
    seconds: float
    crash: BaseException | None = None
    error: AgentError | None = None


class Publisher:
    """Runs one push at a time in its own thread."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._under_way: list[PushReport] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a push is under way, or has ended and its report has not been taken."""
        return self._under_way is not None

    def start(self, job: Callable[[], Sequence[GroupResult]]) -> None:
        """Start a push; only when none is under way. One for which the system has no thread left ends at once."""
        if self._under_way is not None:
            raise RuntimeError("a push is under way")
        # One thread per push: it costs 50 us, and a thread that hangs forever can simply be abandoned.
        reports: list[PushReport] = []
        self._under_way = reports
        try:
            start_thread(threading.Thread(target=self._run, args=(job, reports), name="push", daemon=True))
        except NoThreadError as error:
            reports.append(PushReport((), 0.0, error=NoThreadError(f"not pushed: {error}")))

    def take_report(self) -> PushReport | None:
        """Return the report of a push that has ended since the last call; None if there is none."""
        if not self._under_way:
            return None
        (report,) = self._under_way
        self._under_way = None
        return report

    def abandon(self) -> None:
        """Forget the push under way; its report is dropped."""
        self._under_way = None

    def _run(self, job: Callable[[], Sequence[GroupResult]], reports: list[PushReport]) -> None:
        started_seconds = self._clock.monotonic()
        results: Sequence[GroupResult] = ()
        crash: BaseException | None = None
        try:
            results = job()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it again
            crash = error
        reports.append(PushReport(results, self._clock.monotonic() - started_seconds, crash))
        self._wake()
