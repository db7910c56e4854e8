"""Disks with real faults: full, and read-only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from typing import TYPE_CHECKING

import pytest

from agent.energy.state_file import StateFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MS_RDONLY = 1
_MS_REMOUNT = 32
_libc = ctypes.CDLL(None, use_errno=True)


def state_on_disk(folder: Path, boot: str) -> StateFile:
    """A state file in a folder that counts as a real disk, even where the tests' own folder is in memory."""
    return StateFile(folder, "counters", boot, forgetful_filesystem=lambda _: None)


@contextlib.contextmanager
def full() -> Iterator[None]:
    """Let no file of this process grow: the kernel fails the write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk:
    """A folder that can become read-only: for root a mounted file system, for other users by its mode."""

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        self._options = f"size={size}".encode()
        self.is_mounted = os.geteuid() == 0

    def mount(self) -> None:
        if self.is_mounted and self._mount(0) != 0:
            pytest.skip(f"may not mount a file system: {os.strerror(ctypes.get_errno())}")

    def unmount(self) -> None:
        if self.is_mounted:
            _libc.umount2(os.fsencode(self.folder), 2)

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        self._set_read_only(is_read_only=True)
        try:
            yield
        finally:
            self._set_read_only(is_read_only=False)

    def _set_read_only(self, *, is_read_only: bool) -> None:
        if self.is_mounted:
            assert self._mount(_MS_REMOUNT | (_MS_RDONLY if is_read_only else 0)) == 0, ctypes.get_errno()
        else:
            self.folder.chmod(0o555 if is_read_only else 0o755)

    def _mount(self, flags: int) -> int:
        result: int = _libc.mount(
            b"tmpfs", os.fsencode(self.folder), b"tmpfs", ctypes.c_ulong(flags), ctypes.c_char_p(self._options)
        )
        return result


@contextlib.contextmanager
def disk(folder: Path, size: str = "1m") -> Iterator[Disk]:
    folder.mkdir(exist_ok=True)
    made = Disk(folder, size)
    made.mount()
    try:
        yield made
    finally:
        made.unmount()
