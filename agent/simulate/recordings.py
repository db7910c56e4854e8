"""Recordings of real rails: `seconds,volts,amperes` files that play into a simulated chip."""

from __future__ import annotations

import copy
import gzip
import math
import re
import zlib
from array import array
from typing import TYPE_CHECKING, NoReturn

from agent import access
from agent.errors import ConfigError, PermissionDeniedError
from agent.log import counted
from agent.simulate.rails import Steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from agent.simulate.rails import Segment

HEADER = "seconds,volts,amperes"
LONGEST_LINE_BYTES = 1000
LARGEST_VALUE = 1e9
"""More than any rail has; small enough that no sum over a file overflows a float."""
SHOWN_CHARACTERS = 40

# Characters that spreadsheet programs put around column names.
_BARE = re.compile(r'[ "]')


class Recording:
    """A rail as it was measured. A value holds until the next row; the first and the last have no limit outwards."""

    def __init__(self, rows: Iterable[tuple[float, float, float]]) -> None:
        """Create a recording.

        Args:
            rows: seconds, volts and amperes; at least one row, in the order of time.
        """
        self._begins_seconds = 0.0
        self._steps = Steps()
        self._joules = array("d")  # delivered from the first row up to each row
        for seconds, volts, amperes in rows:
            self._joules.append(self._joules_until(seconds) if self._joules else 0.0)
            self._steps.append(seconds, volts, amperes)

    def beginning_at(self, seconds: float) -> Recording:
        """The same recording with its second 0 at `seconds` of the clock that plays it."""
        moved = copy.copy(self)
        moved._begins_seconds = seconds  # noqa: SLF001 - a copy of this class
        return moved

    @property
    def end_seconds(self) -> float:
        """The time of the last row."""
        return self._begins_seconds + self._steps.seconds[-1]

    def segments(self, start_seconds: float, end_seconds: float) -> Iterator[Segment]:
        """See `Rail.segments`."""
        return self._steps.segments(start_seconds, end_seconds, self._begins_seconds)

    def integral(self, start_seconds: float, end_seconds: float) -> float:
        """The energy in joules, volts x amperes x seconds, delivered from start to end, exactly."""
        return self._joules_until(end_seconds) - self._joules_until(start_seconds)

    def _joules_until(self, seconds: float) -> float:
        own_seconds = seconds - self._begins_seconds
        steps = self._steps
        row = steps.row_at(own_seconds)
        return self._joules[row] + (own_seconds - steps.seconds[row]) * steps.volts[row] * steps.amperes[row]


def read_recording(path: Path) -> Recording:
    """Read a CSV file with the header `seconds,volts,amperes`, compressed if its name ends in `.gz`.

    Raises:
        ConfigError: one problem, `FILE:LINE: what is wrong; what it should be`.
        PermissionDeniedError: it may not be read.
    """
    return Recording(_Rows(path))


class _Rows:
    """The checked rows of a file. It keeps the line number, so that every error can name it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._line_number = 1

    def __iter__(self) -> Iterator[tuple[float, float, float]]:
        try:
            with self._open() as file:
                yield from self._rows(file)
        except EOFError:
            self._refuse("the compressed data ends too early", "a whole gzip file; copy it again")
        except (gzip.BadGzipFile, zlib.error) as error:
            self._refuse(f"cannot be decompressed ({error})", "a gzip file, or plain CSV under a name without .gz")
        except PermissionError as error:
            raise PermissionDeniedError(
                f"{self._path}: permission denied: {access.of_denied_read(self._path)}"
            ) from error
        except FileNotFoundError as error:
            raise ConfigError((f"{self._path}: no such file; a recording is CSV with the header {HEADER}",)) from error
        except IsADirectoryError as error:
            raise ConfigError((f"{self._path}: is a folder; name the file in it",)) from error
        except OSError as error:
            self._refuse(f"cannot be read ({error.strerror or error})", "a readable CSV file, plain or .gz")

    def _open(self) -> BinaryIO:
        if self._path.suffix == ".gz":
            return gzip.open(self._path)  # type: ignore[return-value]  # typeshed: a GzipFile reads like any binary file
        return self._path.open("rb")

    def _rows(self, file: BinaryIO) -> Iterator[tuple[float, float, float]]:
        header = self._line(file)
        if header is None:
            self._refuse("the file is empty", f"the header {HEADER} and at least one row")
        if _BARE.sub("", header) != HEADER:
            self._refuse(f"the header is {_shown(header)}", HEADER)
        before_seconds, has_rows = 0.0, False
        self._line_number = 2
        blank_line_number = 0
        while (line := self._line(file)) is not None:
            if not line:  # some programs leave one at the end; anywhere else a row is missing
                blank_line_number = blank_line_number or self._line_number
                self._line_number += 1
                continue
            if blank_line_number:
                self._line_number = blank_line_number
                self._refuse("the line is empty", "three numbers with commas between")
            row = self._row(line)
            if row[0] < before_seconds:
                self._refuse(
                    f"time goes back from {before_seconds} to {row[0]}",
                    "seconds from 0 on, each row at or after the last",
                )
            before_seconds, has_rows = row[0], True
            yield row
            self._line_number += 1
        if not has_rows:
            self._refuse("there is no row", "at least one row of seconds,volts,amperes")

    def _line(self, file: BinaryIO) -> str | None:
        line = file.readline(LONGEST_LINE_BYTES + 1)
        if not line:
            return None
        if len(line) > LONGEST_LINE_BYTES:
            self._refuse(f"the line is longer than {LONGEST_LINE_BYTES} bytes", "three numbers with commas between")
        try:
            return line.decode("utf-8-sig" if self._line_number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            self._refuse("the line is not UTF-8", "plain text")

    def _row(self, line: str) -> tuple[float, float, float]:
        cells = line.split(",")
        if len(cells) != 3:
            self._refuse(f"{counted(len(cells), 'column')} in {_shown(line)}", "three: seconds,volts,amperes")
        return self._number(cells[0]), self._number(cells[1]), self._number(cells[2])

    def _number(self, cell: str) -> float:
        try:
            # Python also accepts 1_000 and digits of other scripts, which are not numbers in a CSV file.
            number = float(cell) if cell.isascii() and "_" not in cell else math.nan
        except ValueError:
            number = math.nan
        if not abs(number) <= LARGEST_VALUE:
            self._refuse(f"{_shown(cell)} is not a usable number", f"a finite decimal number up to {LARGEST_VALUE:g}")
        return number

    def _refuse(self, wrong: str, should_be: str) -> NoReturn:
        raise ConfigError((f"{self._path}:{self._line_number}: {wrong}; it should be {should_be}",))


def _shown(text: str) -> str:
    """Text of a file for a message: on one line, and shortened."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")
