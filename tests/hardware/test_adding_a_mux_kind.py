"""CONTRIBUTING.md: the row that it shows is added to a copy of the agent, and works everywhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SECTION = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add a mux kind\n")[2]
ROW = "".join(re.findall(r"```python\n(.*?)```", SECTION.partition("\n## ")[0], re.DOTALL))
TABLE = "agent/i2c/muxes.py"

CONFIG = """
hostname = "node"
[pushgateway]
url = "http://127.0.0.1:9"

[[mux]]
name = "m0"
chip = "pca9542a"
bus = 1
address = 0x70

[[device]]
name = "cpu"
chip = "ina260"
mux = "m0"
channel = 1
address = 0x40
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the agent with the row of the page, and a configuration with such a mux."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PROJECT / "agent", folder / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / TABLE).read_text(encoding="utf-8")
    before, end, after = text.partition("\n)\n\n\ndef mux_kind(")
    assert end, "where is the table?"
    (folder / TABLE).write_text(f"{before}\n{textwrap.indent(ROW.strip(), '    ')},{end}{after}", encoding="utf-8")
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    return folder


def run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "--config", "config.toml", *arguments],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_added_mux_kind_is_configured_and_read(copy: Path) -> None:
    pushed = run(copy, "--simulate", "--once", "--dry-run")
    assert pushed.returncode == 0, pushed.stderr
    (volts,) = re.findall(r"^wattpush_device_volts\S* (\S+)$", pushed.stdout, re.MULTILINE) or ["0"]
    assert float(volts) > 0, pushed.stdout


def test_the_added_mux_kind_is_found_by_a_scan(copy: Path) -> None:
    scanned = run(copy, "scan", "--simulate", "--toml")
    assert scanned.returncode == 0, scanned.stderr
    # A TCA9544A opens these channels with the same bytes, and stands before it in the table.
    assert 'chip = "tca9544a"   # returns 3 control bits, as a PCA9540B or PCA9542A does' in scanned.stdout
    assert 'mux = "m0"\nchannel = 1\naddress = 0x40\n' in scanned.stdout


def test_a_channel_that_the_added_mux_kind_lacks_is_refused(copy: Path) -> None:
    (copy / "wrong.toml").write_text(CONFIG.replace("channel = 1", "channel = 2"), encoding="utf-8")
    checked = run(copy, "--config", "wrong.toml", "check")
    assert checked.returncode != 0
    assert 'channel: 2 is not in 0..1: mux "m0" is a pca9542a' in checked.stderr


def test_the_added_row_passes_lint(copy: Path) -> None:
    for arguments in (["check"], ["format", "--check"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--no-cache", "--stdin-filename", TABLE, "-"],
            input=(copy / TABLE).read_text(encoding="utf-8"),
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
