"""The first ten minutes of a new user: from an empty Debian to a query of the dashboard, on a terminal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from tests.deploy.machine import PROJECT, booted
from tests.init.dialogue import answer_for_the_builtin_node, dialogue
from tests.run.running import LONG_SECONDS, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.deploy.machine import Machine

pytestmark = [pytest.mark.long, pytest.mark.systemd]

OFFLINE = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/srv/wheels")
# Simulated chips: the only thing that a machine without a bus needs beside what a person does.
SIMULATED = "[Service]\nExecStart=\nExecStart=/opt/wattpush/bin/wattpush --simulate\n"
PROMETHEUS = """\
global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [RULES/*.yml]
scrape_configs:
  - job_name: pushgateway
    honor_labels: true
    static_configs: [{targets: ["localhost:9091"]}]
"""
CONFIG = "/etc/wattpush/config.toml"


@contextmanager
def prometheus_in(machine: Machine, folder: Path) -> Iterator[None]:
    """The real Prometheus on the machine's network."""
    binary = shutil.which("prometheus")
    assert binary, "make test-systemd provides it"
    config = folder / "prometheus.yml"
    config.write_text(PROMETHEUS.replace("RULES", str(PROJECT / "deploy/prometheus/rules")), encoding="utf-8")
    command = machine.on_its_network(
        binary, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}", "--web.listen-address=:9090"
    )
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(LONG_SECONDS)


def query(machine: Machine, expression: str) -> list[Any]:
    ask = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())"
    url = f"http://localhost:9090/api/v1/query?query={quote(expression)}"
    answered = machine.run("/usr/bin/python3", "-c", ask, url)
    if answered.returncode != 0:
        return []  # it is still starting
    result: list[Any] = json.loads(answered.stdout)["data"]["result"]
    return result


def expression_of_dashboard(title: str) -> str:
    """The first query of a panel, for every node and device."""
    dashboard = json.loads((PROJECT / "deploy/grafana/dashboards/node.json").read_text(encoding="utf-8"))
    (panel,) = [panel for panel in dashboard["panels"] if panel["title"] == title]
    expression: str = panel["targets"][0]["expr"]
    expression = re.sub(r'=~?"\$\w+"', '=~".+"', expression)
    return expression.replace("$__rate_interval", "1m")


def test_from_an_empty_machine_to_a_query_of_the_dashboard(tmp_path: Path) -> None:
    with booted(tmp_path) as machine, prometheus_in(machine, tmp_path):
        installed = machine.do("env", *OFFLINE, "/srv/wattpush/deploy/install.sh")
        assert installed == ""

        # Without a file, everything names the way out.
        nothing = machine.run("wattpush", "check")
        assert nothing.returncode == 78
        assert "wattpush init" in nothing.stderr

        with dialogue(machine.command("wattpush", "init", "--simulate", "--config", CONFIG)) as person:
            answer_for_the_builtin_node(person)
            assert "Next:\r\n    sudo wattpush --simulate watch" in person.text, person.text
            assert max(map(len, person.lines())) <= 80, person.text
        assert machine.do("stat", "--format=%U:%G %a", CONFIG).strip() == "root:wattpush 640"
        assert 'state_dir = "/var/lib/wattpush"' in machine.read(CONFIG)

        checked = machine.do("wattpush", "check", "--hardware", "--gateway", "--simulate")
        assert "failed" not in checked
        machine.drop_in("wattpush.service", SIMULATED)
        machine.do("systemctl", "enable", "--now", "wattpush")

        def devices() -> set[str]:
            amperes = query(machine, expression_of_dashboard("Current"))
            return {series["metric"].get("device", "") for series in amperes}

        until(lambda: {"cpu", "accelerator", "radio"} <= devices(), "the dashboard has the devices", 90)
