"""Samples as remote write and the backlog hold them: label sets, values as bits, frames of rows.

A row holds the values of one moment. A frame is some rows of one table of series: the unit of the backlog, and what one
request carries. A frame never changes once it may have been sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

Labels = tuple[tuple[str, str], ...]
"""The labels of a series with `__name__` among them, sorted by name, as remote write wants them."""

VALUE_BYTES: Final = 8

STALE: Final = bytes.fromhex("020000000000f07f")
"""The stale marker 0x7ff0000000000002 in little endian: the series ends here. Never handled as a float, because some
processors change the bits of a signalling NaN.

Source: Prometheus, model/value/value.go.
"""

ABSENT: Final = bytes.fromhex("010000000000f87f")
"""No sample: a NaN that no reading can have."""


def packed(value: float) -> bytes:
    """The eight bytes of a value, in little endian."""
    return struct.pack("<d", value)


@dataclass(frozen=True, slots=True)
class Frame:
    """Some rows of samples of one table of series.

    Attributes:
        table: the series, a column each.
        boot: the boot in which they were taken; see `energy.state_file.boot_id`.
        offset_milliseconds: Unix time minus the time since boot; None while the time is not known.
        times_milliseconds: of each row, since boot (CLOCK_BOOTTIME); they rise.
        values: eight bytes for each series of each row, row after row; ABSENT where there is no sample.
        samples: how many of them are not ABSENT.
        start: how many samples were produced before the first of these; the place of the frame in the backlog.
    """

    table: tuple[Labels, ...]
    boot: str
    offset_milliseconds: int | None
    times_milliseconds: tuple[int, ...]
    values: bytes
    samples: int
    start: int = 0

    @property
    def end(self) -> int:
        """How many samples had been produced after the last of these."""
        return self.start + self.samples


def count_samples(values: bytes) -> int:
    """How many of these values are not ABSENT."""
    return sum(values[at : at + VALUE_BYTES] != ABSENT for at in range(0, len(values), VALUE_BYTES))
