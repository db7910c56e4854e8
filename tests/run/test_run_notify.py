"""Notifications to systemd, over a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from agent.run.loop import Loop
from agent.run.systemd import Notifier
from agent.simulate.clock import HandClock
from tests.run.running import (
    LONG_SECONDS,
    HandWaiting,
    MemoryGateway,
    agent_of,
    program,
    settings_for,
    world_for,
    write_config,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.measure.readings import Outcome


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)

    def next(self, seconds: float = LONG_SECONDS) -> str:
        self._socket.settimeout(seconds)
        return self._socket.recv(4096).decode()

    def all_so_far(self) -> list[str]:
        self._socket.settimeout(0)
        told = []
        while True:
            try:
                told.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return told

    def environ(self, **more: str) -> dict[str, str]:
        return {**os.environ, "NOTIFY_SOCKET": self.path, **more}

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    listening = Manager(tmp_path / "notify.socket")
    yield listening
    listening.close()


@pytest.mark.reliability(
    17,
    "started by systemd with a watchdog",
    "READY=1 after the first sweep, WATCHDOG=1 from the loop, STOPPING=1 at the end",
)
def test_a_service_is_ready_after_a_sweep_and_pings_the_watchdog(
    manager: Manager, tmp_path: Path, pushgateway_url: str, measured: Callable[[str], None]
) -> None:
    config = write_config(tmp_path, pushgateway_url, "notify", top='interval = "10m"\nsample_interval = "10m"')
    environ = manager.environ(WATCHDOG_USEC="2000000")
    with program("--config", config, "--simulate", environ=environ) as running:
        assert manager.next() == "READY=1"
        assert manager.next().startswith("STATUS=0 of 1 device up; not pushed yet")
        # The next sweep is ten minutes away; the watchdog is pinged nevertheless.
        assert [manager.next() for _ in range(5)] == ["WATCHDOG=1"] * 5
        assert running.end(signal.SIGTERM)[0] == 0
    assert manager.all_so_far()[-1] == "STOPPING=1"
    measured("READY=1 first, five WATCHDOG=1 in a row between two sweeps, STOPPING=1 last")


@pytest.mark.reliability(
    17.01, "a sweep that never returns", "no watchdog ping is sent, so systemd restarts the service"
)
def test_a_stuck_loop_does_not_ping_the_watchdog(
    manager: Manager, measured: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    settings = settings_for()
    agent = agent_of(settings, world_for(settings, clock), clock, MemoryGateway())
    reached, released = threading.Event(), threading.Event()
    sweep, sweeps = agent.take_sweep, []

    def stuck_at_the_third() -> list[Outcome]:
        sweeps.append(1)
        if len(sweeps) == 3:
            reached.set()
            released.wait(60)
        return sweep()

    monkeypatch.setattr(agent, "take_sweep", stuck_at_the_third)
    waiting = HandWaiting(clock, clock.monotonic() + 5.5)
    notifier = Notifier(manager.environ(WATCHDOG_USEC="2000000"))
    loop = threading.Thread(target=Loop(agent, clock, waiting, notifier).run, daemon=True)
    loop.start()
    assert reached.wait(30)
    assert "WATCHDOG=1" in manager.all_so_far()
    with pytest.raises(TimeoutError):
        manager.next(0.5)
    released.set()
    loop.join(30)
    assert "WATCHDOG=1" in manager.all_so_far()
    notifier.close()
    measured("not one WATCHDOG=1 while it is stuck")


def test_the_status_line_shows_devices_up_and_the_last_push(
    manager: Manager, tmp_path: Path, pushgateway_url: str
) -> None:
    config = write_config(tmp_path, pushgateway_url, "notify-status", devices=("cpu", "disk"))
    with program("--config", config, "--simulate", environ=manager.environ()):
        told = ""
        while told != "STATUS=2 of 2 devices up; last push accepted":
            told = manager.next()
            assert told != "WATCHDOG=1", "there is no watchdog"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/nonexistent/socket", "WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "@nobody-listens-here", "WATCHDOG_USEC": "nonsense"},
        {"WATCHDOG_USEC": "1000000"},
    ],
    ids=["no manager", "no such socket", "nobody listens", "watchdog without a socket"],
)
def test_without_a_service_manager_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    notifier.ready()
    notifier.ping_watchdog()
    notifier.status("fine")
    notifier.stopping()
    notifier.close()


def test_the_watchdog_of_another_process_is_ignored(manager: Manager) -> None:
    environ = manager.environ(WATCHDOG_USEC="1000000", WATCHDOG_PID="1")
    notifier = Notifier(environ)
    assert notifier.watchdog_seconds is None
    notifier.close()


def test_a_manager_that_does_not_read_never_blocks_the_agent(manager: Manager) -> None:
    notifier = Notifier(manager.environ(WATCHDOG_USEC="1000000"))
    is_done = threading.Event()

    def send_more_than_a_socket_holds() -> None:
        for number in range(5000):
            notifier.status(f"line {number}")
        notifier.ping_watchdog()
        is_done.set()

    threading.Thread(target=send_more_than_a_socket_holds, daemon=True).start()
    try:
        assert is_done.wait(LONG_SECONDS / 4)
    finally:
        received = manager.all_so_far()
    assert 0 < len(received) < 5000, "the socket was never full"
    notifier.ping_watchdog()
    assert manager.next() == "WATCHDOG=1"
    notifier.close()
