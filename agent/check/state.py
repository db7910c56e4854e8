"""Checks that the folder of the energy counters can be used. Nothing is created."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agent import access
from agent.check import failed, warning
from agent.energy.filesystems import forgetful_filesystem
from agent.energy.state_folder import foreign_folder_error, refuse_unusable
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.check import Finding

_LEAST_FREE_BYTES = 2**16
"""The file of a node with 64 devices takes half of it, and the new one is written beside the old one."""

_UNSAVED = "the energy counters cannot be saved"


def check_state_dir(folder: Path, name: str) -> Iterator[Finding]:
    """A failure for each reason why a run would refuse it, and a warning if this user could not save counters there.

    Only a warning, because the service is another user, whose folder systemd creates. It is that user's business if
    the folder is theirs.
    """
    try:
        refuse_unusable(folder, name)
    except ConfigError as error:
        for problem in error.problems:
            yield failed("state_dir", ConfigError((problem.removeprefix("state_dir: "),)))
        return
    place = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        disk = os.statvfs(place)
    except OSError:  # this user may not look there
        return
    if disk.f_flag & os.ST_RDONLY:
        hint = "set state_dir to a folder that can be written"
        yield warning("state_dir", f"{folder} is on a read-only file system, so {_UNSAVED}", hint)
    elif disk.f_blocks and disk.f_bavail * disk.f_frsize < _LEAST_FREE_BYTES:
        yield warning("state_dir", f"the disk of {folder} is full, so {_UNSAVED}", f"free some space: df -h {place}")
    elif not os.access(place, os.W_OK | os.X_OK, effective_ids=True) and foreign_folder_error(folder) is None:
        what = "may not write it" if place == folder else f"may not create it in {place}"
        yield warning("state_dir", f"{folder}: this user {what}", f"sudo install -d -o {access.this_user()} {folder}")
    if place == folder and (filesystem := forgetful_filesystem(folder)) is not None:
        hint = "set state_dir to a folder on a disk, or in a container to a volume"
        yield warning("state_dir", f"{folder} is on {filesystem}: the counters start from zero after a reboot", hint)
