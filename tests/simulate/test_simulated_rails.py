from __future__ import annotations

import gzip
import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import ConfigError
from agent.simulate.ina260 import SimulatedINA260
from agent.simulate.rails import ConstantRail, LoadRail, Segment, values_at
from agent.simulate.recordings import Recording, read_recording

if TYPE_CHECKING:
    from agent.simulate.rails import Rail
    from tests.simulate.simulated_clock import HandClock

GOOD = b"seconds,volts,amperes\n0.000,5.0,1.0\n0.500,5.1,2.0\n1.000,5.2,0.5\n"

# A folder of recordings of real rails, too large to be part of the project.
TRACES = Path(os.environ.get("WATTPUSH_TEST_TRACES") or Path(__file__).parents[3] / "shared" / "traces")
REAL_DAY = TRACES / "jetson_orin_vdd_in_24h.csv.gz"


def assert_covers(segments: list[Segment], start: float, end: float) -> None:
    assert segments[0].start == start
    assert segments[-1].end == end
    assert all(before.end == after.start for before, after in itertools.pairwise(segments))
    assert all(segment.end > segment.start for segment in segments)


def joules_of(rail: Rail, start: float, end: float) -> float:
    return sum((s.end - s.start) * s.volts * s.amperes for s in rail.segments(start, end))


def test_a_constant_rail_changes_from_now_on(clock: HandClock) -> None:
    rail = ConstantRail(5.0, 1.0, clock)
    clock.advance(1.0)
    rail.amperes = 2.0
    clock.advance(1.0)
    rail.volts = 6.0
    assert list(rail.segments(-1.0, 3.0)) == [
        Segment(-1.0, 1.0, 5.0, 1.0),
        Segment(1.0, 2.0, 5.0, 2.0),
        Segment(2.0, 3.0, 6.0, 2.0),
    ]
    assert (rail.volts, rail.amperes) == (6.0, 2.0)


@pytest.mark.parametrize(("start", "end"), [(0.0, 10.0), (0.25, 0.26), (7.0, 8.0), (86_399.5, 86_401.5), (-1.5, 0.5)])
def test_a_load_covers_any_range_without_gaps(start: float, end: float) -> None:
    assert_covers(list(LoadRail("cpu").segments(start, end)), start, end)


def test_a_load_looks_like_a_small_computer() -> None:
    segments = list(LoadRail("cpu").segments(0.0, 600.0))
    amperes = [segment.amperes for segment in segments]
    assert 0.3 <= min(amperes) < 0.35
    assert 2.0 < max(amperes) <= 2.5
    assert all(4.85 <= segment.volts <= 5.15 for segment in segments)
    assert min(segments, key=lambda s: s.volts).amperes == max(amperes)  # the supply sags under load
    lengths = [segment.end - segment.start for segment in segments]
    assert 0.0049 < min(lengths) < 0.02
    assert 0.4 < max(lengths) < 0.51


def test_a_load_is_reproducible_by_name() -> None:
    cpu = LoadRail("cpu")
    once = list(cpu.segments(1000.0, 1010.0))
    list(cpu.segments(0.0, 200.0))
    assert list(cpu.segments(1000.0, 1010.0)) == once
    assert list(LoadRail("cpu").segments(1000.0, 1010.0)) == once
    assert list(LoadRail("gpu").segments(1000.0, 1010.0)) != once
    assert values_at(cpu, once[3].start) == (once[3].volts, once[3].amperes)


def test_a_recording_holds_each_value_until_the_next_row(tmp_path: Path) -> None:
    file = tmp_path / "rail.csv"
    file.write_bytes(GOOD)
    recording = read_recording(file)
    assert list(recording.segments(-1.0, 9.0)) == [
        Segment(-1.0, 0.5, 5.0, 1.0),
        Segment(0.5, 1.0, 5.1, 2.0),
        Segment(1.0, 9.0, 5.2, 0.5),
    ]
    assert list(recording.segments(0.5, 1.0)) == [Segment(0.5, 1.0, 5.1, 2.0)]
    assert list(recording.segments(0.5, 0.6)) == [Segment(0.5, 0.6, 5.1, 2.0)]
    assert recording.end_seconds == 1.0
    assert recording.integral(0.0, 2.0) == pytest.approx(2.5 + 5.1 + 2.6)


def test_compression_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "rail.csv.gz"
    file.write_bytes(gzip.compress(GOOD.replace(b"\n", b"\r\n")))
    assert list(read_recording(file).segments(0.75, 1.5)) == [
        Segment(0.75, 1.0, 5.1, 2.0),
        Segment(1.0, 1.5, 5.2, 0.5),
    ]


def test_a_recording_starts_at_the_given_second() -> None:
    recording = Recording([(0.0, 5.0, 1.0), (1.0, 5.0, 3.0)])
    later = recording.beginning_at(1234.5)
    assert list(later.segments(1235.0, 1236.0)) == [
        Segment(1235.0, 1235.5, 5.0, 1.0),
        Segment(1235.5, 1236.0, 5.0, 3.0),
    ]
    assert later.integral(1234.5, 1236.5) == pytest.approx(20.0)
    assert later.end_seconds == 1235.5
    assert recording.integral(0.0, 2.0) == pytest.approx(20.0)


@given(
    rows=st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(-40.0, 40.0), st.floats(-20.0, 20.0)), min_size=1),
    start=st.floats(-10.0, 100.0),
    length=st.floats(0.0, 100.0),
    begins=st.sampled_from([0.0, 3.25, 1e5]),
)
def test_the_integral_equals_the_sum_of_the_segments(
    rows: list[tuple[float, float, float]], start: float, length: float, begins: float
) -> None:
    moments = itertools.accumulate(pause for pause, _, _ in rows)
    timed = [(moment, volts, amperes) for moment, (_, volts, amperes) in zip(moments, rows, strict=True)]
    recording = Recording(timed).beginning_at(begins)
    start += begins
    end = start + length
    edges = [-1e9, *(begins + row[0] for row in timed[1:]), 1e9]
    by_hand = sum(
        max(min(end, edges[i + 1]) - max(start, edges[i]), 0.0) * volts * amperes
        for i, (_, volts, amperes) in enumerate(timed)
    )
    assert recording.integral(start, end) == pytest.approx(by_hand, abs=1e-4)
    assert joules_of(recording, start, end) == pytest.approx(by_hand, abs=1e-4)
    if end > start:
        assert_covers(list(recording.segments(start, end)), start, end)


HEADER = b"seconds,volts,amperes\n"
BAD_FILES = {
    "empty": (b"", "1: the file is empty; it should be the header seconds,volts,amperes and at least one row"),
    "no rows": (HEADER, "2: there is no row; it should be at least one row of seconds,volts,amperes"),
    "header": (b"time,volts,amperes\n", "1: the header is 'time,volts,amperes'; it should be seconds,volts,amperes"),
    "two columns": (HEADER + b"0,5\n", "2: 2 columns in '0,5'; it should be three: seconds,volts,amperes"),
    "blank line": (
        HEADER + b"0,5,1\n\n\n1,5,1\n",
        "3: the line is empty; it should be three numbers with commas between",
    ),
    "blank lines alone": (
        HEADER + b"\n\n",
        "4: there is no row; it should be at least one row of seconds,volts,amperes",
    ),
    "word": (HEADER + b"0,5,x\n", "2: 'x' is not a usable number; it should be a finite decimal number up to 1e+09"),
    "nan": (HEADER + b"0,nan,1\n", "2: 'nan' is not a usable number; it should be a finite decimal number up to 1e+09"),
    "inf": (
        HEADER + b"0,5,-inf\n",
        "2: '-inf' is not a usable number; it should be a finite decimal number up to 1e+09",
    ),
    "huge": (
        HEADER + b"0,1e300,1\n",
        "2: '1e300' is not a usable number; it should be a finite decimal number up to 1e+09",
    ),
    "python": (
        HEADER + b"0,1_0,1\n",
        "2: '1_0' is not a usable number; it should be a finite decimal number up to 1e+09",
    ),
    "negative time": (
        HEADER + b"-1,5,1\n",
        "2: time goes back from 0.0 to -1.0; it should be seconds from 0 on, each row at or after the last",
    ),
    "backwards": (
        HEADER + b"2,5,1\n1,5,1\n",
        "3: time goes back from 2.0 to 1.0; it should be seconds from 0 on, each row at or after the last",
    ),
    "not UTF-8": (HEADER + b"0,5,\xff\n", "2: the line is not UTF-8; it should be plain text"),
    "huge line": (
        HEADER + b"0" * 2_000_000,
        "2: the line is longer than 1000 bytes; it should be three numbers with commas between",
    ),
}


@pytest.mark.parametrize(("content", "complaint"), BAD_FILES.values(), ids=BAD_FILES.keys())
@pytest.mark.parametrize("name", ["rail.csv", "rail.csv.gz"])
def test_a_bad_recording_is_refused_with_line_and_expectation(
    tmp_path: Path, content: bytes, complaint: str, name: str
) -> None:
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(ConfigError) as refused:
        read_recording(file)
    assert str(refused.value) == f"{file}:{complaint}"


@pytest.mark.parametrize(
    "content",
    [
        b"seconds,volts,amperes\r\n0,5,1\r\n1,5,2\r\n",
        b"\xef\xbb\xbfseconds,volts,amperes\n0,5,1\n1,5,2\n",
        b"seconds, volts, amperes\n0, 5, 1\n1, 5, 2\n\n\n",
        b'"seconds","volts","amperes"\n0,5,1\n1,5,2',
    ],
    ids=["from Windows", "byte order mark", "spaces and blank lines at the end", "quoted names"],
)
def test_spreadsheet_variants_of_csv_are_accepted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rail.csv"
    file.write_bytes(content)
    assert read_recording(file).integral(0, 2) == pytest.approx(15)


def test_an_unreadable_recording_is_refused_in_one_line(tmp_path: Path) -> None:
    not_compressed = tmp_path / "plain.csv.gz"
    not_compressed.write_bytes(GOOD)
    whole = gzip.compress(HEADER + b"".join(b"%d,5,1\n" % second for second in range(1000)))
    truncated = tmp_path / "truncated.csv.gz"
    truncated.write_bytes(whole[: len(whole) // 2])
    for file, complaint in (
        (tmp_path / "absent.csv", " no such file; a recording is CSV with the header seconds,volts,amperes"),
        (tmp_path, " is a folder; name the file in it"),
        (not_compressed, r"1: cannot be decompressed \(Not a gzipped file .*\); it should be a gzip file"),
        (truncated, r"\d+: the compressed data ends too early; it should be a whole gzip file"),
    ):
        with pytest.raises(ConfigError, match=complaint) as refused:
            read_recording(file)
        assert len(str(refused.value).splitlines()) == 1


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    cut=st.integers(0, 400),
    inserted=st.binary(max_size=30),
    skipped=st.integers(0, 5),
    compress=st.sampled_from(["before", "after", "no"]),
)
def test_any_damage_to_a_recording_is_one_line_of_error(
    tmp_path: Path, cut: int, inserted: bytes, skipped: int, compress: str
) -> None:
    content = HEADER + b"".join(b"%d.5,5.%d,-1e-%d\n" % (row, row, row) for row in range(15))
    if compress == "before":
        content = gzip.compress(content)
    content = content[:cut] + inserted + content[cut + skipped :]
    if compress == "after":
        content = gzip.compress(content)
    file = tmp_path / ("rail.csv" if compress == "no" else "rail.csv.gz")
    file.write_bytes(content)
    complaint = complaint_about(file)
    if complaint is None:
        assert_covers(list(read_recording(file).segments(0.0, 100.0)), 0.0, 100.0)
    else:
        assert re.fullmatch(rf"{re.escape(str(file))}:\d+: .+; it should be .+", complaint)


def complaint_about(file: Path) -> str | None:
    try:
        read_recording(file)
    except ConfigError as refused:
        return str(refused)
    return None


def energy_read_each_second(recording: Recording, clock: HandClock, seconds: int) -> float:
    """The joules computed by a host that reads an INA260 once a second, with averages over about a second."""
    chip = SimulatedINA260(0x40, recording, clock)
    chip.write(b"\x00\x6d\x27")  # 512 x (1.1 ms + 1.1 ms) = 1.126 s
    clock.advance(1.126_401)
    joules = 0.0
    for _ in range(seconds):
        chip.write(b"\x01")
        amperes = int.from_bytes(chip.read(2), "big", signed=True) * 1.25e-3
        chip.write(b"\x02")
        joules += amperes * int.from_bytes(chip.read(2), "big") * 1.25e-3
        clock.advance(1.0)
    return joules


def test_an_hour_sampled_each_second_gives_the_recorded_energy(clock: HandClock) -> None:
    load = LoadRail("cpu")
    recording = Recording([(s.start, s.volts, s.amperes) for s in load.segments(0.0, 3700.0)])
    joules = energy_read_each_second(recording, clock, 3600)
    assert joules == pytest.approx(recording.integral(0.0, 3600.0), rel=0.02)


@pytest.mark.skipif(not REAL_DAY.exists(), reason="neither WATTPUSH_TEST_TRACES nor ../shared/traces has it")
def test_a_real_day_sampled_each_second_gives_the_recorded_energy(clock: HandClock) -> None:
    recording = read_recording(REAL_DAY)
    joules = energy_read_each_second(recording, clock, 86_400)
    assert joules == pytest.approx(recording.integral(0.0, 86_400.0), rel=0.001)
