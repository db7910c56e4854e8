"""A progress bar for a scan that takes long."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TextIO

    from rich.progress import Progress

    from agent.clock import Clock

_SLOW_SECONDS = 0.5
"""How long a scan takes before it shows a progress bar."""


@contextmanager
def bar_on(stream: TextIO, clock: Clock) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar, on a terminal, for a slow scan."""
    if not stream.isatty():
        yield lambda *_: None
        return
    began_seconds = clock.monotonic()
    bar: Progress | None = None

    def show(done: int, total: int, where: str) -> None:
        nonlocal bar
        if clock.monotonic() - began_seconds < _SLOW_SECONDS:
            return
        if bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
            bar = Progress(*columns, console=Console(file=stream), auto_refresh=False, transient=True)
            bar.add_task("", total=total)
            bar.start()
        bar.update(bar.task_ids[0], completed=done, total=total, description=where, refresh=True)

    try:
        yield show
    finally:
        if bar is not None:
            bar.stop()
