"""The state file: it keeps the counters between runs, and is written before they are pushed.

If a counter falls to a smaller value other than zero, Prometheus takes that for a restart and adds the whole new value,
energy that never flowed. So a counter either continues from at least the value that was pushed, or starts from zero:

- Within one boot the file is up to date, however the process ended: the counters continue.
- After a reboot they continue only if the last run ended well and synced its file to disk. After a power cut the disk
  may hold an older file, in which the run is marked as not ended: the counters start from zero. So they do on a file
  system that forgets (see `filesystems`), where the same file may come back at every boot.
- Counters that were carried over a reboot are unconfirmed until the gateway has been asked: a restored image or
  snapshot brings back a file that ended well, long ago. See `run.carried`.
- If the file cannot be written, the old one stays and the counters are not published until it can: most such failures
  pass. One that lasts would keep them from being published for good: then the old file is removed, which makes room for
  the new one on a full disk, and they are published without a file. If there is no older file that could come back, as
  on a disk that was read-only from the start, they are published at once.

The file is replaced, not written in place. Two slots of a fixed size, written in turn, would need no room on a full
ext4, but as much as this on a file system that copies on write. And both slots would have to be marked and synced at
every start: otherwise a torn newer one gives way to an older one that ended well.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import access
from agent.energy import state_content
from agent.energy.filesystems import forgetful_filesystem
from agent.energy.state import State
from agent.energy.state_content import Content
from agent.energy.state_folder import (
    closed_folder_error,
    foreign_folder_error,
    read_file,
    refuse_passing,
    refuse_unusable,
    sync_folder,
    write_new,
)
from agent.energy.state_lock import StateLock
from agent.errors import PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Callable

_FAILURES_TO_LAST = 4
"""After this many failures in a row, a minute of pushes by default, a disk is not expected to recover by itself."""

log = logging.getLogger(__name__)


def file_name(*, is_simulated: bool) -> str:
    """The name of the state file: simulated energy has its own, because it must not be added to measured energy."""
    return "simulated" if is_simulated else "counters"


def boot_id() -> str:
    """Return an ID that changes with every boot; empty if the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class StateFile:
    """`NAME.json` in the state folder, and its lock.

    Args:
        folder: the state folder.
        name: of the file.
        boot: identifies the present boot.
        forgetful_filesystem: the type of the folder's file system if it forgets, else None.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        boot: str,
        forgetful_filesystem: Callable[[Path], str | None] = forgetful_filesystem,
    ) -> None:
        self.path = folder / f"{name}.json"
        self._name = name
        self._new_path = folder / f"{name}.new"
        self._lock = StateLock(folder, name)
        self._boot = boot
        self._forgetful_filesystem = forgetful_filesystem
        self._failures = 0
        self._is_unclean_on_disk = False
        self._may_come_back = False  # a file that was written and then removed, if the folder could not be synced

    def lock(self) -> None:
        """See `StateLock.lock`."""
        self._lock.lock()

    def unlock(self) -> None:
        """See `StateLock.unlock`."""
        self._lock.unlock()

    @property
    def is_locked(self) -> bool:
        """Whether a lock() has not been undone yet."""
        return self._lock.is_locked

    @property
    def is_failing(self) -> bool:
        """Whether the last save has failed."""
        return self._failures > 0

    def load(self, *, is_read_only: bool = False) -> State:
        """Read the state of the last run; return an empty State if the counters must start from zero.

        A damaged file is renamed, unless `is_read_only`.

        Raises:
            PermissionDeniedError: this user may not read the file.
            ConfigError: something in the folder is not a file.
            BusyError: no file descriptor is left to read it.
        """
        refuse_unusable(self.path.parent, self._name)
        try:
            file = state_content.read(read_file(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return State()
        except PermissionError as error:
            folder = self.path.parent
            if not os.access(folder, os.X_OK, effective_ids=True):
                raise closed_folder_error(folder) from error
            raise foreign_folder_error(folder) or PermissionDeniedError(
                f"{self.path}: permission denied; sudo chown {access.this_user()} {self.path}"
            ) from error
        except (OSError, ValueError) as error:
            if isinstance(error, OSError):
                refuse_passing(error, self.path)
            if not is_read_only:
                self._set_aside(error)
            return State()
        if file.boot == self._boot != "":
            return file.state
        if not file.ended_well:
            log.warning("%s: the machine went down before the last run ended; counters start from zero", self.path)
            return State(adapters=file.state.adapters)
        if (filesystem := self._forgetful_filesystem(self.path.parent)) is not None:
            log.warning(
                "%s: counters start from zero after a reboot, because %s may hold an old file again; "
                "set state_dir to a folder on a real disk",
                self.path,
                filesystem,
            )
            return State(adapters=file.state.adapters)
        # The monotonic clock restarted with the boot: the times of the last readings are meaningless now.
        devices = {name: saved._replace(last=None) for name, saved in file.state.devices.items()}
        return replace(file.state, devices=devices, is_unconfirmed=bool(devices))

    def save(self, state: State, *, ended_well: bool) -> bool:
        """Write the state; return whether its counters may be published.

        Args:
            state: what to write.
            ended_well: nothing will be pushed after this that the file does not hold. Such a file is synced to disk,
                and so is the first one after it without `ended_well`. The files that a running loop writes in between
                are not synced, to spare the memory card.
        """
        try:
            self._write(state, ended_well=ended_well)
        except OSError as error:
            return self._save_after(error, state, ended_well=ended_well)
        if self._failures:
            log.info("%s: can be written again", self.path)
            self._failures = 0
        return True

    def _save_after(self, error: OSError, state: State, *, ended_well: bool) -> bool:
        """Handle a failed write; return whether the counters may be published all the same."""
        with suppress(OSError):
            self._new_path.unlink(missing_ok=True)
        if self._is_absent():
            self.log_failure(str(error.strerror), "counters start from zero at the next start")
            return True
        self.log_failure(str(error.strerror))
        if self._failures < _FAILURES_TO_LAST or not self._remove():
            return False
        try:
            self._write(state, ended_well=ended_well)
        except OSError:
            log.warning(
                "%s: removed, to publish counters without it; they start from zero at the next start", self.path
            )
        return True

    def _is_absent(self) -> bool:
        """Whether there is no file, so that none can be too old at the next start."""
        try:
            self.path.lstat()
        except FileNotFoundError:
            return not self._may_come_back
        except OSError:
            return False
        return False

    def _write(self, state: State, *, ended_well: bool) -> None:
        text = state_content.written(Content(self._boot, ended_well, state))
        must_reach_disk = ended_well or not self._is_unclean_on_disk
        write_new(self._new_path, text.encode(), is_synced=must_reach_disk)
        self._may_come_back = True
        self._new_path.replace(self.path)
        if must_reach_disk:
            sync_folder(self.path.parent)
        self._is_unclean_on_disk = not ended_well

    def _remove(self) -> bool:
        """Remove the file so that it stays removed after a power cut; return whether that succeeded."""
        try:
            self._new_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            sync_folder(self.path.parent)
        except OSError:
            return False
        self._may_come_back = False
        return True

    def log_failure(self, why: str, outcome: str = "counters are not published until it can be written again") -> None:
        """Count a failed save; the first in a row is logged."""
        self._failures += 1
        if self._failures == 1:
            log.error("%s: cannot be written (%s); %s", self.path, why, outcome)

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
        except OSError:
            aside = self.path
        log.warning("%s: cannot be used (%s), kept as %s; counters start from zero", self.path, error, aside)
