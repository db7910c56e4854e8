"""What the log says of pushes: each failure once, and once that it is over."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.errors import GatewayUnreachableError
from agent.log import FailureLog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.run.destination import GroupResult

log = logging.getLogger(__name__)


class PushLog:
    """One line for a destination that is away, however many groups wait for it; one for each group it rejects."""

    def __init__(self) -> None:
        self._failures = FailureLog(log)

    def write(self, results: Sequence[GroupResult]) -> None:
        """Log the results of a push."""
        away = [result.error for result in results if isinstance(result.error, GatewayUnreachableError)]
        if away:
            more = f" (and {len(away) - 1} more groups)" if len(away) > 1 else ""
            self._failures.failed("push", f"{away[0]}{more}; what was not pushed goes with the next push")
        elif results:
            self._failures.worked("push")
        for result in results:
            if result.error is None:
                self._failures.worked(result.name)
            elif result.error not in away:
                self._failures.failed(result.name, str(result.error))
