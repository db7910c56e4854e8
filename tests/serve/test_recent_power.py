"""The memory behind the plots, and the plots drawn from it."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SensorError
from agent.measure.readings import Failure, Reading
from agent.serve.plot import plot
from agent.serve.recent_power import RecentPower, Run, Trace


class Slot(NamedTuple):
    lowest: float
    mean: float
    highest: float


Slots = Sequence["Slot | None"]

SLOT = st.builds(
    lambda watts, below, above: Slot(watts - below, watts, watts + above),
    st.floats(-1e6, 1e6),
    st.floats(0.0, 1e5),
    st.floats(0.0, 1e5),
)


def reading(seconds: float, watts: float, device: str = "cpu") -> Reading:
    return Reading(device, 1.0, watts, watts, seconds, 1.7e9 + seconds, 0.0)


def memory(sample_interval_seconds: float = 1.0) -> RecentPower:
    return RecentPower({"cpu": "ina260 0x40"}, sample_interval_seconds)


def trace_of(recent_power: RecentPower, now_seconds: float) -> list[Slot | None]:
    trace = recent_power.recent(now_seconds).traces["cpu"]
    slots: list[Slot | None] = [None] * trace.slots
    for run in trace.runs:
        for number, values in enumerate(zip(run.lowest, run.means, run.highest, strict=True), start=run.first):
            slots[number] = Slot(*values)
    return slots


def trace(slots: Slots) -> Trace:
    runs: list[Run] = []
    for has_reading, numbered in groupby(enumerate(slots), key=lambda one: one[1] is not None):
        found = list(numbered)
        if has_reading:
            columns = zip(*(slot for _, slot in found if slot is not None), strict=True)
            runs.append(Run(found[0][0], *map(list, columns)))
    return Trace(len(slots), tuple(runs))


def test_a_slot_holds_the_lowest_mean_and_highest_of_its_readings() -> None:
    recent_power = memory()
    for second, watts in enumerate((3.0, 1.0, 8.0, 2.0, 6.0), start=1000):
        recent_power.add([reading(second, watts)])
    assert not any(trace_of(recent_power, 1004.9))  # that slot is still being filled
    assert trace_of(recent_power, 1005.0)[-1] == Slot(1.0, 4.0, 8.0)


def test_the_memory_covers_the_last_fifteen_minutes_and_no_more() -> None:
    recent_power = memory()
    for second in range(5000):
        recent_power.add([reading(second, float(second // 5))])
    assert [slot.mean for slot in trace_of(recent_power, 5000.0) if slot is not None] == [*range(820, 1000)]
    assert len(trace_of(recent_power, 5000.0)) == 180


@pytest.mark.parametrize("gap_seconds", [5, 60, 899, 905, 5000])
def test_time_without_a_reading_is_a_gap(gap_seconds: int) -> None:
    recent_power = memory()
    for second in range(900):
        recent_power.add([reading(second, 1.0)])
    recent_power.add([Failure("cpu", SensorError("unplugged"))])
    begin = 900 + gap_seconds
    for second in range(begin, begin + 5):
        recent_power.add([reading(second, 2.0)])
    now_slot = (begin + 5) // 5
    expected = {**dict.fromkeys(range(180), 1.0), begin // 5: 2.0}
    found = [None if slot is None else slot.mean for slot in trace_of(recent_power, now_slot * 5.0)]
    assert found == [expected.get(slot) for slot in range(now_slot - 180, now_slot)]


def test_a_device_that_is_no_longer_read_leaves_the_plot() -> None:
    recent_power = memory()
    recent_power.add([reading(1.0, 5.0)])
    assert any(trace_of(recent_power, 900.0))
    assert not any(trace_of(recent_power, 910.0))


def test_slow_sweeps_leave_no_gaps() -> None:
    recent_power, noise = memory(60.0), random.Random(1)
    for number in range(40):
        recent_power.add([reading(number * 60 + noise.uniform(0.0, 30.0), 1.0)])
    assert all(trace_of(recent_power, 39 * 60.0))


@pytest.mark.parametrize(
    ("sample_interval_seconds", "minutes"), [(0.05, 15), (1.0, 15), (3.5, 15), (60.0, 24), (900.0, 360)]
)
def test_the_traces_cover_the_time_that_they_say(sample_interval_seconds: float, minutes: int) -> None:
    recent_power = memory(sample_interval_seconds)
    recent = recent_power.recent(1e6)
    assert round(recent.span_seconds / 60) == minutes
    assert recent.traces["cpu"].slots * recent_power.slot_seconds == recent.span_seconds


def test_the_memory_of_a_device_stays_below_six_kilobytes() -> None:
    recent_power = memory()
    for second in range(10_000):
        recent_power.add([reading(second, 1.0)])
    ring = recent_power._rings["cpu"]
    arrays = [value for value in vars(ring).values() if not isinstance(value, int)]
    assert len(arrays) == 4
    assert sum(map(sys.getsizeof, arrays)) < 6000


def test_the_same_value_serves_until_a_slot_has_ended() -> None:
    recent_power = memory()
    recent_power.add([reading(1.0, 1.0)])
    first = recent_power.recent(6.0)
    recent_power.add([reading(7.0, 1.0)])
    assert recent_power.recent(9.9) is first
    assert recent_power.recent(10.0) is not first


def test_a_memory_with_other_slots_is_not_taken_over() -> None:
    earlier, later = memory(1.0), memory(60.0)
    earlier.add([reading(1.0, 1.0)])
    later.adopt(earlier)
    assert not any(trace_of(later, 130.0))


def drawn(slots: Slots) -> dict[str, str]:
    """The paths of a plot by their class."""
    picture = ET.fromstring(plot("cpu", 0, trace(slots)))
    return {path.get("class", ""): path.get("d", "") for path in picture.iter("path")}


@given(st.lists(st.none() | SLOT, min_size=1, max_size=180))
def test_every_plot_stays_inside_its_frame(slots: list[Slot | None]) -> None:
    for path in drawn(slots).values():
        assert not re.search(r"[^MVhHz0-9 -]", path)
        assert all(0 <= int(y) <= 100 for y in re.findall(r"(?:V|M\d+ )(-?\d+)", path))
        for part in path.split("M")[1:]:
            x = [int(part.split()[0])]
            x += [int(step) for step in re.findall(r"h(-?\d+)", part)]
            assert all(0 <= sum(x[: count + 1]) <= 4 * len(slots) for count in range(len(x)))


@given(st.lists(SLOT, min_size=1, max_size=180))
def test_the_line_lies_inside_the_band(slots: list[Slot]) -> None:
    assert plot("cpu", 0, trace(slots)).count("<path") == 3
    (top, bottom) = re.findall(r">([^<]*)</span>", plot("cpu", 0, trace(slots)))
    units = {"mW": 1e-3, "W": 1.0, "kW": 1e3, "MW": 1e6, "GW": 1e9, "TW": 1e12}
    high, low = (
        float(number.replace("\u2212", "-")) * units[unit]
        for number, unit in (label.split("\u00a0") for label in (top, bottom))
    )
    assert low <= 0.0 <= high
    assert high >= max(slot.highest for slot in slots) * (1 - 1e-6)
    assert low <= min(slot.lowest for slot in slots) * (1 - 1e-6) or low == 0.0


def test_a_gap_in_the_readings_is_a_gap_in_the_line() -> None:
    slot = Slot(1.0, 2.0, 4.0)
    assert drawn((None, slot, slot, None, slot)) == {
        "grid": "M0 0H20M0 100H20",
        "line": "M4 60V60h4V60h4M16 60V60h4",
        "band": "M4 20V20h4V20h4V80h-4V80h-4zM16 20V20h4V80h-4z",
    }


def test_a_plot_without_a_reading_says_so() -> None:
    assert '<desc id="d0">no reading</desc>' in plot("cpu", 0, trace([None] * 180))
    assert set(drawn((None,) * 180)) == {"grid"}


def test_a_plot_of_power_that_flows_back_shows_zero() -> None:
    paths = drawn((Slot(-2.0, -1.0, 2.0),))
    assert paths["grid"] == "M0 0H4M0 50H4"
    assert paths["line"] == "M0 70V70h4"


def test_a_large_number_has_a_round_scale() -> None:
    for watts, label in (
        (0.0004, "1\u00a0mW"),
        (0.9, "1\u00a0W"),
        (11.2, "12\u00a0W"),
        (1300.0, "1.5\u00a0kW"),
        (4e6, "5\u00a0MW"),
    ):
        assert f">{label}<" in plot("cpu", 0, trace([Slot(0.0, 0.0, watts)]))
