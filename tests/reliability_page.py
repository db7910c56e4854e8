"""Writes docs/reliability.md: the fault that each test marked `reliability` injects, and what the test measured.

A marker `reliability(order, fault, does)` is a row; the cases of a parametrised test, and tests with the same marker,
share it. Below the rows are the sections that such tests have `tabulated`. It takes a whole run of the fast tests and
one of the long tests: .cache/reliability.json keeps the results, and the run in which the last case of all rows passes
writes the page.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT / "docs" / "reliability.md"
RESULTS = PROJECT / ".cache" / "reliability.json"

HEAD = """\
# Reliability

Every row is a test that injects the fault for real: register-level chips with a fault plan, real servers killed and
stalled, real signals, real processes. `make test` and `make test-long` together write this page.

| fault | what the agent does | measured |
|---|---|---|
"""

Row = tuple[float, str, str]
"""Order, fault, and what the agent does."""

SECTION = " (section)"
"""After the name of a case: the section of the page that it has made."""

_rows = pytest.StashKey[dict[str, Row]]()
_measured = pytest.StashKey[str]()
_tabulated = pytest.StashKey[str]()
_results = pytest.StashKey[dict[str, str | None]]()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the row of every case before pytest deselects some."""
    config.stash[_rows] = {
        item.nodeid: marker.args for item in items if (marker := item.get_closest_marker("reliability")) is not None
    }


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Lets a test say what it measured, in words that do not change from run to run."""

    def note(text: str) -> None:
        request.node.stash[_measured] = text

    return note


@pytest.fixture
def tabulated(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Lets a test write a section of the page, in Markdown that does not change from run to run."""

    def note(text: str) -> None:
        request.node.stash[_tabulated] = text

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the result of a case: what it measured, or None if it failed.

    Yields:
        to the hooks that make the report.
    """
    report = yield
    if item.nodeid in item.config.stash.get(_rows, {}):
        results = item.config.stash.setdefault(_results, {})
        if not report.passed:
            results[item.nodeid] = results[item.nodeid + SECTION] = None
        elif report.when == "call":
            results[item.nodeid] = item.stash.get(_measured, "")
            results[item.nodeid + SECTION] = item.stash.get(_tabulated, None)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep the results; write the page when every case of every row has passed."""
    known = _known() | session.config.stash.get(_results, {})
    passed = {case: text for case, text in known.items() if text is not None}
    if passed != _known():
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(passed, indent=1, sort_keys=True), encoding="utf-8")
    rows = session.config.stash.get(_rows, {})
    is_whole_suite = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if exitstatus == 0 and is_whole_suite and rows and rows.keys() <= passed.keys():
        PAGE.write_text(page(rows, passed), encoding="utf-8")


def page(rows: Mapping[str, Row], passed: Mapping[str, str]) -> str:
    """The page, from the row of each case, what it measured ("" if nothing) and its section, if it has one."""
    cases: dict[Row, list[str]] = {}
    for case, row in sorted(rows.items()):
        cases.setdefault(row, []).append(passed[case])
    lines = []
    for (order, fault, does), texts in sorted(cases.items()):
        assert isinstance(order, int | float), order
        output = [text for text in dict.fromkeys(texts) if text]
        number = "1 case passes" if len(texts) == 1 else f"{len(texts)} cases pass"
        lines.append(f"| {fault} | {does} | {'; '.join(output) or number} |\n")
    sections = [passed[case + SECTION] for case in sorted(rows, key=rows.__getitem__) if case + SECTION in passed]
    return HEAD + "".join([*lines, *(f"\n{section}\n" for section in sections)])


def _known() -> dict[str, str | None]:
    try:
        known: dict[str, str | None] = json.loads(RESULTS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known
