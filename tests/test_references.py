"""The references that are generated from the code match it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import reference_configuration, reference_metrics
from scripts.references import PAGES

PROJECT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_reference_made_from_the_code_is_up_to_date(name: str) -> None:
    assert (PROJECT / name).read_text(encoding="utf-8") == PAGES[name](), "run: make generated"


def test_a_mistake_that_is_not_refused_stops_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_configuration, "MISTAKES", {"none": reference_configuration.SMALLEST})
    with pytest.raises(SystemExit, match="none: not refused"):
        reference_configuration.page()


def test_documented_absences_match_the_agent() -> None:
    page = reference_metrics.page()
    row = next(line for line in page.splitlines() if line.startswith("| `wattpush_device_min_watts` |"))
    assert row.endswith("| no good reading since the last push; `extremes = false` |")
    row = next(line for line in page.splitlines() if line.startswith("| `wattpush_device_up` |"))
    assert row.endswith("| - |")
