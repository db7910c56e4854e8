"""Names the process that holds a lock, so that an error says which program to stop."""

from __future__ import annotations

import os
from pathlib import Path

_LOCKS = Path("/proc/locks")


def holder(file_descriptor: int, locks: Path = _LOCKS) -> str | None:
    """The process that has the flock of an open file, such as `wattpush, pid 1234`; None if it cannot be seen.

    A process of another container has no number here, and a sandbox may hide its name.

    Source: proc_locks(5). A line is `1: FLOCK ADVISORY WRITE 1234 00:05:678 0 EOF`: the process, then the file as
    major:minor:inode, the first two in hexadecimal. A line with `->` is a process that waits.
    """
    try:
        status = os.fstat(file_descriptor)
        lines = locks.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    fields = [line.split() for line in lines]
    pids = {words[5]: words[4] for words in fields if len(words) > 5 and words[1] == "FLOCK"}
    # An overlay shows its files under another device than their locks have: then the inode has to do.
    pid = pids.get(file) or next((pid for name, pid in pids.items() if name.endswith(f":{status.st_ino}")), "")
    if not pid.isdecimal() or pid == "0":
        return None
    try:
        program = Path("/proc", pid, "comm").read_text(encoding="utf-8", errors="replace").strip() + ", "
    except OSError:
        program = ""
    return f"{program}pid {pid}"
