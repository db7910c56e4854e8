"""The energy meter: means, extremes, joules, coulombs and measured seconds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.energy.counters import Counters, Saved
from agent.energy.interval import Extremes, Means
from agent.energy.meter import EnergyMeter, EnergyMeters
from agent.errors import SensorError
from agent.measure.readings import Failure, Reading, Settling
from tests.energy.meters import meter_of
from tests.energy.quantities import Quantity, for_each_quantity

GONE = Failure("cpu", SensorError("gone"))


def reading(at_seconds: float, watts: float, volts: float = 2.0) -> Reading:
    return Reading("cpu", volts, watts / volts, watts, at_seconds, 1_700_000_000.0 + at_seconds, 0.0)


amperes = st.floats(-100, 100, allow_subnormal=False)
volts = st.sampled_from([0.0, 0.5, 12.0])
windows = st.sampled_from([0.0, 0.1, 1.0, 1.07, 16.9])
steps = st.lists(st.tuples(st.floats(0.001, 900), windows, volts, amperes, st.booleans()), min_size=1, max_size=30)
Step = tuple[float, float, float, float, bool]


def readings_of(steps: list[Step]) -> list[Reading]:
    """Readings whose volts and amperes are independent, so that power and current have their own courses."""
    readings = []
    at_seconds = 5.0
    for gap_seconds, window_seconds, volts, amperes, is_new in steps:
        at_seconds += gap_seconds
        readings.append(
            Reading("cpu", volts, amperes, volts * amperes, at_seconds, 1e9 + at_seconds, window_seconds, is_new)
        )
    return readings


def known_rate(readings: list[Reading], max_gap_seconds: float, of: Quantity) -> list[tuple[float, float, float]]:
    """Return the power or current over time as stretches of start, end and rate, by another method than the meter's.

    Each reading replaces the stretches since the last conversion that was covered.
    """
    drawn: list[tuple[float, float, float]] = []
    assumed_seconds = 0.0
    for before, after in itertools.pairwise(readings):
        if after.at_seconds - before.at_seconds > max_gap_seconds:
            assumed_seconds = 0.0
            continue
        start = before.at_seconds - assumed_seconds
        # The conversion ended at most one window ago, and lasted one window.
        latest_end = after.at_seconds if after.is_new else max(start, after.at_seconds - after.window_seconds)
        end = min(max(start + after.window_seconds, after.at_seconds - after.window_seconds), latest_end)
        unseen_seconds = max(0.0, end - start - after.window_seconds) if after.is_new else 0.0
        drawn = [(one, min(other, start), rate) for one, other, rate in drawn if one < start]
        drawn.append((start, start + unseen_seconds / 2, of.rate(before)))
        drawn.append((start + unseen_seconds / 2, after.at_seconds, of.rate(after)))
        assumed_seconds = after.at_seconds - end
    return drawn


@for_each_quantity
@given(steps)
def test_what_is_counted_minus_overcounted_is_the_integral(of: Quantity, steps: list[Step]) -> None:
    readings = readings_of(steps)
    made = meter_of(*readings)
    counted = made.saved.counters
    over, returned_over = of.overcounted(made.saved.last)
    drawn = known_rate(readings, 600.0, of)
    delivered = sum(max(0.0, rate) * (end - start) for start, end, rate in drawn)
    returned = sum(max(0.0, -rate) * (end - start) for start, end, rate in drawn)
    gaps = (after.at_seconds - before.at_seconds for before, after in itertools.pairwise(readings))
    assert of.delivered(counted) - over == pytest.approx(delivered, rel=1e-6, abs=1e-6)
    assert of.returned(counted) - returned_over == pytest.approx(returned, rel=1e-6, abs=1e-6)
    assert counted.measured_seconds == pytest.approx(sum(gap for gap in gaps if gap <= 600.0), rel=1e-6, abs=1e-6)
    assert counted.readings == len(readings)


@for_each_quantity
@given(st.lists(st.tuples(st.floats(0.001, 900), st.booleans()), max_size=30), st.floats(0.0, 20), amperes)
def test_a_constant_load_is_counted_without_delay(
    of: Quantity, steps: list[tuple[float, bool]], window_seconds: float, rate: float
) -> None:
    made = meter_of(of.reading(0.0, rate, window_seconds))
    at_seconds = 0.0
    for gap_seconds, is_new in steps:
        at_seconds += gap_seconds
        made.add(of.reading(at_seconds, rate, window_seconds, is_new=is_new))
        counted = made.saved.counters
        net = of.delivered(counted) - of.returned(counted)
        assert net == pytest.approx(rate * counted.measured_seconds, abs=1e-6)


@for_each_quantity
def test_a_result_read_twice_counts_as_one_conversion(of: Quantity) -> None:
    made = meter_of(of.reading(0, 1, 1.0), of.reading(1, 1, 1.0), of.reading(2, 101, 1.0))
    made.add(of.reading(3, 101, 1.0, is_new=False))
    made.add(of.reading(4, 1, 1.0))
    made.add(of.reading(5, 1, 1.0))
    made.add(of.reading(200, 1, 1.0))
    assert of.delivered(made.saved.counters) == pytest.approx(100 + 200)


@for_each_quantity
@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_overcounted_is_subtracted_before_the_counter_rises(of: Quantity, sign: int) -> None:
    def counted() -> float:
        return (of.delivered if sign > 0 else of.returned)(made.saved.counters)

    made = meter_of(of.reading(0, sign * 10, 1.0), of.reading(1, sign * 10, 1.0, is_new=False))
    assert counted() == 10
    made.add(of.reading(1.5, 0, 1.0))
    assert counted() == 10
    made.add(of.reading(2.5, sign * 4, 1.0))
    assert counted() == 10
    for second in range(4, 40):
        made.add(of.reading(second, sign * 4, 1.0))
    assert of.overcounted(made.saved.last) == (0, 0)
    assert counted() == pytest.approx(4 * (39 - 1.5), abs=4)


@given(steps)
def test_counters_only_rise(steps: list[Step]) -> None:
    made = EnergyMeter("cpu", 600.0)
    for each in readings_of(steps):
        before = made.saved.counters
        made.add(each)
        after = made.saved.counters
        assert all(later >= earlier for earlier, later in zip(before, after, strict=True))
        assert after.readings == before.readings + 1


@for_each_quantity
def test_only_gaps_up_to_max_gap_are_counted(of: Quantity) -> None:
    made = meter_of(of.reading(0, 3), of.reading(10, 3), max_gap_seconds=10)
    assert of.delivered(made.saved.counters) == 30
    longer = meter_of(of.reading(0, 3), of.reading(10.001, 3), of.reading(11.001, 3), max_gap_seconds=10).saved.counters
    assert of.delivered(longer) == pytest.approx(3)
    assert longer.measured_seconds == pytest.approx(1)


@for_each_quantity
def test_a_reading_up_to_half_a_sample_interval_late_leaves_no_gap(of: Quantity) -> None:
    made = EnergyMeter("cpu", max_gap_seconds=1.0, sample_interval_seconds=10.0)
    for at_seconds in (0, 10, 25):  # on time, then as late as it may be
        made.add(of.reading(at_seconds, 4))
    assert made.saved.counters.measured_seconds == 25
    made.add(of.reading(40.001, 4))
    assert made.saved.counters.measured_seconds == 25
    assert of.delivered(made.saved.counters) == 100


@for_each_quantity
def test_the_first_reading_of_a_run_must_meet_max_gap(of: Quantity) -> None:
    earlier = meter_of(of.reading(0, 4))
    made = EnergyMeter("cpu", 1.0, earlier.saved, sample_interval_seconds=10.0)
    made.add(of.reading(1.001, 4))
    assert (made.saved.counters.measured_seconds, of.delivered(made.saved.counters)) == (0, 0)


@for_each_quantity
def test_a_chips_average_counts_for_the_time_it_covers(of: Quantity) -> None:
    counted = meter_of(of.reading(0, 100), of.reading(20, 1, window_seconds=8)).saved.counters
    assert of.delivered(counted) == pytest.approx(100 * 2 + 1 * 18)  # 8 s covered, 8 s assumed, 4 s shared


@for_each_quantity
def test_what_flows_back_has_a_separate_positive_counter(of: Quantity) -> None:
    counted = meter_of(of.reading(0, -4), of.reading(1, -4), of.reading(3, 6, window_seconds=2)).saved.counters
    assert (of.delivered(counted), of.returned(counted), counted.measured_seconds) == (12, 4, 3)


def test_charge_flows_without_a_voltage_and_energy_does_not() -> None:
    shorted = [Reading("cpu", 0.0, -3.0, 0.0, second, 1e9 + second, 0.0) for second in range(3)]
    counted = meter_of(*shorted).saved.counters
    assert (counted.joules, counted.returned_joules) == (0, 0)
    assert (counted.coulombs, counted.returned_coulombs) == (0, 6)


@for_each_quantity
def test_nothing_is_counted_across_a_power_loss(of: Quantity) -> None:
    lost = Settling("cpu", ready_at_seconds=1.5, power_lost=True)
    counted = meter_of(of.reading(0, 5), lost, of.reading(2, 5), of.reading(3, 5)).saved.counters
    assert (of.delivered(counted), counted.measured_seconds, counted.resets) == (5, 1, 1)


def test_a_failed_reading_is_counted_and_its_gap_bridged() -> None:
    made = meter_of(reading(0, 5), GONE, Failure("cpu", GONE.error, tried=False), reading(2, 5))
    assert made.saved.counters == Counters(10, 0, 2, readings=2, read_errors=1, coulombs=5)


def test_means_and_extremes_cover_the_readings_since_the_last_push() -> None:
    made = meter_of(reading(0, 4), reading(1, -2), reading(2, 7, volts=3.5))
    snapshot = made.close_interval().pending
    assert snapshot.means == Means(7.5 / 3, 1.0, 3.0)
    assert snapshot.extremes == Extremes(2, 3.5, -1, 2, -2, 7)
    made.acknowledge(pushed=True)
    made.add(reading(3, 9))
    assert made.close_interval().pending.means == Means(2, 4.5, 9)


@given(
    st.lists(st.tuples(st.integers(-50, 50), st.sampled_from(["pushed", "failed", "under way", "none"])), min_size=1)
)
def test_means_and_extremes_cover_readings_of_failed_pushes(events: list[tuple[int, str]]) -> None:
    made = EnergyMeter("cpu", 600.0)
    pending: list[float] = []
    for second, (power, push) in enumerate(events):
        made.add(reading(second, power))
        pending.append(power)
        if push == "none":
            continue
        snapshot = made.close_interval().pending
        assert snapshot.means is not None
        assert snapshot.extremes is not None
        assert snapshot.means.watts == pytest.approx(sum(pending) / len(pending))
        assert (snapshot.extremes.min_watts, snapshot.extremes.max_watts) == (min(pending), max(pending))
        if push == "under way":
            continue
        made.acknowledge(pushed=push == "pushed")
        if push == "pushed":
            pending.clear()


def test_the_next_push_covers_readings_during_a_push() -> None:
    made = meter_of(reading(0, 4))
    made.close_interval()
    made.add(reading(1, 10))
    made.acknowledge(pushed=True)
    assert made.close_interval().pending.means == Means(2, 5, 10)


def test_a_device_without_a_reading_since_the_last_push_is_down() -> None:
    made = meter_of(reading(0, 4))
    made.close_interval()
    made.acknowledge(pushed=True)
    snapshot = made.close_interval().pending
    assert (snapshot.means, snapshot.extremes, snapshot.is_up) == (None, None, False)
    assert snapshot.last_read_unix_seconds == 1_700_000_000.0


def test_up_shows_whether_the_last_reading_succeeded() -> None:
    made = meter_of(reading(0, 4), GONE)
    assert not made.close_interval().pending.is_up
    made.acknowledge(pushed=False)
    made.add(reading(1, 4))
    assert made.close_interval().pending.is_up


def test_a_reload_keeps_the_meters_of_devices_that_stay() -> None:
    earlier = EnergyMeters(["cpu", "fan"], 600.0, {})
    earlier.add([reading(0, 4), reading(1, 4)])
    later = EnergyMeters(["disk", "cpu"], 5.0, {"disk": Saved(Counters(joules=7.0, coulombs=3.0))})
    later.adopt(earlier)
    later.add([reading(7, 4)])
    by_name = {closed.pending.device: closed.pending for closed in later.close_intervals()}
    assert list(by_name) == ["disk", "cpu"]
    # The gap of 6 s is longer than the new max_gap.
    assert (by_name["cpu"].counters.joules, by_name["cpu"].counters.coulombs) == (4, 2)
    assert by_name["cpu"].means == Means(2, 2, 4)
    assert (by_name["disk"].counters.joules, by_name["disk"].counters.coulombs) == (7, 3)
