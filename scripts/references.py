"""Generates the references that are derived from the code: `make generated`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from agent import chips
from agent.config import example
from scripts import (
    reference_architecture,
    reference_chips,
    reference_configuration,
    reference_exit_codes,
    reference_metrics,
    reference_rules,
)
from scripts.blocks import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PAGES: Mapping[str, Callable[[], str]] = {
    "README.md": reference_chips.readme,
    "config.toml.example": lambda: example.example(chips.options()),
    "docs/adding-a-chip.md": reference_chips.declarations,
    "docs/alerts.md": reference_rules.alerts,
    "docs/architecture.md": reference_architecture.page,
    "docs/chips.md": reference_chips.page,
    "docs/configuration.md": reference_configuration.page,
    "docs/metrics.md": reference_metrics.page,
    "docs/troubleshooting.md": reference_exit_codes.page,
    "docs/prometheus.md": reference_rules.series,
}


def main() -> int:
    for name, page in PAGES.items():
        (PROJECT / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
