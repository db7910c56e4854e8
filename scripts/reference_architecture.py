"""Renders the list of folders in docs/architecture.md from their docstrings."""

from __future__ import annotations

import ast
import re

from scripts.blocks import PROJECT, with_blocks
from tests.test_architecture import PLACES


def page() -> str:
    """The whole docs/architecture.md, with its list of folders."""
    return with_blocks("docs/architecture.md", {"folders": _folders})


def _folders() -> str:
    return "\n".join(_entry(place) for place in PLACES if place != "__main__")


def _entry(place: str) -> str:
    folder, module = PROJECT / "agent" / place, PROJECT / "agent" / f"{place}.py"
    file = folder / "__init__.py" if folder.is_dir() else module
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    text = re.sub(r"; imported by [^.]*(\.py)?\.", ".", " ".join(docstring.split()), count=1)
    return f"- **`{place}{'/' if folder.is_dir() else '.py'}`**: {text}"
