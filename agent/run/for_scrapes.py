"""What scrapes get: counters only once they are saved, so that none goes back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from agent.metrics.catalogue import Snapshot
    from agent.run.saver import Save


class _Interval(NamedTuple):
    snapshot: Snapshot
    save: Save
    may_have_counters: bool


class ForScrapes:
    """The metrics of the last interval once its counters are saved; until then those of the interval before."""

    def __init__(self) -> None:
        self._newest: _Interval | None = None
        self._earlier: Snapshot | None = None

    def put(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Add an interval. One whose save takes until the next interval is published without counters.

        Args:
            snapshot: its metrics.
            save: of its counters.
            may_have_counters: whether they may be published once they are saved.
        """
        if self._newest is not None:
            self._earlier = self.snapshot if self._newest.save.has_ended else self._newest.snapshot
        self._newest = _Interval(snapshot, save, may_have_counters)

    @property
    def snapshot(self) -> Snapshot | None:
        """What to publish now; None before the first interval."""
        newest, earlier = self._newest, self._earlier
        if newest is None or not newest.save.has_ended:
            return earlier
        return replace(newest.snapshot, has_counters=newest.may_have_counters and newest.save.may_publish)
