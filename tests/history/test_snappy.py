"""Snappy's block format: what the pure encoder makes is read by `cramjam`, and is no larger than the format allows."""

from __future__ import annotations

import random
import subprocess
import sys

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.history import snappy

_MOST_GROWTH_BYTES_A_BLOCK = 3  # the tag of a literal of up to 64 KiB

_pieces = st.lists(st.tuples(st.binary(min_size=1, max_size=90), st.integers(1, 400)), max_size=30)


def _decompressed(block: bytes) -> bytes:
    return bytes(cramjam.snappy.decompress_raw(block))


def _noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@given(st.binary(max_size=3000))
@settings(max_examples=300, deadline=None)
def test_any_data_come_back_unchanged(data: bytes) -> None:
    assert _decompressed(snappy.compress_in_python(data)) == data


@given(_pieces)
@settings(max_examples=200, deadline=None)
def test_repeated_pieces_come_back_unchanged_and_smaller(pieces: list[tuple[bytes, int]]) -> None:
    data = b"".join(piece * times for piece, times in pieces)

    block = snappy.compress_in_python(data)

    assert _decompressed(block) == data
    # A repetition costs three bytes for 64 at most; a piece itself, a tag; and all begins again in each 64 KiB.
    blocks = len(data) // (1 << 16) + 1
    literals = sum(len(piece) + 8 for piece, _ in pieces)
    assert len(block) <= literals * blocks + len(data) * 4 // 64 + 8


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        b"abcd",
        b"abcdabcd",
        b"a" * 4,
        b"a" * 100_000,
        b"abc" * 50_000,
        _noise(60),
        _noise(61),
        _noise(256),
        _noise(257),
        _noise(1 << 16),
        _noise((1 << 16) + 1),
        _noise(200_000),
        _noise(2047) * 2,  # the longest offset of a short copy, and the next
        _noise(2048) * 2,
        b"head" + _noise(2040) + b"head" + _noise(7),
        b"head" + _noise(2044) + b"head" + _noise(7),
        _noise(65_000) + b"!" + _noise(65_000),  # the same again, more than 2^16 bytes away
        _noise(40_000) * 3,
        bytes(range(256)) * 1000,
    ],
    ids=lambda data: f"{len(data)}-{data[:4].hex()}",
)
def test_lengths_and_offsets_at_limits_of_the_format(data: bytes) -> None:
    block = snappy.compress_in_python(data)

    assert _decompressed(block) == data
    assert len(block) <= len(data) + len(snappy.varint(len(data))) + _MOST_GROWTH_BYTES_A_BLOCK * (
        len(data) // 65536 + 1
    )


@pytest.mark.parametrize("piece", [b"a", _noise(1000)])
def test_repetitions_cost_three_bytes_for_sixty_four(piece: bytes) -> None:
    repeated = piece * (60_000 // len(piece))

    assert len(snappy.compress_in_python(repeated)) < len(piece) * 1.1 + len(repeated) * 3 / 64 + 10


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (127, "7f"), (128, "8001"), (1 << 63, "80" * 9 + "01")])
def test_varints_are_those_of_protobuf(number: int, encoded: str) -> None:
    assert snappy.varint(number).hex() == encoded


def test_cramjam_is_used_where_it_is_installed() -> None:
    data = _noise(1000) + b"watts" * 100

    assert snappy.compress(data) == bytes(cramjam.snappy.compress_raw(data))


def test_without_cramjam_everything_works() -> None:
    program = (
        "import sys; sys.modules['cramjam'] = None\n"  # how Python marks a module that cannot be imported
        "from agent.history import snappy, write_request\n"
        "assert write_request.EMPTY_REQUEST == snappy.compress(b'')\n"
        "sys.stdout.buffer.write(snappy.compress(sys.stdin.buffer.read()))\n"
    )
    data = b"wattpush_device_watts" * 9 + _noise(100)

    ran = subprocess.run([sys.executable, "-c", program], input=data, stdout=subprocess.PIPE, check=True)

    assert ran.stdout == snappy.compress_in_python(data)
    assert _decompressed(ran.stdout) == data
