"""Frames as records: every bit comes back, and a damaged record is recognised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.history.frame_records import (
    FRAME,
    TABLE,
    DamagedError,
    checked_body,
    frame_record,
    pack,
    packed_of,
    record_bytes,
    table_at_of,
    table_of,
    table_record,
    unpack,
)
from agent.history.samples import ABSENT, STALE, Frame, Labels, count_samples, packed
from tests.history import backlogs

VALUES = st.one_of(st.just(STALE), st.just(ABSENT), st.binary(min_size=8, max_size=8), st.floats().map(packed))


@st.composite
def frames(draw: st.DrawFn) -> Frame:
    columns = draw(st.integers(1, 5))
    rows = draw(st.integers(1, 6))
    table = backlogs.table_of(*(f"series_{column}" for column in range(columns)))
    gaps = draw(st.lists(st.integers(1, 2**40), min_size=rows, max_size=rows))
    times = tuple(sum(gaps[: row + 1]) for row in range(rows))
    values = b"".join(draw(st.lists(VALUES, min_size=rows * columns, max_size=rows * columns)))
    offset = draw(st.one_of(st.none(), st.integers(-(2**50), 2**50)))
    return Frame(table, "boot", offset, times, values, count_samples(values), draw(st.integers(0, 2**60)))


@given(frames())
def test_every_bit_comes_back(frame: Frame) -> None:
    record = frame_record(pack(frame), table_at=77)
    kind, body = checked_body(record)
    assert kind == FRAME
    assert table_at_of(body) == 77
    assert unpack(packed_of(body, frame.boot, frame.table)) == frame


@given(
    st.lists(st.lists(st.tuples(st.text(), st.text()), max_size=4).map(tuple), min_size=1, max_size=5).map(tuple),
    st.text(st.characters(codec="utf-8")),
)
def test_every_label_comes_back(table: tuple[Labels, ...], boot: str) -> None:
    kind, body = checked_body(table_record(boot, table))
    assert kind == TABLE
    assert table_of(body) == (boot, table)


RECORD = frame_record(
    pack(Frame(backlogs.TABLE, "boot", None, (1, 2), packed(1.5) * 8, 8)),
    table_at=0,
)


def test_any_changed_bit_is_noticed() -> None:
    for bit in range(len(RECORD) * 8):
        record = bytearray(RECORD)
        record[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            checked_body(bytes(record))


def test_a_cut_record_is_noticed() -> None:
    for length in range(len(RECORD)):
        with pytest.raises(DamagedError):
            checked_body(RECORD[:length])


def test_zeros_are_no_record() -> None:
    with pytest.raises(DamagedError):
        record_bytes(bytes(16))
