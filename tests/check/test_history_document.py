"""docs/history.md: servers that are set up as it says pass the check without a warning."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml

from agent import chips
from agent.check import Status
from agent.check.remote_write import check_remote_write
from agent.clock import SystemClock
from agent.config import parse
from agent.errors import ConfigError
from agent.history.dating import Dating
from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.history.test_dating import HandTimebase
from tests.prometheus_server import binary
from tests.run.running import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (PROJECT / "docs" / "history.md").read_text(encoding="utf-8")
(CONFIGURATION,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
(WINDOW,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
ROWS = {row.split("|")[1].strip(): row for row in re.findall(r"^\| .*$", PAGE, re.MULTILINE)}


def problems_with(engine: Engine) -> list[str]:
    """What the check finds with the configuration of the page at this server, but for credentials, which it lacks."""
    text = re.sub(r'(?m)^url = "[^"]*"', f'url = "{engine.write_url}"', CONFIGURATION)
    text = re.sub(r"(?m)^(username|password_file) = .*\n", "", text)
    settings = parse(text, chips.options(), default_hostname="node-17", environ={"HOME": "/home/pi"})
    assert settings.remote_write is not None
    dating = Dating(HandTimebase(synchronised=True))
    found = check_remote_write(settings, settings.remote_write, SystemClock(), {}, dating)
    return [str(finding) for finding in found if finding.status is not Status.OK]


def test_the_documented_window_suits_the_defaults(tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yml"
    config.write_text(WINDOW)
    checked = subprocess.run(
        [binary("promtool"), "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    window = yaml.safe_load(WINDOW)["storage"]["tsdb"]["out_of_order_time_window"]
    assert "--web.enable-remote-write-receiver" in ROWS["Prometheus 2.39 or newer"]

    with Prometheus(tmp_path / "prometheus", window=window) as server:
        assert problems_with(server) == []


def test_the_documented_flags_of_victoria_metrics_are_enough(tmp_path: Path) -> None:
    (dedup,) = re.findall(r"-dedup\.minScrapeInterval=(\w+)", ROWS["VictoriaMetrics"])
    # Its default retention is a month, as the page says.
    with VictoriaMetrics(tmp_path / "vm", dedup=dedup, retention="1") as server:
        assert problems_with(server) == []


def refusal(url: str) -> str:
    text = re.sub(r'(?m)^url = "[^"]*"', f'url = "{url}"', CONFIGURATION)
    with pytest.raises(ConfigError) as caught:
        parse(text, chips.options(), default_hostname="node-17", environ={"HOME": "/home/pi"})
    return str(caught.value)


def test_a_url_without_a_path_is_told_the_path_of_the_page() -> None:
    paths = re.findall(r"\| `(/[^`]+)` \|", PAGE)
    assert len(paths) == 7
    by_port = (f"https://vm.example.org:{port}" for port in (8428, 8480, 9009, 9090, 19291))
    told = " ".join(map(refusal, (*by_port, "https://prometheus.grafana.net")))
    assert [path for path in paths if f'{path}"' not in told] == []
    assert "docs/history.md" in refusal("https://vm.example.org")
