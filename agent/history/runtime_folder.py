"""The folder for files that outlive the process but not the boot: memory, so that nothing is written to a card."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder in it is used only if it is this user's alone


def runtime_folder(environ: Mapping[str, str], shared_memory: Path = _SHARED_MEMORY) -> Path | None:
    """The folder, which is created; None if there is none that only this user can write.

    It is systemd's RUNTIME_DIRECTORY, a folder in the session's XDG_RUNTIME_DIR, or one in /dev/shm.
    """
    if given := environ.get("RUNTIME_DIRECTORY", ""):
        candidates = [Path(given.split(":")[0])]
    else:
        session = environ.get("XDG_RUNTIME_DIR", "")
        candidates = [Path(session) / "wattpush"] if session else []
        candidates.append(shared_memory / f"wattpush-{os.geteuid()}")
    return next((folder for folder in candidates if folder.is_absolute() and _is_ours(folder)), None)


def _is_ours(folder: Path) -> bool:
    """Create the folder; whether it is this user's, and nobody else may write to it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and status.st_mode & 0o022 == 0


def key_of(folder: Path) -> str:
    """A name for the files that belong to one backlog folder."""
    return hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
