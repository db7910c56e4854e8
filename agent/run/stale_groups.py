"""Groups of an earlier configuration that are still to be deleted from its gateway."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import GatewayUnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.run.publisher import Sink
    from agent.settings import Settings


log = logging.getLogger(__name__)

_MOST_PUSHES_TO_WAIT = 256


@dataclass(frozen=True, slots=True)
class StaleGroups:
    """Groups of an earlier configuration that are still to be deleted from its gateway.

    Attributes:
        may_come_back: whether a push that was stopped may have sent them once more: a gateway that was held up may take
            that in after they were deleted.
        failures: how often that gateway could not be reached.
        pushes_to_wait: how many pushes shall not be kept waiting for it.
    """

    sink: Sink
    gateway: tuple[str, str, str] | None
    keys: tuple[Mapping[str, str], ...]
    may_come_back: bool = False
    failures: int = 0
    pushes_to_wait: int = 0

    def delete(self, budget_seconds: float, *, is_pushed_to: bool) -> StaleGroups | None:
        """Delete them; return what has to be tried again.

        One that is still pushed to is tried every time: it may refuse the new groups until the old ones are gone. One
        that was left may be dead for good.
        """
        results = self.sink.delete(self.keys, budget_seconds)
        self.sink.close()
        away = [
            (key, result.error)
            for key, result in zip(self.keys, results, strict=True)
            if isinstance(result.error, GatewayUnreachableError)
        ]
        for result in results:
            if result.error is not None and not away:
                log.warning("cannot be deleted: %s", result.error)
        if not away:
            return replace(self, may_come_back=False, pushes_to_wait=1) if self.may_come_back else None
        keys = tuple(key for key, _ in away)
        if is_pushed_to:
            return replace(self, keys=keys)
        if not self.failures:
            log.warning("cannot be deleted yet: %s; it is tried again, ever more rarely", away[0][1])
        wait = min(2**self.failures, _MOST_PUSHES_TO_WAIT)
        return replace(self, keys=keys, failures=self.failures + 1, pushes_to_wait=wait)


def gateway_of(settings: Settings) -> tuple[str, str, str] | None:
    """Where groups go and how they are cut; a gateway refuses a series that a group of the other cut holds still."""
    to = settings.pushgateway
    return None if to is None else (to.url, to.job, to.group_by)
