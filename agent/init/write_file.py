"""Puts new files in place: each whole or not at all, readable for the service, and the old one kept.

A file is written under another name in the same folder, readable for its owner alone until it has its mode, and then
renamed. With the signals held, an interrupted program leaves either all files or none.
"""

from __future__ import annotations

import grp
import os
import signal
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from agent.energy.state_folder import sync_folder
from agent.errors import ConfigError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SERVICE_GROUP = "wattpush"
"""The group of the service's user, as in deploy/install.sh."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to write; the content may be a secret."""

    path: Path
    content: bytes = field(repr=False)


def refuse_unwritable(path: Path) -> None:
    """Refuse a path where `write_files` would fail, before a person has answered questions.

    Raises:
        ConfigError: it is a folder, or another thing that is no file.
        PermissionDeniedError: this user may not write there.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.is_dir():
            raise ConfigError((f"{path} is a folder; name the file in it, such as {path / 'config.toml'}",))
        if target.exists() and not target.is_file():
            raise ConfigError((f"{path} is not a regular file; name one",))
        folder = next(parent for parent in target.parents if parent.exists())
    except PermissionError as error:  # this user may not even look there
        raise _permission_denied(path, target.parent) from error
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise _permission_denied(path, folder)


def _permission_denied(path: Path, folder: Path) -> PermissionDeniedError:
    if os.geteuid() == 0:
        return PermissionDeniedError(f"{path}: cannot be written; is the filesystem of {folder} read-only?")
    return PermissionDeniedError(
        f"{path}: no permission to write to {folder}; run `sudo wattpush init`, or write a file of your own: "
        "wattpush init --config ./config.toml"
    )


def backup_of(path: Path) -> Path:
    """The name under which the present file is kept; an older backup stays."""
    names = (f"{path.name}.bak{number or ''}" for number in count())
    return next(backup for name in names if not os.path.lexists(backup := path.with_name(name)))


def write_files(files: Sequence[NewFile]) -> list[tuple[Path, Path]]:
    """Write all files, or none; return each old file's path and that of its backup. Call it with the signals held.

    Raises:
        ConfigError: one cannot be written, such as on a full disk; nothing has changed then.
        PermissionDeniedError: this user may not write there.
    """
    staged: list[tuple[Path, Path]] = []
    made: list[Path] = []
    path = Path()
    try:
        for file in files:
            path = Path(os.path.realpath(file.path))
            _make_folders(path.parent, made)
            staged.append((_stage(path, file.content), path))
        return _put_in_place(staged)
    except PermissionError as error:
        raise _permission_denied(path, path.parent) from error
    except OSError as error:
        raise ConfigError((f"{path}: cannot be written: {error.strerror or error}",)) from error
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)  # those that are in place are gone under this name
        for folder in reversed(made):
            with suppress(OSError):  # it is not empty: the files are in place
                folder.rmdir()


@contextmanager
def signals_held() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and a closed terminal wait until the end of the block.

    A mask would not do: the system then gives the signal to another thread, and Python handles it in this one.
    """
    held: list[int] = []
    before = {}
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            before[number] = signal.signal(number, lambda number, _: held.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if held:
            signal.raise_signal(held[0])


def _service_group() -> int | None:
    """The group that must be able to read the files; None if there is no service, or we cannot give files away."""
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(SERVICE_GROUP).gr_gid
    except KeyError:
        return None


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Create a folder and those above it that are missing, and add the new ones to the list."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700)
        made.append(path)
        group = _service_group()
        if group is not None:
            os.chown(path, 0, group)
        path.chmod(0o750)


def _stage(path: Path, content: bytes) -> Path:
    """Write the content under a name beside the path, for only us and the service to read."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for its owner alone
    try:
        with os.fdopen(number, "wb") as file:
            group = _service_group()
            if group is not None:
                os.fchown(number, 0, group)
            os.fchmod(number, 0o600 if group is None else 0o640)
            file.write(content)
            file.flush()
            os.fsync(number)
    except OSError:
        Path(name).unlink()
        raise
    return Path(name)


def _put_in_place(staged: Sequence[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Rename the new files into place; if one fails, put the old ones back."""
    kept: list[tuple[Path, Path]] = []
    placed: list[Path] = []
    try:
        for temporary, path in staged:
            if path.exists():
                kept.append((path, _keep(path)))
            temporary.replace(path)
            placed.append(path)
    except OSError:
        old = dict(kept)
        for path in placed:
            if path not in old:
                path.unlink()
        for path, backup in kept:
            if path in placed or not path.exists():
                backup.replace(path)
            else:
                backup.unlink()  # a second name of the file that is still there
        raise
    for folder in {path.parent for _, path in staged}:
        with suppress(OSError):  # a filesystem that cannot
            sync_folder(folder)
    return kept


def _keep(path: Path) -> Path:
    """Give the old file a second name: at every moment there is a file at the path."""
    backup = backup_of(path)
    try:
        os.link(path, backup)
    except OSError:  # a filesystem without links
        path.rename(backup)
    return backup
