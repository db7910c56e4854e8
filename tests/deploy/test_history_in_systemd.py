"""Remote write in a Debian that has booted its own systemd: sandbox, /run/wattpush, kills, timer and purge."""

from __future__ import annotations

import functools
import json
import re
import shutil
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from tests.deploy.machine import booted
from tests.deploy.test_in_systemd import INSTALL, OFFLINE, ONCE, SECONDS, SERVICE, SIMULATED, SIMULATED_ONCE, TIMER
from tests.prometheus_server import binary
from tests.run.running import samples_of, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.machine import Machine

# `make test` and "not long" deselect these; `make test-systemd` runs them.
pytestmark = [pytest.mark.long, pytest.mark.systemd]

SERVER = "http://127.0.0.1:8428"
STATE = "/var/lib/wattpush"
RUNTIME = "/run/wattpush"
SYNCHRONISED = "/run/systemd/timesync/synchronized"
QUICK = "[Service]\nRestartSec=100ms\n"

READ_CLOCK = """\
from agent.history.dating import system_timebase
timebase = system_timebase()
timebase.is_synchronised()
print("the clock can be asked" if not timebase.obstacle else timebase.obstacle)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine with wattpush installed, simulated chips, and a VictoriaMetrics that is not started."""
    with booted(tmp_path_factory.mktemp("machine")) as machine:
        machine.do(INSTALL, environ=OFFLINE)
        machine.drop_in(SERVICE, SIMULATED + QUICK)
        machine.drop_in(ONCE, SIMULATED_ONCE)
        shutil.copy(binary("victoria-metrics", "victoria-metrics"), machine.root / "usr/local/bin/victoria-metrics")
        yield machine


@pytest.fixture(autouse=True)
def _stopped(machine: Machine) -> Iterator[None]:
    yield
    machine.run("systemctl", "stop", SERVICE, TIMER, ONCE, "history-server")


def configure(machine: Machine, hostname: str, remote: str = "", interval: str = "500ms") -> None:
    text = f'hostname = "{hostname}"\ninterval = "{interval}"\nsample_interval = "100ms"\nstate_dir = "{STATE}"\n'
    text += f'[remote_write]\nurl = "{SERVER}/api/v1/write"\n{remote}\n[serve]\nlisten = "127.0.0.1:9812"\n'
    text += '[[device]]\nname = "cpu"\nchip = "ina260"\nbus = 1\naddress = 0x40\n'
    (machine.root / "etc/wattpush/config.toml").write_text(text, encoding="utf-8")


def start_server(machine: Machine) -> None:
    machine.do(
        *("systemd-run", "--unit=history-server", "victoria-metrics", "-storageDataPath=/srv/history"),
        *("-httpListenAddr=127.0.0.1:8428", "-dedup.minScrapeInterval=1ms", "-search.latencyOffset=0s"),
    )


def fetched(machine: Machine, url: str) -> str | None:
    """The body; None without an answer."""
    ask = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=10).read().decode())"
    done = machine.run("/usr/bin/python3", "-c", ask)
    return done.stdout if done.returncode == 0 else None


def remote(machine: Machine, name: str) -> float | None:
    """A series about remote write at `[serve]`; None while there is no answer."""
    values = samples_of(fetched(machine, "http://127.0.0.1:9812/metrics") or "")
    return next(iter(values.get(f"wattpush_agent_remote_{name}", {}).values()), None)


def stored(machine: Machine, hostname: str, name: str) -> list[tuple[int, float]]:
    """All samples of a series of the node, by time in milliseconds."""
    fetched(machine, f"{SERVER}/internal/force_flush")
    selector = f"%7B__name__=%22{name}%22,hostname=%22{hostname}-simulated%22%7D"
    found: list[tuple[int, float | None]] = []
    for line in (fetched(machine, f"{SERVER}/api/v1/export?match[]={selector}") or "").splitlines():
        if line:
            one: dict[str, Any] = json.loads(line)
            found += zip(one["timestamps"], one["values"], strict=True)
    return sorted((at, value) for at, value in found if value is not None)


def files(machine: Machine, folder: str) -> list[str]:
    return machine.run("find", folder, "-type", "f", "-size", "+0").stdout.split()


def said(machine: Machine, unit: str) -> str:
    return machine.do("journalctl", "--no-pager", "--output=cat", "--unit", unit)


def test_the_sandbox_lets_the_agent_ask_for_the_clock(machine: Machine) -> None:
    machine.write("/srv/clock.py", READ_CLOCK)
    python = machine.do("readlink", "--canonicalize", "/opt/wattpush/bin").strip() + "/python"
    machine.drop_in(ONCE, f"[Service]\nExecStart=\nExecStart={python} /srv/clock.py\n", "zz.conf")
    try:
        machine.do("systemctl", "start", ONCE)
        assert said(machine, ONCE).count("the clock can be asked\n") == 1, said(machine, ONCE)
    finally:
        machine.do("rm", f"/etc/systemd/system/{ONCE}.d/zz.conf")
        machine.do("systemctl", "daemon-reload")


def test_timesyncd_dates_what_has_waited_in_the_sandbox(machine: Machine) -> None:
    configure(machine, "dated")
    start_server(machine)
    machine.do("systemctl", "start", SERVICE)
    until(lambda: (remote(machine, "backlog_samples") or 0) > 300, "samples wait", SECONDS)
    assert remote(machine, "requests_total") == 0, "nothing is sent before the clock is known"
    machine.do("sh", "-c", f"mkdir -p {SYNCHRONISED.rpartition('/')[0]} && touch {SYNCHRONISED}")
    until(lambda: (remote(machine, "samples_total") or 0) > 300, "they are sent", SECONDS)
    assert remote(machine, "undated_samples_total") == 0


def test_a_killed_service_loses_the_open_interval_at_most(machine: Machine) -> None:
    configure(machine, "killed", 'clock = "system"')
    machine.do("systemctl", "start", SERVICE)
    kept: list[float] = []

    def is_back(kills: int) -> bool:
        return int(machine.show(SERVICE, "NRestarts")) == kills and bool(remote(machine, "backlog_samples"))

    for kills in (1, 2, 3):
        until(lambda: (remote(machine, "backlog_samples") or 0) > sum(kept[-1:]) + 100, "more samples wait", SECONDS)
        killed = machine.show(SERVICE, "MainPID")
        kept.append(remote(machine, "backlog_samples") or 0)
        machine.do("sh", "-c", f"kill -KILL {killed}")
        until(functools.partial(is_back, kills), "it is back", SECONDS)
        assert (remote(machine, "backlog_samples") or 0) >= kept[-1]
    assert files(machine, f"{STATE}/history") == [], "in memory, not on the disk"
    start_server(machine)
    until(lambda: remote(machine, "backlog_samples") == 0, "all is sent", SECONDS)
    until(lambda: len(stored(machine, "killed", "wattpush_device_readings_total")) >= 6, "it is visible", SECONDS)
    readings = stored(machine, "killed", "wattpush_device_readings_total")
    assert len(readings) == len({at for at, _ in readings})
    # An interval has five readings; the one that was open at a kill is not there, and is not counted.
    assert all(earlier[1] <= later[1] <= earlier[1] + 7 for earlier, later in pairwise(readings)), readings


def test_a_stop_in_an_outage_moves_everything_to_the_disk(machine: Machine) -> None:
    configure(machine, "stopped", 'clock = "system"')
    machine.do("systemctl", "start", SERVICE)
    until(lambda: (remote(machine, "backlog_samples") or 0) > 300, "samples wait", SECONDS)
    machine.do("systemctl", "stop", SERVICE)
    # What a reboot does to /run.
    machine.do("rm", "--recursive", RUNTIME)
    start_server(machine)
    machine.do("systemctl", "start", SERVICE)

    def readings() -> list[float]:
        return [value for _, value in stored(machine, "stopped", "wattpush_device_readings_total")]

    until(lambda: len(readings()) >= 12, "the backlog and some more", SECONDS)
    # The service counts on, five readings in an interval.
    assert readings()[0] <= 6
    assert all(later - earlier <= 7 for earlier, later in pairwise(readings()))


def test_runs_of_the_timer_and_the_service_share_one_backlog(machine: Machine) -> None:
    configure(machine, "shared", 'clock = "system"\ntimeout = "1s"', interval="2s")

    def rows() -> int:
        return len(stored(machine, "shared", "wattpush_device_up"))

    for _ in range(3):
        assert machine.run("systemctl", "start", ONCE).returncode != 0
        assert machine.show(ONCE, "ExecMainStatus") == "69"
    start_server(machine)
    until(lambda: fetched(machine, f"{SERVER}/health"), "the server answers", SECONDS)
    machine.do("systemctl", "start", ONCE)
    until(lambda: rows() == 4, "all runs arrive", SECONDS)
    machine.do("systemctl", "stop", "history-server")
    assert machine.run("systemctl", "start", ONCE).returncode != 0
    start_server(machine)
    machine.do("systemctl", "start", SERVICE)
    until(lambda: rows() >= 6, "the service sends what the timer left", SECONDS)
    readings = [value for _, value in stored(machine, "shared", "wattpush_device_readings_total")]
    assert readings[:5] == [1, 2, 3, 4, 5]


def test_history_is_added_to_old_counters_and_a_purge_leaves_nothing(tmp_path: Path) -> None:
    with booted(tmp_path) as machine:
        before = machine.files()
        machine.do(INSTALL, environ=OFFLINE)
        machine.drop_in(SERVICE, SIMULATED)
        state = machine.root / STATE.lstrip("/") / "simulated.json"

        def saved() -> Any:
            return json.loads(state.read_text(encoding="utf-8"))["content"]

        configure(machine, "gone", 'clock = "system"')
        config = machine.root / "etc/wattpush/config.toml"
        with_history = config.read_text(encoding="utf-8")
        config.write_text(re.sub(r"\[remote_write\][^[]*", "", with_history), encoding="utf-8")
        machine.do("systemctl", "start", SERVICE)
        until(lambda: state.exists() and saved()["devices"]["cpu"]["counters"]["joules"] > 0, "energy", SECONDS)
        machine.do("systemctl", "stop", SERVICE)
        assert "remote" not in saved(), "as a version without history leaves it"
        old_joules = saved()["devices"]["cpu"]["counters"]["joules"]

        config.write_text(with_history, encoding="utf-8")
        machine.do("systemctl", "start", SERVICE)
        until(lambda: (remote(machine, "backlog_samples") or 0) > 100, "samples wait", SECONDS)
        assert files(machine, RUNTIME)
        machine.do("systemctl", "stop", SERVICE)
        assert saved()["remote"]
        assert saved()["devices"]["cpu"]["counters"]["joules"] > old_joules
        assert len(files(machine, STATE)) >= 2, "the counters and a backlog"

        machine.do(INSTALL, "--uninstall", "--purge")
        assert machine.files() == before
        assert machine.run("ls", RUNTIME).returncode != 0
