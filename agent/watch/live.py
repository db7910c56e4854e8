"""The table on a terminal: drawn over itself in place, so that nothing flickers, and gone without a trace."""

from __future__ import annotations

import errno
import io
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from agent.watch import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.loop import Waiting
    from agent.watch.glyphs import Strokes
    from agent.watch.history import History

STYLES = {
    name: Style.parse(style)
    for name, style in {
        "": "none",
        "strong": "bold",
        "faint": "dim",
        "bar": "green",
        "back": "magenta",
        "trace": "cyan",
        "notice": "yellow",
        "bad": "red",
        "alert": "bold yellow reverse",
    }.items()
}
"""What the pieces of a line mean, and how a terminal shows it."""

# Source: xterm, Control Sequences. In the same order: the alternate screen with the cursor saved, the cursor hidden, no
# new line at the right edge (a terminal may just have been made narrower); and all of it back. A console that has no
# other screen is left with the cursor in its last line.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[0m\x1b[9999;1H\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_ERASE_TO_END_OF_LINE = "\x1b[K"
_ERASE_BELOW = "\x1b[J"

_SHORTEST_FRAME_SECONDS = 0.25
"""However fast the sensors are read, nobody reads numbers faster; what a sweep left out, the next one soon shows."""

# At most this is written where there is room for something. A pipe that is ready takes so much without waiting
# (pipe(7): PIPE_BUF); a terminal that is ready mostly does.
_CHUNK_BYTES = 1024
_LOOK_AGAIN_SECONDS = 0.1
_LAST_WORD_SECONDS = 0.3


def make_console(environ: Mapping[str, str]) -> Console:
    """What knows the colours of a terminal: from TERM and COLORTERM; none under NO_COLOR (no-color.org).

    It makes text and writes nowhere: rich would wait for a terminal that takes nothing, and fail on one that is gone.
    """
    return Console(file=io.StringIO(), force_terminal=True, _environ=environ)


def segments(line: Iterable[layout.Piece]) -> list[Segment]:
    """A line of the table for rich."""
    return [Segment(text, STYLES[meaning]) for text, meaning in line]


class LiveTable:
    """Draws the table after a sweep and when the terminal has another size; see `watching.Face`."""

    def __init__(self, output: Output, console: Console, history: History, strokes: Strokes, clock: Clock) -> None:
        self._output = output
        self._console = console
        self._history = history
        self._strokes = strokes
        self._clock = clock
        is_fast = history.sample_interval_seconds < _SHORTEST_FRAME_SECONDS
        self._frame_seconds = _SHORTEST_FRAME_SECONDS if is_fast else 0.0
        self._drawn_size: os.terminal_size | None = None
        self._drawn_at_seconds = 0.0

    def enter(self) -> None:
        """Take the terminal."""
        self._output.write(_ENTER)
        self._draw()

    def swept(self, outcomes: Sequence[Outcome]) -> None:  # noqa: ARG002 - the history has them
        """Draw what there is to see now."""
        if self._clock.monotonic() - self._drawn_at_seconds >= self._frame_seconds:
            self._draw()

    def woken(self) -> None:
        """Draw if the terminal has another size, or if a sweep is overdue and the numbers are growing old."""
        if self._size() != self._drawn_size or self._history.silent_seconds:
            self._draw()

    def leave(self) -> None:
        """Give the terminal back as it was."""
        with suppress(BrokenPipeError):
            self._output.write_last(_LEAVE)

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._output.file_descriptor)
        except OSError:  # it hung up; the next write says so
            return os.terminal_size((80, 24))
        # A serial line does not know its size, and says 0.
        return os.terminal_size((size.columns or 80, size.lines or 24))

    def _draw(self) -> None:
        # A terminal that is stopped or behind gets the next frame, not all those that it has missed.
        if not self._output.is_ready():
            self._drawn_size = None
            return
        self._drawn_size = size = self._size()
        self._drawn_at_seconds = self._clock.monotonic()
        frame = []
        lines = layout.lines(self._history.view(), size.columns, size.lines, self._strokes)
        for number, line in enumerate(lines, start=1):
            drawn = segments(line)
            frame += [Segment(f"\x1b[{number};1H"), *drawn]
            # Behind a whole line the cursor still stands on its last cell, and erasing would take that.
            if Segment.get_line_length(drawn) < size.columns:
                frame.append(Segment(_ERASE_TO_END_OF_LINE))
        if len(lines) < size.lines:
            frame.append(Segment(f"\x1b[{len(lines) + 1};1H{_ERASE_BELOW}"))
        frame.append(Segment(_HOME))
        with self._console.capture() as capture:
            self._console.print(Segments(frame), end="", crop=False, soft_wrap=True)
        self._output.write(capture.get())


class Output:
    """Writes to a file descriptor for as long as nobody wants the program to stop."""

    def __init__(self, file_descriptor: int, encoding: str, waiting: Waiting, clock: Clock) -> None:
        self.file_descriptor = file_descriptor
        self._encoding = encoding
        self._waiting = waiting
        self._clock = clock

    def is_ready(self, within_seconds: float = 0.0) -> bool:
        """Whether somebody takes what is written."""
        return bool(select.select([], [self.file_descriptor], [], within_seconds)[1])

    def write(self, text: str) -> None:
        """Write all of it; less if the program is to stop while nobody takes it.

        Raises:
            BrokenPipeError: nobody will ever take it: the reader has ended, or the terminal is gone.
        """
        data = self._encoded(text)
        while data and not self._waiting.stop_requested:
            if self.is_ready(_LOOK_AGAIN_SECONDS):
                data = data[self._write(data) :]

    def write_last(self, text: str) -> None:
        """Write what the program ends with, if it can be written at once; raises as `write` does."""
        data = self._encoded(text)
        ends_seconds = self._clock.monotonic() + _LAST_WORD_SECONDS
        while data and self.is_ready(max(0.0, ends_seconds - self._clock.monotonic())):
            data = data[self._write(data) :]

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, errors="replace")

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self.file_descriptor, data[:_CHUNK_BYTES])
        except OSError as error:
            if error.errno == errno.EIO:  # what a terminal says that has hung up
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            raise
