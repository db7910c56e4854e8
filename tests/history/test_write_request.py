"""A frame as a remote write request: decoded by the libraries that everyone uses, and taken by real servers."""

from __future__ import annotations

import itertools
import math
import pickle
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.history import snappy
from agent.history.samples import ABSENT, STALE, Frame, Labels, count_samples, packed
from agent.history.write_request import EMPTY_REQUEST, HEADERS, message, write_request
from tests.history.engines import Engine, Prometheus, VictoriaMetrics
from tests.history.remote_write_message import DecodedSeries, decoded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_LEAST_MILLISECONDS, _MOST_MILLISECONDS = -(1 << 63), (1 << 63) - 1


def _labels(name: str, device: str = "cpu") -> Labels:
    return (("__name__", name), ("device", device), ("hostname", "node-1"), ("job", "power"))


VOLTS, AMPERES, UP = (_labels(f"wattpush_device_{name}") for name in ("volts", "amperes", "up"))


def _frame(
    table: Sequence[Labels], rows: Mapping[int, Sequence[float | bytes | None]], offset_milliseconds: int | None = 0
) -> Frame:
    """A frame of rows by their time; None is no sample."""
    values = b"".join(
        ABSENT if value is None else value if isinstance(value, bytes) else packed(value)
        for row in rows.values()
        for value in row
    )
    return Frame(tuple(table), "boot", offset_milliseconds, tuple(rows), values, count_samples(values))


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)


_label_sets = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=9),
    st.text(min_size=1, max_size=200),
    min_size=1,
    max_size=5,
).map(lambda labels: tuple(sorted(labels.items())))

_tables = st.lists(_label_sets, min_size=1, max_size=9, unique=True)


@st.composite
def _frames(draw: st.DrawFn) -> Frame:
    table = draw(_tables)
    times = sorted(draw(st.sets(st.integers(0, 1 << 42), min_size=1, max_size=20)))
    offset = draw(st.integers(_LEAST_MILLISECONDS, _MOST_MILLISECONDS - (1 << 42)))
    value = st.none() | st.floats(allow_nan=False) | st.sampled_from([0.0, 1.0, 5.0125])
    return _frame(table, {at: [draw(value) for _ in table] for at in times}, offset)


@given(_frames())
@settings(max_examples=150, deadline=None)
def test_protobuf_reads_every_label_time_and_value(frame: Frame) -> None:
    assert frame.offset_milliseconds is not None
    cells = [frame.values[at : at + 8] for at in range(0, len(frame.values), 8)]
    rows = list(itertools.zip_longest(*[iter(cells)] * len(frame.table)))
    expected = [
        (
            labels,
            [
                (at + frame.offset_milliseconds, row[column])
                for at, row in zip(frame.times_milliseconds, rows, strict=True)
                if row[column] != ABSENT
            ],
        )
        for column, labels in enumerate(frame.table)
    ]

    series = decoded(write_request(frame))

    assert [(one.labels, [(at, _bits(value)) for at, value in one.samples]) for one in series] == [
        (labels, samples) for labels, samples in expected if samples
    ]


@given(_frames())
@settings(max_examples=50, deadline=None)
def test_both_snappy_encoders_carry_the_same_message(frame: Frame) -> None:
    expected = message(frame)

    assert bytes(cramjam.snappy.decompress_raw(write_request(frame))) == expected
    assert bytes(cramjam.snappy.decompress_raw(snappy.compress_in_python(expected))) == expected


def test_without_sample_a_series_is_left_out() -> None:
    frame = _frame([VOLTS, AMPERES, UP], {1000: [5.0, None, 1.0], 2000: [None, None, 0.0]}, 7)

    assert decoded(write_request(frame)) == [
        DecodedSeries(VOLTS, ((1007, 5.0),)),
        DecodedSeries(UP, ((1007, 1.0), (2007, 0.0))),
    ]


def test_without_any_sample_the_request_is_empty() -> None:
    frame = _frame([VOLTS], {1000: [None]})

    assert write_request(frame) == EMPTY_REQUEST
    assert decoded(EMPTY_REQUEST) == []


def test_stale_marker_keeps_each_of_its_bits() -> None:
    body = message(_frame([VOLTS], {1000: [STALE]}))

    assert b"\x12\x0c\x09" + STALE + b"\x10\xe8\x07" in body


def test_same_frame_gives_same_bytes_whatever_was_sent_between() -> None:
    frame = _frame([VOLTS, UP], {1000: [5.0, 1.0], 2000: [5.1, 1.0]}, 99)
    first = write_request(frame)
    for number in range(5):
        write_request(_frame([_labels("other", f"rail-{number}")], {1: [1.0]}))

    copy = Frame(tuple(tuple(one) for one in frame.table), "boot", 99, frame.times_milliseconds, frame.values, 4, 0)

    assert write_request(copy) == first


def test_same_names_in_another_table_get_their_own_labels() -> None:
    tables = [[_labels("watts", f"rail-{number}") for number in range(first, first + 3)] for first in range(4)]

    for table in tables + tables:
        series = decoded(write_request(_frame(table, {1: [1.0, 2.0, 3.0]})))
        assert [one.labels for one in series] == table


def test_frame_without_a_known_time_is_never_encoded() -> None:
    with pytest.raises(ValueError, match="time is not known"):
        write_request(_frame([VOLTS], {1000: [5.0]}, None))


_VALUES = (0.0, 1.0, 0.1, 5.0125, -3.2, 1e-9, 123_456_789.123_456_78, 86_400.000_1, 0.00125 * 3, 2.0**53)
"""A series for each: VictoriaMetrics keeps fewer digits of small values beside large ones of the same series."""


_SECONDS = 400


def _real_frame(end_seconds: float) -> Frame:
    """A series for each of the values, which rises a little once a second, and one with gaps; more than 64 KiB."""
    table = [_labels("wattpush_device_joules_total", f"rail-{number}") for number in range(len(_VALUES))]
    rows = {
        1_000_000 + 1000 * second: [
            *(value * (1 + second * 1e-6) for value in _VALUES),
            float(second) if second % 3 else None,
        ]
        for second in range(_SECONDS)
    }
    return _frame([*table, AMPERES], rows, int(end_seconds * 1000) - 1_000_000 - 1000 * _SECONDS)


def _post(engine: Engine, body: bytes) -> int:
    return engine.post(body, **HEADERS)[0]


_WITHOUT_CRAMJAM = """
import pickle, sys
sys.modules["cramjam"] = None  # how Python marks a module that cannot be imported
from agent.history.write_request import write_request
sys.stdout.buffer.write(write_request(pickle.load(sys.stdin.buffer)))
"""


def _write_request_without_cramjam(frame: Frame) -> bytes:
    program = [sys.executable, "-c", _WITHOUT_CRAMJAM]
    return subprocess.run(program, input=pickle.dumps(frame), stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.reliability(
    12.12, "a machine without `cramjam`", "the agent compresses requests by itself; servers take the same messages"
)
@pytest.mark.parametrize("engine_type", [Prometheus, VictoriaMetrics])
@pytest.mark.parametrize("encode", [write_request, _write_request_without_cramjam], ids=["cramjam", "pure"])
def test_real_servers_give_the_values_back(
    engine_type: Callable[[Path], Engine],
    encode: Callable[[Frame], bytes],
    tmp_path: Path,
    measured: Callable[[str], None],
) -> None:
    frame = _real_frame(time.time() - 5)
    sent = {one.labels: list(one.samples) for one in decoded(write_request(frame))}

    with engine_type(tmp_path / "engine") as engine:
        statuses = [_post(engine, body) for body in (EMPTY_REQUEST, encode(frame))]
        stored = engine.samples('{job="power"}', seconds=600)

    assert len(message(frame)) > 1 << 16
    assert statuses == [204, 204]
    tolerance = 1e-12 if engine_type is VictoriaMetrics else 0.0  # it keeps decimals instead of bits
    assert stored.keys() == sent.keys()
    for labels, samples in sent.items():
        assert [at for at, _ in stored[labels]] == [at for at, _ in samples]
        for (_, back), (_, value) in zip(stored[labels], samples, strict=True):
            assert math.isclose(back, value, rel_tol=tolerance), (labels, back, value)
    names = "VictoriaMetrics" if engine_type is VictoriaMetrics else "Prometheus"
    how = "to 1e-12" if tolerance else "bit for bit"
    measured(f"{names}: {frame.samples} of {frame.samples} values back, {how}")


@pytest.mark.parametrize("engine_type", [Prometheus, VictoriaMetrics])
def test_stale_marker_ends_the_series_on_real_servers(engine_type: Callable[[Path], Engine], tmp_path: Path) -> None:
    now = time.time()
    frame = _frame([VOLTS, UP], {1000: [5.0, 1.0], 2000: [STALE, 0.0]}, int(now * 1000) - 7000)

    with engine_type(tmp_path / "engine") as engine:
        assert _post(engine, write_request(frame)) == 204
        before = engine.instant('{job="power"}', now - 5.5)
        after = engine.instant('{job="power"}', now - 4)

    assert before == {VOLTS: 5.0, UP: 1.0}
    assert after == {UP: 0.0}
