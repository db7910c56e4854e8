"""Replaces the generated blocks of a page that is otherwise written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PROJECT = Path(__file__).resolve().parents[1]


def with_blocks(name: str, blocks: Mapping[str, Callable[[], str]]) -> str:
    """The whole text of a page, with each block rendered between its two comments."""
    text = (PROJECT / name).read_text(encoding="utf-8")
    for block, render in blocks.items():
        begin, end = f"<!-- {block}: made by make generated -->\n", f"\n<!-- end of {block} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise SystemExit(f"{name}: no place for the block {block}")
        text = f"{before}{begin}\n{render()}\n{end}{after}"
    return text
