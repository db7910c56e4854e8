"""The log lines about pushes: one when a failure begins, and one when it ends."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.errors import UnreachableError
from agent.log import counted

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
        self._failures[name] = self._failures.get(name, 0) + 1
        if self._failures[name] == 1:
            log.error("%s", message)

    def worked(self, name: str) -> None:
        """Record that `name` works; logged if it had failed."""
        failures = self._failures.pop(name, 0)
        if failures:
            log.info("%s: works again after %s", name, counted(failures, "failure"))


class PushLog:
    """One line for an unreachable destination, however many groups wait for it; one for each group it rejects."""

    def __init__(self) -> None:
        self._failures = FailureLog()

    def write_deletion(self, errors: Sequence[AgentError]) -> None:
        """Log the end of the deletion at a clean stop: the gateway keeps what could not be deleted."""
        if errors:
            more = f" (and {counted(len(errors) - 1, 'more group')})" if len(errors) > 1 else ""
            log.error("not deleted at the stop: %s%s; the gateway keeps them until wattpush delete", errors[0], more)

    def write(self, report: PushReport) -> None:
        """Log how a push ended."""
        errors = report.errors()
        unreachable = [error for error in errors if isinstance(error, UnreachableError)]
        if unreachable:
            more = f" (and {counted(len(unreachable) - 1, 'more group')})" if len(unreachable) > 1 else ""
            self._failures.failed("push", f"{unreachable[0]}{more}; the next push covers this interval too")
        elif report.error is not None:
            self._failures.failed("push", str(report.error))
        elif report.results:
            self._failures.worked("push")
        for result in report.results:
            if result.error is None:
                self._failures.worked(result.name)
            elif result.error not in unreachable:
                self._failures.failed(result.name, str(result.error))
