"""The table and docs/benchmarks.md: a run replaces only the text between the page's two marks."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import number
from bench.plot import plot
from bench.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.measure import Findings, Row

_PAGE = ROOT / "docs" / "benchmarks.md"
_PLOT = ROOT / "docs" / "benchmarks.svg"
_BEGIN = "<!-- written by `make bench` from here -->"
_END = "<!-- to here -->"


def table(rows: Sequence[Row]) -> str:
    """All rows as a Markdown table."""
    lines = [
        "| what | stock | first version | wattpush | ratio | goal | reached |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else number(row.ratio)
        goals = ", ".join(str(goal) for goal in row.goals)
        reached = ("yes" if row.is_reached else "**no**") if row.goals else ""
        lines.append(f"| {row.what} | {row.stock or ''} | {row.before} | {row.ours} | {ratio} | {goals} | {reached} |")
    return "\n".join(lines)


def machine(seconds: float) -> str:
    """The machine, without its name, and the duration of the run."""
    return (
        f"Measured in {seconds / 60:.0f} minutes on {os.cpu_count()} cores of {_processor()}, "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}; "
        "± is half of the interquartile range."
    )


def write_page(findings: Sequence[Findings], seconds: float) -> None:
    """Replace the old results on the page. Raises ValueError if the page has lost its marks."""
    rows = [row for one in findings for row in one.rows]
    plotted = f"![share of each goal's allowance that is used]({_PLOT.name})"
    measured = [table(rows), plotted, *(one.text for one in findings if one.text), machine(seconds)]
    before, begin, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"{_PAGE}: the marks {_BEGIN} and {_END} are missing")
    _PLOT.write_text(plot(rows), encoding="utf-8")
    _PAGE.write_text("\n\n".join([before + begin, *measured, end + after]), encoding="utf-8")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
