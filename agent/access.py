"""Why a file may not be used: which file or folder keeps which user out, and the command that lets them in."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path


def of_denied_read(path: Path) -> str:
    """Who may read a file that this user may not, and what to do: the end of a message.

    The mode of a file does not matter while a folder above it is closed, so the first that is in the way is named.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve() would have to enter the folders
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK, effective_ids=True):
            return _let_in(folder, "may enter", stat.S_IXGRP, "750")
    if os.access(path, os.R_OK, effective_ids=True):
        return f"the mode of {path} allows it, so does a sandbox or a security module such as AppArmor forbid it?"
    return _let_in(path, "may read", stat.S_IRGRP, "640")


def this_user() -> str:
    """The name of the user that this process runs as, for a command.

    Not $USER: the message of a service is read by another user.
    """
    name = _user(os.geteuid())
    return "$USER" if name.isdecimal() else name


def _let_in(path: Path, what: str, group_bit: int, mode: str) -> str:
    try:
        status = path.stat()
    except OSError:  # a link into a folder that is closed
        return f"{path} cannot be examined either; may this user enter the folder that it leads to?"
    owner, me = _user(status.st_uid), _user(os.geteuid())
    groups = {os.getegid(), *os.getgroups()}
    if status.st_mode & group_bit and status.st_gid not in groups and status.st_gid != 0 and not me.isdecimal():
        group = _group(status.st_gid)
        who = f"only {owner} and the group {group} {what} {path}"
        if _is_member(me, status.st_gid):
            return f"{who}; log in again, or restart the service: {me} has joined the group since"
        return f"{who}; sudo usermod -aG {group} {me}, then log in again, or restart the service"
    mine = _group(os.getegid())
    return f"only {owner} {what} {path}; sudo chgrp {mine} {path} && sudo chmod {mode} {path}"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _is_member(user: str, group: int) -> bool:
    with suppress(KeyError):
        return user in grp.getgrgid(group).gr_mem
    return False
