"""The page of the benchmarks: a row counts as reached only if it is, and hand-written text stays."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from bench import page
from bench.measure import Findings, Goal, Row, Samples, interleaved
from bench.plot import plot

if TYPE_CHECKING:
    from pathlib import Path


def seconds(*values: float) -> Samples:
    return Samples(values, "s")


SLOWER = Row("slower", seconds(1.0), seconds(3.0), (Goal(2.0, is_ratio=True),))
FASTER = Row("faster", seconds(1.0, 2.0, 3.0), seconds(1.0), (Goal(0.5, is_ratio=True), Goal(1.0, "s")), "0.8 s")
RATE = Row("rate", None, Samples((300.0,), "sweeps/s"), (Goal(250.0, "sweeps/s", at_least=True),))


def test_a_row_is_reached_when_all_its_goals_are() -> None:
    assert [row.is_reached for row in (SLOWER, FASTER, RATE)] == [False, True, True]
    assert not Row("one of two", seconds(4.0), seconds(2.0), (Goal(0.5, is_ratio=True), Goal(1.0, "s"))).is_reached


def test_the_table_shows_medians_spread_ratios_goals_and_older_figures() -> None:
    text = page.table([SLOWER, FASTER, RATE])
    assert "| slower | 1 s |  | 3 s | 3 | ≤ 2 x | **no** |" in text
    assert "| faster | 2 s ± 25 % | 0.8 s | 1 s | 0.5 | ≤ 0.5 x, ≤ 1 s | yes |" in text
    assert "| rate |  |  | 300 sweeps/s |  | ≥ 250 sweeps/s | yes |" in text


def test_variants_take_turns() -> None:
    order: list[str] = []

    def variant(name: str) -> tuple[float, float]:
        order.append(name)
        return len(order), -len(order)

    taken = interleaved(2, {"a": lambda: variant("a"), "b": lambda: variant("b")})
    assert order == ["a", "b", "a", "b"]
    assert taken == {"a": [(1, 3), (-1, -3)], "b": [(2, 4), (-2, -4)]}


def test_the_plot_has_a_bar_for_each_goal() -> None:
    root = ET.fromstring(plot([SLOWER, FASTER, RATE]))
    bars = [element for element in root if element.tag.endswith("rect")][1:]
    assert len(bars) == 4


def test_writing_the_page_replaces_only_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "benchmarks.md"
    monkeypatch.setattr(page, "_PAGE", file)
    monkeypatch.setattr(page, "_PLOT", tmp_path / "benchmarks.svg")
    file.write_text(
        "before\n<!-- written by `make bench` from here -->\nold\n<!-- to here -->\nafter\n", encoding="utf-8"
    )
    for _ in range(2):
        page.write_page([Findings((SLOWER,), "more"), Findings((RATE,))], 60.0)
    text = file.read_text(encoding="utf-8")
    assert text.startswith("before\n<!--")
    assert text.endswith("-->\nafter\n")
    assert text.count("| slower |") == text.count("more") == 1
    assert "old" not in text
    assert (tmp_path / "benchmarks.svg").exists()


def test_a_page_without_markers_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "benchmarks.md"
    monkeypatch.setattr(page, "_PAGE", file)
    monkeypatch.setattr(page, "_PLOT", tmp_path / "benchmarks.svg")
    file.write_text("hand-written", encoding="utf-8")
    with pytest.raises(ValueError, match="marks"):
        page.write_page([Findings((SLOWER,))], 60.0)
    assert file.read_text(encoding="utf-8") == "hand-written"
