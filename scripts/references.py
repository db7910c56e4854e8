"""Generate the pages of docs/ that are derived from the code: `make generated`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scripts import reference_configuration, reference_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DOCS = Path(__file__).resolve().parents[1] / "docs"

PAGES: Mapping[str, Callable[[], str]] = {
    "configuration.md": reference_configuration.page,
    "metrics.md": reference_metrics.page,
}


def main() -> int:
    for name, page in PAGES.items():
        (DOCS / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
