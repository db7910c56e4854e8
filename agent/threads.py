"""Threads for what may hang, on a system that may have none left (TasksMax= of the unit, ulimit -u)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from agent.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

_Result = TypeVar("_Result")


class NoThreadError(UnreachableError):
    """The system has no thread left; what needs one fails, and may work the next time."""


def start_thread(name: str, run: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start a thread that does not keep the process alive; raises NoThreadError if the system has none left."""
    thread = threading.Thread(target=run, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(f"{error}; raise TasksMax= or ulimit -u") from error
    return thread


class _Job(Generic[_Result]):
    def __init__(self, work: Callable[[], _Result]) -> None:
        self._work = work
        self._results: list[_Result] = []
        self.error: BaseException | None = None

    @property
    def has_ended(self) -> bool:
        return bool(self._results) or self.error is not None

    def run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:  # noqa: BLE001 - `result` raises it in the main thread
            self.error = error

    def result(self) -> _Result:
        if self.error is not None:
            raise self.error
        return self._results[0]


class Background(Generic[_Result]):
    """Does one job at a time in a thread of its own, so that one that hangs never blocks the main thread.

    A thread for each job costs 50 us, and one that hangs forever can simply be abandoned.

    Args:
        name: of the threads.
        wake: ends the main thread's wait when a job has ended.
    """

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._name = name
        self._wake = wake
        self._under_way: _Job[_Result] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether a job is under way, or has ended and its result has not been taken."""
        return self._under_way is not None

    @property
    def has_ended(self) -> bool:
        """Whether no job is running any more."""
        return self._under_way is None or self._under_way.has_ended

    def start(self, work: Callable[[], _Result]) -> None:
        """Start a job; only when none is under way. One for which the system has no thread left ends at once."""
        if self._under_way is not None:
            raise RuntimeError(f"a {self._name} is under way")
        job = self._under_way = _Job(work)
        try:
            self._begin(job)
        except NoThreadError as error:
            job.error = error

    def take_result(self) -> _Result | None:
        """Return the result of a job that has ended since the last call; None if there is none.

        Raises:
            NoThreadError: the job was not started.
            BaseException: as raised by the job.
        """
        job = self._under_way
        if job is None or not job.has_ended:
            return None
        self._under_way = None
        return job.result()

    def abandon(self) -> None:
        """Forget the job under way; its result is dropped."""
        self._under_way = None

    def _begin(self, job: _Job[_Result]) -> None:
        start_thread(self._name, self._run, job)

    def _run(self, job: _Job[_Result]) -> None:
        job.run()
        self._wake()
