"""One push, from the save that allows it to the results: the part of it that runs in the thread that pushes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.metrics.groups import make_groups
from agent.run.carried import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.clock import Clock
    from agent.metrics.catalogue import Snapshot
    from agent.run.carried import Carried
    from agent.run.destination import Destination, GroupResult
    from agent.run.saver import Save
    from agent.run.stale_groups import StaleGroups
    from agent.settings import Settings


@dataclass(frozen=True, slots=True)
class NotPushed:
    """The result of a push that sent no group at all."""

    error: AgentError
    name: str = "push"
    grouping_key: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class PushJob:
    """A push that waits for its counters to be saved.

    Attributes:
        snapshot: what to push.
        save: allows its counters.
        needs_counters: push nothing if they cannot be saved in time; else push the rest without them.
        carried: counters that the gateway has to confirm first; None if there are none.
        confirm: saves them as confirmed.
        verdict: on `carried`, once there is one.
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
    verdict: Verdict | None = None

    def __call__(self) -> Sequence[GroupResult]:
        """Push; return a result for each group."""
        ends_at_seconds = self.clock.monotonic() + self.budget_seconds
        self.save.wait(self.budget_seconds / 2)
        if self.needs_counters and not self.save.may_publish:
            return ()
        if self.carried is not None:
            try:
                self._judge(self.carried)
            except AgentError as error:
                return (NotPushed(error),)
        self.stale_groups.delete(self.budget_seconds / 2)
        groups = make_groups(self._with_counters(), self.settings, self.destination.group_by)
        return self.destination.push(groups, ends_at_seconds - self.clock.monotonic())

    def _with_counters(self) -> Snapshot:
        may_publish = self.save.may_publish and self.verdict is not Verdict.OUTDATED
        return replace(self.snapshot, has_counters=may_publish)

    def _judge(self, carried: Carried) -> None:
        """Ask the gateway; a push before that would replace the evidence."""
        held = self.destination.held(self.settings.hostname, self.budget_seconds / 2)
        groups = make_groups(replace(self.snapshot, has_counters=True), self.settings, self.destination.group_by)
        self.verdict = carried.judge(held, groups)
        if self.verdict is Verdict.CONFIRMED:
            # Otherwise the start time that is now pushed would be that of a run which the file does not know.
            self.save = self.confirm()
            self.save.wait(self.budget_seconds / 4)
