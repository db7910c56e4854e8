"""Shared by the push tests: groups, a Pushgateway that closes itself, a clock set by hand."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Gauge, Info

from agent.clock import SystemClock
from agent.errors import UnreachableError
from agent.metrics.groups import Group
from agent.push.gateway import Pushgateway
from agent.settings import PushgatewaySettings
from tests.run.running import LONG_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent.clock import Clock
    from agent.push.delivery import PushResult


FOR_EVER_SECONDS = LONG_SECONDS
"""An operation without a deadline lasts as long as the other side wants, so a generous limit detects it."""

PATIENT_SECONDS = 600.0
"""For tests that are not about time: a busy machine may pause for seconds."""


class TurnedClock:
    """Moves only by `sleep`, which takes no real time and is recorded."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return self.seconds

    def time(self) -> float:
        return 1_700_000_000.0 + self.seconds

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.slept.append(seconds)
            self.seconds += seconds


def group(device: str | None = "cpu", hostname: str = "node-17", **gauges: float) -> Group:
    registry = CollectorRegistry()
    for name, value in (gauges or {"test_watts": 1.5}).items():
        Gauge(name, "a test", registry=registry).set(value)
    key = {"hostname": hostname} if device is None else {"hostname": hostname, "device": device}
    return Group(key, registry)


def large_group() -> Group:
    """Random, so that even compressed it exceeds all socket buffers."""
    registry = CollectorRegistry()
    Info("test", "large", registry=registry).info({"noise": secrets.token_hex(8_000_000)})
    return Group({"hostname": "node-17"}, registry)


def groups(count: int) -> list[Group]:
    return [group(f"d{number}") for number in range(count)]


@contextlib.contextmanager
def pushgateway_for(
    url: str,
    *,
    clock: Clock | None = None,
    sleep: Callable[[float], None] | None = None,
    environ: Mapping[str, str] | None = None,
    getaddrinfo: Callable[..., list[Any]] | None = None,
    **settings: Any,
) -> Iterator[Pushgateway]:
    """A Pushgateway that is closed at the end; its timeout is generous unless a test sets one."""
    settings.setdefault("timeout_seconds", PATIENT_SECONDS)
    used_clock = SystemClock() if clock is None else clock
    resolver: dict[str, Callable[..., list[Any]]] = {} if getaddrinfo is None else {"getaddrinfo": getaddrinfo}
    destination = Pushgateway(
        PushgatewaySettings(url, **settings),
        clock=used_clock,
        sleep=used_clock.sleep if sleep is None else sleep,
        environ={} if environ is None else environ,
        **resolver,
    )
    try:
        yield destination
    finally:
        destination.stop()
        destination.close()


def push_one(destination: Pushgateway, budget_seconds: float = PATIENT_SECONDS) -> PushResult:
    (result,) = destination.push([group()], budget_seconds)
    return result


def message(result: PushResult) -> str:
    assert result.error is not None, "the push succeeded"
    return str(result.error)


def addresses(*ports: int, host: str = "127.0.0.1") -> Callable[..., list[tuple[int, int, int, str, tuple[str, int]]]]:
    """A resolver that returns these for every name."""

    return lambda *_, **__: [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)) for port in ports
    ]


class Stopwatch:
    def __init__(self) -> None:
        self._start = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start


def push_until_error_matches(
    output: str, destination: Pushgateway, budget_seconds: float, pushed: Callable[[], Group] = group
) -> PushResult:
    """Push until one ends in these words: on a busy machine, some run out of time earlier."""

    def ends_so() -> PushResult | None:
        watch = Stopwatch()
        (result,) = destination.push([pushed()], budget_seconds)
        assert watch.seconds() < FOR_EVER_SECONDS
        assert isinstance(result.error, UnreachableError)
        return result if re.search(output, message(result)) else None

    result: PushResult = until(ends_so, output)
    return result
