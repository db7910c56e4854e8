"""Files that are in place whole, or not at all, for the service to read and nobody else."""

from __future__ import annotations

import errno
import grp
import os
import signal
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import ConfigError, PermissionDeniedError
from agent.init import write_file
from agent.init.write_file import NewFile, refuse_unwritable, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
SERVICE_GID = 4321
NOBODY = 65534


def new(folder: Path) -> list[NewFile]:
    return [NewFile(folder / "password", b"secret\n"), NewFile(folder / "config.toml", b"new\n")]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where the service is installed."""
    real = grp.getgrnam

    def getgrnam(name: str) -> grp.struct_group:
        if name == "wattpush":
            return grp.struct_group(("wattpush", "x", SERVICE_GID, []))
        return real(name)

    monkeypatch.setattr(grp, "getgrnam", getgrnam)


@pytest.fixture
def as_nobody(tmp_path: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@AS_ROOT
@pytest.mark.usefixtures("service")
def test_only_root_and_the_service_can_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.fsync

    def fsync(number: int) -> None:
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode):
            seen.append((status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    folder = tmp_path / "etc" / "wattpush"
    assert write_files(new(folder)) == []
    expected = (0, SERVICE_GID, 0o640)
    for file in new(folder):
        status = file.path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == expected
        assert file.path.read_bytes() == file.content
    assert seen == [expected] * 2, "before they were in place"
    assert (folder.stat().st_gid, stat.S_IMODE(folder.stat().st_mode)) == (SERVICE_GID, 0o750)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_without_a_service_only_the_user_can_read_them(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_files(new(tmp_path))
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.path.stat().st_mode) for file in new(tmp_path)} == {0o600}


def test_old_files_are_kept_and_links_followed(tmp_path: Path) -> None:
    real, folder = tmp_path / "real.toml", tmp_path / "etc"
    folder.mkdir()
    real.write_text("old")
    (folder / "config.toml").symlink_to(real)
    assert write_files([NewFile(folder / "config.toml", b"new")]) == [(real, tmp_path / "real.toml.bak")]
    assert (folder / "config.toml").is_symlink()
    assert (real.read_text(), (tmp_path / "real.toml.bak").read_text()) == ("new", "old")


@pytest.mark.parametrize("position", range(2))
@pytest.mark.parametrize("call", ["fsync", "replace", "link"])
def test_an_error_anywhere_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, position: int
) -> None:
    for file in new(tmp_path):
        file.path.write_text("old")
    calls = 0

    def failing(real: Any) -> Any:
        def fail(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == position + 1:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments)

        return fail

    owner: Any = Path if call == "replace" else os
    monkeypatch.setattr(owner, call, failing(getattr(owner, call)))
    with pytest.raises(ConfigError, match="No space left on device"):
        write_files(new(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.toml": "old", "password": "old"}


def test_folders_of_a_failed_write_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError):
        write_files(new(tmp_path / "a" / "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_signal_waits_until_all_files_are_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = write_file._stage

    def interrupted(path: Path, content: bytes) -> Path:
        os.kill(os.getpid(), signal.SIGINT)
        return real(path, content)

    monkeypatch.setattr(write_file, "_stage", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_files(new(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.toml", "password"]


@pytest.mark.usefixtures("as_nobody")
@pytest.mark.parametrize("path", ["/etc/wattpush/config.toml", "/etc/shells/config.toml", "/root/a/config.toml"])
def test_no_permission_is_said_before_any_question(path: str) -> None:
    with pytest.raises(PermissionDeniedError, match=r"sudo wattpush init.*--config \./config\.toml"):
        refuse_unwritable(Path(path))


def test_a_folder_or_a_device_is_not_written_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        refuse_unwritable(tmp_path)
    with pytest.raises(ConfigError, match="not a regular file"):
        refuse_unwritable(Path("/dev/null"))
    refuse_unwritable(tmp_path / "new" / "folder" / "config.toml")
