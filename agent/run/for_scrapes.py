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


def _with_counters_of(earlier: Snapshot | None, snapshot: Snapshot) -> Snapshot:
    """An interval whose own counters are not saved yet, with those that an earlier snapshot publishes, if it does."""
    if earlier is None or not earlier.has_counters:
        return snapshot
    counters = {device.device: device.counters for device in earlier.devices}
    devices = tuple(device._replace(counters=counters[device.device]) for device in snapshot.devices)
    remote = snapshot.remote
    if remote is not None and earlier.remote is not None:
        remote = replace(remote, counters=earlier.remote.counters)
    return replace(snapshot, devices=devices, counters=earlier.counters, remote=remote, has_counters=True)


class ForScrapes:
    """The metrics of the last interval once its counters are saved; until then those of the interval before.

    An interval whose save takes until the next one is published with the counters that were saved last: on a disk that
    always takes longer, scrapes would never see any otherwise.
    """

    def __init__(self) -> None:
        self._newest: _Interval | None = None
        self._earlier: Snapshot | None = None

    def put(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Add an interval.

        Args:
            snapshot: its metrics.
            save: of its counters.
            may_have_counters: whether they may be published once they are saved.
        """
        if self._newest is not None:
            published = self.snapshot
            has_ended = self._newest.save.has_ended
            self._earlier = published if has_ended else _with_counters_of(published, self._newest.snapshot)
        self._newest = _Interval(snapshot, save, may_have_counters)

    @property
    def snapshot(self) -> Snapshot | None:
        """What to publish now; None before the first interval."""
        newest, earlier = self._newest, self._earlier
        if newest is None or not newest.save.has_ended:
            return earlier
        return replace(newest.snapshot, has_counters=newest.may_have_counters and newest.save.may_publish)
