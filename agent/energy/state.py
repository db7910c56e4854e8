"""The counters between runs: a file that is written before what it holds is pushed.

Prometheus takes a counter that falls back to a smaller value, other than zero, for a restart and adds that whole value
as energy that never flowed. So a counter either carries on from at least what was pushed, or starts from zero. Hence:

- Within one boot the file is up to date, whatever happened to the process: it carries on.
- After a reboot it carries on only if the last run ended well and saw its file reach the disk. After a power cut the
  disk may show an older file, which then says that its run never ended: the counters start from zero.
- A file that cannot be written any more is removed, since it would be too old at the next start (and on a full disk
  makes room for the new one). If even that fails, `save` says so, and the counters are not published until it succeeds.
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

# Names of files: simulated energy is never added to measured energy.
COUNTERS = "counters"
SIMULATED_COUNTERS = "simulated"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeCounters:
    """What the agent counts of itself."""

    pushes: int = 0
    push_failures: int = 0
    missed_samples: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Everything that one run hands over to the next."""

    devices: Mapping[str, Saved] = field(default_factory=dict)
    node: NodeCounters = NodeCounters()

    def measured_at(self, sources: Mapping[str, str]) -> State:
        """The same for a configuration that measures each of these devices at its source."""
        known = {name: self.devices.get(name, Saved()).measured_at(source) for name, source in sources.items()}
        return replace(self, devices={**self.devices, **known})

    def devices_read_in_this_boot(self) -> frozenset[str]:
        """Those whose last reading the next one can carry on from."""
        return frozenset(name for name, saved in self.devices.items() if saved.last is not None)


def boot_id() -> str:
    """A value that changes with every boot; empty where the kernel offers none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _folder_of_another(folder: Path) -> PermissionDeniedError | None:
    """What to say in a folder of another user's, such as the service's; None where it is ours, root's or not there.

    What root left there the owner could not write: the service would not start any more. Whoever else takes it over, or
    has one of his own instead, makes a second set of counters.
    """
    try:
        owner = folder.stat().st_uid
    except OSError:
        return None
    if owner in (0, os.geteuid()):
        return None
    name = _name_of(owner)
    return PermissionDeniedError(
        f"{folder}: belongs to {name}, not to {_name_of(os.geteuid())}; run it as that user: sudo -u {name} wattpush"
    )


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


class StateFile:
    """`NAME.json` in the state folder, and the lock `NAME.lock` of the one process that may write it."""

    def __init__(self, folder: Path, name: str, boot: str) -> None:
        self.path = folder / f"{name}.json"
        self._new_path = folder / f"{name}.new"
        self._lock_path = folder / f"{name}.lock"
        self._boot = boot
        self._lock_file: int | None = None
        self._holders = 0
        self._failing = False
        self._disk_says_running = False

    def lock(self) -> None:
        """Become the one process that writes the state; may be called again, and is undone by as many `unlock`.

        A folder on a read-only or full disk cannot be locked: then the run goes on without, and says so.

        Raises:
            BusyError: another process has it.
            PermissionDeniedError: the folder may not be written, or, for root, belongs to another user.
        """
        if self._holders == 0:
            self._lock_file = self._take_lock()
        self._holders += 1

    def _take_lock(self) -> int | None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            not_ours = _folder_of_another(folder)
            if os.geteuid() == 0 and not_ours is not None:
                raise not_ours
            file = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (FileExistsError, NotADirectoryError) as error:
            raise ConfigError(
                (f"state_dir: {folder} is no folder; name one, or a place where one can be made",)
            ) from error
        except PermissionDeniedError:
            raise
        except PermissionError as error:
            raise _folder_of_another(folder) or PermissionDeniedError(
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
                "or give this one a hostname and a state_dir of its own"
            ) from error
        return file

    def unlock(self) -> None:
        """Let another process have the state, unless it was locked more than once."""
        self._holders -= 1
        if self._holders == 0 and self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def load(self, *, is_read_only: bool = False) -> State:
        """Read what the last run left; an empty State where there is nothing that may be carried on.

        A damaged file is set aside, unless nothing may be changed.

        Raises:
            PermissionDeniedError: the file may not be read.
        """
        try:
            file = _read(self.path.read_bytes())
        except FileNotFoundError:
            return State()
        except PermissionError as error:
            raise _folder_of_another(self.path.parent) or PermissionDeniedError(
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
            return State()
        # The monotonic clock began anew with the boot: when the last reading was taken means nothing any more.
        devices = {name: replace(saved, last=None) for name, saved in file.state.devices.items()}
        return replace(file.state, devices=devices)

    def save(self, state: State, *, ended_well: bool) -> bool:
        """Write the state; return whether what it holds may be published.

        With `ended_well` nothing will be pushed later that it does not hold. That, and the first word to the contrary,
        is made to reach the disk; what a running loop writes in between need not, and spares the memory card.
        """
        try:
            self._write(state, ended_well=ended_well)
        except OSError as error:
            if not self._remove():
                self._say_failing(error, "counters are not published until it can be written again")
                return False
            try:
                self._write(state, ended_well=ended_well)
            except OSError as error_again:
                self._remove()
                self._say_failing(error_again, "counters start from zero at the next start")
                return True
        if self._failing:
            log.info("%s: can be written again", self.path)
            self._failing = False
        return True

    def _write(self, state: State, *, ended_well: bool) -> None:
        content = {
            "boot": self._boot,
            "ended_well": ended_well,
            "devices": {name: _fields(saved) for name, saved in state.devices.items()},
            "node": asdict(state.node),
        }
        text = json.dumps(content)
        must_reach_disk = ended_well or not self._disk_says_running
        checksum = zlib.crc32(text.encode())
        with self._new_path.open("w", encoding="utf-8") as file:
            file.write(f'{{"format": {_FORMAT}, "checksum": {checksum}, "content": {text}}}')
            file.flush()
            if must_reach_disk:
                os.fsync(file.fileno())
        self._new_path.replace(self.path)
        if must_reach_disk:
            self._sync_folder()
        self._disk_says_running = not ended_well

    def _remove(self) -> bool:
        """Remove the file for good, power cuts included; return whether that is certain."""
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

    def _say_failing(self, error: OSError, outcome: str) -> None:
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
    """The content of a state file. Raises ValueError if it is not what `_write` wrote."""
    try:
        document = json.loads(data)
        if document["format"] != _FORMAT:
            raise ValueError(f"format {document['format']!r:.20} is not {_FORMAT}")
        content = document["content"]
        if zlib.crc32(json.dumps(content).encode()) != document["checksum"]:
            raise ValueError("its checksum does not fit")
        devices = {name: _saved(**device) for name, device in content["devices"].items()}
        return _Content(content["boot"], content["ended_well"], State(devices, NodeCounters(**content["node"])))
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"not a state file: {type(error).__name__}") from error


def _fields(saved: Saved) -> dict[str, Any]:
    """As `_saved` reads it."""
    last = saved.last
    return {
        "counters": asdict(saved.counters),
        "last": None if last is None else asdict(last),
        "last_read_unix_seconds": saved.last_read_unix_seconds,
        "source": saved.source,
    }


def _saved(
    counters: dict[str, Any],
    last: dict[str, Any] | None,
    last_read_unix_seconds: float | None,
    source: str | None = None,
) -> Saved:
    return Saved(Counters(**counters), None if last is None else LastReading(**last), last_read_unix_seconds, source)
