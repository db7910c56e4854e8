"""The lock of a state file, which keeps other processes from writing it."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING

from agent.energy.state_folder import (
    AS_A_FILE,
    closed_folder_error,
    foreign_folder_error,
    not_a_folder,
    refuse_passing,
    refuse_unusable,
)
from agent.errors import BusyError, PermissionDeniedError
from agent.locks import holder

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)


class StateLock:
    """The lock `NAME.lock` in the state folder, which it creates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file: int | None = None
        self._holders = 0

    def lock(self) -> None:
        """Keep other processes from writing the state.

        Re-entrant; pair every lock() with an unlock().

        A folder on a read-only or full disk cannot be locked: the run continues without a lock and logs a warning.

        Raises:
            BusyError: another process holds the lock, or no file descriptor is left.
            PermissionDeniedError: this user may not write to the folder; for root also: it belongs to another user.
            ConfigError: the path is not a folder, or something in it is not a file.
        """
        if self._holders == 0:
            self._file = self._take_lock()
        self._holders += 1

    def _take_lock(self) -> int | None:
        folder = self._folder
        refuse_unusable(folder, self._name)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            foreign = foreign_folder_error(folder)
            if os.geteuid() == 0 and foreign is not None:
                raise foreign
            file = os.open(folder / f"{self._name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | AS_A_FILE, 0o644)
        except (FileExistsError, NotADirectoryError) as error:
            raise not_a_folder(folder, folder) from error
        except PermissionDeniedError:
            raise
        except PermissionError as error:
            raise closed_folder_error(folder) from error
        except OSError as error:
            refuse_passing(error, folder)
            log.warning("%s: cannot be locked (%s); two agents at once would not be noticed", folder, error.strerror)
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            name = holder(file)
            os.close(file)
            raise BusyError(
                f"{folder}: in use by another wattpush{'' if name is None else f' ({name})'}; stop it first "
                "(systemctl stop wattpush), or give this one its own hostname and state_dir"
            ) from error
        return file

    @property
    def is_locked(self) -> bool:
        """Whether a lock() has not been undone yet."""
        return self._holders > 0

    def unlock(self) -> None:
        """Undo one lock(); the last one lets other processes write the state."""
        self._holders -= 1
        if self._holders == 0 and self._file is not None:
            os.close(self._file)
            self._file = None
