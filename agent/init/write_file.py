"""Puts new files in place: each whole or not at all, readable for the service, and the old one kept.

A file is written under another name in the same folder, with its owner and mode from the first moment, and then
renamed. Signals wait meanwhile, so that an interrupted program leaves either all files or none.
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
    """Refuse a path where `write_files` would fail, before a person answers questions in vain.

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
    """Write all files, or none; return each old file's path and that of its backup.

    Raises:
        ConfigError: one cannot be written, such as on a full disk; nothing has changed then.
        PermissionDeniedError: this user may not write there.
    """
    with _signals_held():
        staged: list[tuple[Path, Path]] = []
        made: list[Path] = []
        try:
            for file in files:
                path = Path(os.path.realpath(file.path))
                made += _make_folders(path.parent)
                staged.append((_stage(path, file.content), path))
            return _put_in_place(staged)
        except OSError as error:
            path = files[len(staged) - 1 if len(staged) == len(files) else len(staged)].path
            if isinstance(error, PermissionError):
                raise _permission_denied(path, path.parent) from error
            raise ConfigError((f"{path}: cannot be written: {error.strerror or error}",)) from error
        finally:
            for temporary, _ in staged:
                temporary.unlink(missing_ok=True)  # those that are in place are gone under this name
            for folder in reversed(made):
                with suppress(OSError):  # it is not empty: the files are in place
                    folder.rmdir()


@contextmanager
def _signals_held() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _service_group() -> int | None:
    """The group that must be able to read the files; None if there is no service, or we cannot give files away."""
    if os.geteuid() != 0:
        return None
    try:
        return grp.getgrnam(SERVICE_GROUP).gr_gid
    except KeyError:
        return None


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder and those above it that are missing; return the new ones."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    made = []
    for path in reversed(missing):
        path.mkdir(mode=0o700)
        made.append(path)
        group = _service_group()
        if group is not None:
            os.chown(path, 0, group)
        path.chmod(0o750)
    return made


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
                backup = backup_of(path)
                os.link(path, backup)  # at every moment there is a file at the path
                kept.append((path, backup))
            temporary.replace(path)
            placed.append(path)
    except OSError:
        old = dict(kept)
        for path in placed:
            if path in old:
                old.pop(path).replace(path)
            else:
                path.unlink()
        for backup in old.values():
            backup.unlink()
        raise
    for folder in {path.parent for _, path in staged}:
        with suppress(OSError):  # a filesystem that cannot
            _sync(folder)
    return kept


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
