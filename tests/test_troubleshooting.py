"""docs/troubleshooting.md quotes errors as the agent writes them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from agent.errors import ExitCode

PROJECT = Path(__file__).parents[1]
PAGE = (PROJECT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^### `(.*)`$", PAGE, re.MULTILINE)

VALUES = re.compile(
    r"A\d low|vcgencmd|interval|NACK|ina3221|VDD_IN|cpu|line|column|counters\.json|(?:/[a-z0-9.-]+)+|[a-z.]+:9091|PUT"
    r"|No such file or directory|No such device|No space left on device|Unauthorized|Moved Permanently"
    r"|Request Entity Too Large|can't start new thread|pushgateway(?=\.)"
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
    """The parts of a quotation that are in no message; an ellipsis at its start or end stands for the rest."""
    text = VALUES.sub("|", quoted)
    if text.endswith(" ..."):
        text = text.removesuffix(" ...")
        text = text[: len(text) - max(_overlap(text[::-1], piece[::-1]) for piece in pieces())] + "|"
    if text.startswith("... "):
        text = text.removeprefix("... ")
        text = "|" + text[max(_overlap(text, piece) for piece in pieces()) :]
    for piece in pieces():
        text = text.replace(piece, "|")
    return re.findall(r"\b[a-z]{3,}\b", text.replace("ffff", ""))


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


def test_every_error_has_a_cause_and_a_fix() -> None:
    for quoted, text in re.findall(r"^### `(.*)`\n\n(.*?)(?=^#|\Z)", PAGE, re.MULTILINE | re.DOTALL):
        assert len(text.split()) >= 5, quoted
    assert len(re.findall(r"^### ", PAGE, re.MULTILINE)) == len(QUOTED)


def test_every_link_within_the_page_resolves() -> None:
    headings = {
        re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.*)", PAGE, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def test_the_page_names_every_exit_code_and_where_to_look() -> None:
    table = PAGE[PAGE.index("| exit code |") :].partition("\n\n")[0]
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)] == sorted(ExitCode)
