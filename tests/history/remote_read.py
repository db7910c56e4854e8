"""Everything that a Prometheus holds, stale markers included, by its remote read; a query leaves them out.

Source of the fields: prometheus, prompb/remote.proto and prompb/types.proto.
"""

from __future__ import annotations

import re
import struct
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import cramjam

from tests.servers import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.history.samples import Labels


def read_all(port: int, selector: str, start_milliseconds: int, end_milliseconds: int) -> dict[Labels, list[Sample]]:
    """Every sample of the series that match; a stale marker has the value NaN.

    Args:
        port: of the Prometheus on loopback.
        selector: a name and matchers of equality, such as `up{job="power"}`.
        start_milliseconds: Unix time of the first.
        end_milliseconds: Unix time of the last.
    """
    matchers = re.findall(r'(\w+)="([^"]*)"', selector)
    if name := selector.partition("{")[0]:
        matchers.append(("__name__", name))
    query = b"\x08" + varint(start_milliseconds) + b"\x10" + varint(end_milliseconds)
    for key, value in matchers:
        query += field(3, field(2, key.encode()) + field(3, value.encode()))
    connection = HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    try:
        connection.request("POST", "/api/v1/read", bytes(cramjam.snappy.compress_raw(field(1, query))), headers)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, body
    found = {}
    for _, result in _fields(bytes(cramjam.snappy.decompress_raw(body))):
        for _, series in _fields(result):
            labels, samples = _series(series)
            found[labels] = samples
    return found


Sample = tuple[int, float]
"""Unix milliseconds and value."""


def _series(content: bytes) -> tuple[Labels, list[Sample]]:
    labels: list[tuple[str, str]] = []
    samples: list[Sample] = []
    for number, part in _fields(content):
        parts = dict(_fields(part))
        if number == 1:
            labels.append((parts.get(1, b"").decode(), parts.get(2, b"").decode()))
        else:
            (value,) = struct.unpack("<d", parts.get(1, bytes(8)))
            samples.append((int.from_bytes(parts.get(2, b""), "little"), value))
    return tuple(sorted(labels)), samples


def _fields(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message by number; a varint is given in little endian."""
    at = 0
    while at < len(content):
        tag, at = _read_varint(content, at)
        if tag & 7 == 0:
            number, at = _read_varint(content, at)
            yield tag >> 3, number.to_bytes(8, "little")
        else:
            length, at = (8, at) if tag & 7 == 1 else _read_varint(content, at)
            yield tag >> 3, content[at : at + length]
            at += length


def _read_varint(content: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    head = b""
    while number > 0x7F:
        head += bytes((number & 0x7F | 0x80,))
        number >>= 7
    return head + bytes((number,))


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, a string or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content
