"""Groups that an earlier configuration pushed and the present one does not: they are deleted after a reload."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.errors import UnreachableError
from agent.metrics.groups import name_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.run.destination import Destination


log = logging.getLogger(__name__)

_MAX_PUSHES_TO_WAIT = 256


@dataclass(frozen=True, slots=True)
class PushedGroups:
    """Groups that were pushed to one destination.

    Attributes:
        keys: their grouping keys.
        may_reappear: whether a push of them was stopped: a gateway may still process it after the deletion.
        failures: how often the destination was unreachable in a row.
        pushes_to_wait: how many pushes go first before the next attempt.
    """

    destination: Destination
    keys: tuple[Mapping[str, str], ...]
    may_reappear: bool = False
    failures: int = 0
    pushes_to_wait: int = 0

    def delete(self, budget_seconds: float, *, is_still_used: bool) -> PushedGroups | None:
        """Delete them; return those to try again, None if there are none.

        A destination that is still used is tried before every push: it may reject the new groups until the old ones are
        gone. One that is no longer used may never come back, so attempts back off.
        """
        results = self.destination.delete(self.keys, budget_seconds)
        self.destination.close()
        unreachable = [result for result in results if isinstance(result.error, UnreachableError)]
        if not unreachable:
            for result in results:
                if result.error is not None:
                    log.warning("cannot be deleted: %s", result.error)
            return replace(self, may_reappear=False, pushes_to_wait=1) if self.may_reappear else None
        keys = tuple(result.grouping_key for result in unreachable)
        if is_still_used:
            return replace(self, keys=keys)
        if not self.failures:
            log.warning("cannot be deleted yet: %s; retrying with back-off", unreachable[0].error)
        wait = min(2**self.failures, _MAX_PUSHES_TO_WAIT)
        return replace(self, keys=keys, failures=self.failures + 1, pushes_to_wait=wait)


class StaleGroups:
    """All stale groups, deleted by the thread that pushes.

    Args:
        destination: where the present configuration pushes; None if nowhere.
    """

    def __init__(self, destination: Destination | None) -> None:
        self._destination = destination
        self._groups: tuple[PushedGroups, ...] = ()
        self._is_stopped = False

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, pushed: Iterable[PushedGroups], present_keys: Sequence[Mapping[str, str]]) -> None:
        """Add the groups of earlier configurations, without those that the present one still pushes."""
        for groups in pushed:
            is_replaced = self._destination is not None and groups.destination.namespace == self._destination.namespace
            still_pushed = present_keys if is_replaced else ()
            keys = tuple(key for key in groups.keys if key not in still_pushed)
            if keys:
                log.info("deleting groups that are no longer measured: %s", ", ".join(map(name_of, keys)))
                self._groups += (replace(groups, keys=keys, pushes_to_wait=0),)

    def remaining(self) -> tuple[PushedGroups, ...]:
        """The groups that have not been deleted yet."""
        return self._groups

    def delete(self, budget_seconds: float) -> None:
        """Delete the groups that are due; call this before every push."""
        due = sum(not groups.pushes_to_wait for groups in self._groups)
        remaining: list[PushedGroups | None] = []
        for groups in self._groups:
            if self._is_stopped:  # one of these groups may be pushed again by the agent that takes over
                remaining.append(groups)
            elif groups.pushes_to_wait:
                remaining.append(replace(groups, pushes_to_wait=groups.pushes_to_wait - 1))
            else:
                is_still_used = self._destination is not None and groups.destination.name == self._destination.name
                remaining.append(groups.delete(budget_seconds / due, is_still_used=is_still_used))
        # Replaced only at the end, so that an abandoned push loses nothing.
        self._groups = tuple(groups for groups in remaining if groups is not None)

    def stop(self) -> None:
        """Abort a deletion under way, and begin no other."""
        self._is_stopped = True
        for groups in self._groups:
            groups.destination.stop()
