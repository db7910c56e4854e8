"""The state folder: whose it may be, and what may stand in it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from agent import access
from agent.errors import BusyError, ConfigError, PermissionDeniedError

if TYPE_CHECKING:
    from pathlib import Path

AS_A_FILE = os.O_NOFOLLOW | os.O_NONBLOCK
"""Follow no link, and do not wait for the other end of a FIFO."""

_HINTS = {
    errno.EMFILE: "raise LimitNOFILE= or ulimit -n",
    errno.ENFILE: "raise the sysctl fs.file-max",
    errno.ENOMEM: "free some memory",
}
"""What to do if the system, not the disk, has run out of something."""


def refuse_passing(error: OSError, path: Path) -> None:
    """Raise BusyError if the system, not the disk, has run out of something: nothing is wrong with the file."""
    hint = _HINTS.get(error.errno or 0)
    if hint is not None:
        raise BusyError(f"{path}: cannot be opened ({error.strerror}); {hint}") from error


def foreign_folder_error(folder: Path) -> PermissionDeniedError | None:
    """Return an error if the folder belongs to another user, such as the service's; None if it is ours or root's.

    If root wrote into it, the service could not write there and would not start. If another user took it over, or used
    their own folder instead, there would be two sets of counters.
    """
    try:
        owner = folder.stat().st_uid
    except OSError:
        return None
    if owner in (0, os.geteuid()):
        return None
    name = _user_name(owner)
    return PermissionDeniedError(
        f"{folder}: belongs to {name}, not to {_user_name(os.geteuid())}; run it as that user: sudo -u {name} wattpush"
    )


def closed_folder_error(folder: Path) -> PermissionDeniedError:
    """The error if this user may not use the folder."""
    return foreign_folder_error(folder) or PermissionDeniedError(
        f"{folder}: permission denied; set state_dir to a folder that this user may write, or "
        f"sudo install -d -o {access.this_user()} {folder}"
    )


def _user_name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


def refuse_unusable(folder: Path, name: str) -> None:
    """Raise ConfigError if there can be no such folder, or if it holds something else in place of a state file.

    What is no regular file is never opened: a FIFO would hang, and a link would lead out of the folder.
    """
    for path in (folder, *folder.parents):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue  # a run creates it, if the nearest path that exists is a folder
        except OSError:  # this user may not look there
            return
        if not stat.S_ISDIR(mode):
            raise not_a_folder(folder, path)
        break
    problems = []
    for path in (folder / f"{name}.{kind}" for kind in ("json", "new", "lock")):
        with suppress(OSError):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                problems.append(_not_a_file(path, mode))
    if problems:
        raise ConfigError(tuple(problems))


def not_a_folder(folder: Path, path: Path) -> ConfigError:
    """The error if `path`, the folder or one that it is in, is something else."""
    what = str(folder) if path == folder else f"{folder}: {path}"
    return ConfigError((f"state_dir: {what} is not a folder; name a folder, or a path where one can be created",))


def _not_a_file(path: Path, mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return f"state_dir: {path} is {kind}, not a file, and is not followed; remove it: sudo rm -r {path}"


def read_file(path: Path) -> bytes:
    """Read a file; raises ConfigError if it is something else."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | AS_A_FILE)
    with os.fdopen(file, "rb") as opened:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):  # since the check
            raise ConfigError((_not_a_file(path, mode),))
        return opened.read()


def write_new(path: Path, content: bytes, *, is_synced: bool) -> None:
    """Write a file that another one is then replaced by; raises OSError."""
    path.unlink(missing_ok=True)  # of a run that was killed; a link is removed, not followed
    new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | AS_A_FILE, 0o644)
    with os.fdopen(new, "wb") as file:
        file.write(content)
        file.flush()
        if is_synced:
            os.fsync(new)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to disk; raises OSError."""
    opened = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
