"""Checks that the folder of the energy counters can be one. Nothing is created."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.check import failed
from agent.energy.state_folder import refuse_unusable
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.check import Finding


def check_state_dir(folder: Path, name: str) -> Iterator[Finding]:
    """A failure for each reason why a run would refuse it."""
    try:
        refuse_unusable(folder, name)
    except ConfigError as error:
        for problem in error.problems:
            yield failed("state_dir", ConfigError((problem.removeprefix("state_dir: "),)))
