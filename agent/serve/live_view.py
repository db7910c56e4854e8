"""What the live page shows at one moment, as frozen values that the run makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from agent.energy.counters import Counters
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import RemoteStatus
    from agent.serve.recent_power import Recent


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device.

    Attributes:
        outcome: of the last sweep; None before the first.
        is_up: whether its last reading succeeded, however long ago that was.
        counters: as published last; None if none are published.
        is_in_sum: whether another device has this power too; see `Settings.parts_of_sums`.
    """

    name: str
    outcome: Outcome | None
    is_up: bool
    counters: Counters | None
    is_in_sum: bool


@dataclass(frozen=True, slots=True)
class GatewayView:
    """The pushes.

    Attributes:
        name: its URL, without credentials.
        since_seconds: when the last push ended or, of several that failed in a row, the first; monotonic. None before
            the first.
        errors: of the last push; empty if it was accepted.
    """

    name: str
    since_seconds: float | None
    errors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RemoteView:
    """Remote write.

    Attributes:
        words: how it is doing.
        is_kept: whether its samples stay on this node for now.
        status: its backlog.
    """

    words: str
    is_kept: bool
    status: RemoteStatus | None


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the page shows.

    Attributes:
        changes: the number of sweeps and pushes so far; two views with the same differ only in ages.
        problem: why the agent is unhealthy; None if it is healthy.
        now_seconds: on the monotonic clock, like the times of outcomes and pushes.
        unix_seconds: the present Unix time.
        devices: in the order of the configuration.
        gateway: None if nothing is pushed.
        remote: None without remote write.
    """

    changes: int
    hostname: str
    version: str
    is_simulated: bool
    problem: str | None
    sample_interval_seconds: float
    interval_seconds: float
    now_seconds: float
    unix_seconds: float
    devices: tuple[DeviceView, ...]
    recent: Recent
    gateway: GatewayView | None
    remote: RemoteView | None


class Source(Protocol):
    """Where the server takes its pages from: the agent that runs."""

    def scrape_registry(self) -> CollectorRegistry | None:
        """The metrics published last; None before the first sweep."""

    def health(self) -> str | None:
        """What is wrong; None if the agent is healthy."""

    def live_view(self) -> View:
        """What the live page shows now."""
