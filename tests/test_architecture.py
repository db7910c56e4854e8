"""Keeps docs/architecture.md and the folders' own words true: data flows from left to right, and so do imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "agent"
PAGE = (PROJECT / "docs" / "architecture.md").read_text(encoding="utf-8")

EVERYWHERE = (
    "access",
    "errors",
    "clock",
    "locks",
    "log",
    "stderr",
    "quantities",
    "terminal",
    "threads",
    "build_info",
    "entry_points",
    "__init__",
)
"""Modules without a place in the flow: anything may import them, and they import only each other."""

PICTURE = {
    "i2c": "all to its right",
    "settings": "all to its right",
    "config": "check/, scan/, init/ and commands/",
    "simulate": "run/",
    "chips": "all to its right",
    "measure": "all to its right",
    "energy": "all to its right",
    "metrics": "all to its right",
    "http": "all to its right",
    "push": "all to its right",
    "history": "run/ and check/",
    "serve": "run/",
    "run": "watch/, command_energy/ and commands/",
    "check": "init/ and commands/",
    "scan": "init/ and commands/",
    "init": "commands/",
    "watch": "commands/",
    "command_energy": "commands/",
    "commands": "cli.py",
    "cli": "__main__.py",
    "__main__": "nothing",
}
"""From left to right, and what may import each: the one list that the imports, the folders and the page agree with."""

PLACES = list(PICTURE)
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = [place for place in PLACES if (PACKAGE / place).is_dir()]


def place_of(path: Path) -> str:
    """`chips` for agent/chips/ina260.py, `cli` for agent/cli.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_places(path: Path) -> set[str]:
    places = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names = [node.module] if node.module != "agent" else [f"agent.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        places |= {name.split(".")[1] for name in names if name.startswith("agent.") and name != "agent.__version__"}
    return places


def may_import(importer: str, imported: str) -> bool:
    if imported in EVERYWHERE or importer == imported:
        return True
    if importer in EVERYWHERE or PLACES.index(importer) < PLACES.index(imported):
        return False
    importers = PICTURE[imported]
    return importers == "all to its right" or importer in re.findall(r"\w+", importers.replace(".py", ""))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_a_module_imports_only_from_its_left(path: Path) -> None:
    importer = place_of(path)
    assert [imported for imported in imported_places(path) if not may_import(importer, imported)] == []


def test_every_module_has_a_place_in_the_picture() -> None:
    assert {place_of(path) for path in MODULES} == {*EVERYWHERE, *PLACES}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folders_docstring_names_its_importers(folder: str) -> None:
    docstring = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    assert f"; imported by {PICTURE[folder]}." in docstring.partition("\n")[0]


def test_the_page_describes_the_folders_in_their_order() -> None:
    described = re.findall(r"^- \*\*`(\w+)(?:/|\.py)`\*\*", PAGE, re.MULTILINE)
    assert described == [place for place in PLACES if place != "__main__"]


def test_the_picture_on_the_page_shows_every_place() -> None:
    picture = PAGE.split("```")[1]
    shown = re.findall(r"\b(\w+)(?:/|\.py)", picture)
    assert sorted(set(shown)) == sorted({*PLACES} - {"__main__"})
