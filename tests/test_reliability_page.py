"""The page that the tests marked `reliability` write."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests import reliability_page
from tests.reliability_page import HEAD, SECTION, page

if TYPE_CHECKING:
    from pathlib import Path

ROWS = {
    "a[1]": (2, "a fault", "it is noticed"),
    "a[2]": (2, "a fault", "it is noticed"),
    "b": (1.5, "noise", "see below"),
    "c": (1, "a cut", "it heals"),
}
PASSED = {"a[1]": "once", "a[2]": "", "b": "", f"b{SECTION}": "## Noise\n\ntext", "c": "", f"gone{SECTION}": "## Old"}


def test_a_row_shows_its_order_and_what_its_cases_measured() -> None:
    rows = page(ROWS, PASSED).removeprefix(HEAD).partition("\n\n")[0]
    assert rows.splitlines() == [
        "| a cut | it heals | 1 case passes |",
        "| noise | see below | 1 case passes |",
        "| a fault | it is noticed | once |",
    ]


def test_sections_of_existing_tests_follow_the_rows() -> None:
    assert page(ROWS, PASSED).endswith("|\n\n## Noise\n\ntext\n")
    assert "Old" not in page(ROWS, PASSED)


PROJECT = """
[pytest]
addopts = -p tests.reliability_page
testpaths = tests
markers =
    reliability
    long
"""
TESTS = """
import pytest

@pytest.mark.reliability(1, "a fault", "it is noticed")
@pytest.mark.parametrize("case", [1, 2])
def test_fault(case, measured, tabulated):
    measured(f"{case} times")
    tabulated(f"## Table {case}")

@pytest.mark.long
@pytest.mark.reliability(2, "a cut", "it heals")
def test_cut():
    pass

def test_without_a_row():
    pass
"""


@pytest.mark.parametrize("processes", ["0", "2"])
def test_the_last_passing_run_writes_the_page(tmp_path: Path, processes: str) -> None:
    for folder in ("tests", "docs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pytest.ini").write_text(PROJECT, encoding="utf-8")
    (tmp_path / "tests" / "__init__.py").touch()
    shutil.copy(reliability_page.__file__, tmp_path / "tests")
    tests, written = tmp_path / "tests" / "test_it.py", tmp_path / "docs" / "reliability.md"

    def run(text: str, selection: str) -> int:
        tests.write_text(text, encoding="utf-8")
        options = ("-q", "-n", processes, "-p", "no:cacheprovider", "-m", selection)
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            cwd=tmp_path,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
            stdout=subprocess.DEVNULL,
            check=False,
        ).returncode

    assert run(TESTS, "not long") == 0
    assert not written.exists(), "a row has not been tested"
    assert run(TESTS.replace("pass", "assert False"), "long") == 1
    assert not written.exists(), "a row has failed"
    assert run(TESTS, "long") == 0
    assert written.read_text(encoding="utf-8") == HEAD + (
        "| a fault | it is noticed | 1 times; 2 times |\n| a cut | it heals | 1 case passes |\n"
        "\n## Table 1\n\n## Table 2\n"
    )
