"""The queries and promtool commands that the documents show."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.prometheus.fleet import ALIVE, DEPLOYED, JOBS, WATTS
from tests.prometheus.test_dashboards import normalised
from tests.prometheus.test_rules import promtool
from tests.run.running import PROJECT
from tests.test_documents import DOCUMENTS, commands_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.prometheus.fleet import Fleet

QUERIES = [
    (path.name, query.strip())
    for path in DOCUMENTS
    for query in re.findall(r"```promql\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
]
MIGRATING = (PROJECT / "docs" / "migrating.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+) \| `([^`]+)`[^|]* \| `([^`]+)` \|$", MIGRATING, re.MULTILINE)
COMMANDS = [command for path in DOCUMENTS for command in commands_of(path) if command.startswith("promtool ")]

RULE_TESTS = {str(path.relative_to(PROJECT)) for path in (DEPLOYED / "tests").glob("*.yml")}


@pytest.mark.parametrize(("name", "query"), QUERIES, ids=[f"{name}: {query[:50]}" for name, query in QUERIES])
def test_every_documented_query_has_an_answer(name: str, query: str, fleet: Fleet) -> None:
    found = fleet.query(query)
    # A healthy fleet has nothing that a runbook looks for.
    assert found or name == "alerts.md"


def test_there_are_queries_in_the_documents() -> None:
    assert {name for name, _ in QUERIES} >= {"alerts.md", "prometheus.md"}
    assert len(ROWS) == MIGRATING.count("\n| ") - 1, "every row except the header has a query on each side"
    assert COMMANDS


@pytest.mark.parametrize(("what", "old", "ours"), ROWS, ids=[what for what, _, _ in ROWS])
def test_old_exporter_queries_and_ours_both_have_answers(what: str, old: str, ours: str, fleet: Fleet) -> None:
    # The fleet is simulated, so its hostnames have a suffix.
    old, ours = (query.replace('"node-n"', '"node-n-simulated"') for query in (old, ours))
    # Without a scrape there is no `up`.
    assert bool(fleet.query(old)) == (old != "up" or fleet.way == "scrape")
    assert fleet.query(ours)
    if what in {"watts now", "volts now", "amperes now", "one machine", "sag"}:
        assert normalised(fleet.query(old)) == normalised(fleet.query(ours))
    if what == "mean power":
        # A gateway keeps the gauges of stopped nodes, and our counters do not decrease.
        live = {labels: watts for labels, watts in normalised(fleet.query(ours)).items() if watts > 0}
        theirs = normalised(fleet.query(old))
        assert live == {labels: pytest.approx(theirs[labels], rel=1e-3) for labels in live}
        assert len(live) == len(ALIVE) * 2


def test_old_names_exist_for_every_ina260_in_every_grouping(fleet: Fleet) -> None:
    for name, ours in (
        ("ina260_voltage_volts", "wattpush_device_volts"),
        ("ina260_current_amperes", "wattpush_device_amperes"),
        ("ina260_power_watts", "wattpush_device_watts"),
    ):
        found = normalised(fleet.query(name))
        assert found == normalised(fleet.query(ours))
        assert {dict(labels)["hostname"] for labels in found} == set(JOBS)
        assert {dict(labels)["device"] for labels in found} == set(WATTS)
    for labels in fleet.query("ina260_power_watts"):
        # The page says so about the label instance, which only a scrape adds.
        scraped = fleet.way == "scrape" and dict(labels)["hostname"] == "node-s-simulated"
        assert ("instance" in dict(labels)) == scraped


def test_repeating_the_set_up_updates_rules_and_keeps_edited_files(tmp_path: Path) -> None:
    page = PROJECT / "docs" / "prometheus.md"
    commands = [command for command in commands_of(page) if re.match("sudo .*/etc/prometheus", command)]
    etc = tmp_path / "prometheus"
    edited = (etc / "rules" / "limits.yml", etc / "prometheus.yml")

    def follow() -> None:
        for command in commands:
            moved = command.removeprefix("sudo ").replace("/etc/prometheus", str(etc))
            # Newer versions of cp report a skipped file in their exit status.
            done = subprocess.run(
                shlex.split(moved), cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == 0 or "--no-clobber" in command, done.stderr

    follow()
    for path in edited:
        path.write_text("mine")
    (etc / "rules" / "alerts.yml").write_text("old")
    follow()
    assert [path.read_text() for path in edited] == ["mine", "mine"]
    for path in (DEPLOYED / "rules").iterdir():
        if path.name != "limits.yml":
            assert (etc / "rules" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_documented_promtool_command_works(command: str) -> None:
    promtool(*shlex.split(command)[1:])


@pytest.mark.parametrize("name", sorted(RULE_TESTS - set(" ".join(COMMANDS).split())))
def test_all_other_promtool_tests_pass(name: str) -> None:
    promtool("test", "rules", PROJECT / name)
