"""The real program as a process: signals, reloads, exit codes, what goes to stdout and stderr."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from argparse import Namespace
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from agent import cli
from agent import config as configuration
from agent.commands import load_settings
from agent.energy.counters import Counters, Saved
from agent.energy.state import State
from agent.energy.state_file import StateFile, boot_id
from agent.errors import BusyError, ConfigError
from agent.i2c.place import Place
from agent.measure.readings import Failure, Reading, Settling
from agent.run import state_opening
from agent.run.agent import Agent
from agent.run.assembly import RunOptions, Runtime, make_agent
from agent.run.loop import Loop
from agent.run.publisher import Publisher
from agent.run.signals import Signals
from agent.serve import server
from agent.simulate import world as simulated_world
from agent.threads import NoThreadError
from tests.energy.disks import disk
from tests.run.running import (
    CPU,
    INFO,
    LONG_SECONDS,
    PROJECT,
    HandPublisher,
    HandWaiting,
    agent_of,
    ask,
    groups_of,
    program,
    run,
    samples_of,
    settings_for,
    until,
    world_for,
    write_config,
)
from tests.serve.shown import Shown
from tests.servers import Server, answering, free_port, get, hanging, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.measure.readings import Outcome
    from agent.settings import Settings
    from agent.simulate.clock import HandClock
    from agent.simulate.world import World
    from tests.servers import Client

STOPS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])

HUNG = 'timeout = "1h"'
"""A stop that waits for this push does not end before the test gives up. That a stop takes less than 2 s is tested on a
clock advanced by hand, which a busy machine does not delay."""


@pytest.fixture
def job(request: pytest.FixtureRequest) -> str:
    """A job for this test alone on the shared gateway."""
    return str(request.node.name)


@pytest.fixture
def gateway(pushgateway_url: str, job: str) -> Callable[[], dict[str, dict[str, float]]]:
    return lambda: groups_of(pushgateway_url, job)


def read_since(gateway: Callable[[], dict[str, dict[str, float]]], device: str = "cpu") -> Callable[[], bool]:
    return lambda: gateway().get(device, {}).get("wattpush_device_up") == 1


def saved(folder: Path) -> tuple[bool, Counters]:
    """Whether the last simulated run ended well, and the counters of cpu."""
    text = (folder / "state" / "simulated.json").read_text()
    state = StateFile(folder / "state", "simulated", boot_id()).load(is_read_only=True)
    return '"ended_well": true' in text, state.devices["cpu"].counters


@STOPS
def test_a_loop_pushes_and_stops_cleanly(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any], number: int
) -> None:
    more = "[metrics]\ncharge = true\n"
    config = write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk"], more=more)
    with program("--config", config, "--simulate") as running:
        until(lambda: gateway().get("cpu", {}).get("wattpush_device_joules_total", 0) > 0, "cpu at the gateway")
        until(lambda: {"cpu", "disk", ""} <= set(gateway()), "the groups after it")
        assert running.end(number)[0] == 0
    pushed = gateway()
    assert set(pushed) == {"cpu", "disk", ""}
    assert pushed["cpu"]["wattpush_device_watts"] > 0
    ended_well, counters = saved(tmp_path)
    assert ended_well
    assert counters.joules >= pushed["cpu"]["wattpush_device_joules_total"] > 0
    assert counters.coulombs >= pushed["cpu"]["wattpush_device_coulombs_total"] > 0


@pytest.mark.reliability(15.01, "SIGTERM or SIGINT while a push hangs", "a clean exit within 2 s, state saved")
@STOPS
def test_a_stop_does_not_wait_for_a_hung_gateway(tmp_path: Path, number: int) -> None:
    with Server(hanging) as server:
        config = write_config(tmp_path, server.url, push=HUNG)
        with program("--config", config, "--simulate") as running:
            until(lambda: server.connections, "a push")
            assert running.end(number)[0] == 0
    assert saved(tmp_path)[0]


@STOPS
def test_a_stop_of_once_does_not_wait_for_a_hung_gateway(tmp_path: Path, number: int) -> None:
    with Server(hanging) as server:
        config = write_config(tmp_path, server.url, push=HUNG)
        with program("--config", config, "--simulate", "--once") as running:
            until(lambda: server.connections, "a push")
            assert running.end(number)[0] == 0


def test_a_stop_ends_the_wait_for_the_previous_run(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    holder = StateFile(tmp_path / "state", "simulated", "")
    holder.lock()
    with program("--config", config, "--simulate", "--once") as running:
        running.logs("simulated chips")
        assert running.end(signal.SIGTERM)[0] == 0
    holder.unlock()


def test_a_stop_ends_the_splay(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    with program("--config", config, "--simulate", "--splay", "1000h") as running:
        until(lambda: running.catches(signal.SIGTERM), "the program's first lines")
        assert running.end(signal.SIGTERM)[0] == 0


def test_counters_continue_across_restarts(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any]
) -> None:
    config = write_config(tmp_path, pushgateway_url, job)

    def risen(since: dict[str, float]) -> bool:
        return all(gateway().get("cpu", {}).get(name, 0.0) > value for name, value in since.items())

    before = {"wattpush_device_joules_total": 0.0, "wattpush_device_readings_total": 0.0}
    for end in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
        with program("--config", config, "--simulate") as running:
            until(partial(risen, before), "a rise")
            running.end(end)
        assert risen(before)
        before = {name: gateway()["cpu"][name] for name in before}


def test_a_reload_takes_a_valid_file_and_refuses_an_invalid_one(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any]
) -> None:
    config = write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk"])
    with program("--config", config, "--simulate") as running:
        until(lambda: {"cpu", "disk", ""} <= set(gateway()), "all groups")
        write_config(tmp_path, pushgateway_url, job, devices=["cpu", "fan"])
        running.process.send_signal(signal.SIGHUP)
        until(lambda: set(gateway()) == {"cpu", "fan", ""}, "disk to go and fan to come")
        assert running.stderr.count("configuration reloaded") == 1
        joules = until(lambda: gateway()["cpu"]["wattpush_device_joules_total"], "a second reading of cpu")
        config.write_text("nonsense = 1\n")
        running.process.send_signal(signal.SIGHUP)
        running.logs("the old one stays in force")
        assert "nonsense" in running.stderr
        until(lambda: gateway()["cpu"]["wattpush_device_joules_total"] > joules, "a rise after the bad file")
        assert running.end(signal.SIGTERM)[0] == 0


def test_a_reload_that_fails_leaves_the_old_configuration_in_force(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any]
) -> None:
    config = write_config(tmp_path, pushgateway_url, job, devices=["cpu"])
    with socket.create_server(("127.0.0.1", 0)) as taken, program("--config", config, "--simulate") as running:
        until(read_since(gateway), "cpu at the gateway")
        more = f'[serve]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'
        write_config(tmp_path, pushgateway_url, job, devices=["fan"], more=more)
        running.process.send_signal(signal.SIGHUP)
        running.logs("the old one stays in force")
        assert f":{taken.getsockname()[1]}: in use" in running.stderr
        assert "configuration reloaded" not in running.stderr
        readings = gateway()["cpu"]["wattpush_device_readings_total"]
        until(lambda: gateway()["cpu"]["wattpush_device_readings_total"] > readings + 5, "readings to continue")
        assert set(gateway()) == {"cpu", ""}
        assert running.end(signal.SIGTERM)[0] == 0


def can_be_locked(file: StateFile) -> bool:
    try:
        file.lock()
    except BusyError:
        return False
    file.unlock()
    return True


@pytest.mark.parametrize("more", ["", '[serve]\nlisten = "192.0.2.1:1"\n'])
def test_a_reload_never_unlocks_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> None:
    """A waiting `--once` would take the lock, and the loop would exit with 75."""
    config = write_config(tmp_path, "http://127.0.0.1:9", top='interval = "60s"')
    was_free: list[bool] = []
    lock = StateFile.lock
    signals = iter((signal.SIGHUP, signal.SIGHUP, signal.SIGTERM))

    def watched_lock(file: StateFile) -> None:
        monkeypatch.setattr(StateFile, "lock", lock)
        was_free.append(can_be_locked(StateFile(tmp_path / "state", "simulated", "")))
        monkeypatch.setattr(StateFile, "lock", watched_lock)
        lock(file)

    def end_at_once(_: Loop) -> None:
        write_config(tmp_path, "http://127.0.0.1:9", top='interval = "60s"', more=more)
        signal.raise_signal(next(signals))

    monkeypatch.setattr(StateFile, "lock", watched_lock)
    monkeypatch.setattr(Loop, "run", end_at_once)
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    assert was_free[0]
    assert len(was_free) > 2
    assert not any(was_free[1:])
    monkeypatch.setattr(StateFile, "lock", lock)
    assert can_be_locked(StateFile(tmp_path / "state", "simulated", ""))


def test_a_reload_with_another_state_folder_unlocks_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    first = config.read_text()
    texts = iter((first.replace("/state", "/other"), first, ""))
    free: list[list[str]] = []

    def end_at_once(_: Loop) -> None:
        files = [StateFile(tmp_path / name, "simulated", "") for name in ("state", "other")]
        free.append([file.path.parent.name for file in files if can_be_locked(file)])
        text = next(texts)
        config.write_text(text)
        signal.raise_signal(signal.SIGHUP if text else signal.SIGTERM)

    monkeypatch.setattr(Loop, "run", end_at_once)
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    assert free == [["other"], ["state"], ["other"]]


@pytest.mark.reliability(
    15.06,
    "SIGTERM at the start and in a reload, while the disk with the configuration does not answer",
    "exit 0 within 2 s, state saved",
)
@pytest.mark.parametrize("is_reload", [False, True])
def test_a_stop_does_not_wait_for_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_reload: bool, measured: Callable[[str], None]
) -> None:
    answer = threading.Event()
    config = write_config(tmp_path, "http://127.0.0.1:9", top='interval = "60s"')
    starts: list[Loop] = []

    def load(*_: object, **__: object) -> Settings:
        signal.raise_signal(signal.SIGTERM)
        assert answer.wait(LONG_SECONDS)
        raise ConfigError(("too late",))

    def reload(loop: Loop) -> None:
        starts.append(loop)
        monkeypatch.setattr("agent.config.load", load)
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(Loop, "run", reload)
    if not is_reload:
        monkeypatch.setattr("agent.config.load", load)
    begun_seconds = time.monotonic()
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    assert time.monotonic() - begun_seconds < LONG_SECONDS / 2
    answer.set()
    assert bool(starts) == is_reload
    if is_reload:
        assert saved(tmp_path)[0]
    measured("exit 0 before the disk answers")


def test_a_reload_that_takes_long_stops_no_readings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a disk that stalls, or a package with a slow import."""
    swept, run_loop, take_sweep = threading.Semaphore(0), Loop.run, Agent.take_sweep
    config = write_config(tmp_path, "http://127.0.0.1:9", top='sample_interval = "100ms"')
    load, loads = configuration.load, list[threading.Thread]()

    def load_slowly(*arguments: Any, **options: Any) -> Settings:
        loads.append(threading.current_thread())
        while swept.acquire(blocking=False):
            pass
        assert all(swept.acquire(timeout=LONG_SECONDS) for _ in range(3))
        if len(loads) == 1:
            signal.raise_signal(signal.SIGHUP)  # the file may have changed since it was read
        return load(*arguments, **options)

    def sweep(agent: Agent, *arguments: Any) -> list[Outcome]:
        outcomes = take_sweep(agent, *arguments)
        swept.release()
        return outcomes

    def reload(loop: Loop) -> None:
        if loads:
            signal.raise_signal(signal.SIGTERM)
            return
        monkeypatch.setattr("agent.config.load", load_slowly)
        signal.raise_signal(signal.SIGHUP)
        run_loop(loop)

    monkeypatch.setattr(Agent, "take_sweep", sweep)
    monkeypatch.setattr(Loop, "run", reload)
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    assert len(loads) == 2


@pytest.mark.reliability(
    15.05,
    "SIGTERM at the start and in a reload, while no name server answers for the name in `[serve] listen`",
    "exit 0 within 2 s, state saved",
)
@pytest.mark.parametrize("is_reload", [False, True])
def test_a_stop_does_not_wait_for_a_name_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_reload: bool, measured: Callable[[str], None]
) -> None:
    answer = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        signal.raise_signal(signal.SIGTERM)
        assert answer.wait(LONG_SECONDS)
        raise socket.gaierror

    def reload(_: Loop) -> None:
        write_config(tmp_path, "http://127.0.0.1:9", more=serve)
        signal.raise_signal(signal.SIGHUP)

    serve = '[serve]\nlisten = "node.invalid:9812"\n'
    config = write_config(tmp_path, "http://127.0.0.1:9", more="" if is_reload else serve)
    monkeypatch.setattr(Loop, "run", reload)
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    begun_seconds = time.monotonic()
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    assert time.monotonic() - begun_seconds < LONG_SECONDS / 2
    answer.set()
    if is_reload:
        assert saved(tmp_path)[0]
    measured("exit 0 before the name server answers")


@pytest.mark.parametrize(("push", "method"), [("", "PUT"), ("delete_on_exit = true", "DELETE")])
def test_a_stop_in_a_reload_is_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, push: str, method: str
) -> None:
    answer, getaddrinfo = threading.Event(), socket.getaddrinfo

    def look_up(host: str, *arguments: Any, **options: Any) -> list[Any]:
        if host != "node.invalid":
            return getaddrinfo(host, *arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        assert answer.wait(LONG_SECONDS)
        raise socket.gaierror

    def reload(loop: Loop) -> None:
        agent = loop._agent
        until(lambda: any(isinstance(outcome, Reading) for outcome in agent.take_sweep()), "a reading")
        write_config(tmp_path, receiver.url, push=push, more='[serve]\nlisten = "node.invalid:9812"\n')
        signal.raise_signal(signal.SIGHUP)

    monkeypatch.setattr(Loop, "run", reload)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with Server(answering("202 Accepted")) as receiver:
        config = write_config(tmp_path, receiver.url, push=push)
        assert cli.main(["--config", str(config), "--simulate"]) == 0
        assert [request.method for request in receiver.requests][-2:] == [method] * 2
    answer.set()
    assert saved(tmp_path)[0]


@pytest.mark.reliability(
    15.24,
    "a reload while no thread is left, with `[serve]`",
    "the run goes on: a server that keeps its address is kept, with its connections",
)
def test_a_reload_keeps_the_scrape_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: Callable[[str], None]
) -> None:
    port = free_port()
    config = write_config(tmp_path, None, more=f'[serve]\nlisten = "127.0.0.1:{port}"\n')
    signals = iter((signal.SIGHUP, signal.SIGHUP, signal.SIGTERM))
    clients: list[socket.socket] = []

    def no_thread(*_: object) -> threading.Thread:
        raise NoThreadError("can't start new thread")

    def end_at_once(_: Loop) -> None:
        clients.append(socket.create_connection(("127.0.0.1", port), timeout=LONG_SECONDS))
        clients[-1].send(b"GET /-/healthy HTTP/1.1\r\n")
        ask(f"http://127.0.0.1:{port}/")
        monkeypatch.setattr(server, "start_thread", no_thread)
        if (number := next(signals)) == signal.SIGTERM:
            clients[0].send(b"\r\n")
            assert clients[0].makefile("rb").read().startswith(b"HTTP/1.0 ")
        signal.raise_signal(number)

    monkeypatch.setattr(Loop, "run", end_at_once)
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    for client in clients:
        client.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    measured("a connection opened before two reloads gets its answer after them")


@pytest.mark.reliability(
    15.27,
    "a reload with another address for `[serve]`, which is taken or for which no thread is left",
    "refused: the server at the old address is kept, with its connections",
)
@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "no thread"])
def test_a_refused_address_keeps_the_scrape_server(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Callable[[str], None],
    *,
    is_taken: bool,
) -> None:
    port = free_port()
    config = write_config(tmp_path, None, more=f'[serve]\nlisten = "127.0.0.1:{port}"\n')
    signals = iter((signal.SIGHUP, signal.SIGTERM))

    def no_thread(*_: object) -> threading.Thread:
        raise NoThreadError("can't start new thread")

    with socket.create_server(("127.0.0.1", 0)) as taken, ExitStack() as stack:
        other_port = taken.getsockname()[1] if is_taken else free_port()
        clients: list[socket.socket] = []

        def end_at_once(_: Loop) -> None:
            if not clients:
                client = socket.create_connection(("127.0.0.1", port), timeout=LONG_SECONDS)
                clients.append(stack.enter_context(client))
                client.send(b"GET /-/healthy HTTP/1.1\r\n")
                ask(f"http://127.0.0.1:{port}/")
                if not is_taken:
                    monkeypatch.setattr(server, "start_thread", no_thread)
                config.write_text(config.read_text().replace(f":{port}", f":{other_port}"))
            else:
                clients[0].send(b"\r\n")
                assert clients[0].makefile("rb").read().startswith(b"HTTP/1.0 ")
            signal.raise_signal(next(signals))

        monkeypatch.setattr(Loop, "run", end_at_once)
        assert cli.main(["--config", str(config), "--simulate"]) == 0
    measured("a connection opened before the reload gets its answer after it")


def test_a_reload_serves_at_another_host_with_the_same_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    config = write_config(tmp_path, None, more=f'[serve]\nlisten = "127.0.0.1:{port}"\n')
    signals = iter((signal.SIGHUP, signal.SIGTERM))
    answers: list[int] = []

    def end_at_once(_: Loop) -> None:
        answers.append(ask(f"http://127.0.0.{1 + len(answers)}:{port}/")[0])
        config.write_text(config.read_text().replace("127.0.0.1:", "0.0.0.0:"))
        signal.raise_signal(next(signals))

    monkeypatch.setattr(Loop, "run", end_at_once)
    assert cli.main(["--config", str(config), "--simulate"]) == 0
    assert answers == [200, 200]


@pytest.mark.reliability(
    12.43,
    "a reload with another `state_dir`, in which there is an older file; later the first folder again",
    "the counters go on in the new folder, and the file in the other one is replaced or emptied",
)
def test_a_reload_leaves_its_counters_in_one_folder_only(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any], measured: Callable[[str], None]
) -> None:
    config = write_config(tmp_path, pushgateway_url, job)
    first = config.read_text()
    (tmp_path / "other").mkdir()
    older = Saved(Counters(joules=1e6, readings=10**6))
    StateFile(tmp_path / "other", "simulated", boot_id()).save(State({"cpu": older, "disk": older}), ended_well=True)
    with program("--config", config, "--simulate") as running:
        until(read_since(gateway), "cpu at the gateway")
        write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk"])
        config.write_text(config.read_text().replace(str(tmp_path / "state"), str(tmp_path / "other")))
        running.process.send_signal(signal.SIGHUP)
        until(read_since(gateway, "disk"), "disk at the gateway")
        assert running.end(signal.SIGTERM)[0] == 0
    assert all(0 < gateway()[name]["wattpush_device_readings_total"] < 10**6 for name in ("cpu", "disk"))
    config.write_text(first)
    assert run("--config", config, "--simulate", "--once").returncode == 0
    assert gateway()["cpu"]["wattpush_device_readings_total"] == 1
    measured("neither the older counters nor the first ones are pushed again")


def test_a_refused_reload_writes_no_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_opening, "StateFile", partial(StateFile, forgetful_filesystem=lambda _: None))
    config = write_config(tmp_path, "http://gateway.invalid", more=f'[serve]\nlisten = "127.0.0.1:{free_port()}"\n')
    (tmp_path / "state").mkdir()
    earlier = State({"cpu": Saved(Counters(joules=42.0, readings=7))})
    assert StateFile(tmp_path / "state", "simulated", "an earlier boot").save(earlier, ended_well=True)
    threads = set(threading.enumerate())
    signals = iter((signal.SIGHUP, signal.SIGTERM))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        changed = config.read_text().replace(str(tmp_path / "state"), str(tmp_path / "other"))
        changed = f'{changed.partition("[serve]")[0]}[serve]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n'

        def end_at_once(_: Loop) -> None:
            config.write_text(changed)
            signal.raise_signal(next(signals))

        monkeypatch.setattr(Loop, "run", end_at_once)
        assert cli.main(["--config", str(config), "--simulate"]) == 0
    until(lambda: set(threading.enumerate()) <= threads, "the last save")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["simulated.lock"]


@pytest.mark.reliability(
    5.21,
    "a second loop with the same state folder",
    "refused with exit code 75 and the pid of the first; a dry run beside it changes nothing",
)
def test_a_second_loop_is_refused_but_a_dry_run_is_not(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any], measured: Callable[[str], None]
) -> None:
    more = f'[serve]\nlisten = "127.0.0.1:{free_port()}"\n'
    config = write_config(tmp_path, pushgateway_url, job, more=more, top='interval = "1h"\nsample_interval = "50ms"')
    with program("--config", config, "--simulate") as running:
        until(read_since(gateway), "cpu at the gateway")
        second = run("--config", config, "--simulate")
        assert second.returncode == 75
        assert "in use by another wattpush" in second.stderr
        assert len(second.stderr.splitlines()) <= 3

        def files() -> dict[str, bytes]:
            return {path.name: path.read_bytes() for path in (tmp_path / "state").iterdir()}

        before = files()
        dry = run("--config", config, "--simulate", "--once", "--dry-run")
        assert dry.returncode == 0, dry.stderr
        assert dry.stdout.startswith(f"# PUT /metrics/job/{job}/device/cpu/hostname/node-17-simulated\n")
        with program("--config", config, "--simulate", "--dry-run") as loop:
            assert loop.process.stdout is not None
            assert loop.process.stdout.readline().startswith("# PUT")
            assert loop.end(signal.SIGTERM)[0] == 0
        assert files() == before
        assert running.end(signal.SIGTERM)[0] == 0
    measured("files of the state byte for byte the same")


def test_once_waits_for_the_previous_run(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any]
) -> None:
    config = write_config(tmp_path, pushgateway_url, job)
    holder = StateFile(tmp_path / "state", "simulated", "")
    holder.lock()
    with program("--config", config, "--simulate", "--once") as running:
        running.logs("simulated chips")
        holder.unlock()
        assert running.end()[0] == 0, running.stderr
    assert gateway()[""]["wattpush_agent_pushes_total"] == 1
    assert gateway()["cpu"]["wattpush_device_readings_total"] == 1


def test_serve_answers_scrapes(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, None, more=f'[serve]\nlisten = "127.0.0.1:{port}"\n')
    with program("--config", config, "--simulate") as running:
        running.logs("serving")
        url = f"http://127.0.0.1:{port}"
        until(lambda: ask(f"{url}/metrics")[0] == 200, "a first sweep")
        labels = (("device", "cpu"), ("hostname", "node-17-simulated"))
        # If the first sweep is delayed, the chip may still be converting.
        until(lambda: samples_of(get(f"{url}/metrics"))["wattpush_device_up"][labels] == 1, "a reading")
        page = Shown(get(f"{url}/").encode())
        assert page.device("cpu")[0] == "ok"
        assert "SIMULATED" in page.text
        assert "node-17-simulated" in page.text
        assert running.end(signal.SIGTERM)[0] == 0


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("--config", write_config(tmp_path, None, more=f'[serve]\nlisten = "{where}"\n'), "--simulate")
    assert ended.returncode == 75
    assert f"serve: listen: {where}: in use" in ended.stderr


def test_five_problems_are_five_lines(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'intervall = "1s"\nsample_interval = "x"\nhostname = ".."\n[pushgateway]\nurl = "ftp://x"\ntimeout = -1\n'
        '[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 0x40\n'
    )
    ended = run("--config", config, "--simulate", "--once")
    assert ended.returncode == 78
    assert ended.stdout == ""
    lines = ended.stderr.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(f"wattpush: {config}: ") for line in lines)
    checked = run("check", "--config", config)
    assert (checked.returncode, checked.stdout, checked.stderr) == (78, "", ended.stderr)


def test_an_unreachable_gateway_is_69_after_the_budget(tmp_path: Path) -> None:
    config = write_config(tmp_path, f"http://127.0.0.1:{free_port()}", top='interval = "1s"', push='timeout = "1s"')

    def is_refused() -> bool:
        ended = run("--config", config, "--simulate", "--once")
        assert ended.returncode == 69
        return "refused" in ended.stderr

    until(is_refused, "a run that was not delayed until its budget was spent")


def test_once_in_a_read_only_folder_omits_the_counters(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any]
) -> None:
    with disk(tmp_path / "state") as rescue:
        if not rescue.is_mounted:
            pytest.skip("needs root, to mount a file system")
        config = write_config(tmp_path, pushgateway_url, job)
        assert run("--config", config, "--simulate", "--once").returncode == 0
        assert gateway()["cpu"]["wattpush_device_readings_total"] == 1
        with rescue.read_only():
            ended = run("--config", config, "--simulate", "--once")
        assert ended.returncode == 74
        assert "not published" in ended.stderr
        assert "wattpush_device_readings_total" not in gateway()["cpu"]
        assert gateway()["cpu"]["wattpush_device_up"] == 1


def test_an_unwritable_state_folder_is_77() -> None:
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or setpriv is None:
        pytest.skip("needs root and setpriv, to become another user")
    somebody_else = [setpriv, "--reuid=65534", "--clear-groups", sys.executable]
    if subprocess.run([*somebody_else, "-c", ""], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"only root may run {sys.executable}: put the interpreter where everybody may")
    # Not in `tmp_path`: every run of pytest that starts closes the parent of that to other users.
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = write_config(folder, "http://127.0.0.1:9")
        (folder / "state").mkdir(mode=0o755)
        ended = subprocess.run(
            [*somebody_else, "-m", "agent", "--config", config, "--simulate"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
            check=False,
        )
    assert ended.returncode == 77, ended.stderr
    assert f"{folder / 'state'}: permission denied" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["check", "--conf", "x"], ["--trace", "cpu"], ["--splay", "x"]]
)
def test_a_wrong_command_line_is_64(arguments: list[str], tmp_path: Path) -> None:
    ended = run(
        *arguments, environ={**os.environ, "WATTPUSH_CONFIG": str(write_config(tmp_path, "http://127.0.0.1:9"))}
    )
    assert ended.returncode == 64
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr


def test_an_invalid_recording_is_78_with_its_place(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    bad = tmp_path / "bad.csv"
    bad.write_text("seconds,volts,amperes\n0,5,1\n1,5,x\n")
    ended = run("--config", config, "--once", "--trace", f"cpu={bad}")
    assert ended.returncode == 78
    assert f"wattpush: {bad}:3: " in ended.stderr


def test_a_recording_for_an_unknown_device_is_64(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    ended = run("--config", config, "--once", "--trace", f"gpu={tmp_path / 'nosuch.csv'}")
    assert ended.returncode == 64
    assert "gpu: no such device" in ended.stderr


def test_a_closed_pipe_is_not_an_error(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    for arguments in (f"--config {config} --simulate --dry-run", "--help", f"check --config {config}"):
        ended = subprocess.run(
            [
                "/bin/bash",
                "-c",
                f"{sys.executable} -m agent {arguments} --log-level error | true; echo ${{PIPESTATUS[0]}}",
            ],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=LONG_SECONDS,
            check=False,
        )
        assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch, logging_as_it_was: None) -> Callable[[str], None]:
    """Unplug the chip of a device in every world built from now on."""
    real = simulated_world.build_world

    def unplug(device: str) -> None:
        def build_world(*arguments: Any) -> World:
            world = real(*arguments)
            world.chips[device].unplug()
            return world

        monkeypatch.setattr(simulated_world, "build_world", build_world)

    return unplug


def test_a_missing_device_is_74_and_the_others_are_pushed(
    *,
    tmp_path: Path,
    pushgateway_url: str,
    job: str,
    gateway: Callable[[], Any],
    without: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--config", str(write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk", "fan"]))]
    arguments += ["--simulate", "--once"]
    assert cli.main(arguments) == 0
    assert gateway()["fan"]["wattpush_device_watts"] > 0
    capsys.readouterr()
    without("fan")
    assert cli.main(arguments) == 74
    pushed = gateway()
    assert (pushed["cpu"]["wattpush_device_up"], pushed["disk"]["wattpush_device_up"]) == (1, 1)
    assert pushed["cpu"]["wattpush_device_readings_total"] == 2
    assert pushed["fan"]["wattpush_device_up"] == 0
    assert not {"wattpush_device_volts", "wattpush_device_amperes", "wattpush_device_watts"} & set(pushed["fan"])
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if "error" in line]
    for place in ("fan: ", "/dev/i2c-1", "m0", "0x70", "channel 2", "0x40"):
        assert place in line


def test_a_rejected_push_is_76_even_with_a_missing_sensor(
    tmp_path: Path, without: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    without("disk")
    with running_pushgateway() as url:  # a separate one: the clash would affect other tests
        body = "# TYPE wattpush_device_up counter\nwattpush_device_up 1\n"
        assert ask(f"{url}/metrics/job/clash", "PUT", body)[0] == 200
        config = write_config(tmp_path, url, devices=["cpu", "disk"])
        assert cli.main(["--config", str(config), "--simulate", "--once"]) == 76
    assert "inconsistent" in capsys.readouterr().err


@pytest.mark.reliability(
    5.2,
    "`--once` beside a loop with the same state folder",
    "it waits for up to 5 s, then is refused with exit code 75",
)
@pytest.mark.usefixtures("logging_as_it_was")
def test_once_beside_a_loop_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent.run.state_opening.ONCE_LOCK_WAIT_SECONDS", 0.2)
    holder = StateFile(tmp_path / "state", "simulated", "")
    holder.lock()
    assert cli.main(["--config", str(write_config(tmp_path, "http://127.0.0.1:9")), "--simulate", "--once"]) == 75
    holder.unlock()
    assert "in use by another wattpush" in capsys.readouterr().err


@pytest.mark.usefixtures("logging_as_it_was")
def test_delete_removes_all_groups_of_the_node_or_those_named(
    tmp_path: Path,
    pushgateway_url: str,
    job: str,
    gateway: Callable[[], Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = str(write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk"]))
    assert cli.main(["--config", config, "--simulate", "--once"]) == 0
    assert cli.main(["delete", "--simulate", "--config", config, "--device", "disk"]) == 0
    # A Pushgateway answers a DELETE before it has processed it.
    until(lambda: set(gateway()) == {"cpu", ""}, "disk to go")
    assert cli.main(["--config", config, "--simulate", "delete"]) == 0
    until(lambda: gateway() == {}, "all groups to go")
    assert (
        capsys.readouterr().out == "deleted: device disk\ndeleted: device cpu\nnot there: device disk\ndeleted: node\n"
    )


@pytest.mark.usefixtures("logging_as_it_was")
def test_delete_names_a_gateway_that_is_away_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", devices=["cpu", "disk"], push='timeout = "300ms"')
    assert cli.main(["delete", "--config", str(config), "--device", "cpu", "--device", "disk", "--device", "cpu"]) == 69
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wattpush: device cpu: 127.0.0.1:9 refused the connection; is it running?")
    assert line.endswith(" (and 1 more group)")


@pytest.mark.usefixtures("logging_as_it_was")
def test_delete_says_which_group_the_gateway_does_not_have(
    tmp_path: Path, pushgateway_url: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk"]))
    ask(f"{pushgateway_url}/metrics/job/{job}/device/old/hostname/node-17", "PUT", "x 1\n")
    ask(f"{pushgateway_url}/metrics/job/{job}/device/nosuch/hostname/node-18", "PUT", "x 1\n")
    devices = ["--device", "cpu", "--device", "old", "--device", "nosuch"]
    assert cli.main(["delete", "--config", config, *devices]) == 0
    output = capsys.readouterr()
    assert output.out == "not there: device cpu\ndeleted: device old\nnot there: device nosuch\n"
    assert output.err == 'wattpush: no device is called "nosuch"; those of this node are cpu, disk\n'


@pytest.mark.usefixtures("logging_as_it_was")
def test_delete_of_a_gateway_that_shows_nothing_still_deletes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def behave(client: Client) -> None:
        while (request := client.read_request()) is not None:
            client.answer("403 Forbidden" if request.method == "GET" else "202 Accepted")

    with Server(behave) as server:
        config = str(write_config(tmp_path, server.url))
        assert cli.main(["delete", "--config", config, "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "deleted: device cpu\n"


def test_delete_removes_groups_of_renamed_devices(
    tmp_path: Path, pushgateway_url: str, job: str, gateway: Callable[[], Any]
) -> None:
    config = str(tmp_path / "config.toml")
    for device in ("cpu", "gpu"):
        write_config(tmp_path, pushgateway_url, job, devices=[device])
        assert cli.main(["--config", config, "--simulate", "--once"]) == 0
    assert set(gateway()) == {"cpu", "gpu", ""}
    assert cli.main(["--config", config, "--simulate", "delete"]) == 0
    until(lambda: gateway() == {}, "all groups to go")


@pytest.mark.reliability(
    5.11,
    "`--simulate` and `--trace` beside the service's own file",
    "only the series of `<hostname>-simulated` are pushed, kept and deleted",
)
@pytest.mark.usefixtures("logging_as_it_was")
def test_simulated_runs_never_touch_the_groups_of_the_real_node(
    tmp_path: Path, pushgateway_url: str, job: str, measured: Callable[[str], None]
) -> None:
    config = str(write_config(tmp_path, pushgateway_url, job))
    recording = tmp_path / "rail.csv"
    recording.write_text("seconds,volts,amperes\n0,12,0.5\n")
    for device in ("/device/cpu", ""):
        ask(
            f"{pushgateway_url}/metrics/job/{job}{device}/hostname/node-17", "PUT", "wattpush_device_joules_total 606\n"
        )
    until(lambda: len(_groups_by_hostname(pushgateway_url, job)) == 2, "the real groups")
    real = _groups_by_hostname(pushgateway_url, job)
    for arguments in (["--simulate"], ["--trace", f"cpu={recording}"]):
        assert cli.main(["--config", config, "--once", *arguments]) == 0
        both = _groups_by_hostname(pushgateway_url, job)
        assert {hostname for hostname, _ in both} == {"node-17", "node-17-simulated"}
        assert {key: group for key, group in both.items() if key[0] == "node-17"} == real
    with program("--config", config, "--simulate") as running:
        until(lambda: _groups_by_hostname(pushgateway_url, job) != both, "a push of the loop")
        assert running.end(signal.SIGTERM)[0] == 0
    assert cli.main(["--config", config, "--simulate", "delete"]) == 0
    until(lambda: _groups_by_hostname(pushgateway_url, job) == real, "only the real groups are left")
    measured("four simulated commands: the node's own groups stay byte for byte")


def _groups_by_hostname(url: str, job: str) -> dict[tuple[str, str], str]:
    """The groups of a job, as the gateway shows them, by hostname and device."""
    groups = [group for group in json.loads(get(f"{url}/api/v1/metrics"))["data"] if group["labels"]["job"] == job]
    return {
        (group["labels"]["hostname"], group["labels"].get("device", "")): json.dumps(group, sort_keys=True)
        for group in groups
    }


@pytest.mark.parametrize("length", [5, 190, 200])
def test_a_simulated_hostname_has_one_suffix_and_a_legal_length(tmp_path: Path, length: int) -> None:
    config = write_config(tmp_path, None, more='[serve]\nlisten = "127.0.0.1:0"\n')
    text, name = config.read_text(), "n" * length
    for _ in range(2):
        config.write_text(text.replace('"node-17"', f'"{name}"'))
        name = load_settings(Namespace(config=str(config), simulate=True)).hostname
        assert name == "n" * min(length, 190) + "-simulated"
        assert len(name) <= 200


def test_delete_of_a_device_explains_the_group_of_the_node(
    tmp_path: Path, pushgateway_url: str, job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    push = 'group_by = "node"\ntimeout = "1m"'
    config = str(write_config(tmp_path, pushgateway_url, job, devices=["cpu", "disk"], push=push))
    assert cli.main(["delete", "--config", config, "--device", "disk"]) == 0
    assert "its present series are in the group of the node" in capsys.readouterr().err


def test_check_prints_ok(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9", devices=["cpu", "disk"])
    checked = run("check", "--config", config)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout == f"ok       {config}: 2 devices, 1 mux\n"
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", [["check"], ["--once"], ["--once", "--dry-run"], []])
def test_a_state_dir_that_is_no_folder_is_named(tmp_path: Path, command: list[str]) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    config.write_text(config.read_text().replace(str(tmp_path / "state"), "/etc/passwd"))
    ended = run(*command, "--config", config, "--simulate")
    assert ended.returncode == 78
    assert "state_dir: /etc/passwd is not a folder; name a folder" in ended.stdout + ended.stderr


@pytest.mark.parametrize("command", [["check"], ["--once"], []])
def test_a_fifo_in_place_of_the_counters_is_78_at_once(tmp_path: Path, command: list[str]) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:9")
    (tmp_path / "state").mkdir()
    os.mkfifo(tmp_path / "state" / "simulated.json")
    ended = run(*command, "--config", config, "--simulate")
    assert ended.returncode == 78
    assert "simulated.json is a FIFO, not a file" in ended.stdout + ended.stderr


def test_a_sweep_that_a_stop_waits_for_reads_no_chip(clock: HandClock, tmp_path: Path) -> None:
    settings, waiting = replace(settings_for(CPU), state_dir=tmp_path), HandWaiting(clock)
    with ExitStack() as stack:
        runtime = Runtime(clock, waiting, {}, HandPublisher(clock), INFO, lambda: None)
        agent = make_agent(settings, RunOptions(is_simulated=True), runtime, stack)
        assert isinstance(agent.take_sweep()[0], Settling)
        waiting.stop_requested_at_seconds = clock.seconds
        clock.sleep(0.6)
        (outcome,) = agent.take_sweep()
        assert isinstance(outcome, Failure)
        assert not outcome.tried


@pytest.mark.reliability(15.22, 'a reload that adds `bus = "board"`', "refused; the error says to restart")
def test_a_reload_that_adds_the_boards_bus_asks_for_a_restart(
    clock: HandClock, measured: Callable[[str], None]
) -> None:
    earlier = agent_of(settings_for(CPU), world_for(settings_for(CPU), clock), clock, None)
    board = settings_for(replace(CPU, place=Place("board", None, None, 0x40)), muxes=())
    with Signals() as signals, ExitStack() as stack:
        runtime = Runtime(clock, signals, {}, Publisher(clock, signals.wake), INFO, signals.wake)
        with pytest.raises(ConfigError, match="restart: sudo systemctl restart wattpush"):
            make_agent(board, RunOptions(), runtime, stack, earlier)
    measured("the error names `sudo systemctl restart wattpush`")


def test_help_fits_80_columns_and_lists_the_exit_codes() -> None:
    ended = run("--help", environ={**os.environ, "COLUMNS": "80"})
    assert ended.returncode == 0
    assert max(map(len, ended.stdout.splitlines())) <= 80
    for code in (0, 64, 69, 70, 74, 75, 76, 77, 78):
        assert f"{code}  " in ended.stdout.partition("exit codes")[2]


def test_the_command_and_the_module_are_one_program() -> None:
    command = shutil.which("wattpush", path=str(PROJECT / ".venv" / "bin")) or shutil.which("wattpush")
    if command is None:
        pytest.skip("wattpush is not installed")
    installed = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=30, check=True)
    assert run("--version").stdout == installed.stdout
    assert installed.stdout.startswith("wattpush ")
