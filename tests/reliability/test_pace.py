"""Sampling keeps its pace whatever the gateway does: the real loop, thread and destination on the real clock.

On a simulated clock, tests/run/test_run_loop.py shows that not one sample is missed.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from agent.clock import SystemClock
from agent.energy.state import State
from agent.errors import ExitCode, exit_code
from agent.push.gateway import Pushgateway
from agent.run.agent import Agent, Parts
from agent.run.loop import Loop
from agent.run.publisher import Publisher
from agent.run.signals import Signals
from agent.settings import Averaging, PushgatewaySettings
from tests.bench import sweep_of, world_for
from tests.push.pushing import addresses
from tests.run.running import CPU, DISK, INFO, NO_MANAGER, settings_for, until
from tests.servers import (
    Server,
    answering,
    dropping,
    free_port,
    hanging,
    in_turn,
    raw,
    resetting,
    running_pushgateway,
    trickling,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

    from agent.errors import AgentError
    from agent.measure.readings import Outcome
    from agent.run.publisher import PushReport
    from tests.servers import Client

SAMPLE_SECONDS = 0.05
PUSH_SECONDS = 0.3
TIMEOUT_SECONDS = 0.5
SWEEPS = 30
PUSHES = 3
RUNS = 5

QUICK = Averaging(1, 140e-6, 140e-6)


class Watched(Agent):
    """Counts its sweeps and keeps the errors of its pushes."""

    push_errors: list[AgentError]
    push_count: int
    sweep_count: int
    on_push_or_sweep: Callable[[], None]

    def take_sweep(self, only: Container[str] | None = None) -> list[Outcome]:
        self.sweep_count += 1
        self.on_push_or_sweep()
        return super().take_sweep(only)

    def end_push(self, report: PushReport) -> list[AgentError]:
        errors = super().end_push(report)
        self.push_errors += errors
        self.push_count += 1
        self.on_push_or_sweep()
        return errors


def run_against(pushgateway: PushgatewaySettings, getaddrinfo: Callable[..., list[Any]] | None = None) -> Watched:
    """The agent after SWEEPS sweeps and PUSHES pushes; tries again if the machine itself paused."""
    agent = run_once_against(pushgateway, getaddrinfo)
    for _ in range(RUNS - 1):
        if keeps_pace(agent):
            break
        agent = run_once_against(pushgateway, getaddrinfo)
    return agent


def keeps_pace(agent: Watched) -> bool:
    """A loop that waited for a push to time out would miss nine samples in ten, in every run."""
    return agent.counters.missed_samples < 5 * agent.sweep_count


def run_once_against(pushgateway: PushgatewaySettings, getaddrinfo: Callable[..., list[Any]] | None) -> Watched:
    clock = SystemClock()
    devices = replace(CPU, averaging=QUICK), replace(DISK, averaging=QUICK)
    settings = settings_for(
        *devices, sample_interval_seconds=SAMPLE_SECONDS, interval_seconds=PUSH_SECONDS, pushgateway=pushgateway
    )
    world = world_for(settings, clock)
    destination = Pushgateway(
        pushgateway, clock=clock, sleep=clock.sleep, environ={}, getaddrinfo=getaddrinfo or socket.getaddrinfo
    )
    sweep = sweep_of(settings, world, clock)
    sweep.run()  # import Adafruit's drivers and configure the chips first: that has nothing to do with the gateway
    with Signals() as waiting:
        publisher = Publisher(clock, waiting.wake)
        agent = Watched(Parts(settings, INFO, clock, sweep, destination, publisher, None), State())
        agent.push_errors, agent.push_count, agent.sweep_count = [], 0, 0

        def stop_after_enough() -> None:
            waiting.stop_requested = agent.sweep_count >= SWEEPS and agent.push_count >= PUSHES

        agent.on_push_or_sweep = stop_after_enough
        Loop(agent, clock, waiting, NO_MANAGER).run()

        def is_over() -> bool:
            destination.stop()
            publisher.take_report()
            return not publisher.is_busy

        until(is_over, "the end of the push under way")
        destination.close()
    return agent


def assert_pace(agent: Watched) -> None:
    assert keeps_pace(agent), agent.counters
    for meter in agent.meters.devices.values():
        # The first sweep may find the chip settling.
        assert meter.saved.counters.readings in (agent.sweep_count - 1, agent.sweep_count)
        assert meter.saved.counters.read_errors == 0


# What each gateway does, and the exit code for that error.
AWAY, REFUSED, WELL = ExitCode.UNAVAILABLE, ExitCode.PROTOCOL, ExitCode.OK
MISBEHAVING: dict[str, tuple[Callable[[Client], None], ExitCode]] = {
    "hangs": (hanging, AWAY),
    "trickles": (trickling(b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"), AWAY),
    "resets": (resetting, AWAY),
    "closes without an answer": (dropping, AWAY),
    "talks garbage": (raw(b"garbage\r\n\r\n"), AWAY),
    "400": (answering("400 Bad Request", b"inconsistent"), REFUSED),
    "401": (answering("401 Unauthorized"), REFUSED),
    "413": (answering("413 Content Too Large"), REFUSED),
    "429": (answering("429 Too Many Requests", b"", "Retry-After: 1"), AWAY),
    "500": (answering("500 Internal Server Error"), AWAY),
    "503": (answering("503 Service Unavailable"), AWAY),
    "301": (answering("301 Moved Permanently", b"", "Location: http://127.0.0.1:9/"), REFUSED),
    "answers late": (answering("200 OK", delay_seconds=0.1), WELL),
    "drops idle connections": (in_turn(raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")), WELL),
}

PACE = pytest.mark.reliability(
    9,
    "a gateway that is down, hangs, trickles, resets, sends garbage, refuses, redirects, has a bad certificate, "
    "or whose name does not resolve",
    "sampling keeps its pace; the next push covers the failed one",
)


@PACE
@pytest.mark.parametrize("behaviour", MISBEHAVING)
def test_sampling_keeps_its_pace_while_the_gateway(behaviour: str) -> None:
    behave, kind = MISBEHAVING[behaviour]
    with Server(behave) as server:
        timeout_seconds = TIMEOUT_SECONDS if kind is AWAY else 60
        agent = run_against(PushgatewaySettings(server.url, timeout_seconds=timeout_seconds))
        assert server.connections > 0
    assert_pace(agent)
    assert exit_code(agent.push_errors) is kind, agent.push_errors


@PACE
def test_sampling_keeps_its_pace_while_no_gateway_listens() -> None:
    agent = run_against(PushgatewaySettings(f"http://127.0.0.1:{free_port()}", timeout_seconds=TIMEOUT_SECONDS))
    assert_pace(agent)
    assert exit_code(agent.push_errors) is AWAY


@PACE
def test_sampling_keeps_its_pace_while_the_gateway_restarts() -> None:
    port = free_port()
    up = contextlib.ExitStack()
    up.enter_context(running_pushgateway(port=port))

    def restart() -> None:
        up.close()
        up.enter_context(running_pushgateway(port=port))

    restarting = threading.Thread(target=restart)
    restarting.start()
    try:
        agent = run_against(PushgatewaySettings(f"http://127.0.0.1:{port}", timeout_seconds=TIMEOUT_SECONDS))
    finally:
        restarting.join()
        up.close()
    assert_pace(agent)


@pytest.fixture
def tls(tmp_path: Path) -> Callable[..., tuple[ssl.SSLContext, str]]:
    """TLS of a server with this name, and the file with its authority's certificate."""

    def make(name: str, not_after: dt.datetime | None = None) -> tuple[ssl.SSLContext, str]:
        ca = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert(name, not_after=not_after).configure_cert(context)
        return context, write_file(tmp_path / "ca.pem", ca.cert_pem.bytes())

    return make


@PACE
@pytest.mark.parametrize("fault", ["expired", "another name"])
def test_sampling_keeps_its_pace_while_the_certificate_is_invalid(
    fault: str, tls: Callable[..., tuple[ssl.SSLContext, str]]
) -> None:
    yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    context, ca_file = tls("gateway.test", yesterday) if fault == "expired" else tls("other.test")
    with Server(hanging, context) as server:
        settings = PushgatewaySettings(f"https://gateway.test:{server.port}", timeout_seconds=60, ca_file=ca_file)
        agent = run_against(settings, addresses(server.port))
        assert server.connections > 0
    assert_pace(agent)
    assert all("certificate" in str(error) for error in agent.push_errors)
    assert agent.push_errors


@pytest.fixture
def silent_names() -> Iterator[Callable[..., list[Any]]]:
    over = threading.Event()

    def resolve(*_: object, **__: object) -> list[object]:
        over.wait()
        return []

    yield resolve
    over.set()


@PACE
def test_sampling_keeps_its_pace_while_dns_does_not_answer(silent_names: Callable[..., list[Any]]) -> None:
    agent = run_against(PushgatewaySettings("http://gateway.test", timeout_seconds=TIMEOUT_SECONDS), silent_names)
    assert_pace(agent)
    assert exit_code(agent.push_errors) is AWAY


@PACE
def test_sampling_keeps_its_pace_while_the_name_does_not_resolve(measured: Callable[[str], None]) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    agent = run_against(PushgatewaySettings("http://gateway.test", timeout_seconds=TIMEOUT_SECONDS), resolve)
    assert_pace(agent)
    assert exit_code(agent.push_errors) is AWAY
    cases = len(MISBEHAVING) + 6
    measured(f"{cases} kinds of misbehaviour at 20 sweeps a second: no sweep waits for a push")
