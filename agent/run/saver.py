"""The thread that writes the state file, so that a disk that stalls never delays a reading or a stop.

Only one write is under way at a time. Of the states that are waiting, only the newest is written: it holds everything
that the older ones do.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.threads import NoThreadError, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.energy.state import State
    from agent.energy.state_file import StateFile


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
        self._changed = threading.Condition()  # never held during a write
        self._has_thread = False
        self._is_busy = False
        self._unlocks_due = 0
        self._waiting: _Request | None = None
        self._crash: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a save is under way or waiting."""
        return self._is_busy

    def save(self, state: State, *, ended_well: bool) -> Save:
        """Request a save; see `StateFile.save`.

        Without a thread it fails, and the next one tries again. An exception that is a bug is raised by the next call.
        """
        if self._crash is not None:
            raise self._crash
        save = Save()
        with self._changed:
            earlier = [] if self._waiting is None else self._waiting.saves
            self._waiting = _Request(state, [*earlier, save], ended_well=ended_well)
            self._is_busy = True
        try:
            self._begin()
        except NoThreadError as error:
            self.file.log_failure(str(error))
            request = self._take()
            self._end(request, may_publish=False)
        return save

    def lock(self) -> None:
        """Lock the file once more; see `StateFile.lock`."""
        with self._changed:
            self.file.lock()

    def unlock(self) -> None:
        """Undo one `lock`, once nothing is being written: otherwise another process could read an older state."""
        with self._changed:
            self._unlocks_due += 1
            if not self._is_busy:
                self._unlock()

    def _unlock(self) -> None:
        while self._unlocks_due:
            self._unlocks_due -= 1
            self.file.unlock()
        self._changed.notify()  # without a lock, the thread ends

    def _begin(self) -> None:
        """Let the thread write. It is started once and kept, because later the system may have none left."""
        with self._changed:
            if not self._has_thread:
                start_thread("save", self._run)
                self._has_thread = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    if not self.file.is_locked:
                        self._has_thread = False
                        return
                    self._changed.wait()
            self._write()

    def _write(self) -> None:
        """Write until nothing is waiting."""
        while (request := self._take()) is not None:
            may_publish = False
            try:
                may_publish = self.file.save(request.state, ended_well=request.ended_well)
            except BaseException as error:  # noqa: BLE001 - the main thread raises it again
                self._crash = error
            self._end(request, may_publish=may_publish)

    def _take(self) -> _Request | None:
        with self._changed:
            request, self._waiting = self._waiting, None
            return request

    def _end(self, request: _Request | None, *, may_publish: bool) -> None:
        for save in () if request is None else request.saves:
            save.end(may_publish=may_publish)
        with self._changed:
            if self._waiting is None:
                self._is_busy = False
                self._unlock()
        self._wake()
