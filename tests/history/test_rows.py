"""From sweeps and intervals to rows: which samples, with which labels, and when a series ends."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.energy.meter import EnergyMeters
from agent.energy.state import AgentCounters, RemoteCounters
from agent.errors import SensorError
from agent.history.rows import IntervalRows, SweepRows, sweep_series
from agent.history.samples import ABSENT, STALE, VALUE_BYTES
from agent.measure.readings import Failure, Reading, Settling
from agent.metrics.catalogue import RemoteStatus, Snapshot
from agent.metrics.groups import scrape_registry
from agent.settings import MetricsSettings
from tests.run.running import CPU, DISK, INFO, MODEM, settings_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.settings import Settings

AWAY = SensorError("no answer")
SETTINGS = settings_for(CPU, DISK)
WITH_CHARGE = settings_for(CPU, DISK, metrics=MetricsSettings(charge=True))
SWEEP_SERIES = sweep_series(SETTINGS.metrics)

for_both_tables = pytest.mark.parametrize("settings", [SETTINGS, WITH_CHARGE], ids=["plain", "charge"])

Row = dict[tuple[str, str], float | str]
"""By name and device; the markers as words, and without what is absent."""


def reading(device: str, at_seconds: float, watts: float = 6.0) -> Reading:
    return Reading(device, 12.0, watts / 12, watts, at_seconds, 1e9 + at_seconds, 0.01)


def decoded(table: tuple[Labels, ...], row: bytes) -> Row:
    assert len(row) == VALUE_BYTES * len(table)
    found: Row = {}
    for column, labels in enumerate(table):
        value = row[VALUE_BYTES * column : VALUE_BYTES * (column + 1)]
        name = (
            dict(labels)["__name__"].removeprefix("wattpush_").removeprefix("device_"),
            dict(labels).get("device", ""),
        )
        if value == STALE:
            found[name] = "stale"
        elif value != ABSENT:
            found[name] = struct.unpack("<d", value)[0]
    return found


class Measured:
    """Meters that are fed outcomes, and the rows of both kinds."""

    def __init__(self, settings: Settings = SETTINGS, live: frozenset[Labels] | None = None) -> None:
        self.settings = settings
        self.meters = EnergyMeters((device.name for device in settings.devices), 600.0, {}, 1.0)
        self.sweeps = SweepRows(settings, "power", live)
        self.intervals = IntervalRows(settings, "power", live=live)

    def sweep(self, *outcomes: Outcome) -> Row:
        self.meters.add(outcomes)
        return decoded(self.sweeps.table, self.sweeps.row(outcomes, self.meters.devices))

    def snapshot(self, *, has_counters: bool = True, remote: RemoteStatus | None = None) -> Snapshot:
        devices = tuple(closed.last_interval for closed in self.meters.close_intervals())
        return Snapshot(devices, INFO, AgentCounters(), 0.01, None, has_counters=has_counters, remote=remote)

    def interval(self, *outcomes: Outcome, has_counters: bool = True, remote: RemoteStatus | None = None) -> Row:
        self.meters.add(outcomes)
        row = self.intervals.row(self.snapshot(has_counters=has_counters, remote=remote))
        return decoded(self.intervals.table, row)


def stale(row: Row) -> set[tuple[str, str]]:
    return {name for name, value in row.items() if value == "stale"}


def both(at_seconds: float) -> Iterable[Reading]:
    return reading("cpu", at_seconds), reading("disk", at_seconds)


def test_an_interval_holds_what_a_scrape_shows_and_the_job() -> None:
    settings = settings_for(CPU, MODEM, metrics=MetricsSettings(extremes=True, charge=True, ina260_names=True))
    measured = Measured(settings, live=frozenset())
    measured.meters.add((reading("cpu", 1.0), reading("modem", 1.0)))
    snapshot = measured.snapshot()
    row = measured.intervals.row(snapshot)
    expected = {}
    for family in scrape_registry(snapshot, settings).collect():
        for sample in family.samples:
            if sample.name.startswith("process_"):
                continue  # it is another moment
            labels = {"__name__": sample.name, "job": "power", **sample.labels}
            expected[tuple(sorted((name, value) for name, value in labels.items() if value))] = sample.value
    values = struct.unpack(f"<{len(measured.intervals.table)}d", row)
    found = dict(zip(measured.intervals.table, values, strict=True))
    assert expected.items() <= found.items()
    assert {dict(labels)["__name__"][:8] for labels in found.keys() - expected.keys()} == {"process_"}


def test_labels_are_sorted_and_none_is_empty() -> None:
    measured = Measured()
    measured.interval(*both(1.0))
    for labels in (*measured.intervals.table, *measured.sweeps.table):
        names = [name for name, _ in labels]
        assert names == sorted(set(names))
        assert all(value for _, value in labels)
        assert {"__name__", "job", "hostname"} <= set(names)


def test_a_device_that_goes_down_ends_its_gauges_once() -> None:
    measured = Measured()
    assert not stale(measured.interval(*both(1.0)))
    down = measured.interval(reading("cpu", 2.0), Failure("disk", AWAY))
    gauges = {"volts", "amperes", "watts"} | {
        f"{which}_{unit}" for which in ("min", "max") for unit in ("volts", "amperes", "watts")
    }
    assert stale(down) == {(gauge, "disk") for gauge in gauges}
    assert (down["up", "disk"], down["up", "cpu"], down["read_errors_total", "disk"]) == (0.0, 1.0, 1.0)
    assert not stale(measured.interval(reading("cpu", 3.0), Failure("disk", AWAY)))
    up = measured.interval(*both(4.0))
    assert up["watts", "disk"] == 6.0
    assert not stale(up)


def test_the_first_interval_of_a_process_ends_gauges_of_devices_that_are_down() -> None:
    first = Measured().interval(reading("cpu", 1.0), Failure("disk", AWAY))
    assert {("volts", "disk"), ("min_watts", "disk"), ("last_read_timestamp_seconds", "disk")} <= stale(first)
    assert not [name for name in stale(first) if name[1] == "cpu"]
    later = Measured(live=frozenset()).interval(reading("cpu", 1.0), Failure("disk", AWAY))
    assert not stale(later), "after a reload it is known what is live"


def test_the_table_grows_and_is_kept() -> None:
    measured = Measured()
    measured.interval(*both(1.0))
    before = measured.intervals.table
    measured.interval(reading("cpu", 2.0), Failure("disk", AWAY))
    measured.interval(*both(3.0))
    assert measured.intervals.table is before
    status = RemoteStatus(RemoteCounters(), 5, 100, 1000, None, None)
    measured.interval(*both(4.0), remote=status)
    assert measured.intervals.table[: len(before)] == before
    assert len(measured.intervals.table) > len(before)


def test_counters_that_are_not_saved_are_absent_but_do_not_end() -> None:
    measured = Measured()
    measured.interval(*both(1.0))
    row = measured.interval(*both(2.0), has_counters=False)
    assert ("joules_total", "cpu") not in row
    assert not stale(row)
    assert measured.interval(*both(3.0))["joules_total", "cpu"] == pytest.approx(12.0)


def test_the_last_row_ends_everything_that_is_live() -> None:
    measured = Measured()
    first = measured.interval(reading("cpu", 1.0), Failure("disk", AWAY))
    last = decoded(measured.intervals.table, measured.intervals.last_row())
    assert stale(last) == first.keys() - stale(first)
    assert measured.intervals.live == set()
    assert set(measured.intervals.last_row()) == set(ABSENT)


def test_after_a_reload_only_series_that_ended_are_ended() -> None:
    earlier = Measured()
    earlier.interval(*both(1.0))
    live = frozenset(earlier.intervals.live)
    later = Measured(settings_for(CPU), live=live)
    row = later.interval(reading("cpu", 2.0))
    assert {device for _, device in stale(row)} == {"disk"}
    assert len(stale(row)) == sum(dict(labels).get("device") == "disk" for labels in live)
    assert ("watts", "cpu") not in stale(row)
    later.interval(reading("cpu", 3.0))
    assert not [labels for labels in later.intervals.table if dict(labels).get("device") == "disk"], "no column is left"


def test_a_changed_hostname_ends_the_series_of_the_old_one() -> None:
    earlier = Measured()
    earlier.interval(*both(1.0))
    live = frozenset(earlier.intervals.live)
    later = Measured(replace(SETTINGS, hostname="node-18"), live=live)
    later.meters.add(both(2.0))
    row = later.intervals.row(later.snapshot())
    ended = {
        labels
        for column, labels in enumerate(later.intervals.table)
        if row[VALUE_BYTES * column : VALUE_BYTES * (column + 1)] == STALE
    }
    assert live <= ended
    assert {dict(labels)["hostname"] for labels in later.intervals.live} == {"node-18"}


def test_a_sweep_has_the_reading_and_the_counters_of_its_moment() -> None:
    measured = Measured()
    measured.sweep(*both(1.0))
    row = measured.sweep(reading("cpu", 2.0, 12.0), reading("disk", 2.0))
    assert {name: value for (name, device), value in row.items() if device == "cpu"} == {
        "volts": 12.0,
        "amperes": 1.0,
        "watts": 12.0,
        "joules_total": measured.meters.devices["cpu"].saved.counters.joules,
        "returned_joules_total": 0.0,
        "measured_seconds_total": 1.0,
        "up": 1.0,
    }
    assert len(row) == 2 * len(SWEEP_SERIES)


def test_a_sweep_has_the_charge_of_its_moment_if_it_is_published() -> None:
    plain, measured = Measured(), Measured(WITH_CHARGE)
    for each in (plain, measured):
        each.sweep(reading("cpu", 1.0, -3.0), reading("disk", 1.0))
    outcomes = reading("cpu", 2.0, 12.0), reading("disk", 2.0)
    without, row = plain.sweep(*outcomes), measured.sweep(*outcomes)
    assert {name: value for name, value in row.items() if name not in without} == {
        (f"{direction}coulombs_total", device): getattr(
            measured.meters.devices[device].saved.counters, f"{direction}coulombs"
        )
        for direction in ("", "returned_")
        for device in ("cpu", "disk")
    }
    # Half of a second at -0.25 A, and half at 1 A; the last conversion took 0.01 s.
    assert row["returned_coulombs_total", "cpu"] == pytest.approx(0.25 / 2, rel=0.05)
    assert row["coulombs_total", "cpu"] == pytest.approx(1.0 / 2, rel=0.05)
    assert row["coulombs_total", "disk"] == pytest.approx(0.5)
    assert without.items() <= row.items()


def test_a_reload_without_charge_ends_its_series() -> None:
    earlier = Measured(WITH_CHARGE)
    earlier.sweep(*both(1.0))
    charge = {(f"{direction}coulombs_total", device) for direction in ("", "returned_") for device in ("cpu", "disk")}
    later = Measured(SETTINGS, live=earlier.sweeps.live)
    assert charge <= stale(later.interval(*both(2.0)))
    assert not charge & stale(later.interval(*both(3.0)))


@pytest.mark.parametrize("down", [Failure("disk", AWAY), Settling("disk", 3.0, power_lost=True)])
def test_a_sweep_ends_the_gauges_of_a_device_that_went_down(down: Outcome) -> None:
    measured = Measured()
    measured.sweep(*both(1.0))
    row = measured.sweep(reading("cpu", 2.0), down)
    assert stale(row) == {("volts", "disk"), ("amperes", "disk"), ("watts", "disk")}
    assert (row["up", "disk"], row["up", "cpu"]) == (0.0, 1.0)
    assert not stale(measured.sweep(reading("cpu", 3.0), down))


@for_both_tables
def test_a_device_that_was_skipped_is_in_the_interval_alone(settings: Settings) -> None:
    measured = Measured(settings)
    measured.sweep(*both(1.0))
    for skipped in (Failure("disk", AWAY, tried=False), Settling("disk", 3.0)):
        row = measured.sweep(reading("cpu", 2.0), skipped)
        assert {device for _, device in row} == {"cpu"}
    measured.meters.close_intervals()
    measured.sweep(reading("cpu", 3.0), Failure("disk", AWAY, tried=False))
    row = decoded(measured.sweeps.table, measured.sweeps.interval_row(measured.snapshot().devices))
    assert stale(row) == {("volts", "disk"), ("amperes", "disk"), ("watts", "disk")}
    counters = measured.meters.devices["disk"].saved.counters
    expected = {
        ("up", "disk"): 0.0,
        ("joules_total", "disk"): counters.joules,
        ("returned_joules_total", "disk"): 0.0,
        ("measured_seconds_total", "disk"): counters.measured_seconds,
    }
    if settings is WITH_CHARGE:
        expected |= {("coulombs_total", "disk"): counters.coulombs, ("returned_coulombs_total", "disk"): 0.0}
    found = {name: value for name, value in row.items() if value != "stale"}
    assert found == expected, "the bus may be held for hours, and the counters stay in sight"


@for_both_tables
def test_a_sweep_without_counters_keeps_the_rest(settings: Settings) -> None:
    measured = Measured(settings)
    outcomes = tuple(both(1.0))
    measured.meters.add(outcomes)
    row = measured.sweeps.row(outcomes, measured.meters.devices)
    whole, rest = (decoded(measured.sweeps.table, each) for each in (row, measured.sweeps.without_counters(row)))
    assert rest == {name: value for name, value in whole.items() if not name[0].endswith("_total")}


@for_both_tables
def test_the_last_sweep_row_ends_everything_that_is_live(settings: Settings) -> None:
    measured = Measured(settings, live=frozenset())
    measured.sweep(reading("cpu", 1.0), Failure("disk", AWAY))
    live = measured.sweeps.live
    last = measured.sweeps.last_row()
    ended = stale(decoded(measured.sweeps.table, last))
    assert {device for _, device in ended} == {"cpu", "disk"}
    assert ("watts", "disk") not in ended
    assert len(ended) == len(live) == 2 * len(sweep_series(settings.metrics)) - 3
    assert measured.sweeps.live == frozenset()


def test_intervals_leave_out_what_the_sweeps_hold() -> None:
    measured = Measured()
    intervals = IntervalRows(SETTINGS, "power", measured.sweeps.table)
    measured.meters.add(both(1.0))
    intervals.row(measured.snapshot())
    assert not set(intervals.table) & set(measured.sweeps.table)
    names = {dict(labels)["__name__"] for labels in intervals.table}
    assert "wattpush_device_readings_total" in names
    assert "wattpush_device_watts" not in names
