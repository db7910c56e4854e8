"""The configuration of Alertmanager, checked by amtool.

Alertmanager itself is not run: Debian's needs its files in /usr/share, and the tests install nothing.
"""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.prometheus.fleet import DEPLOYED
from tests.prometheus.test_rules import ALERTS
from tests.prometheus_server import binary
from tests.run.running import PROJECT
from tests.test_documents import commands_of

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = DEPLOYED.parent / "alertmanager" / "alertmanager.yml"
PACKAGE = "prometheus-alertmanager"


def amtool(*arguments: str | Path) -> str:
    ended = subprocess.run(
        [binary("amtool", PACKAGE), *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_documented_amtool_command_accepts_the_configuration() -> None:
    (command,) = [one for one in commands_of(PROJECT / "docs" / "prometheus.md") if one.startswith("amtool ")]
    assert "1 receivers" in amtool(*shlex.split(command)[1:])


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_reaches_the_receiver(alert: str) -> None:
    labels = f"alertname={alert}", f"severity={ALERTS[alert]['labels']['severity']}"
    assert amtool("config", "routes", "test", f"--config.file={CONFIG}", *labels).split() == ["page"]
