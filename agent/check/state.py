"""Checks that the folder of the energy counters can be one. Nothing is created."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from agent.check import failed
from agent.energy.state_folder import refuse_unusable
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.check import Finding


def check_state_dir(folder: Path, name: str) -> Iterator[Finding]:
    """A failure if the path, or one of the folders that it is in, is something else, or a file in it is none.

    A run would end with it.
    """
    for path in (folder, *folder.parents):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # a run creates it, if the nearest path that exists is a folder
        except OSError:  # this user may not look there, but the service may
            return
        if not stat.S_ISDIR(mode):
            what = str(folder) if path == folder else f"{folder}: {path}"
            text = f"{what} is not a folder; name a folder, or a path where one can be created"
            yield failed("state_dir", ConfigError((text,)))
            return
        break
    try:
        refuse_unusable(folder, name)
    except ConfigError as error:
        for problem in error.problems:
            yield failed("state_dir", ConfigError((problem.removeprefix("state_dir: "),)))
