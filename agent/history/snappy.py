"""Snappy's block format, which remote write requires: by `cramjam` where it is installed, else in Python.

A block is the length of the data as a varint, then elements. Each begins with a tag, whose lowest bits are its kind:

    kind      tag         bytes after it         stands for
    literal   llllll 00   the bytes              l + 1 bytes, up to 60
              1111nn 00   length - 1, the bytes  more bytes; the length - 1 takes n + 1 bytes, the lowest first
    copy      ooolll 01   oooooooo               l + 4 bytes (4 to 11), from o bytes back; the tag has its highest bits
    copy      llllll 10   offset, in two bytes   l + 1 bytes (1 to 64), from so many bytes back; the lowest byte first

The encoder copies what it has seen before in the same 64 KiB: in a remote write request, nearly everything but the
values. It finds that in a table, which has the last place of each sequence of four bytes.

Source: https://github.com/google/snappy/blob/main/format_description.txt
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK_BYTES: Final = 1 << 16
"""What is copied lies in the same block, so that every offset fits into two bytes, and the table stays small."""

_SHORTEST_COPY: Final = 4
_LONGEST_COPY: Final = 64


def compress(data: bytes) -> bytes:
    """Compress to one block; data of up to 4 GiB. The same data give the same bytes as long as the process runs."""
    return _compressor(data)


def compress_in_python(data: bytes) -> bytes:
    """As `compress`, without `cramjam`: as small, and some hundred times slower."""
    block = bytearray(varint(len(data)))
    for start in range(0, len(data), _BLOCK_BYTES):
        _add_elements(block, data[start : start + _BLOCK_BYTES])
    return bytes(block)


def varint(number: int) -> bytes:
    """A number that is not negative in groups of seven bits, the lowest first; all but the last byte have bit 7 set."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _add_elements(block: bytearray, data: bytes) -> None:
    places: dict[bytes, int] = {}
    size = len(data)
    at = literal_at = 0
    while at <= size - _SHORTEST_COPY:
        key = data[at : at + _SHORTEST_COPY]
        place = places.get(key)
        places[key] = at
        if place is None:
            at += 1 + (at - literal_at >> 6)  # go faster and faster through what cannot be compressed
            continue
        if at > literal_at:
            _add_literal(block, data[literal_at:at])
        while length := _common_bytes(data, place, at):
            _add_copy(block, at - place, length)
            place += length
            at += length
        literal_at = at
    if size > literal_at:
        _add_literal(block, data[literal_at:])


def _common_bytes(data: bytes, place: int, at: int) -> int:
    """How many bytes are the same at both places, up to the longest copy; 0 if they are too few for one."""
    ahead = data[at : at + _LONGEST_COPY]
    size = len(ahead)
    behind = data[place : place + size]
    if behind == ahead:
        length = size
    else:
        difference = int.from_bytes(behind, "little") ^ int.from_bytes(ahead, "little")
        length = ((difference & -difference).bit_length() - 1) >> 3
    return length if length >= _SHORTEST_COPY else 0


def _add_copy(block: bytearray, offset: int, length: int) -> None:
    if offset < 1 << 11 and length < 12:
        block += bytes((offset >> 8 << 5 | length - 4 << 2 | 0b01, offset & 0xFF))
    else:
        block += bytes((length - 1 << 2 | 0b10, offset & 0xFF, offset >> 8))


def _add_literal(block: bytearray, literal: bytes) -> None:
    last = len(literal) - 1
    if last < 60:
        block.append(last << 2)
    elif last < 1 << 8:
        block += bytes((60 << 2, last))
    else:
        block += bytes((61 << 2, last & 0xFF, last >> 8))
    block += literal


def _best_compressor() -> Callable[[bytes], bytes]:
    try:
        import cramjam
    except ImportError:
        return compress_in_python
    return lambda data: bytes(cramjam.snappy.compress_raw(data))


_compressor = _best_compressor()
