"""Writes docs/reliability.md: the fault that each test marked `reliability` injects, and what the test measured.

A marker `reliability(order, fault, does)` is a row; the cases of a parametrised test, and tests with the same marker,
share it. Below the rows are the sections that such tests have `tabulated`. It takes a whole run of the fast tests and
one of the long tests: .cache/reliability.json keeps the results, and the run in which the last case of all rows passes
writes the page.

With pytest-xdist, the tests run in workers, which send their reports and rows to the main process; that one writes.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

MEASURED, TABULATED = "measured", "tabulated"
"""What pytest sends along with the report of a test."""


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Lets a test say what it measured, in words that do not change from run to run."""
    return partial(record_property, MEASURED)


@pytest.fixture
def tabulated(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Lets a test write a section of the page, in Markdown that does not change from run to run."""
    return partial(record_property, TABULATED)


def pytest_configure(config: pytest.Config) -> None:
    """Watch this run."""
    config.pluginmanager.register(Run())


class Run:
    """One run of pytest: all rows, and of each case that has run what it measured, or None if it failed."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._results: dict[str, str | None] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note the row of every case before pytest deselects some."""
        for item in items:
            if (marker := item.get_closest_marker("reliability")) is not None:
                self._rows[item.nodeid] = marker.args

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the result of a test: also called in the main process, for the tests of all workers."""
        if not report.passed:
            self._results[report.nodeid] = self._results[report.nodeid + SECTION] = None
        elif report.when == "call":
            notes = {name: str(text) for name, text in report.user_properties}
            self._results[report.nodeid] = notes.get(MEASURED, "")
            self._results[report.nodeid + SECTION] = notes.get(TABULATED)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: object) -> None:
        """Take the rows from a worker that has ended, unless it crashed."""
        self._rows.update(getattr(node, "workeroutput", {}).get("rows", {}))

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Keep the results; write the page when every case of every row has passed."""
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["rows"] = self._rows
            return
        results = {case: text for case, text in self._results.items() if case.removesuffix(SECTION) in self._rows}
        known = _known()
        passed = {case: text for case, text in (known | results).items() if text is not None}
        if passed != known:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(passed, indent=1, sort_keys=True), encoding="utf-8")
        is_whole_suite = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
        if exitstatus == 0 and is_whole_suite and self._rows and self._rows.keys() <= passed.keys():
            PAGE.write_text(page(self._rows, passed), encoding="utf-8")


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
