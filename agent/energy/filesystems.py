"""File systems that forget: after a reboot they are empty, or hold the same old files again."""

from __future__ import annotations

import re
from pathlib import Path

_FORGETFUL = frozenset({"tmpfs", "ramfs", "overlay", "overlayfs", "aufs", "unionfs", "squashfs", "rootfs"})
"""Those in memory, and those whose upper layer often is: a read-only root (raspi-config), a container's own layer."""

_ESCAPE = re.compile(r"\\([0-7]{3})")


def forgetful_filesystem(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """The type of the folder's file system if it forgets; None if it keeps its files, or cannot be told.

    Source: proc_pid_mountinfo(5): the fifth field is the mount point; the type follows the separator `-`.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        path = folder.resolve()
    except (OSError, RuntimeError):  # such as a loop of symbolic links
        return None
    depth, found = -1, ""
    for line in lines:
        fields, _, rest = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields.split(" ")[4]))
        # The deepest one holds the folder; of several at one point, the last covers the others.
        if len(point.parts) >= depth and path.is_relative_to(point):
            depth, found = len(point.parts), rest.split(" ")[0]
    return found if found in _FORGETFUL else None
