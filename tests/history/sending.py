"""Senders with clocks set by hand, and a store that behaves as a server without network around it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.errors import RejectedError, UnreachableError
from agent.history.answers import TAKEN, Meaning, Verdict
from agent.history.sender import Sender
from tests.history.backlogs import OFFSET, TABLE, Node
from tests.history.remote_write_message import DecodedSeries, decoded

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.history.backlog import Backlog
    from agent.history.samples import Labels

AWAY = Verdict(Meaning.LATER, "server.invalid refused the connection", error=UnreachableError)
LOST = Verdict(Meaning.LATER, "server.invalid reset the connection", error=UnreachableError, is_unanswered=True)
ERROR = Verdict(Meaning.LATER, "answered 500: oops", error=UnreachableError, is_unanswered=True, is_server_error=True)
BAD = Verdict(Meaning.REFUSED, "answered 400: bad", error=RejectedError)
OUT_OF_ORDER = Verdict(
    Meaning.REFUSED, "answered 400: out of order sample", error=RejectedError, is_stored_already=True
)
LARGE = Verdict(Meaning.TOO_LARGE, "answered 413", error=RejectedError)
WRONG_PATH = Verdict(Meaning.HOLD, "answered 404; check remote_write.url", error=RejectedError)


@dataclass
class Store:
    """Takes a request whole or refuses it whole, as Prometheus does.

    Attributes:
        rule: refuses a request with a verdict; None lets it pass.
        is_in_order: refuses what is not newer than the newest sample of its series, unless that is the same.
        is_order_checked_first: before the rule.
        fates: of the next requests, by hand: AWAY and the like instead of storing; LOST stores, and loses the answer.
        bodies: of all requests.
        stored: the samples of each series, by time.
        doubled: how many samples came again.
    """

    rule: Callable[[list[DecodedSeries]], Verdict | None] = lambda request: None
    is_in_order: bool = True
    is_order_checked_first: bool = False
    fates: list[Verdict] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    stored: dict[Labels, dict[int, float]] = field(default_factory=dict)
    doubled: int = 0

    def post(self, body: bytes) -> Verdict:
        self.bodies.append(body)
        fate = self.fates.pop(0) if self.fates else None
        if fate is not None and fate is not LOST:
            return fate
        request = decoded(body)
        order = OUT_OF_ORDER if self.is_in_order and any(self._is_out_of_order(one) for one in request) else None
        rule = self.rule(request)
        verdict = (order or rule) if self.is_order_checked_first else (rule or order)
        if verdict is not None:
            return LOST if fate is LOST else verdict
        for one in request:
            series = self.stored.setdefault(one.labels, {})
            self.doubled += sum(at in series for at, _ in one.samples)
            series.update(one.samples)
        return TAKEN if fate is None else fate

    def _is_out_of_order(self, one: DecodedSeries) -> bool:
        series = self.stored.get(one.labels, {})
        newest = max(series, default=-math.inf)
        at, value = one.samples[0]
        return at < newest or (at == newest and series[at] != value)

    @property
    def values(self) -> list[int]:
        """All stored values without their fraction; with `Node.add` they are the numbers of the samples."""
        return sorted(int(value) for series in self.stored.values() for value in series.values())


class Sending:
    """A node, its backlog, a store and the sender between them."""

    def __init__(self, store: Store | None = None, *, catch_up: float = 20.0, random: float = 0.5) -> None:
        self.node = Node(None, None)
        self.backlog = self.node.open()
        self.store = Store() if store is None else store
        self.catch_up = catch_up
        self.random = random
        self.restart()

    def restart(self, backlog: Backlog | None = None) -> None:
        """A new process with the same backlog."""
        self.backlog = self.backlog if backlog is None else backlog
        self.sender = Sender(
            self.backlog,
            self.store.post,
            self.node.clock,
            interval_seconds=1.0,
            catch_up=self.catch_up,
            random=lambda: self.random,
        )

    def add(self, frames: int = 1, rows: int = 1, table: tuple[Labels, ...] = TABLE) -> None:
        for _ in range(frames):
            self.node.add(self.backlog, rows, table)

    def run(self, seconds: float = 3600.0) -> None:
        """Step until nothing is waiting, or the time is over."""
        ends_at_seconds = self.node.clock.seconds + seconds
        while (wait_seconds := self.sender.step()) < math.inf:
            if self.node.clock.seconds + wait_seconds > ends_at_seconds:
                self.node.pass_seconds(ends_at_seconds - self.node.clock.seconds)
                break
            self.node.pass_seconds(wait_seconds)

    def run_requests(self, requests: int) -> None:
        """Step until so many more requests were made."""
        until = len(self.store.bodies) + requests
        while len(self.store.bodies) < until:
            wait_seconds = self.sender.step()
            assert wait_seconds < math.inf
            self.node.pass_seconds(wait_seconds)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Accepted, refused, and left in the backlog."""
        status = self.backlog.status
        assert status.counters.settled + status.backlog_samples == self.node.produced
        return status.counters.accepted, status.counters.refused, status.backlog_samples


def times_of(request: list[DecodedSeries]) -> set[int]:
    """The rows of a request, as `Node.add` times them: in seconds since the first one, from 1."""
    return {(at - OFFSET - 1_000_000) // 1000 for one in request for at, _ in one.samples}


def names_of(request: list[DecodedSeries]) -> set[str]:
    return {dict(one.labels)["__name__"] for one in request}
