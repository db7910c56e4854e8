"""The scrape server."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agent.errors import AgentError, BusyError
from agent.serve.server import ScrapeServer
from agent.settings import ServeSettings
from tests.run.running import CPU, DISK, LONG_SECONDS, MemoryGateway, agent_of, ask, samples_of, settings_for, world_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.run.agent import Agent
    from agent.simulate.clock import HandClock


@pytest.fixture
def agent(clock: HandClock) -> Agent:
    settings = settings_for(CPU, DISK)
    return agent_of(settings, world_for(settings, clock), clock, MemoryGateway())


@pytest.fixture
def url(agent: Agent) -> Iterator[str]:
    with ExitStack() as stack:
        server = ScrapeServer(ServeSettings("127.0.0.1", 0), agent.scrape_registry, agent.health, "wattpush on <b>&")
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


def test_health_is_200_while_the_loop_makes_progress_else_503(agent: Agent, url: str, clock: HandClock) -> None:
    assert ask(f"{url}/-/healthy")[0] == 503
    take_readings(agent, clock)
    assert ask(f"{url}/-/healthy")[:2] == (200, "healthy\n")
    clock.sleep(60)
    assert ask(f"{url}/-/healthy")[:2] == (503, "the last sweep ended 61 s ago\n")


def test_the_landing_page_links_to_the_metrics_and_escapes_names(url: str) -> None:
    status, body, headers = ask(f"{url}/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert '<a href="/metrics">' in body
    assert "wattpush on &lt;b&gt;&amp;" in body


def test_other_paths_are_not_found_and_head_has_no_body(url: str) -> None:
    assert ask(f"{url}/nothing")[0] == 404
    status, body, headers = ask(f"{url}/", "HEAD")
    assert (status, body) == (200, "")
    assert int(headers["Content-Length"]) > 0
    assert ask(f"{url}/metrics", "POST")[0] == 501


def test_silent_clients_do_not_block_others(url: str) -> None:
    with ExitStack() as stack:
        for _ in range(10):
            silent = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
            stack.enter_context(silent)
            silent.sendall(b"GET /met")
        assert ask(f"{url}/")[0] == 200


def test_a_client_that_stops_sending_is_disconnected(agent: Agent) -> None:
    with ExitStack() as stack:
        server = ScrapeServer(
            ServeSettings("127.0.0.1", 0), agent.scrape_registry, agent.health, "", client_timeout_seconds=0.1
        )
        stack.callback(server.close)
        client = stack.enter_context(socket.create_connection(server.address, LONG_SECONDS))
        client.sendall(b"GET /met")
        assert client.recv(1) == b""


def test_a_port_in_use_and_a_foreign_address_have_their_own_errors(agent: Agent) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=f"serve: listen: 127.0.0.1:{port}: in use; stop what listens there"):
            ScrapeServer(ServeSettings("127.0.0.1", port), agent.scrape_registry, agent.health, "")
    with pytest.raises(AgentError, match="is that an address of this machine"):
        ScrapeServer(ServeSettings("203.0.113.1", port), agent.scrape_registry, agent.health, "")


def test_listening_does_not_look_up_names(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    def getfqdn(name: str = "") -> str:
        raise AssertionError(f"offline, looking up {name} may take a minute")

    monkeypatch.setattr(socket, "getfqdn", getfqdn)
    ScrapeServer(ServeSettings("127.0.0.1", 0), agent.scrape_registry, agent.health, "").close()
