"""Adapt README.md for a package index, where its links to files lead nowhere.

Called by hatchling (pyproject.toml, [tool.hatch.metadata.hooks.custom]) whenever the package is built.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK_TO_A_FILE = re.compile(r"!?\[([^\]]+)\]\((?![a-z]+:)([^)]+)\)")


def without_links_to_files(markdown: str) -> str:
    """Turn `[text](docs/page.md)` into `text (docs/page.md)`: the path within the source distribution.

    A picture becomes its alternative text in the same way.
    """
    return _LINK_TO_A_FILE.sub(
        lambda link: link[1] if link[1] in link[2] else f"{link[1]} ({link[2]})",
        markdown,
    )


class PackageReadme(MetadataHookInterface):
    """The `readme` of the package's metadata."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the `readme`."""
        markdown = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": without_links_to_files(markdown)}
