"""Keeps docs/architecture.md true: a module imports only what stands left of it in the picture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "agent"

EVERYBODYS = {"errors", "clock", "log", "__init__"}

LEFT_TO_RIGHT = (
    "i2c",
    "settings",
    "simulate",
    "config",
    "chips",
    "measure",
    "energy",
    "build_info",
    "metrics",
    "http",
    "push",
    "serve",
    "check",
    "run",
    "watch",
    "scan",
    "commands",
    "cli",
    "__main__",
)


def part_of(path: Path) -> str:
    """`chips` for agent/chips/ina260.py, `cli` for agent/cli.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names = [node.module] if node.module != "agent" else [f"agent.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("agent.") and name != "agent.__version__"}
    return parts


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_a_module_imports_only_what_stands_left_of_it(path: Path) -> None:
    part = part_of(path)
    allowed = set(EVERYBODYS)
    if part not in EVERYBODYS:
        allowed |= set(LEFT_TO_RIGHT[: LEFT_TO_RIGHT.index(part) + 1])
    assert imported_parts(path) <= allowed


def test_every_part_of_the_package_has_its_place_in_the_picture() -> None:
    assert {part_of(path) for path in MODULES} == EVERYBODYS | set(LEFT_TO_RIGHT)
