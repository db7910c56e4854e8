"""The documents are tested: configurations parse, commands and links exist."""

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
def test_every_documented_configuration_is_valid(block: str) -> None:
    settings = parse(block, chips.options(), default_hostname="node-17", environ={"HOME": "/home/pi"})
    assert settings.devices


@pytest.mark.parametrize("name", ["README.md", "docs/gateway.md"])
def test_a_configuration_for_a_service_names_its_state_folder(name: str) -> None:
    """Otherwise a manual run with the same configuration would keep separate counters."""
    for block in (block for document, block in CONFIGURATIONS if document == name):
        settings = parse(block, chips.options(), default_hostname="node-17", environ={"HOME": "/root"})
        assert settings.state_dir == Path("/var/lib/wattpush")


def test_the_readme_shows_a_configuration() -> None:
    assert "README.md" in [name for name, _ in CONFIGURATIONS]


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_documented_make_target_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = re.findall(r"(?:^    |`)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= targets


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_file_resolves(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_documented_wattpush_command_parses(path: Path) -> None:
    commands = re.findall(r"^    wattpush( [^#\n|>]*)?", path.read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands:
        build_parser().parse_command_line(command.split())


def shell_understands(script: str) -> None:
    checked = subprocess.run(["bash", "-n", "-c", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def is_settings(text: str) -> None:
    # config.txt of a Raspberry Pi may begin without a section, which means [all].
    configparser.RawConfigParser(strict=False).read_string(f"[all]\n{text}")


FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)

CHECKS: dict[str, Callable[[str], object]] = {
    "": lambda _: None,  # drawings, and output of programs
    "toml": lambda _: None,  # by test_every_documented_configuration_is_valid
    "promql": lambda _: None,  # by tests/prometheus/test_documented_queries.py
    "yaml": yaml.safe_load,
    "json": json.loads,
    "python": lambda text: compile(text, "a document", "exec"),
    "ini": is_settings,
    "sh": shell_understands,
    "shell": shell_understands,  # only parsed: these need more than a test machine has
    "systemd": is_settings,  # and by tests/deploy/test_units.py
}
"""How to test a block of a document, by the language after its ```."""


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_block_has_a_language_that_is_tested(path: Path) -> None:
    for language, block in FENCED.findall(path.read_text(encoding="utf-8")):
        CHECKS[language](block)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_documented_commands_parse_and_their_files_exist(path: Path) -> None:
    for command in commands_of(path):
        shell_understands(command)
        files = re.findall(r"(?<![\w/.-])(?:deploy|docs|scripts|bench|tests)/[\w./-]+", command)
        assert [file for file in files if not (PROJECT / file).exists()] == []


def commands_of(path: Path) -> list[str]:
    """The lines of the indented blocks of a document."""
    outside_of_fences = FENCED.sub("", path.read_text(encoding="utf-8"))
    return re.findall(r"^(?: {4}| {6})(\S.*)$", outside_of_fences, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_link_to_a_heading_resolves(path: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", path.read_text(encoding="utf-8")):
        text = ((path.parent / file) if file else path).read_text(encoding="utf-8")
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        assert anchor in [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


GENERATED_PAGES = {"benchmarks.md", "configuration.md", "metrics.md", "reliability.md"}
GENERATED_BLOCK = re.compile(r"<!-- (.+): made by make generated -->.*?<!-- end of \1 -->", re.DOTALL)
MOST_WORDS = 11_000


def words_of(path: Path) -> list[str]:
    """The words of the prose, headings and tables of a page; a span of code, such as a message, counts as one word.

    Not counted: blocks of code, fenced or indented, the targets of links, and what `make generated` writes.
    """
    text = FENCED.sub("", GENERATED_BLOCK.sub("", path.read_text(encoding="utf-8")))
    text = re.sub(r"^ {4}\S.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`\n]+`", "code", text))
    return [word for word in text.split() if re.search(r"\w", word)]


def test_the_documents_are_short_enough_to_be_read() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]
    words = {str(path.relative_to(PROJECT)): len(words_of(path)) for path in pages if path.name not in GENERATED_PAGES}
    assert sum(words.values()) <= MOST_WORDS, words


def test_the_list_of_documents_is_complete() -> None:
    folder = PROJECT / "docs"
    listed = re.findall(r"^- \[[^]]+\]\(([^)/]+)\)", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")


def test_the_readme_begins_with_the_purpose_and_ends_with_the_documents() -> None:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", readme, re.MULTILINE) == [
        "Two commands",
        "Your first chip",
        "What you get",
        "When not to use a Pushgateway",
        "Supported chips",
        "Documents",
    ]
    assert readme.index("```") < readme.index("## Two commands"), "the picture comes before the commands"
    text, _, rest = readme.partition("<!-- chips: ")  # a table that grows with every chip
    text += rest.partition("<!-- end of chips -->")[2]
    assert len(text.splitlines()) <= 150, "longer text belongs in docs/"
