"""docs/troubleshooting.md quotes errors as the agent writes them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from agent.errors import ExitCode
from tests.tables import rows

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = [row for table in PAGE.split("\n\n") if table.startswith("| message |") for row in rows(table, "| message |")]
QUOTED = [message.strip("`") for message, *_ in ENTRIES]

VALUES = re.compile(
    r"NACK|ina3221|counters\.json|(?:/[a-z0-9.-]+)+|No such file or directory|No space left on device|Unauthorized"
)
"""Values that messages contain, as the quotations give them."""

SHORTEST_CUT = 8
"""Fewer characters at the start or end of a message may match another message by chance."""


@cache
def pieces() -> tuple[str, ...]:
    """The literal parts of every text in the agent's code, between its placeholders; longest first."""
    found: set[str] = set()
    for path in (PROJECT / "agent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.update(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                found.update(re.split(r"%[sdr]|%\.\d?[fg]", node.value))
    plain = {VALUES.sub("|", piece) for piece in found if len(piece) >= 4 and "\n" not in piece}
    return tuple(sorted(plain, key=len, reverse=True))


def unknown_parts(quoted: str) -> list[str]:
    """The parts of a quotation that are in no message; an ellipsis stands for any other words."""
    parts = VALUES.sub("|", quoted).split("...")
    words: list[str] = []
    for index, part in enumerate(parts):
        words += _unknown_words(part, cut_before=index > 0, cut_after=index < len(parts) - 1)
    return words


def _unknown_words(part: str, *, cut_before: bool, cut_after: bool) -> list[str]:
    """The words of one part that are in no message. Beside an ellipsis, a piece of a message may be cut."""
    middle = part.strip()
    if cut_before and cut_after and len(middle) >= SHORTEST_CUT and any(middle in piece for piece in pieces()):
        return []
    if cut_after:
        part = part.rstrip()
        part = part[: len(part) - max(_overlap(part[::-1], piece[::-1]) for piece in pieces())] + "|"
    if cut_before:
        part = part.lstrip()
        part = "|" + part[max(_overlap(part, piece) for piece in pieces()) :]
    for piece in pieces():
        part = part.replace(piece, "|")
    return re.findall(r"\b[a-z]{3,}\b", part.replace("ffff", ""))


def _overlap(text: str, piece: str) -> int:
    """How many characters at the start of the text are the end of a piece."""
    return next((n for n in range(len(piece), SHORTEST_CUT - 1, -1) if text.startswith(piece[-n:])), 0)


@pytest.mark.parametrize("quoted", QUOTED)
def test_the_agent_writes_every_quoted_error(quoted: str) -> None:
    assert unknown_parts(quoted) == []


def test_an_unknown_error_is_detected() -> None:
    assert len(QUOTED) > 30
    assert "root" in unknown_parts("/dev/i2c-1: permission denied; run it as root")
    assert "respond" in unknown_parts("mux m0 (0x70 on /dev/i2c-1) does not respond: NACK")
    assert unknown_parts("127.0.0.1:9812: in use; stop what ...") == []
    assert "whatever" in unknown_parts("127.0.0.1:9812: in use; stop whatever ...")
    assert unknown_parts("... but the configuration has no [pushgateway] url") == []
    assert "settings" in unknown_parts("... but the settings have no [pushgateway] url")
    assert unknown_parts("... belongs to the kernel driver ina3221; ... instead, ...") == []
    assert "owned" in unknown_parts("... is owned by the kernel driver ina3221; ...")


def test_every_error_has_a_cause_and_a_fix() -> None:
    for message, cause, fix in ENTRIES:
        assert re.fullmatch(r"`[^`]+`", message), message
        assert cause, message
        assert fix, message
    assert len(set(QUOTED)) == len(QUOTED)


def test_every_link_within_the_page_resolves() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def test_the_page_names_every_exit_code_and_where_to_look() -> None:
    table = PAGE[PAGE.index("| exit code |") :].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(ExitCode)
