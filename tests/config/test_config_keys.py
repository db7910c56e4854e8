"""One row per key: it fills a field of the settings, and is added as CONTRIBUTING.md describes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from agent import chips
from agent.config import example
from agent.config.keys import DEVICE, PUSHGATEWAY, REMOTE_WRITE, SERVE, TABLES, KeyTable
from agent.settings import ChipOptions

PROJECT = Path(__file__).parents[2]
MEANING = "Round watts to three digits."
# These become a `Place`, the row of a mux kind, or a host and a port.
WITHOUT_FIELD = {("mux", "chip"), ("serve", "listen")} | {
    (table, key) for table in ("mux", "device") for key in ("bus", "mux", "channel", "address")
}


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_every_key_fills_a_field_of_the_settings(table: KeyTable) -> None:
    names = {field.name for field in fields(table.settings)}

    assert {key.name for key in table.keys if key.attribute not in names} == {
        key for name, key in WITHOUT_FIELD if name == table.name
    }


@pytest.mark.parametrize("table", TABLES, ids=[table.name for table in TABLES])
def test_an_optional_key_documents_its_default(table: KeyTable) -> None:
    optional_files = {"username", "password_file", "bearer_token_file", "cert_file", "key_file"}

    unclear = {
        key.name for key in table.keys if not (key.required or key.default_text or table.default(key.name) is not None)
    }

    has_files = table in (PUSHGATEWAY, REMOTE_WRITE, SERVE)
    assert unclear == (optional_files & {key.name for key in table.keys} if has_files else set())


def test_a_default_stands_in_the_settings_alone() -> None:
    assert PUSHGATEWAY.default("timeout") == 5.0
    assert PUSHGATEWAY.default("url") is None
    assert DEVICE.default("name") is None


def run_in(folder: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_a_key_is_added_as_contributing_describes(tmp_path: Path) -> None:
    """In a copy of the tree, with the row and the field that its section shows."""
    section = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## Add a key\n")[2]
    row, field = re.findall(r"```python\n(.*?)\n```", section.partition("\n## ")[0], re.DOTALL)
    for folder in ("agent", "scripts", "deploy", "docs"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "README.md", tmp_path)
    for name, owner, line in (
        ("agent/config/keys.py", r"METRICS = KeyTable\(.*?(?=\n    \),\n\))", f"        {row},"),
        ("agent/settings.py", r"class MetricsSettings:.*?(?=\n\n\n)", f"    {field}"),
    ):
        path = tmp_path / name
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(f"({owner})", rf"\1\n{line}", text, count=1, flags=re.DOTALL), encoding="utf-8")

    run_in(tmp_path, "-m", "scripts.references")
    read = run_in(
        tmp_path,
        "-c",
        "from agent.config import parse; from agent import chips; "
        "text = open('config.toml.example').read().replace('#rounded = false', 'rounded = true'); "
        "print(parse(text, chips.options(), default_hostname='n', environ={'HOME': '/'}).metrics)",
    )

    assert "rounded=True" in read
    assert (
        f"\n| `rounded` | `false` | `true` or `false` | {MEANING} |" in (tmp_path / "docs/configuration.md").read_text()
    )
    assert f"\n# {MEANING}\n#rounded = false\n" in (tmp_path / "config.toml.example").read_text()


def test_a_new_chip_gets_a_block_in_the_example(monkeypatch: pytest.MonkeyPatch) -> None:
    new = ChipOptions("ina000", addresses=range(0x40, 0x44), inputs=range(2, 4), external_shunt=True)
    options = {**chips.options(), "ina000": new}
    monkeypatch.setattr(chips, "options", lambda: options)

    block = (
        '\n#[[device]]\n#name = "ina000"\n#chip = "ina000"\n#mux = "m0"\n#channel = 4\n#address = 0x41\n#input = 2\n'
        "#shunt_ohms = 0.1\n"
    )
    assert block in example.example(chips.options())
