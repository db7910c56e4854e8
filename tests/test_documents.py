"""What the documents say is tried: their configurations are parsed, their commands and links exist."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from agent import chips
from agent.cli import build_parser
from agent.config import parse

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parents[1]
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")])
NAMES = [str(path.relative_to(PROJECT)) for path in DOCUMENTS]

CONFIGURATIONS = [
    (name, block)
    for name, path in zip(NAMES, DOCUMENTS, strict=True)
    for block in re.findall(r"```toml\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
]


@pytest.mark.parametrize("block", [block for _, block in CONFIGURATIONS], ids=[name for name, _ in CONFIGURATIONS])
def test_a_configuration_in_a_document_works_as_it_stands(block: str) -> None:
    settings = parse(block, chips.options(), default_hostname="node-17", environ={"HOME": "/home/pi"})
    assert settings.devices


@pytest.mark.parametrize("name", ["README.md", "docs/gateway.md"])
def test_a_configuration_for_a_service_names_the_folder_of_its_counters(name: str) -> None:
    """Else a run by hand, with the same configuration, would have counters of its own."""
    for block in (block for document, block in CONFIGURATIONS if document == name):
        settings = parse(block, chips.options(), default_hostname="node-17", environ={"HOME": "/root"})
        assert settings.state_dir == Path("/var/lib/wattpush")


def test_the_readme_shows_a_configuration() -> None:
    assert "README.md" in [name for name, _ in CONFIGURATIONS]


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_make_target_that_a_document_names_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^    |`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_wattpush_command_that_a_document_shows_is_understood(path: Path) -> None:
    commands = re.findall(r"^    wattpush( [^#\n|>]*)?", path.read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands:
        build_parser().parse_args(command.split())


def shell_understands(script: str) -> None:
    checked = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def is_settings(text: str) -> None:
    # config.txt of a Raspberry Pi begins without a section, which then is [all].
    configparser.RawConfigParser(strict=False).read_string(f"[all]\n{text}")


FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

CHECKS: dict[str, Callable[[str], object]] = {
    "": lambda _: None,  # drawings, and what a program answers
    "toml": lambda _: None,  # by test_a_configuration_in_a_document_works_as_it_stands
    "promql": lambda _: None,  # by tests/prometheus/test_documented_queries.py
    "yaml": yaml.safe_load,
    "json": json.loads,
    "python": lambda text: compile(text, "a document", "exec"),
    "ini": is_settings,
    "sh": shell_understands,
    "shell": shell_understands,  # commands that need what is not here; those of `sh` in install.md are run in a machine
    "systemd": is_settings,  # and by tests/deploy/test_units.py
}
"""How what a document shows is tried, by the language after its ```."""


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_whatever_a_document_shows_is_of_a_kind_that_is_tried(path: Path) -> None:
    for language, block in FENCED.findall(path.read_text(encoding="utf-8")):
        CHECKS[language](block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_the_shell_understands_every_command_and_finds_every_file_of_ours_in_it(path: Path) -> None:
    for command in commands_of(path):
        shell_understands(command)
        files = re.findall(r"(?<![\w/.-])(?:deploy|docs|scripts|bench|tests)/[\w./-]+", command)
        assert [file for file in files if not (PROJECT / file).exists()] == []


def commands_of(path: Path) -> list[str]:
    """The lines of the indented blocks of a document."""
    outside_of_fences = FENCED.sub("", path.read_text(encoding="utf-8"))
    return re.findall(r"^(?: {4}| {6})(\S.*)$", outside_of_fences, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_heading_leads_to_one(path: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        text = ((path.parent / file) if file else path).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_the_list_of_documents_names_every_document_once() -> None:
    folder = PROJECT / "docs"
    listed = re.findall(r"^- \[[^]]+\]\(([^)/]+)\)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


def test_the_readme_tells_first_what_it_is_and_last_where_to_read_on() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", readme, re.MULTILINE) == [
        "Two commands",
        "Configuration",
        "What you get",
        "When not to use a Pushgateway",
        "Wiring",
        "Supported chips",
        "Links",
    ]
    assert readme.index("```") < readme.index("## Two commands"), "the picture stands before the commands"
    assert len(readme.splitlines()) <= 150, "what is longer belongs to a page of docs/"
