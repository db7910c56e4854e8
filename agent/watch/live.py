"""The table on a terminal, redrawn in place so that it does not flicker, and an output that never blocks the program.

Neither a terminal stopped with Ctrl-S nor a full pipe blocks it.
"""

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
from agent.watch.closing import closing_lines
from agent.watch.keyboard import is_in_foreground

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from agent.clock import Clock
    from agent.measure.readings import Outcome
    from agent.run.stopping import Waiting
    from agent.watch.glyphs import Glyphs
    from agent.watch.history import History, VoltsOnly
    from agent.watch.keyboard import Keyboard

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
"""The styles of a table's pieces."""

# Source: xterm, Control Sequences. _OPEN saves the cursor and switches to the alternate screen, hides the cursor, turns
# off line wrap (the terminal may just have become narrower) and clears the screen. _CLOSE undoes this; on a console
# without an alternate screen, it leaves the cursor in the last line.
_OPEN = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_CLOSE = "\x1b[0m\x1b[9999;1H\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
# The cursor is where the command began: on a console without an alternate screen, in the last line of the table.
_CLOSING = "\x1b[K"
_ERASE_TO_END_OF_LINE = "\x1b[K"
_ERASE_BELOW = "\x1b[J"

_SHORTEST_FRAME_SECONDS = 0.25
"""People do not read numbers faster than this. A sweep that is not drawn is followed by one that is."""

# A pipe that is ready takes this much without blocking (pipe(7): PIPE_BUF); a terminal that is ready usually does.
_CHUNK_BYTES = 1024
_POLL_SECONDS = 0.1
_LAST_WRITE_SECONDS = 0.3


def make_console(environ: Mapping[str, str]) -> Console:
    """Make a console that knows the terminal's colours, from TERM and COLORTERM; none with NO_COLOR (no-color.org).

    It only renders text, into memory: if rich wrote to the terminal, it would block on one that is stopped.
    """
    return Console(file=io.StringIO(), force_terminal=True, _environ=environ)


def segments(line: Iterable[layout.Piece]) -> list[Segment]:
    """Convert a line of the table for rich."""
    return [Segment(text, STYLES[meaning]) for text, meaning in line]


class LiveTable:
    """Draws the table after each sweep and when the terminal changes its size; a `watching.Display`.

    As a background job it draws nothing, so that the shell can be used.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a table, each made by the command
        self,
        output: Output,
        keyboard: Keyboard,
        console: Console,
        history: History,
        glyphs: Glyphs,
        clock: Clock,
    ) -> None:
        self._output = output
        self._keyboard = keyboard
        output.while_stalled = keyboard.read
        self._is_open = False
        self._console = console
        self._history = history
        self._glyphs = glyphs
        self._clock = clock
        is_fast = history.sample_interval_seconds < _SHORTEST_FRAME_SECONDS
        self._frame_seconds = _SHORTEST_FRAME_SECONDS if is_fast else 0.0
        self._drawn_size: os.terminal_size | None = None
        self._drawn_at_seconds = 0.0

    def open(self) -> None:
        """Switch to the alternate screen and draw, in the foreground."""
        if is_in_foreground(self._output.file_descriptor):
            self._is_open = True
            self._keyboard.open()
            self._output.write(_OPEN)
            self._draw()

    def show(self, _outcomes: Sequence[Outcome | VoltsOnly]) -> None:
        """Draw, unless the last frame is very recent."""
        self._keyboard.read()
        if self._clock.monotonic() - self._drawn_at_seconds >= self._frame_seconds:
            self._draw()

    def refresh(self) -> None:
        """Draw if the terminal has changed its size, or if a sweep is overdue, which the table must show."""
        self._keyboard.read()
        if self._size() != self._drawn_size or self._history.stale_seconds:
            self._draw()

    def close(self) -> None:
        """Restore the terminal."""
        self._keyboard.close()
        if self._is_open:
            self._is_open = False
            with suppress(BrokenPipeError):
                self._output.write_last(_CLOSE)

    def sum_up(self) -> None:
        """Leave the energy of this watch on the screen."""
        lines = closing_lines(self._history.view(), self._size().columns)
        with suppress(BrokenPipeError):
            self._output.write_last("".join(f"{_CLOSING}{line}\n" for line in lines))

    @property
    def is_hidden(self) -> bool:
        """Whether nothing is drawn until the job is in the foreground."""
        return not self._is_open

    def _size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._output.file_descriptor)
        except OSError:  # the terminal hung up; the next write raises
            return os.terminal_size((80, 24))
        # A serial line does not know its size and reports 0.
        return os.terminal_size((size.columns or 80, size.lines or 24))

    def _draw(self) -> None:
        if not is_in_foreground(self._output.file_descriptor):
            self._is_open = False
            return
        if not self._is_open:
            self.open()
            return
        # Skip frames while the terminal is stopped or behind, instead of queueing them.
        if not self._output.is_ready():
            self._drawn_size = None
            return
        self._drawn_size = size = self._size()
        self._drawn_at_seconds = self._clock.monotonic()
        frame = []
        has_keys = self._keyboard.is_open
        lines = layout.lines(self._history.view(), size.columns, size.lines, self._glyphs, has_keys=has_keys)
        for number, line in enumerate(lines, start=1):
            drawn = segments(line)
            frame += [Segment(f"\x1b[{number};1H"), *drawn]
            # After a line of full width the cursor is still on the last cell, which erasing would clear.
            if Segment.get_line_length(drawn) < size.columns:
                frame.append(Segment(_ERASE_TO_END_OF_LINE))
        if len(lines) < size.lines:
            frame.append(Segment(f"\x1b[{len(lines) + 1};1H{_ERASE_BELOW}"))
        frame.append(Segment(_HOME))
        with self._console.capture() as capture:
            self._console.print(Segments(frame), end="", crop=False, soft_wrap=True)
        self._output.write(capture.get())


class Output:
    """Writes to a file descriptor without blocking the program's stop.

    Attributes:
        while_stalled: called again and again while the reader takes nothing.
    """

    def __init__(self, file_descriptor: int, encoding: str, waiting: Waiting, clock: Clock) -> None:
        self.while_stalled: Callable[[], None] = lambda: None
        self.file_descriptor = file_descriptor
        self._encoding = encoding
        self._waiting = waiting
        self._clock = clock

    def is_ready(self, within_seconds: float = 0.0) -> bool:
        """Whether the reader takes more text now."""
        return bool(select.select([], [self.file_descriptor], [], within_seconds)[1])

    def write(self, text: str) -> None:
        """Write the text; if the reader stalls, only until a stop is requested.

        Raises:
            BrokenPipeError: the reader has ended, or the terminal hung up.
        """
        data = self._encoded(text)
        while data and not self._waiting.stop_requested:
            if self.is_ready(_POLL_SECONDS):
                data = data[self._write(data) :]
            else:
                self.while_stalled()

    def write_last(self, text: str) -> None:
        """Write the last text before the program ends, if the reader takes it soon; raises as `write` does."""
        data = self._encoded(text)
        ends_seconds = self._clock.monotonic() + _LAST_WRITE_SECONDS
        while data and self.is_ready(max(0.0, ends_seconds - self._clock.monotonic())):
            data = data[self._write(data) :]

    def _encoded(self, text: str) -> bytes:
        return text.encode(self._encoding, errors="replace")

    def _write(self, data: bytes) -> int:
        try:
            return os.write(self.file_descriptor, data[:_CHUNK_BYTES])
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal hung up
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error
            raise
