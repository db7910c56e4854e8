"""The interface of history, which takes every interval whether a push goes well or not: remote write or a dry run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from agent.log import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from agent.clock import Clock
    from agent.energy.meter import EnergyMeter
    from agent.energy.state import RemoteCounters
    from agent.errors import AgentError
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import RemoteStatus, Snapshot
    from agent.run.saver import Save
    from agent.run.stopping import Waiting

log = logging.getLogger(__name__)

_LAST_REQUESTS_SECONDS = 0.6
"""The longest that the last requests of a stop may take: they run beside the last push."""

_TO_DISK_SECONDS = 0.4
"""What is left of the budget of a stop for writing to disk."""


class History(Protocol):
    """Keeps the samples of a run; none of its methods waits, except `close`."""

    @property
    def status(self) -> RemoteStatus | None:
        """At this moment; None in a dry run."""

    @property
    def folder(self) -> Path | None:
        """Of its backlog; None if there is none on disk."""

    def start(self) -> None:
        """Start to send what an earlier run has left, and to take intervals."""

    @property
    def words(self) -> str:
        """For the status line."""

    @property
    def is_kept(self) -> bool:
        """Whether samples stay on this node for now, for a reason that `words` names."""

    @property
    def timeout_seconds(self) -> float:
        """The least time that a request is given."""

    @property
    def live(self) -> frozenset[Labels]:
        """The series that have not ended; read when everything has ended."""

    @property
    def failure(self) -> AgentError | None:
        """After the end of a run with `--once`: why the newest samples were not accepted."""

    @property
    def has_ended(self) -> bool:
        """Whether everything has ended and is on disk, as far as the disk takes it."""

    def add_sweep(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> None:
        """Keep the samples of a sweep that has been added to the meters."""

    def add_interval(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Keep a closed interval once its counters are saved; without them if they may not be published."""

    def forget(self, carried: RemoteCounters) -> None:
        """Take carried counters off; see `run.carried`."""

    def end(self, send_until_seconds: float, *, ends_series: bool) -> None:
        """Begin to end; sends until then (monotonic). May be called again with an earlier time."""

    def close(self) -> None:
        """End at once, if nothing has ended it before."""


def end_within(history: History, clock: Clock, ends_at_seconds: float, *, ends_series: bool) -> None:
    """Begin to end at a stop that is over at this time, on the monotonic clock."""
    now = clock.monotonic()
    send_until_seconds = min(now + _LAST_REQUESTS_SECONDS, max(now, ends_at_seconds - _TO_DISK_SECONDS))
    history.end(send_until_seconds, ends_series=ends_series)


def await_end(history: History, clock: Clock, waiting: Waiting, give_up_at_seconds: float) -> bool:
    """Wait for the end; return whether it came in time."""
    while not history.has_ended and clock.monotonic() < give_up_at_seconds:
        waiting.wait(give_up_at_seconds - clock.monotonic())
    if not history.has_ended:
        log.warning("history: the disk does not answer; what it has not taken is in memory until the machine goes down")
    return history.has_ended


def log_left_behind(earlier: History | None, present: History | None) -> None:
    """Say so if a backlog stays on disk because the present configuration does not send it."""
    if earlier is None or earlier.status is None or not earlier.status.backlog_samples:
        return
    if present is None or present.folder != earlier.folder:
        log.warning(
            "%s: keeps %s that no server has accepted; configure [remote_write] with this state_dir again to send them",
            earlier.folder,
            counted(earlier.status.backlog_samples, "sample"),
        )


def await_hand_over(history: History, waiting: Waiting) -> None:
    """Wait for the end, however long the disk takes: two that write to one folder would damage it. A stop ends it."""
    while not (history.has_ended or waiting.stop_requested):
        waiting.wait(60.0)


def await_once(history: History, clock: Clock, waiting: Waiting, give_up_at_seconds: float) -> bool:
    """Wait for the end of a run with `--once`; return whether it came in time and without a stop."""
    while not history.has_ended and not waiting.stop_requested and clock.monotonic() < give_up_at_seconds:
        waiting.wait(give_up_at_seconds - clock.monotonic())
    return history.has_ended and not waiting.stop_requested
