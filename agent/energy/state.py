"""The state file: it keeps the counters between runs, and is written before they are pushed.

If a counter falls to a smaller value other than zero, Prometheus takes that for a restart and adds the whole new value,
energy that never flowed. So a counter either continues from at least the value that was pushed, or starts from zero:

- Within one boot the file is up to date, however the process ended: the counters continue.
- After a reboot they continue only if the last run ended well and synced its file to disk. After a power cut the disk
  may hold an older file, in which the run is marked as not ended: the counters start from zero.
- A file that cannot be written is removed, because it would be too old at the next start. On a full disk, that makes
  room for the new one. If it cannot be removed either, `save` returns False and the counters are not published.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import pwd
import zlib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.energy.counters import Counters, LastReading, Saved
from agent.errors import BusyError, ConfigError, PermissionDeniedError

if TYPE_CHECKING:
    from collections.abc import Mapping

_FORMAT = 1

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
        adapters: the `Bus.adapter` of each bus, by its number as text.
    """

    devices: Mapping[str, Saved] = field(default_factory=dict)
    agent: AgentCounters = AgentCounters()
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


class StateFile:
    """`NAME.json` in the state folder, and the lock `NAME.lock` that keeps other processes from writing it."""

    def __init__(self, folder: Path, name: str, boot: str) -> None:
        self.path = folder / f"{name}.json"
        self._new_path = folder / f"{name}.new"
        self._lock_path = folder / f"{name}.lock"
        self._boot = boot
        self._lock_file: int | None = None
        self._holders = 0
        self._failing = False
        self._is_unclean_on_disk = False

    def lock(self) -> None:
        """Keep other processes from writing the state.

        Re-entrant; pair every lock() with an unlock().

        A folder on a read-only or full disk cannot be locked: the run continues without a lock and logs a warning.

        Raises:
            BusyError: another process holds the lock.
            PermissionDeniedError: this user may not write to the folder; for root also: it belongs to another user.
            ConfigError: the path is not a folder.
        """
        if self._holders == 0:
            self._lock_file = self._take_lock()
        self._holders += 1

    def _take_lock(self) -> int | None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            foreign = _foreign_folder_error(folder)
            if os.geteuid() == 0 and foreign is not None:
                raise foreign
            file = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                (f"state_dir: {folder} is not a folder; name a folder, or a path where one can be created",)
            ) from error
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
            os.close(file)
            raise BusyError(
                f"{folder}: in use by another wattpush; stop it first (systemctl stop wattpush), "
                "or give this one its own hostname and state_dir"
            ) from error
        return file

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
        """
        try:
            file = _read(self.path.read_bytes())
        except FileNotFoundError:
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
        # The monotonic clock restarted with the boot: the times of the last readings are meaningless now.
        devices = {name: saved._replace(last=None) for name, saved in file.state.devices.items()}
        return replace(file.state, devices=devices)

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
            if not self._remove():
                self._log_failure(error, "counters are not published until it can be written again")
                return False
            try:
                self._write(state, ended_well=ended_well)
            except OSError as error_again:
                self._remove()
                self._log_failure(error_again, "counters start from zero at the next start")
                return True
        if self._failing:
            log.info("%s: can be written again", self.path)
            self._failing = False
        return True

    def _write(self, state: State, *, ended_well: bool) -> None:
        content: dict[str, Any] = {
            "boot": self._boot,
            "ended_well": ended_well,
            "devices": {name: _fields_of(saved) for name, saved in state.devices.items()},
            "node": asdict(state.agent),
        }
        if state.adapters:
            content["adapters"] = dict(state.adapters)
        text = json.dumps(content)
        must_reach_disk = ended_well or not self._is_unclean_on_disk
        checksum = zlib.crc32(text.encode())
        with self._new_path.open("w", encoding="utf-8") as file:
            file.write(f'{{"format": {_FORMAT}, "checksum": {checksum}, "content": {text}}}')
            file.flush()
            if must_reach_disk:
                os.fsync(file.fileno())
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
        return True

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _log_failure(self, error: OSError, outcome: str) -> None:
        if not self._failing:
            log.error("%s: cannot be written (%s); %s", self.path, error.strerror, outcome)
            self._failing = True

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_suffix(".damaged")
        try:
            self.path.replace(aside)
        except OSError:
            aside = self.path
        log.warning("%s: cannot be used (%s), kept as %s; counters start from zero", self.path, error, aside)


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
        state = State(devices, AgentCounters(**content["node"]), adapters=adapters)
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
