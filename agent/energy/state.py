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

import fcntl
import json
import logging
import os
import pwd
import stat
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.energy.counters import Counters, LastReading, Saved
from agent.energy.filesystems import forgetful_filesystem
from agent.errors import BusyError, ConfigError, PermissionDeniedError
from agent.locks import holder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FORMAT = 1

_FAILURES_TO_LAST = 4
"""After this many failures in a row, a minute of pushes by default, a disk is not expected to recover by itself."""

# Names of state files. Simulated energy has a separate file: it must not be added to measured energy.
COUNTERS = "counters"
SIMULATED_COUNTERS = "simulated"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentCounters:
    """The agent's own counters."""

    pushes: int = 0
    push_failures: int = 0
    missed_samples: int = 0
    mux_conflicts: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Everything that one run hands to the next.

    Attributes:
        run_start_seconds: the start time of the run that counted this, which it also publishes; None in files of early
            versions.
        is_unconfirmed: the counters were carried over a reboot, and nothing has confirmed yet that no later run pushed.
        adapters: the `Bus.adapter` of each bus, by its number as text.
    """

    devices: Mapping[str, Saved] = field(default_factory=dict)
    agent: AgentCounters = AgentCounters()
    run_start_seconds: float | None = None
    is_unconfirmed: bool = False
    adapters: Mapping[str, str] = field(default_factory=dict)

    def with_sources(self, sources: Mapping[str, str]) -> State:
        """Return a copy for a configuration that measures each of these devices at its source; see `Saved`."""
        known = {name: self.devices.get(name, Saved()).with_source(source) for name, source in sources.items()}
        return replace(self, devices={**self.devices, **known})

    def devices_read_in_this_boot(self) -> frozenset[str]:
        """The devices whose last reading the next one can continue from."""
        return frozenset(name for name, saved in self.devices.items() if saved.last is not None)


def boot_id() -> str:
    """Return an ID that changes with every boot; empty if the kernel has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _foreign_folder_error(folder: Path) -> PermissionDeniedError | None:
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


def _user_name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


def refuse_unusable(folder: Path, name: str) -> None:
    """Raise ConfigError if the folder is something else, or holds something else in place of a state file.

    What is no regular file is never opened: a FIFO would hang, and a link would lead out of the folder.
    """
    with suppress(OSError):
        if not stat.S_ISDIR(folder.stat().st_mode):
            raise _not_a_folder(folder)
    problems = []
    for path in (folder / f"{name}.{kind}" for kind in ("json", "new", "lock")):
        with suppress(OSError):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                problems.append(_not_a_file(path, mode))
    if problems:
        raise ConfigError(tuple(problems))


def _not_a_folder(folder: Path) -> ConfigError:
    return ConfigError((f"state_dir: {folder} is not a folder; name a folder, or a path where one can be created",))


def _not_a_file(path: Path, mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
    }
    kind = kinds.get(stat.S_IFMT(mode), "a device")
    return f"state_dir: {path} is {kind}, not a file, and is not followed; remove it: sudo rm -r {path}"


class StateFile:
    """`NAME.json` in the state folder, and the lock `NAME.lock` that keeps other processes from writing it.

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
        self._lock_path = folder / f"{name}.lock"
        self._boot = boot
        self._forgetful_filesystem = forgetful_filesystem
        self._lock_file: int | None = None
        self._holders = 0
        self._failures = 0
        self._is_unclean_on_disk = False
        self._may_come_back = False  # a file that was written and then removed, if the folder could not be synced

    def lock(self) -> None:
        """Keep other processes from writing the state.

        Re-entrant; pair every lock() with an unlock().

        A folder on a read-only or full disk cannot be locked: the run continues without a lock and logs a warning.

        Raises:
            BusyError: another process holds the lock.
            PermissionDeniedError: this user may not write to the folder; for root also: it belongs to another user.
            ConfigError: the path is not a folder, or something in it is not a file.
        """
        if self._holders == 0:
            self._lock_file = self._take_lock()
        self._holders += 1

    def _take_lock(self) -> int | None:
        folder = self.path.parent
        refuse_unusable(folder, self._name)
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            foreign = _foreign_folder_error(folder)
            if os.geteuid() == 0 and foreign is not None:
                raise foreign
            file = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | _AS_A_FILE, 0o644)
        except (FileExistsError, NotADirectoryError) as error:
            raise _not_a_folder(folder) from error
        except PermissionDeniedError:
            raise
        except PermissionError as error:
            raise _foreign_folder_error(folder) or PermissionDeniedError(
                f"{folder}: permission denied; set state_dir to a folder that this user may write, or "
                f"sudo install -d -o $USER {folder}"
            ) from error
        except OSError as error:
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
        if self._holders == 0 and self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def load(self, *, is_read_only: bool = False) -> State:
        """Read the state of the last run; return an empty State if the counters must start from zero.

        A damaged file is renamed, unless `is_read_only`.

        Raises:
            PermissionDeniedError: this user may not read the file.
            ConfigError: something in the folder is not a file.
        """
        refuse_unusable(self.path.parent, self._name)
        try:
            file = _read(_bytes_of(self.path))
        except (FileNotFoundError, NotADirectoryError):
            return State()
        except PermissionError as error:
            raise _foreign_folder_error(self.path.parent) or PermissionDeniedError(
                f"{self.path}: permission denied; sudo chown $USER {self.path}"
            ) from error
        except (OSError, ValueError) as error:
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
        return replace(file.state, devices=devices, is_unconfirmed=True)

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
        content: dict[str, Any] = {
            "boot": self._boot,
            "ended_well": ended_well,
            "devices": {name: _fields_of(saved) for name, saved in state.devices.items()},
            "node": asdict(state.agent),
            "run": {"start_seconds": state.run_start_seconds, "is_unconfirmed": state.is_unconfirmed},
        }
        if state.adapters:
            content["adapters"] = dict(state.adapters)
        text = json.dumps(content)
        must_reach_disk = ended_well or not self._is_unclean_on_disk
        checksum = zlib.crc32(text.encode())
        self._new_path.unlink(missing_ok=True)  # of a run that was killed; a link is removed, not followed
        new = os.open(self._new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | _AS_A_FILE, 0o644)
        with os.fdopen(new, "w", encoding="utf-8") as file:
            file.write(f'{{"format": {_FORMAT}, "checksum": {checksum}, "content": {text}}}')
            file.flush()
            if must_reach_disk:
                os.fsync(new)
        self._may_come_back = True
        self._new_path.replace(self.path)
        if must_reach_disk:
            self._sync_folder()
        self._is_unclean_on_disk = not ended_well

    def _remove(self) -> bool:
        """Remove the file so that it stays removed after a power cut; return whether that succeeded."""
        try:
            self._new_path.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            self._sync_folder()
        except OSError:
            return False
        self._may_come_back = False
        return True

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

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


_AS_A_FILE = os.O_NOFOLLOW | os.O_NONBLOCK
"""Follow no link, and do not wait for the other end of a FIFO."""


def _bytes_of(path: Path) -> bytes:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | _AS_A_FILE)
    with os.fdopen(file, "rb") as opened:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):  # since the check
            raise ConfigError((_not_a_file(path, mode),))
        return opened.read()


@dataclass(frozen=True, slots=True)
class _Content:
    boot: str
    ended_well: bool
    state: State


def _read(data: bytes) -> _Content:
    """Read the content of a state file. Raises ValueError if `_write` did not write it."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r:.20} is not {_FORMAT}")
        content = document["content"]
        if zlib.crc32(json.dumps(content).encode()) != document["checksum"]:
            raise ValueError("its checksum does not fit")
        devices = {name: _saved_from(**device) for name, device in content["devices"].items()}
        adapters = dict(content.get("adapters", {}))  # not in files of earlier versions
        run = content.get("run", {})
        state = State(
            devices,
            AgentCounters(**content["node"]),
            run.get("start_seconds"),
            run.get("is_unconfirmed", False),
            adapters,
        )
        return _Content(content["boot"], content["ended_well"], state)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a state file: {type(error).__name__}") from error


# The fields of `LastReading` that have another name on disk.
_NAMES_ON_DISK = {
    "overcounted_joules": "excess_joules",
    "returned_overcounted_joules": "returned_excess_joules",
}
_NAMES_IN_MEMORY = {on_disk: name for name, on_disk in _NAMES_ON_DISK.items()}


def _fields_of(saved: Saved) -> dict[str, Any]:
    """A device's entry in the file."""
    return {
        "counters": saved.counters._asdict(),
        "last": None if saved.last is None else _renamed(saved.last._asdict(), _NAMES_ON_DISK),
        "last_read_unix_seconds": saved.last_read_unix_seconds,
        "source": saved.source,
    }


def _saved_from(
    counters: dict[str, Any],
    last: dict[str, Any] | None,
    last_read_unix_seconds: float | None,
    source: str | None = None,
) -> Saved:
    """The reverse of `_fields_of`. Files of early versions lack `source` and some fields of `last`."""
    return Saved(
        Counters(**counters),
        None if last is None else LastReading(**_renamed(last, _NAMES_IN_MEMORY)),
        last_read_unix_seconds,
        source,
    )


def _renamed(fields: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in fields.items()}
