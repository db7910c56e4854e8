"""docs/metrics.md and docs/configuration.md say what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import reference_configuration, reference_metrics
from scripts.references import PAGES

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_made_from_the_code_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run: make generated"


def test_every_key_of_the_configuration_is_described_and_none_that_there_is_not() -> None:
    assert reference_configuration.undescribed() == set()


def test_a_key_that_nobody_described_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(reference_configuration.NOTES["in [pushgateway]"], "timeout")
    assert reference_configuration.undescribed() == {("in [pushgateway]", "timeout")}


def test_a_wrong_example_that_is_not_refused_stops_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    note = reference_configuration.Note("How often to push.", '"15s"', '"20s"')
    monkeypatch.setitem(reference_configuration.NOTES[reference_configuration.TOP], "interval", note)
    with pytest.raises(SystemExit, match="the wrong example of interval is not refused"):
        reference_configuration.page()


def test_when_a_series_is_absent_is_what_the_agent_does() -> None:
    page = reference_metrics.page()
    row = next(line for line in page.splitlines() if line.startswith("| `wattpush_device_min_watts` |"))
    assert row.endswith("| no good reading since the last push; `extremes = false` |")
    row = next(line for line in page.splitlines() if line.startswith("| `wattpush_device_up` |"))
    assert row.endswith("| - |")
