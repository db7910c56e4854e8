"""Frames and tables as records of a file: each has its length and a checksum, so that a torn one is recognised.

    0        4          8      9
    +--------+----------+------+----------------------+
    | length | checksum | kind | body                 |
    +--------+----------+------+----------------------+
              `length` counts from the kind to the end; the checksum covers it, the kind and the body

    table   JSON, compressed: the boot and the labels of each series
    frame   where its table is in the file, its place in the backlog, its times; then its rows, compressed

Rows are stored column by column, each value as the difference of its bits from the value before: a counter grows by
about the same amount every time, and most other values repeat. Bits are never handled as floats; see `samples.STALE`.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from agent.history.samples import VALUE_BYTES, Frame, Labels

HEADER: Final = struct.Struct("<IIB")
"""Length, checksum, kind."""

TABLE, FRAME = 1, 2

_FRAME_HEAD: Final = struct.Struct("<IQIqqqII")
"""Where the table is, start, samples, offset, first and last time, rows, columns."""

_FRAME_HEAD_BYTES: Final = HEADER.size + _FRAME_HEAD.size

_NO_OFFSET: Final = -(2**63)

_BITS: Final = 2**64 - 1


class DamagedError(ValueError):
    """These bytes are not a whole record."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A frame, compressed; see `samples.Frame`.

    Attributes:
        first_milliseconds: time of the first row, since boot.
        last_milliseconds: time of the last one.
        rows: how many rows.
        data: the times and values, compressed.
    """

    table: tuple[Labels, ...]
    boot: str
    offset_milliseconds: int | None
    start: int
    samples: int
    first_milliseconds: int
    last_milliseconds: int
    rows: int
    data: bytes

    @property
    def end(self) -> int:
        """How many samples had been produced after the last of these."""
        return self.start + self.samples

    @property
    def size_bytes(self) -> int:
        """Of its record."""
        return _FRAME_HEAD_BYTES + len(self.data)


def pack(frame: Frame) -> Packed:
    """Compress a frame."""
    times = array("q", frame.times_milliseconds)
    columns = _columns(frame.values, len(times))
    gaps = array("q", [time - before for before, time in pairwise(times)])
    return Packed(
        frame.table,
        frame.boot,
        frame.offset_milliseconds,
        frame.start,
        frame.samples,
        times[0],
        times[-1],
        len(times),
        zlib.compress(_in_little_endian(gaps) + columns),
    )


def unpack(packed: Packed) -> Frame:
    """Decompress a frame; raises DamagedError if it does not fit its own head."""
    try:
        data = zlib.decompress(packed.data)
    except zlib.error as error:
        raise DamagedError(str(error)) from error
    gap_bytes = (packed.rows - 1) * VALUE_BYTES
    if len(data) != gap_bytes + packed.rows * len(packed.table) * VALUE_BYTES:
        raise DamagedError("a frame does not fit its head")
    times = [packed.first_milliseconds]
    for gap in _from_little_endian("q", data[:gap_bytes]):
        times.append(times[-1] + gap)
    return Frame(
        packed.table,
        packed.boot,
        packed.offset_milliseconds,
        tuple(times),
        _rows(data[gap_bytes:], packed.rows),
        packed.samples,
        packed.start,
    )


def _columns(values: bytes, rows: int) -> bytes:
    """Column by column, the differences of the bits."""
    bits = _from_little_endian("Q", values)
    width = len(bits) // rows
    packed = array("Q")
    for column in range(width):
        before = 0
        for value in bits[column::width]:
            packed.append((value - before) & _BITS)
            before = value
    return _in_little_endian(packed)


def _rows(columns: bytes, rows: int) -> bytes:
    """The reverse of `_columns`."""
    differences = _from_little_endian("Q", columns)
    width = len(differences) // rows
    bits = array("Q", bytes(len(columns)))
    for column in range(width):
        value = 0
        for row in range(rows):
            value = (value + differences[column * rows + row]) & _BITS
            bits[row * width + column] = value
    return _in_little_endian(bits)


def _in_little_endian(numbers: array[int]) -> bytes:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _from_little_endian(kind: str, data: bytes) -> array[int]:
    numbers = array(kind, data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def table_record(boot: str, table: tuple[Labels, ...]) -> bytes:
    """The record of a table, which frames of this boot refer to."""
    return _record(TABLE, zlib.compress(json.dumps([boot, table], separators=(",", ":")).encode()))


def frame_record(packed: Packed, table_at: int) -> bytes:
    """The record of a frame whose table is at this place in the file."""
    offset = _NO_OFFSET if packed.offset_milliseconds is None else packed.offset_milliseconds
    head = _FRAME_HEAD.pack(
        table_at,
        packed.start,
        packed.samples,
        offset,
        packed.first_milliseconds,
        packed.last_milliseconds,
        packed.rows,
        len(packed.table),
    )
    return _record(FRAME, head + packed.data)


def _record(kind: int, body: bytes) -> bytes:
    length = 1 + len(body)
    return HEADER.pack(length, _checksum(length, kind, body), kind) + body


def _checksum(length: int, kind: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(struct.pack("<IB", length, kind)))


def record_bytes(header: bytes) -> int:
    """The size of a whole record, by its header; raises DamagedError if that is not whole."""
    if len(header) < HEADER.size:
        raise DamagedError("the header of a record is cut off")
    length: int = HEADER.unpack_from(header)[0]
    if length < 1:
        raise DamagedError("an empty record")
    return HEADER.size - 1 + length


def checked_body(record: bytes) -> tuple[int, bytes]:
    """The kind and the body of a whole record; raises DamagedError if the checksum does not fit."""
    if record_bytes(record) != len(record):
        raise DamagedError("a record is cut off")
    length, checksum, kind = HEADER.unpack_from(record)
    body = record[HEADER.size :]
    if _checksum(length, kind, body) != checksum:
        raise DamagedError("the checksum of a record does not fit")
    return kind, body


def table_of(body: bytes) -> tuple[str, tuple[Labels, ...]]:
    """The boot and the table in the body of a table's record; raises DamagedError if it has none."""
    try:
        boot, table = json.loads(zlib.decompress(body))
        labels = tuple(tuple((str(name), str(value)) for name, value in series) for series in table)
    except (ValueError, TypeError, zlib.error) as error:
        raise DamagedError(f"not a table: {error}") from error
    return str(boot), labels


def table_at_of(body: bytes) -> int:
    """Where the table of a frame is in the file, from the body of its record; raises DamagedError if it has no head."""
    if len(body) < _FRAME_HEAD.size:
        raise DamagedError("the head of a frame is cut off")
    table_at: int = _FRAME_HEAD.unpack_from(body)[0]
    return table_at


def packed_of(body: bytes, boot: str, table: tuple[Labels, ...]) -> Packed:
    """The frame in the body of its record; raises DamagedError if it does not fit its table."""
    if len(body) < _FRAME_HEAD.size:
        raise DamagedError("the head of a frame is cut off")
    _, start, samples, offset, first, last, rows, columns = _FRAME_HEAD.unpack_from(body)
    if columns != len(table):
        raise DamagedError("a frame does not fit its table")
    return Packed(
        table,
        boot,
        None if offset == _NO_OFFSET else offset,
        start,
        samples,
        first,
        last,
        rows,
        body[_FRAME_HEAD.size :],
    )
