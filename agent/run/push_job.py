"""One push, from the save that allows it to the results: the part of it that runs in the thread that pushes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.metrics.groups import make_groups

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.clock import Clock
    from agent.metrics.catalogue import Snapshot
    from agent.run.carried import Carried
    from agent.run.destination import Destination, GroupResult
    from agent.run.saver import Save
    from agent.run.stale_groups import StaleGroups
    from agent.settings import Settings


@dataclass(slots=True)
class PushJob:
    """A push that waits for its counters to be saved.

    Attributes:
        snapshot: what to push.
        save: allows its counters.
        needs_counters: push nothing if they cannot be saved in time; else push the rest without them.
        carried: counters that the gateway has to confirm first; None if there are none.
        confirm: saves them as confirmed.
        are_outdated: whether the gateway knows of a later run than `carried` do; None until it has been asked.
        is_stopped: nothing is pushed, deleted or saved from now on; set by another thread. A push that is left behind
            would otherwise replace what a later one has pushed, once the disk or the gateway answers it.
    """

    settings: Settings
    destination: Destination
    stale_groups: StaleGroups
    clock: Clock
    budget_seconds: float
    snapshot: Snapshot
    save: Save
    needs_counters: bool
    carried: Carried | None
    confirm: Callable[[], Save]
    are_outdated: bool | None = None
    is_stopped: bool = False

    def __call__(self) -> Sequence[GroupResult]:
        """Push; return a result for each group.

        Raises:
            AgentError: the gateway could not be asked about carried counters, so nothing was pushed.
        """
        ends_at_seconds = self.clock.monotonic() + self.budget_seconds
        self.save.wait(self.budget_seconds / 2)
        if self.needs_counters and not self.save.may_publish:
            return ()
        if self.carried is not None and not self.is_stopped:
            self._judge(self.carried)
        if not self.is_stopped:
            self.stale_groups.delete(self.budget_seconds / 2)
        if self.is_stopped:
            return ()
        groups = make_groups(self._with_counters(), self.settings, self.destination.group_by)
        return self.destination.push(groups, ends_at_seconds - self.clock.monotonic())

    def _with_counters(self) -> Snapshot:
        may_publish = self.save.may_publish and not self.are_outdated
        return replace(self.snapshot, has_counters=may_publish)

    def _judge(self, carried: Carried) -> None:
        """Ask the gateway; a push before that would replace the evidence."""
        held = self.destination.held(self.settings.hostname, self.budget_seconds / 2)
        groups = make_groups(replace(self.snapshot, has_counters=True), self.settings, self.destination.group_by)
        self.are_outdated = carried.are_outdated(held, groups)
        if not self.are_outdated and not self.is_stopped:
            # Otherwise the start time that is now pushed would be that of a run which the file does not know.
            self.save = self.confirm()
            self.save.wait(self.budget_seconds / 4)
