"""The real program with history: two destinations that do not wait for each other, stops, reloads and `--once`."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.history.engines import Prometheus, VictoriaMetrics
from tests.history.fault_proxy import FaultProxy
from tests.history.node import ENDS, READINGS, REMOTE, History
from tests.run.running import ask, groups_of, program, run, samples_of, until, write_config
from tests.servers import Server, answering, free_port, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from subprocess import CompletedProcess

    from tests.history.engines import Engine
    from tests.run.running import Program
    from tests.servers import Client

UP = "wattpush_device_up"
PUSHES = "wattpush_agent_pushes_total"
INTERVAL_MILLISECONDS = 200


class Site:
    """Where a node runs: its configuration, which tests rewrite, and a runtime folder as systemd makes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job = folder.name
        self.port = free_port()
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        self.environ = {**os.environ, "RUNTIME_DIRECTORY": str(runtime)}
        self.config = folder / "config.toml"

    def configure(
        self,
        write_url: str | None,
        *,
        gateway: str | None = None,
        devices: tuple[str, ...] = ("cpu", "disk"),
        hostname: str = "node-17",
        remote: str = "",
        serves: bool = True,
    ) -> None:
        more = f'[serve]\nlisten = "127.0.0.1:{self.port}"\n' if serves else ""
        if write_url is not None:
            more += f'[remote_write]\nurl = "{write_url}"\njob = "{self.job}"\nclock = "system"\n{remote}\n'
        config = write_config(self.folder, gateway, devices=devices, more=more, push='timeout = "1s"')
        config.write_text(config.read_text().replace('"node-17"', f'"{hostname}"'))

    def of(self, name: str) -> str:
        """The selector of a series; an empty name selects all."""
        return f'{name}{{job="{self.job}"}}'

    def arguments(self) -> tuple[str | Path, ...]:
        return "--config", self.config, "--simulate"

    def start(self) -> AbstractContextManager[Program]:
        return program(*self.arguments(), environ=self.environ)

    def once(self, *options: str) -> CompletedProcess[str]:
        return run(*self.arguments(), "--once", *options, environ=self.environ)

    def metric(self, name: str) -> float:
        """The newest value of the node; -1 while it does not answer."""
        try:
            status, text, _ = ask(f"http://127.0.0.1:{self.port}/metrics")
        except OSError:
            return -1.0
        return next(iter(samples_of(text).get(name, {}).values()), -1.0) if status == 200 else -1.0

    def produced(self) -> float:
        return sum(self.metric(REMOTE[end]) for end in ENDS)

    def backlog_files(self) -> list[Path]:
        return sorted((self.folder / "state" / "history-simulated").glob("*"))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Shared by the tests: each writes under its own job."""
    with Prometheus(tmp_path_factory.mktemp("engine") / "prometheus") as running:
        yield running


@pytest.fixture(scope="module")
def victoria(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with VictoriaMetrics(tmp_path_factory.mktemp("engine") / "victoria") as running:
        yield running


def silent(client: Client) -> None:
    """Takes a request and never answers."""
    client.read_request()
    client.hang()


def held(engine: Engine, site: Site, hostname: str = "node-17-simulated") -> History:
    return History.of(engine.samples(f'{{job="{site.job}",hostname="{hostname}"}}', with_markers=True))


def is_complete(history: History) -> bool:
    """Nothing is lost, doubled, dropped or wrong, and no counter goes back."""
    assert max(history.lost()) == 0, history.lost()
    assert history.doubled == 0
    assert [history.last(end) for end in ("refused", "dropped", "undated")] == [0.0, 0.0, 0.0]
    assert falls(history) == []
    return len(history.lost()) > 0


def falls(history: History) -> list[tuple[str, str]]:
    """The agent's counters that went back; those of the process start from zero with it."""
    return [key for key in history.falls() if not key[0].startswith("process_")]


@pytest.mark.reliability(
    12.09,
    "a Pushgateway that never answers, beside remote write to a real Prometheus",
    "the history has every interval and its stale markers; SIGTERM ends the process within 2 s",
)
def test_a_gateway_that_hangs_makes_no_hole(site: Site, prometheus: Engine, measured: Callable[[str], None]) -> None:
    with Server(silent) as gateway:
        site.configure(prometheus.write_url, gateway=gateway.url)
        with site.start() as running:
            until(lambda: site.metric(REMOTE["accepted"]) > 500, "some accepted samples")
            until(lambda: site.metric("wattpush_agent_push_failures_total") >= 2, "pushes that fail")
            code, seconds = running.end(signal.SIGTERM)
    assert (code, seconds < 2.0) == (0, True)
    history = held(prometheus, site)
    assert is_complete(history)
    assert history.longest_gap_milliseconds() < 3 * INTERVAL_MILLISECONDS
    assert prometheus.instant(site.of("")) == {}
    gap_milliseconds = history.longest_gap_milliseconds()
    measured(f"{len(history.times)} rows, the longest gap {gap_milliseconds} ms; stopped in {seconds:.2f} s")


@pytest.mark.reliability(
    12.09,
    "a remote write server that never answers, beside a real Pushgateway",
    "pushes go on as ever; SIGTERM within 2 s leaves everything on disk, and the next run sends it",
)
def test_a_remote_server_that_hangs_delays_no_push(
    site: Site, prometheus: Engine, measured: Callable[[str], None]
) -> None:
    with running_pushgateway() as gateway, FaultProxy(prometheus.write_url) as proxy:
        proxy.faults.hangs = True
        site.configure(proxy.write_url, gateway=gateway)
        with site.start() as running:
            until(lambda: site.metric(PUSHES) >= 12, "pushes")
            pushed = groups_of(gateway, "power")
            assert site.metric("wattpush_agent_push_failures_total") == 0
            assert site.metric("wattpush_agent_push_seconds") < 1.0
            code, seconds = running.end(signal.SIGTERM)
        assert (code, seconds < 2.0) == (0, True)
        assert pushed["cpu"][UP] == 1
        assert [file for file in site.backlog_files() if file.stat().st_size > 1000], "the backlog is on disk"
        proxy.faults.hangs = False
        with site.start() as running:
            until(lambda: site.metric(REMOTE["accepted"]) > 700, "the backlog to be sent")
            running.end(signal.SIGTERM)
    assert is_complete(held(prometheus, site))
    measured(f"stopped in {seconds:.2f} s")


@pytest.mark.reliability(
    12.13,
    "a clean stop, with a real Prometheus and a real VictoriaMetrics",
    "an instant query is empty at once",
)
@pytest.mark.parametrize(("server", "resolution"), [("prometheus", "sample"), ("victoria", "interval")])
def test_an_instant_query_is_empty_after_a_clean_stop(
    request: pytest.FixtureRequest, site: Site, server: str, resolution: str
) -> None:
    engine: Engine = request.getfixturevalue(server)
    site.configure(engine.write_url, remote=f'resolution = "{resolution}"')
    with site.start() as running:
        until(lambda: site.metric(REMOTE["accepted"]) > 300, "some accepted samples")
        assert len(engine.instant(site.of(UP))) == 2
        running.end(signal.SIGTERM)
    assert engine.instant(site.of("")) == {}
    history = held(engine, site)
    assert history.doubled == 0
    assert falls(history) == []


@pytest.mark.reliability(
    12.05,
    "a reload that removes a device, while the server is away",
    "nothing is lost; only the series of that device end",
)
def test_a_reload_goes_on_with_the_same_backlog(site: Site, prometheus: Engine) -> None:
    with FaultProxy(prometheus.write_url) as proxy:
        site.configure(proxy.write_url)
        with site.start() as running:
            until(lambda: site.metric(REMOTE["accepted"]) > 100, "some accepted samples")
            with proxy.outage():
                until(lambda: site.metric(REMOTE["backlog"]) > 300, "a backlog")
                produced = site.produced()
                site.configure(proxy.write_url, devices=("cpu",))
                running.process.send_signal(signal.SIGHUP)
                running.logs("configuration reloaded")
                until(lambda: site.produced() > produced + 200, "samples after the reload")
            until(lambda: site.metric(REMOTE["backlog"]) == 0, "an empty backlog")
            assert {dict(labels)["device"] for labels in prometheus.instant(site.of(UP))} == {"cpu"}
            markers = [
                value
                for labels, series in prometheus.samples(site.of(UP), with_markers=True).items()
                for _, value in series
                if dict(labels)["device"] == "cpu" and value != value  # noqa: PLR0124 - only NaN differs from itself
            ]
            assert markers == [], "series that go on do not end"
            running.end(signal.SIGTERM)
    assert is_complete(held(prometheus, site))


@pytest.mark.long
@pytest.mark.reliability(
    12.05,
    "the hostname is changed by a reload while the server is away",
    "old frames keep their old labels, and nothing is lost",
)
def test_frames_keep_the_hostname_of_their_time(site: Site, prometheus: Engine) -> None:
    with FaultProxy(prometheus.write_url) as proxy:
        site.configure(proxy.write_url)
        with proxy.outage(), site.start() as running:
            until(lambda: site.metric(REMOTE["backlog"]) > 300, "a backlog")
            site.configure(proxy.write_url, hostname="node-18")
            running.process.send_signal(signal.SIGHUP)
            running.logs("the counters are those of node-17")
            before = site.metric(REMOTE["backlog"])
            until(lambda: site.metric(REMOTE["backlog"]) > before + 200, "samples under the new name")
            running.end(signal.SIGTERM)
        with site.start() as running:
            until(lambda: site.metric(REMOTE["backlog"]) == 0, "an empty backlog")
            accepted = site.metric(REMOTE["accepted"])
            running.end(signal.SIGTERM)
    old, new = held(prometheus, site), held(prometheus, site, "node-18-simulated")
    assert max(old.times) < max(new.times)
    assert old.doubled == new.doubled == 0
    stored = sum(map(len, prometheus.samples(site.of(""), with_markers=True).values()))
    assert stored >= accepted > 500
    readings = sorted(row[READINGS, "cpu"] for row in old.rows if row.get((READINGS, "cpu"), -1.0) >= 0)
    assert len(readings) >= 3
    assert {dict(labels)["hostname"] for labels in prometheus.instant(site.of(UP))} == set()


def test_a_reload_that_is_refused_keeps_the_history_going(site: Site, prometheus: Engine) -> None:
    site.configure(prometheus.write_url)
    with Server(silent) as taken, site.start() as running:
        until(lambda: site.metric(REMOTE["accepted"]) > 100, "some accepted samples")
        text = site.config.read_text()
        port = taken.url.rpartition(":")[2]
        site.config.write_text(text.replace(f"127.0.0.1:{site.port}", f"127.0.0.1:{port}"))
        running.process.send_signal(signal.SIGHUP)
        running.logs("the old one stays in force")
        before = site.metric(REMOTE["accepted"])
        until(lambda: site.metric(REMOTE["accepted"]) > before + 300, "more accepted samples")
        running.end(signal.SIGTERM)
    history = held(prometheus, site)
    assert is_complete(history)


def test_a_reload_to_another_server_ends_the_series_at_the_old_one(
    site: Site, prometheus: Engine, victoria: Engine
) -> None:
    site.configure(prometheus.write_url)
    with site.start() as running:
        until(lambda: site.metric(REMOTE["accepted"]) > 100, "some accepted samples")
        site.configure(victoria.write_url)
        running.process.send_signal(signal.SIGHUP)
        running.logs("configuration reloaded")
        until(lambda: len(victoria.instant(site.of(UP))) == 2, "samples at the new server")
        assert prometheus.instant(site.of("")) == {}
        assert running.end(signal.SIGTERM)[0] == 0
    old, new = held(prometheus, site), held(victoria, site)
    assert max(old.times) < min(new.times)


@pytest.mark.long
def test_a_reload_without_remote_write_leaves_the_backlog_and_says_so(site: Site, prometheus: Engine) -> None:
    with FaultProxy(prometheus.write_url) as proxy, proxy.outage():
        site.configure(proxy.write_url)
        with site.start() as running:
            until(lambda: site.metric(REMOTE["backlog"]) > 300, "a backlog")
            site.configure(None)
            running.process.send_signal(signal.SIGHUP)
            running.logs("samples that no server has accepted")
            until(lambda: site.metric(UP) == 1 and site.metric(REMOTE["backlog"]) < 0, "a run without history")
            running.end(signal.SIGTERM)
    site.configure(prometheus.write_url)
    with site.start() as running:
        until(lambda: site.metric(REMOTE["accepted"]) > 500, "the backlog to be sent")
        running.end(signal.SIGTERM)
    history = held(prometheus, site)
    assert history.doubled == 0
    assert max(history.lost()) == 0


def test_once_keeps_what_it_cannot_send_and_sends_it_later(site: Site, prometheus: Engine) -> None:
    with FaultProxy(prometheus.write_url) as proxy:
        site.configure(proxy.write_url, serves=False)
        with proxy.outage():
            done = site.once()
            assert (done.returncode, "kept for the next run" in done.stderr) == (69, True)
        done = site.once()
        assert done.returncode == 0, done.stderr
    history = held(prometheus, site)
    assert is_complete(history)
    assert [row[UP, "cpu"] for row in history.rows] == [1.0, 1.0], "two runs, and no marker between or after them"


def test_a_stop_of_once_keeps_what_a_server_does_not_answer(site: Site, prometheus: Engine) -> None:
    with FaultProxy(prometheus.write_url) as proxy:
        proxy.faults.hangs = True
        site.configure(proxy.write_url, serves=False)
        with program(*site.arguments(), "--once", environ=site.environ) as running:
            until(lambda: list((site.folder / "runtime").glob("*.v*")), "a kept frame")
            code, seconds = running.end(signal.SIGTERM)
        assert (code, seconds < 2.0) == (0, True)
        assert [file for file in site.backlog_files() if ".v" in file.name and file.stat().st_size]
        proxy.faults.hangs = False
        assert site.once().returncode == 0
    assert len(held(prometheus, site).times) == 2


def test_once_is_refused_for_good_by_a_wrong_path(site: Site, prometheus: Engine) -> None:
    site.configure(f"{prometheus.url}/api/v1/wrong", serves=False)
    done = site.once()
    assert done.returncode == 76
    assert "remote_write.url" in done.stderr
    site.configure(prometheus.write_url, serves=False)
    assert site.once().returncode == 0
    assert len(held(prometheus, site).times) == 2, "nothing was dropped"


def test_once_says_why_its_only_samples_were_refused(site: Site) -> None:
    with Server(answering("400 Bad Request", b"label name too long")) as server:
        site.configure(f"{server.url}/api/v1/write", serves=False)
        done = site.once()
    assert done.returncode == 76
    assert "label name too long" in done.stderr
    assert "kept for the next run" in done.stderr


def test_once_needs_both_destinations(site: Site, prometheus: Engine) -> None:
    with running_pushgateway() as gateway:
        site.configure(prometheus.write_url, gateway=gateway, serves=False)
        done = site.once()
        assert done.returncode == 0, done.stderr
        assert groups_of(gateway, "power")["cpu"][UP] == 1
    done = site.once()
    assert done.returncode == 69, "the gateway is gone"
    assert len(held(prometheus, site).times) == 2


def test_a_dry_run_prints_rows_and_touches_nothing(site: Site) -> None:
    gateway = f"http://127.0.0.1:{free_port()}"
    site.configure(f"http://127.0.0.1:{free_port()}/api/v1/write", gateway=gateway, serves=False)
    done = site.once("--dry-run")
    assert done.returncode == 0, done.stderr
    heads = [line for line in done.stdout.splitlines() if line.startswith(("# PUT", "# POST"))]
    assert heads[-1] == "# POST /api/v1/write"
    assert [head.split()[1] for head in heads] == ["PUT"] * 3 + ["POST"]
    rows = samples_of(done.stdout.partition("# POST /api/v1/write\n")[2])
    (labels,) = [labels for labels in rows[UP] if ("device", "cpu") in labels]
    assert labels == (("device", "cpu"), ("hostname", "node-17-simulated"), ("job", site.job))
    assert not (site.folder / "state").exists()
    assert list((site.folder / "runtime").iterdir()) == []


def test_the_log_and_the_status_say_where_history_goes(site: Site, prometheus: Engine) -> None:
    site.configure(prometheus.write_url)
    with site.start() as running:
        running.logs(f"pushed to 127.0.0.1:{prometheus.port} by remote write every 0.2 s")
        running.end(signal.SIGTERM)


@pytest.mark.long
@pytest.mark.reliability(
    12.05,
    "a run with remote write is killed while the server is away, and simulated samples wait beside measured ones",
    "nothing is lost, and each has a backlog of its own",
)
def test_a_killed_run_loses_nothing_that_it_had_kept(site: Site, prometheus: Engine) -> None:
    with FaultProxy(prometheus.write_url) as proxy:
        site.configure(proxy.write_url)
        with proxy.outage(), site.start() as running:
            until(lambda: site.metric(REMOTE["backlog"]) > 400, "a backlog")
            produced = site.produced()
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        assert not (site.folder / "state" / "history").exists()
        with site.start() as running:
            until(lambda: site.metric(REMOTE["accepted"]) >= produced, "the backlog to be sent")
            running.end(signal.SIGTERM)
    assert is_complete(held(prometheus, site))
