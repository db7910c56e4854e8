"""What a live page says, as text: for tests that have no browser."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

from agent.serve.live_page import LivePage

if TYPE_CHECKING:
    from agent.run.agent import Agent


class Shown(HTMLParser):
    """A page that was made, with the white space of its texts made plain.

    Attributes:
        rows: the text of every cell, row by row.
        facts: the texts below each heading above the table.
        tags: every tag with its attributes.
    """

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.facts: dict[str, str] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self._fact = ""
        self.source = page.decode()
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in {"th", "td"}:
            self.rows[-1].append("")
        elif tag == "dt":
            self._fact = ""

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        words = " ".join(data.replace("\u2212", "-").replace("\u2013", "").split())
        if not words or "style" in self._open or "script" in self._open:
            return
        self.text += words + "\n"
        if "dt" in self._open:
            self._fact = words
            self.facts[words] = ""
        elif "dd" in self._open:
            self.facts[self._fact] = f"{self.facts[self._fact]} {words}".strip()
        elif "tr" in self._open:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {words}".strip()

    def device(self, name: str) -> list[str]:
        """The cells of a device after its name, without the plot."""
        (found,) = [row for row in self.rows if row[0].startswith(f"{name} ")]
        return [found[0].removeprefix(f"{name} "), *found[1:-1]]


def shown(agent: Agent) -> Shown:
    """The live page of an agent at this moment, newly made."""
    return Shown(LivePage().page(agent.live_view()))
