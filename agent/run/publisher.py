"""The thread that pushes, so that a destination that hangs never delays a reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.threads import Background, NoThreadError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.clock import Clock
    from agent.run.destination import GroupResult


@dataclass(frozen=True, slots=True)
class PushReport:
    """The end of a push.

    Attributes:
        results: one for each group that was pushed or deleted.
        seconds: how long the push took.
        error: why nothing was pushed; None if it was begun.
    """

    results: Sequence[GroupResult]
    seconds: float
    error: AgentError | None = None

    def errors(self) -> list[AgentError]:
        """Those of the groups, and why nothing was pushed."""
        errors = [result.error for result in self.results if result.error is not None]
        return errors if self.error is None else [*errors, self.error]


class Publisher(Background[PushReport]):
    """Runs one push at a time in its own thread."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        super().__init__("push", wake)
        self._clock = clock

    def send(self, push: Callable[[], Sequence[GroupResult]]) -> None:
        """Start a push or a deletion; only when none is under way."""

        def report() -> PushReport:
            started_seconds = self._clock.monotonic()
            results: Sequence[GroupResult] = ()
            failure: AgentError | None = None
            try:
                results = push()
            except AgentError as error:
                failure = error
            return PushReport(results, self._clock.monotonic() - started_seconds, failure)

        self.start(report)

    def take_report(self) -> PushReport | None:
        """Return the report of a push that has ended since the last call; None if there is none. Raises its crash."""
        try:
            return self.take_result()
        except NoThreadError as error:
            return PushReport((), 0.0, NoThreadError(f"not pushed: {error}"))
