"""The counts behind the benchmarks: they are the same on every machine, so tests can check them."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trustme

from agent.metrics.groups import make_groups
from bench.bus import emulated_bus
from bench.nodes import SHORT_CONVERSION, configuration, settings_of, snapshot_of
from bench.processes import run_for_json
from tests.push.pushing import TurnedClock, pushgateway_for
from tests.servers import Server, answering, write_file

if TYPE_CHECKING:
    from pathlib import Path

COUNTS_OF_A_RUN = """
import gc, json, os, sys
from agent.__main__ import main
gc.callbacks.append(lambda phase, info: phase == "start" and collections.append(1))
collections = []
code = main()
os.write(2, b"counts:" + json.dumps([code, sorted(sys.modules), len(collections)]).encode())
"""


def test_a_sweep_takes_73_system_calls_and_the_stock_drivers_240(tmp_path: Path) -> None:
    taken = run_for_json(["-m", "bench.sweep_child", str(tmp_path), "1", "1"], {})
    (_, stock_calls), (_, our_calls) = taken["stock"], taken["ours"]
    assert stock_calls == [240]
    assert our_calls <= [73]


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts of a process that read 8 INA260 and printed them."""

    modules: set[str]
    garbage_collections: int


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> Counts:
    folder = tmp_path_factory.mktemp("dry-run")
    config = folder / "config.toml"
    config.write_text(configuration(8, top=f'state_dir = "{folder}"', each=SHORT_CONVERSION))
    arguments = ["--config", str(config), "--once", "--dry-run", "--log-level", "error"]
    run = subprocess.run(
        [sys.executable, "-c", COUNTS_OF_A_RUN, *arguments],
        env=emulated_bus(folder).environment,
        capture_output=True,
        check=True,
        text=True,
    )
    code, modules, collections = json.loads(run.stderr.rpartition("counts:")[2])
    assert code == 0, run.stderr
    assert "# PUT /metrics/job/power/device/rail-7/hostname/node-0\n" in run.stdout
    return Counts(set(modules), collections)


def test_a_dry_run_imports_nothing_for_pushing_serving_or_simulating(dry_run: Counts) -> None:
    assert "adafruit_ina260" in dry_run.modules
    assert not {"asyncio", "tenacity", "urllib3"} & dry_run.modules
    others = ("agent.simulate", "agent.serve.server", "agent.push.gateway", "agent.scan", "agent.watch")
    assert not [name for name in dry_run.modules if name.startswith(others)]


def test_a_dry_run_imports_no_needless_library(dry_run: Counts) -> None:
    assert not {"board", "difflib", "importlib.metadata", "requests", "rich"} & dry_run.modules


def test_a_run_imports_drivers_of_configured_chips_only(dry_run: Counts) -> None:
    assert {name for name in dry_run.modules if name.startswith("adafruit_ina")} == {"adafruit_ina260"}
    assert {name for name in dry_run.modules if name.startswith("agent.chips.ina")} == {"agent.chips.ina260"}


def test_a_start_collects_garbage_at_most_twice(dry_run: Counts) -> None:
    # By default Python does so some 60 times.
    assert dry_run.garbage_collections <= 2


@pytest.mark.parametrize(
    ("devices", "group_by", "requests", "connections"),
    [(8, "device", 9, 1), (64, "device", 65, 2), (64, "node", 1, 1)],
)
def test_a_push_over_tls_needs_few_handshakes_and_the_next_none(
    tmp_path: Path, devices: int, group_by: str, requests: int, connections: int
) -> None:
    """On a clock that stands still, no answer is slow. The stock code opens a connection for each device and push."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    ca_file = write_file(tmp_path / "ca.pem", authority.cert_pem.bytes())
    settings = settings_of(configuration(devices, pushgateway=f'group_by = "{group_by}"'))
    groups = make_groups(snapshot_of(settings), settings, group_by)
    with (
        Server(answering("200 OK"), tls) as server,
        pushgateway_for(server.url, clock=TurnedClock(), ca_file=ca_file, timeout_seconds=60) as destination,
    ):
        for push in (1, 2):
            assert [result.error for result in destination.push(groups, 60)] == [None] * requests
            assert len(server.requests) == push * requests
            assert 1 <= server.connections <= connections
