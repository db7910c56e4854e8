"""The tables of the documents, which are in Markdown."""

from __future__ import annotations


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose header begins like this, without header and rule."""
    table = text[text.index(head) :].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
