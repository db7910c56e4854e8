"""The thread that writes the state file, so that a disk that stalls never delays a reading or a stop.

Only one write is under way at a time. Of the states that are waiting, only the newest is written: it holds everything
that the older ones do.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.energy.state import State, StateFile


class Save:
    """A save that was requested; `wait` for it to end."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._may_publish = False

    @classmethod
    def not_needed(cls) -> Save:
        """A save of a run that keeps no state: it has ended, and the counters may be published."""
        save = cls()
        save.end(may_publish=True)
        return save

    @property
    def has_ended(self) -> bool:
        """Whether the write has ended, well or not."""
        return self._ended.is_set()

    @property
    def may_publish(self) -> bool:
        """Whether the counters may be published: not before the save has ended, and not if it failed."""
        return self._may_publish

    def wait(self, seconds: float) -> bool:
        """Wait for the end, in any thread but the sampling one; return whether it came in time."""
        return self._ended.wait(max(0.0, seconds))

    def end(self, *, may_publish: bool) -> None:
        """Mark it as ended."""
        self._may_publish = may_publish
        self._ended.set()


class _Request:
    """The newest state that waits to be written, and every save that it serves."""

    def __init__(self, state: State, saves: list[Save], *, ended_well: bool) -> None:
        self.state = state
        self.saves = saves
        self.ended_well = ended_well


class Saver:
    """Writes to one state file, for every agent of this process that uses it.

    Args:
        file: to write to; for this object alone.
        wake: ends the main thread's wait when a save has ended.
    """

    def __init__(self, file: StateFile, wake: Callable[[], None]) -> None:
        self.file = file
        self._wake = wake
        self._lock = threading.Lock()  # never held during a call of the disk
        self._is_writing = False
        self._unlocks_due = 0
        self._waiting: _Request | None = None
        self._crash: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way or waiting."""
        return self._is_writing

    def save(self, state: State, *, ended_well: bool) -> Save:
        """Request a save; see `StateFile.save`.

        A thread that cannot be started is a failed save. An exception that is a bug is raised by the next call.
        """
        if self._crash is not None:
            raise self._crash
        save = Save()
        with self._lock:
            earlier = [] if self._waiting is None else self._waiting.saves
            self._waiting = _Request(state, [*earlier, save], ended_well=ended_well)
            if self._is_writing:
                return save
            self._is_writing = True
        try:
            self._start()
        except RuntimeError as error:  # the system has no thread left
            self.file.log_failure(f"{error}: raise TasksMax= or ulimit -u")
            failed = self._take()
            for each in [] if failed is None else failed.saves:
                each.end(may_publish=False)
            self._take()  # nothing: the writing has ended
        return save

    def lock(self) -> None:
        """Lock the file once more; see `StateFile.lock`."""
        with self._lock:
            self.file.lock()

    def unlock(self) -> None:
        """Undo one `lock`, once nothing is being written: otherwise another process could read an older state."""
        with self._lock:
            if self._is_writing:
                self._unlocks_due += 1
            else:
                self.file.unlock()

    def _start(self) -> None:
        # One thread while there is something to write: it costs 50 us, and one that hangs can simply be abandoned.
        threading.Thread(target=self._run, name="save", daemon=True).start()

    def _take(self) -> _Request | None:
        """Take the newest state to write it; if there is none, the writing has ended."""
        with self._lock:
            request, self._waiting = self._waiting, None
            if request is None:
                self._is_writing = False
                while self._unlocks_due:
                    self._unlocks_due -= 1
                    self.file.unlock()
            return request

    def _run(self) -> None:
        while (request := self._take()) is not None:
            may_publish = False
            try:
                may_publish = self.file.save(request.state, ended_well=request.ended_well)
            except BaseException as error:  # noqa: BLE001 - the main thread raises it again
                self._crash = error
            for save in request.saves:
                save.end(may_publish=may_publish)
            self._wake()
        self._wake()
