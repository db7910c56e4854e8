"""The log lines about pushes: one when a failure begins, and one when it ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.errors import UnreachableError
from agent.log import counted
from agent.push.causes import and_more, by_cause

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.errors import AgentError
    from agent.run.publisher import PushReport

log = logging.getLogger(__name__)


class FailureLog:
    """One line when something starts to fail, and one with the number of failures when it works again."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}

    def failed(self, name: str, message: str) -> None:
        """Record a failure of `name`; only the first in a row is logged."""
        if self.begins(name):
            log.error("%s", message)

    def begins(self, name: str) -> bool:
        """Record a failure of `name`; return whether it is the first in a row, which the caller logs."""
        self._failures[name] = self._failures.get(name, 0) + 1
        return self._failures[name] == 1

    def worked(self, *names: str) -> None:
        """Record that these work; one line for those that had failed equally often."""
        recovered: dict[int, list[str]] = {}
        for name in names:
            if failures := self._failures.pop(name, 0):
                recovered.setdefault(failures, []).append(name)
        for failures, (first, *more) in recovered.items():
            log.info("%s%s: works again after %s", first, and_more(len(more)), counted(failures, "failure"))


class PushLog:
    """One line for an unreachable destination, however many groups wait for it, and one for each cause of rejection."""

    def __init__(self) -> None:
        self._failures = FailureLog()

    def write_deletion(self, errors: Sequence[AgentError]) -> None:
        """Log the end of the deletion at a clean stop: the gateway keeps what could not be deleted."""
        if errors:
            more = and_more(len(errors) - 1)
            log.error("not deleted at the stop: %s%s; the gateway keeps them until wattpush delete", errors[0], more)

    def write(self, report: PushReport) -> None:
        """Log how a push ended."""
        errors = report.errors()
        unreachable = [error for error in errors if isinstance(error, UnreachableError)]
        if unreachable:
            more = and_more(len(unreachable) - 1)
            self._failures.failed("push", f"{unreachable[0]}{more}; the next push covers this interval too")
        elif report.error is not None:
            self._failures.failed("push", str(report.error))
        elif report.results:
            self._failures.worked("push")
        self._failures.worked(*(result.name for result in report.results if result.error is None))
        rejected = [
            (result.name, result.error)
            for result in report.results
            if result.error is not None and result.error not in unreachable and self._failures.begins(result.name)
        ]
        for message in by_cause(rejected):
            log.error("%s", message)
