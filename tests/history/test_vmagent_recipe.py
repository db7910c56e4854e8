"""The recipe of docs/fleet.md for vmagent beside `[serve]`, with its own commands."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.history.engines import VictoriaMetrics
from tests.prometheus_server import binary
from tests.run.running import program, until, write_config
from tests.servers import START_SECONDS, free_port

if TYPE_CHECKING:
    from collections.abc import Callable

FLEET = Path(__file__).parents[2] / "docs" / "fleet.md"


def recipe() -> tuple[str, list[str]]:
    """The configuration and the command of the document."""
    text = FLEET.read_text(encoding="utf-8")
    (config,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (command,) = re.findall(r"^    sudo -u nobody (vmagent (?:.*\\\n)*.*)\n", text, re.MULTILINE)
    return config, shlex.split(command.replace("\\\n", " "))


def changed(text: str, changes: dict[str, str]) -> str:
    """The text of the document with the paths and addresses of the test."""
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


@pytest.mark.long
@pytest.mark.reliability(
    12.15,
    "The server of a vmagent beside `[serve]` is away for some seconds",
    "the recipe in docs/fleet.md: vmagent keeps every scrape and sends it later",
)
def test_vmagent_delivers_an_outage_later(tmp_path: Path, measured: Callable[[str], None]) -> None:
    config_text, command = recipe()
    port, own_port = free_port(), free_port()
    quick = 'interval = "500ms"\nsample_interval = "100ms"'
    config = write_config(tmp_path, None, top=quick, more=f'[serve]\nlisten = "127.0.0.1:{port}"\n')
    with VictoriaMetrics(tmp_path / "server") as server, program("--config", config, "--simulate"):
        changes = {
            "/etc/vmagent": str(tmp_path),
            "/var/lib/vmagent": str(tmp_path / "queue"),
            "https://vm.example.org/api/v1/write": server.write_url,
            "127.0.0.1:8429": f"127.0.0.1:{own_port}",
            "127.0.0.1:9812": f"127.0.0.1:{port}",
            "scrape_interval: 15s": "scrape_interval: 1s",
        }
        (tmp_path / "vmagent.yml").write_text(changed(config_text, changes), encoding="utf-8")
        arguments = [changed(argument, changes) for argument in command[1:]]
        with (tmp_path / "vmagent.log").open("wb") as log:
            vmagent = subprocess.Popen([binary("vmagent", "victoria-metrics"), *arguments], stdout=log, stderr=log)
        try:

            def times() -> list[int]:
                (series,) = server.samples("wattpush_device_joules_total").values() or ([],)
                return [at for at, _ in series]

            until(lambda: len(times()) >= 3, "some scrapes before the outage", 20.0)
            server.stop()
            down_at = time.time() * 1000
            time.sleep(4.0)  # the outage, which vmagent has to notice by itself
            server.start()
            up_at = time.time() * 1000
            until(lambda: times()[-1] > up_at + 1000, "scrapes after the outage")
        finally:
            vmagent.terminate()
            vmagent.wait(START_SECONDS)
        stored = times()
        assert sum(down_at < at < up_at for at in stored) >= 3
        # vmagent scrapes on a grid of its own; a missing scrape is a gap of two seconds.
        assert max(later - earlier for earlier, later in pairwise(stored)) < 1500
        labels = [dict(series) for series in server.samples("wattpush_device_joules_total")]
        assert [(one["job"], one["instance"], one["hostname"]) for one in labels] == [
            ("wattpush", "node-17", "node-17-simulated")
        ]
    measured("0 scrapes missing")
