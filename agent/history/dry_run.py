"""Remote write of `--dry-run`: prints what a run would keep and send, and touches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, generate_latest

from agent.metrics.groups import scrape_registry
from agent.push.dry_run import readable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.core import Metric

    from agent.energy.meter import EnergyMeter
    from agent.energy.state import RemoteCounters
    from agent.errors import AgentError
    from agent.history.keeper import Save
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import Snapshot
    from agent.settings import RemoteWriteSettings, Settings


class PrintedHistory:
    """Takes the place of a `RemoteWrite`, without its imports and threads.

    Args:
        settings: the configuration.
        remote: its table `[remote_write]`.
        write: prints.
        waits_for_push: whether an interval is printed by `print_waiting`, after the groups of its push.
    """

    status: None = None
    folder: None = None
    words = ""
    is_kept = False
    failure: AgentError | None = None
    has_ended = True
    live: frozenset[Labels] = frozenset()
    timeout_seconds = 0.0

    def __init__(
        self, settings: Settings, remote: RemoteWriteSettings, write: Callable[[str], None], *, waits_for_push: bool
    ) -> None:
        self._settings = settings
        self._remote = remote
        self._write = write
        self._waits_for_push = waits_for_push
        self._waiting: list[Snapshot] = []

    def start(self) -> None:
        """Nothing is sent."""

    def add_sweep(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> None:
        """Print nothing: with `resolution = "sample"` the same series have more samples."""

    def add_interval(self, snapshot: Snapshot, save: Save, *, may_have_counters: bool) -> None:
        """Print the row of an interval as text under a line such as `# POST /api/v1/write`, now or after its push."""
        del save, may_have_counters  # nothing is saved, and nothing sent
        self._waiting.append(snapshot)
        if not self._waits_for_push:
            self.print_waiting()

    def print_waiting(self) -> None:
        """Print the intervals that wait."""
        waiting, self._waiting = self._waiting, []
        for snapshot in waiting:
            registry = CollectorRegistry()
            registry.register(_WithJob(scrape_registry(snapshot, self._settings), self._remote.job))
            self._write(f"# POST {urlsplit(self._remote.url).path}\n{readable(generate_latest(registry).decode())}")

    def forget(self, carried: RemoteCounters) -> None:
        """Nothing is counted."""

    def end(self, send_until_seconds: float, *, ends_series: bool) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is open."""


class _WithJob:
    """A collector of what another registry collects, with the label `job`."""

    def __init__(self, registry: CollectorRegistry, job: str) -> None:
        self._registry = registry
        self._job = job

    def collect(self) -> Iterable[Metric]:
        for family in self._registry.collect():
            family.samples = [sample._replace(labels={"job": self._job, **sample.labels}) for sample in family.samples]
            yield family
