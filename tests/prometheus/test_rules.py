"""The files of deploy/prometheus, checked by promtool and Prometheus."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.prometheus.fleet import DEPLOYED
from tests.prometheus_server import binary
from tests.run.running import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

RULES = sorted((DEPLOYED / "rules").glob("*.yml"))
TESTS = sorted((DEPLOYED / "tests").glob("*.yml"))


def parsed(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


ALERTS = {rule["alert"]: rule for rule in parsed(DEPLOYED / "rules" / "alerts.yml")["groups"][0]["rules"]}


def promtool(*arguments: str | Path, folder: Path = PROJECT) -> str:
    """The output of promtool, which must succeed."""
    ended = subprocess.run(
        [binary("promtool"), *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def test_prometheus_accepts_the_configuration_and_all_rules() -> None:
    output = promtool("check", "config", DEPLOYED / "prometheus.yml")
    assert f"{len(RULES)} rule files found" in output
    promtool("check", "rules", "--lint-fatal", *RULES)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_firing_and_not_firing(alert: str) -> None:
    cases = [
        bool(case["exp_alerts"])
        for path in TESTS
        for test in parsed(path)["tests"]
        for case in test.get("alert_rule_test", ())
        if case["alertname"] == alert
    ]
    assert set(cases) == {True, False}


def test_every_recorded_series_is_tested() -> None:
    recorded = {rule["record"] for rule in rules_of("recordings")}
    asked = " ".join(
        case["expr"] for path in TESTS for test in parsed(path)["tests"] for case in test.get("promql_expr_test", ())
    )
    # Other recorded series that are tested build on these two.
    assert {name for name in recorded if name not in asked} == {
        "wattpush:device_age:fresh",
        "wattpush:device_joules:copy",
    }


def rules_of(name: str) -> list[dict[str, Any]]:
    return [rule for group in parsed(DEPLOYED / "rules" / f"{name}.yml")["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_severity_a_description_and_a_runbook(alert: str) -> None:
    rule = ALERTS[alert]
    assert re.fullmatch(r"Wattpush([A-Z][a-z]+)+", alert)
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].endswith(".")
    file, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == alert.lower()
    assert anchor in anchors(PROJECT / file)


def anchors(path: Path) -> list[str]:
    """The anchors of headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings]


def test_every_alert_has_a_runbook_with_meaning_diagnosis_and_fix() -> None:
    text = (PROJECT / "docs" / "alerts.md").read_text(encoding="utf-8")
    books = dict(re.findall(r"^## (Wattpush\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert books.keys() == ALERTS.keys()
    for alert, book in books.items():
        assert re.findall(r"^\*\*(.+?)\*\*", book, re.MULTILINE) == ["Meaning.", "Diagnosis.", "Fix."], alert


LIMITS_TEST = """
rule_files: [limits.yml, recordings.yml]
group_eval_order: [wattpush-limits, wattpush-freshness, wattpush-limits-of-devices, wattpush-copies, wattpush-energy]
tests:
  - input_series:
      - {series: 'wattpush_device_up{job="power", hostname="node-17", device="cpu"}', values: 1 1}
      - {series: 'wattpush_device_up{job="power", hostname="node-18", device="cpu"}', values: 1 1}
    promql_expr_test:
      - expr: wattpush:device_volts:floor
        exp_samples:
          - {labels: 'wattpush:device_volts:floor{job="power", hostname="node-17", device="cpu"}', value: 11.4}
          - {labels: 'wattpush:device_volts:floor{job="power", hostname="node-18", device="cpu"}', value: 4.75}
      - expr: wattpush:device_watts:ceiling
        exp_samples:
          - {labels: 'wattpush:device_watts:ceiling{job="power", hostname="node-17", device="cpu"}', value: 40}
          - {labels: 'wattpush:device_watts:ceiling{job="power", hostname="node-18", device="cpu"}', value: 15}
      - expr: wattpush:stale_after:seconds
        exp_samples: [{labels: 'wattpush:stale_after:seconds', value: 45}]
      - expr: wattpush:tariff:per_kwh
        exp_samples: [{labels: 'wattpush:tariff:per_kwh{currency="EUR"}', value: 0.3}]
"""


def test_the_commented_rows_of_the_limits_table_work(tmp_path: Path) -> None:
    text = (DEPLOYED / "rules" / "limits.yml").read_text(encoding="utf-8")
    (tmp_path / "limits.yml").write_text(re.sub(r"^( +)#(- |  )", r"\1\2", text, flags=re.MULTILINE))
    (tmp_path / "recordings.yml").write_bytes((DEPLOYED / "rules" / "recordings.yml").read_bytes())
    (tmp_path / "test.yml").write_text(LIMITS_TEST)
    promtool("test", "rules", "test.yml", folder=tmp_path)


def test_recorded_series_stay_visible_between_two_evaluations() -> None:
    """Prometheus looks back five minutes, which must hold two evaluations in case one is missed."""
    for path in RULES:
        for group in parsed(path)["groups"]:
            if group["name"] != "wattpush-copies":  # queried over windows only
                assert group.get("interval", "15s") in {"15s", "2m"}
