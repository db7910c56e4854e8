"""A frame as the message of remote write 1.0, before compression.

All fields are repeated or required by the protocol; a tag is the field's number and its wire type: 2 for bytes after
their length, 1 for eight bytes, 0 for a varint.

    WriteRequest   0a LENGTH TimeSeries, for each series
    TimeSeries     0a LENGTH Label, for each label, sorted by name
                   12 LENGTH Sample, for each sample, rising in time
    Label          0a LENGTH name    12 LENGTH value     (UTF-8)
    Sample         09 value          10 milliseconds     (double, little endian; Unix time in 64 bits)

Source: https://prometheus.io/docs/specs/prw/remote_write_spec/ and prometheus, prompb/types.proto.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agent.history.samples import ABSENT, VALUE_BYTES
from agent.history.snappy import compress, varint

if TYPE_CHECKING:
    from agent.history.samples import Frame, Labels

HEADERS: Final = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}

EMPTY_REQUEST: Final = b"\x00"
"""An empty message, compressed: servers answer it with 204 and store nothing."""


def write_request(frame: Frame) -> bytes:
    """The body, compressed; the same bytes for the same frame as long as the process runs.

    Series without any sample in the frame are left out.

    Raises:
        ValueError: the frame has no offset, so that its time is not known.
    """
    return compress(message(frame))


def message(frame: Frame) -> bytes:
    """As `write_request`, before compression."""
    if frame.offset_milliseconds is None:
        raise ValueError("a frame whose time is not known is not sent")
    heads, tails = _around_values(frame.times_milliseconds, frame.offset_milliseconds)
    values = frame.values
    row_bytes = VALUE_BYTES * len(frame.table)
    request = bytearray()
    for column, labels in enumerate(_encoded_labels(frame.table)):
        at = range(VALUE_BYTES * column, len(values), row_bytes)
        samples = b"".join(
            head + value + tail
            for head, tail, value in zip(heads, tails, [values[one : one + VALUE_BYTES] for one in at], strict=True)
            if value != ABSENT
        )
        if samples:
            request += b"\x0a" + varint(len(labels) + len(samples)) + labels + samples
    return bytes(request)


def _around_values(times_milliseconds: tuple[int, ...], offset_milliseconds: int) -> tuple[list[bytes], list[bytes]]:
    """What stands before and after the value in the samples of each row; it is the same for all series."""
    tails = [b"\x10" + varint((time + offset_milliseconds) % (1 << 64)) for time in times_milliseconds]
    return [b"\x12" + varint(1 + VALUE_BYTES + len(tail)) + b"\x09" for tail in tails], tails


@lru_cache(maxsize=2)  # the table of nearly every frame is that of the one before
def _encoded_labels(table: tuple[Labels, ...]) -> tuple[bytes, ...]:
    return tuple(
        b"".join(_field(0x0A, _text(0x0A, name) + _text(0x12, value)) for name, value in labels) for labels in table
    )


def _text(tag: int, text: str) -> bytes:
    return _field(tag, text.encode())


def _field(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + varint(len(content)) + content
