"""The scrape server."""

from __future__ import annotations

import logging
import os
import resource
import socket
import threading
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Info

from agent.errors import AgentError, BusyError
from agent.serve.connections import Limits
from agent.serve.server import ScrapeServer
from agent.settings import ServeSettings
from tests.run.running import (
    CPU,
    DISK,
    LONG_SECONDS,
    MemoryGateway,
    agent_of,
    ask,
    samples_of,
    settings_for,
    until,
    world_for,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.run.agent import Agent
    from agent.simulate.clock import HandClock

ANY_PORT = ServeSettings("127.0.0.1", 0)


@pytest.fixture
def agent(clock: HandClock) -> Agent:
    settings = settings_for(CPU, DISK, serve=ANY_PORT)
    return agent_of(settings, world_for(settings, clock), clock, MemoryGateway())


@pytest.fixture
def url(agent: Agent) -> Iterator[str]:
    with ExitStack() as stack:
        server = ScrapeServer(ANY_PORT, agent)
        stack.callback(server.close)
        yield f"http://127.0.0.1:{server.address[1]}"


def take_readings(agent: Agent, clock: HandClock) -> None:
    for _ in range(4):
        agent.take_sweep()
        clock.sleep(1.0)
    agent.begin_push()


def test_metrics_are_those_of_the_last_push_with_all_labels(agent: Agent, url: str, clock: HandClock) -> None:
    assert ask(f"{url}/metrics")[0] == 503
    take_readings(agent, clock)
    agent.take_sweep()  # not published and not saved yet: scrapes must not see it
    status, body, headers = ask(f"{url}/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    found = samples_of(body)
    for name, samples in found.items():
        assert not name.endswith("_created")
        for labels in samples:
            assert dict(labels)["hostname"] == "node-17"
            assert ("device" in dict(labels)) == name.startswith("wattpush_device")
    assert found["wattpush_device_watts"][(("device", "cpu"), ("hostname", "node-17"))] == 6
    assert found["wattpush_device_readings_total"][(("device", "disk"), ("hostname", "node-17"))] == 2


def test_a_client_that_accepts_openmetrics_gets_it(agent: Agent, url: str, clock: HandClock) -> None:
    take_readings(agent, clock)
    status, body, headers = ask(f"{url}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize("accept", ["text/plain;version=abc", "application/openmetrics-text;version=x", ";;=,;q=\xff"])
def test_a_client_that_accepts_nonsense_gets_metrics(agent: Agent, url: str, clock: HandClock, accept: str) -> None:
    take_readings(agent, clock)
    status, body, _ = ask(f"{url}/metrics", Accept=accept)
    assert status == 200
    assert "wattpush_device_up" in body


def test_a_request_writes_no_control_characters_to_the_log(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "agent.serve")
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), LONG_SECONDS) as client:
        client.sendall(b"GET /\x00\x1b[2J\x7f HTTP/1.1\r\n\r\n")
        assert client.makefile("rb").read().startswith(b"HTTP/1.0 4")
    messages = [record.getMessage() for record in caplog.records]
    assert any("GET /" in message for message in messages)
    assert [message for message in messages if not message.isprintable()] == []


def test_health_is_200_while_the_loop_makes_progress_else_503(agent: Agent, url: str, clock: HandClock) -> None:
    assert ask(f"{url}/-/healthy")[0] == 503
    take_readings(agent, clock)
    assert ask(f"{url}/-/healthy")[:2] == (200, "healthy\n")
    clock.sleep(60)
    assert ask(f"{url}/-/healthy")[:2] == (503, "the last sweep ended 61 s ago\n")


def test_other_paths_are_not_found_and_head_has_no_body(url: str) -> None:
    assert ask(f"{url}/nothing")[0] == 404
    status, body, headers = ask(f"{url}/", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 0
    assert ask(f"{url}/metrics", "POST")[0] == 501


@pytest.fixture
def quick(agent: Agent) -> Iterator[Callable[..., ScrapeServer]]:
    """Makes servers with limits that a test can wait for."""
    with ExitStack() as stack:

        def serve(**changes: Any) -> ScrapeServer:
            limits = Limits(**changes)
            server = ScrapeServer(ANY_PORT, agent, limits=limits)
            stack.callback(server.close)
            return server

        yield serve


def connected(server: ScrapeServer, sent: bytes = b"", source: str = "127.0.0.1") -> socket.socket:
    client = socket.create_connection(server.address, LONG_SECONDS, source_address=(source, 0))
    client.sendall(sent)
    return client


def test_a_silent_client_makes_room_for_a_new_one(quick: Callable[..., ScrapeServer]) -> None:
    server = quick(connections=2, request_seconds=LONG_SECONDS)
    with connected(server, b"GET /met") as oldest, connected(server, b"GET") as newer:
        assert ask(f"http://127.0.0.1:{server.address[1]}/")[0] == 200
        assert oldest.recv(1) == b""
        newer.sendall(b" / HTTP/1.1\r\n\r\n")
        assert newer.recv(12) == b"HTTP/1.0 200"


def test_a_flood_from_one_address_leaves_another_its_place(quick: Callable[..., ScrapeServer]) -> None:
    server = quick(connections=4, request_seconds=LONG_SECONDS)
    with ExitStack() as stack:
        slow = stack.enter_context(connected(server, b"GET / HT", source="127.0.0.2"))
        flood = [stack.enter_context(connected(server, b"G")) for _ in range(10)]
        assert [client.recv(1) for client in flood[:7]] == [b""] * 7
        slow.sendall(b"TP/1.1\r\n\r\n")
        assert slow.recv(12) == b"HTTP/1.0 200"


@pytest.mark.parametrize("sent", [b"", b"G"], ids=["silent", "trickling"])
def test_a_flood_leaves_a_client_time_to_send_its_request(quick: Callable[..., ScrapeServer], sent: bytes) -> None:
    """On a busy node, a client of the same address may be preempted between its connection and its request."""
    server = quick(connections=2, request_seconds=LONG_SECONDS)
    with connected(server) as scraper, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(connected(server, sent))
        scraper.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert scraper.recv(12) == b"HTTP/1.0 200"


def test_a_request_in_pieces_is_answered(quick: Callable[..., ScrapeServer]) -> None:
    with connected(quick()) as client:
        for piece in (b"GET / HT", b"TP/1.1\r\nHost: x\r\n", b"\r", b"\n"):
            client.sendall(piece)
        assert client.recv(12) == b"HTTP/1.0 200"


def test_a_client_that_stops_sending_is_disconnected(quick: Callable[..., ScrapeServer]) -> None:
    with connected(quick(request_seconds=0.1), b"GET /met") as client:
        assert client.recv(1) == b""


def test_a_trickling_request_is_cut_off_at_its_deadline(quick: Callable[..., ScrapeServer]) -> None:
    with connected(quick(request_seconds=0.2), b"GET /") as client:
        client.settimeout(0.02)

        def is_cut_off() -> bool:
            try:
                client.sendall(b"x")
                return client.recv(1) == b""
            except TimeoutError:
                return False
            except OSError:
                return True

        until(is_cut_off, "the end of the connection", LONG_SECONDS)


def test_a_client_that_takes_nothing_is_cut_off_at_the_deadline(agent: Agent) -> None:
    endless = CollectorRegistry()
    Info("test", "larger than all socket buffers", registry=endless).info({"noise": "x" * 16_000_000})
    with ExitStack() as stack:
        agent.scrape_registry = lambda: endless
        server = ScrapeServer(ANY_PORT, agent, limits=Limits(answer_seconds=0.2))
        stack.callback(server.close)
        client = stack.enter_context(connected(server, b"GET /metrics HTTP/1.1\r\n\r\n"))
        received = len(client.recv(1))
        until(lambda: not server._connections._open, "the end of the connection")
        with suppress(ConnectionResetError):
            while chunk := client.recv(1 << 20):
                received += len(chunk)
        assert 0 < received < 16_000_000


def test_an_endless_request_is_cut_off(quick: Callable[..., ScrapeServer]) -> None:
    with connected(quick()) as client, suppress(ConnectionError):
        client.sendall(b"GET /" + b"x" * 200_000)
        assert client.recv(1) == b""


def test_no_file_descriptor_left_neither_spins_nor_ends_the_server(
    quick: Callable[..., ScrapeServer], caplog: pytest.LogCaptureFixture
) -> None:
    server = quick()
    caplog.set_level(logging.DEBUG, "agent.serve.connections")
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        client = stack.enter_context(socket.socket())
        lowest_free = os.dup(client.fileno())
        os.close(lowest_free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard_limit))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft_limit, hard_limit))
        client.settimeout(LONG_SECONDS)
        client.connect(server.address)
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        until(lambda: len(refused(caplog)) >= 3, "three refusals")
        first, _, third, *_ = refused(caplog)
        assert third.created - first.created >= 0.3
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard_limit))
        assert client.recv(12) == b"HTTP/1.0 200"


def refused(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if "Too many open files" in record.getMessage()]


def test_connections_leave_most_file_descriptors_to_the_agent(quick: Callable[..., ScrapeServer]) -> None:
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard_limit))
        assert quick()._connections._limits.connections == 32
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_limit, hard_limit))


def test_a_server_without_a_thread_to_spare_says_so(
    quick: Callable[..., ScrapeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(AgentError, match="can't start new thread; raise TasksMax= or ulimit -u"):
            quick()


def test_a_port_in_use_and_a_foreign_address_have_their_own_errors(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=f"serve: listen: 127.0.0.1:{port}: in use; stop what listens there"):
            ScrapeServer(ServeSettings("127.0.0.1", port), agent)
    with pytest.raises(AgentError, match="is that an address of this machine"):
        ScrapeServer(ServeSettings("203.0.113.1", port), agent)


def test_listening_does_not_look_up_names(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def getfqdn(name: str = "") -> str:
        raise AssertionError(f"offline, looking up {name} may take a minute")

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    ScrapeServer(ANY_PORT, agent).close()
