"""The output of --dry-run."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.push.dry_run import DryRun, readable
from agent.settings import PushgatewaySettings
from tests.push.pushing import group


def test_dry_run_shows_each_path_and_exposition() -> None:
    written: list[str] = []
    settings = PushgatewaySettings("https://push.example.org:9091/prefix/")
    results = DryRun(settings, written.append).push(
        [group("cpu", test_watts=2.5), group(None, test_info=1), group("a/b", test_watts=1)], 1.0
    )
    assert [(result.name, result.error) for result in results] == [
        ("device cpu", None),
        ("node", None),
        ("device a/b", None),
    ]
    assert [result.grouping_key.get("device") for result in results] == ["cpu", None, "a/b"]
    assert "".join(written) == (
        "# PUT /prefix/metrics/job/power/device/cpu/hostname/node-17\n"
        "# HELP test_watts a test\n# TYPE test_watts gauge\ntest_watts 2.5\n"
        "# PUT /prefix/metrics/job/power/hostname/node-17\n"
        "# HELP test_info a test\n# TYPE test_info gauge\ntest_info 1\n"
        "# PUT /prefix/metrics/job/power/device@base64/YS9i/hostname/node-17\n"
        "# HELP test_watts a test\n# TYPE test_watts gauge\ntest_watts 1\n"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1.7961341615800111e+09", "1796134161.580011"),
        ("0.30000000000000004", "0.3"),
        ("-2.5", "-2.5"),
        ("100.0", "100"),
        ("0.0", "0"),
        ("0.0016726189987821272", "0.001673"),
        ("1.23456789e-05", "0.0000123457"),
        ("3.1154176e+07", "31154176"),
        ("+Inf", "+Inf"),
        ("-Inf", "-Inf"),
        ("NaN", "NaN"),
    ],
)
def test_dry_run_prints_numbers_as_people_write_them(value: str, shown: str) -> None:
    head = ["# HELP x 1.50 of 2.0e+01", "# TYPE x gauge"]
    text = readable("\n".join([*head, f'x{{a="b 1.50 c"}} {value}', ""]))
    assert text.splitlines() == [*head, f'x{{a="b 1.50 c"}} {shown}']
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].value == pytest.approx(float(value), rel=1e-3, nan_ok=True)


def test_urllib3_is_not_imported_before_the_first_push() -> None:
    program = (
        "import sys; from agent.push.gateway import Pushgateway;"
        "from agent.settings import PushgatewaySettings; from agent.clock import SystemClock;"
        "settings = PushgatewaySettings('http://localhost');"
        "Pushgateway(settings, clock=SystemClock(), sleep=print, environ={});"
        "sys.exit('urllib3' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
