"""Makes rows of samples from snapshots and sweeps, with stale markers for series that end.

A table only grows as long as its series go on, so that the rows of an hour share one table. A series without a value is
absent from the row; the first such row has a stale marker instead, and an instant query then finds nothing.
"""

from __future__ import annotations

import struct
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from agent.history.samples import ABSENT, STALE, VALUE_BYTES, packed
from agent.measure.readings import Failure, Reading, Settling
from agent.metrics.catalogue import (
    DEVICE_SERIES,
    EXTREME_SERIES,
    INA260_SERIES,
    METER_SERIES,
)
from agent.metrics.groups import scrape_registry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.energy.meter import DeviceSnapshot, EnergyMeter
    from agent.history.samples import Labels
    from agent.measure.readings import Outcome
    from agent.metrics.catalogue import Snapshot
    from agent.settings import MetricsSettings, Settings

_GAUGES: Final = ("wattpush_device_volts", "wattpush_device_amperes", "wattpush_device_watts")
_COUNTERS: Final = ("joules", "returned_joules", "measured_seconds")
_CHARGE_COUNTERS: Final = ("coulombs", "returned_coulombs")
_UP: Final = "wattpush_device_up"

_ENDED_GAUGES: Final = STALE * len(_GAUGES)
_NO_GAUGES: Final = ABSENT * len(_GAUGES)
_GAUGES_END: Final = VALUE_BYTES * len(_GAUGES)
_gauges_of = struct.Struct("<3d").pack


def _counters(metrics: MetricsSettings) -> tuple[str, ...]:
    """The fields of `Counters` of which each sweep has a sample."""
    return (*_COUNTERS, *(_CHARGE_COUNTERS if metrics.charge else ()))


def sweep_series(metrics: MetricsSettings) -> tuple[str, ...]:
    """The series of a device of which each sweep has a sample, in the order of the columns."""
    return (*_GAUGES, *(f"wattpush_device_{name}_total" for name in _counters(metrics)), _UP)


def labels_of(name: str, job: str, labels: Mapping[str, str]) -> Labels:
    """The labels of a series; those without a value are left out, because the protocol allows none.

    Source: remote write 1.0, "Labels".
    """
    named = {"__name__": name, "job": job, **labels}
    return tuple(sorted((label, value) for label, value in named.items() if value))


class SweepRows:
    """The part of the rows that every sweep has: a fixed table of `sweep_series` for each device.

    For the thread that sweeps, which has little time: a row of eight devices takes some 20 microseconds.

    Args:
        settings: the devices and the hostname.
        job: the label.
        live: the series that are live at the server; None if that is unknown, as at the start of a process: then the
            gauges of a device that is down are ended once, because the run before may have been killed.
    """

    def __init__(self, settings: Settings, job: str, live: frozenset[Labels] | None) -> None:
        names = [device.name for device in settings.devices]
        self._series = sweep_series(settings.metrics)
        counters = _counters(settings.metrics)
        self._values_of = attrgetter(*counters)
        self._rest_of = struct.Struct(f"<{len(counters) + 1}d").pack  # and whether the device is up
        self._no_device = ABSENT * len(self._series)
        self._no_counters = ABSENT * len(counters)
        self.table: tuple[Labels, ...] = tuple(
            labels_of(series, job, {"hostname": settings.hostname, "device": name})
            for name in names
            for series in self._series
        )
        self._index = {name: index for index, name in enumerate(names)}
        firsts = self.table[:: len(self._series)]
        self._are_gauges_live = [live is None or first in live for first in firsts]
        self._are_live = [live is not None and first in live for first in firsts]

    def row(self, outcomes: Iterable[Outcome], meters: Mapping[str, EnergyMeter]) -> bytes:
        """The values of a sweep that has been added to the meters. A device that was not read has none."""
        blocks = [self._no_device] * len(self._index)
        for outcome in outcomes:
            match outcome:
                case Reading(volts=volts, amperes=amperes, power_watts=watts):
                    gauges = _gauges_of(volts, amperes, watts)
                    self._are_gauges_live[self._index[outcome.device]] = True
                case Failure(tried=True) | Settling(power_lost=True):
                    gauges = self._ended_gauges(self._index[outcome.device])
                case _:
                    continue
            index, meter = self._index[outcome.device], meters[outcome.device]
            self._are_live[index] = True
            blocks[index] = gauges + self._rest_of(*self._values_of(meter.saved.counters), meter.is_up)
        return b"".join(blocks)

    def interval_row(self, devices: Iterable[DeviceSnapshot]) -> bytes:
        """What the row of an interval adds: devices without any reading in it are down, and their counters stand still.

        A bus that another process holds is not even tried: without these samples the counters would be out of sight
        after the five minutes that a query looks back.
        """
        blocks = [self._no_device] * len(self._index)
        for device in devices:
            if device.means is None:
                index = self._index[device.device]
                self._are_live[index] = True
                blocks[index] = self._ended_gauges(index) + self._rest_of(*self._values_of(device.counters), 0.0)
        return b"".join(blocks)

    def last_row(self) -> bytes:
        """Stale markers for everything that is live."""
        blocks = []
        for index, is_live in enumerate(self._are_live):
            rest = STALE if is_live else ABSENT
            blocks.append(self._ended_gauges(index) + rest * (len(self._series) - len(_GAUGES)))
            self._are_live[index] = False
        return b"".join(blocks)

    def without_counters(self, row: bytes) -> bytes:
        """The row without its counters, if they could not be saved."""
        size = len(self._no_device)
        blocks = (row[at : at + size] for at in range(0, len(row), size))
        up_begins = _GAUGES_END + len(self._no_counters)
        return b"".join(block[:_GAUGES_END] + self._no_counters + block[up_begins:] for block in blocks)

    @property
    def live(self) -> frozenset[Labels]:
        """The series that are live."""
        live: list[Labels] = []
        for index, (has_gauges, is_live) in enumerate(zip(self._are_gauges_live, self._are_live, strict=True)):
            series = self.table[index * len(self._series) : (index + 1) * len(self._series)]
            live += series[: len(_GAUGES)] if has_gauges else ()
            live += series[len(_GAUGES) :] if is_live else ()
        return frozenset(live)

    def _ended_gauges(self, index: int) -> bytes:
        was_live, self._are_gauges_live[index] = self._are_gauges_live[index], False
        return _ENDED_GAUGES if was_live else _NO_GAUGES


class IntervalRows:
    """The rows of intervals: what a scrape shows, with the label `job`.

    Args:
        settings: what the snapshots are of.
        job: the label.
        elsewhere: series that other rows hold, and that are left out here.
        live: as for `SweepRows`.
    """

    def __init__(
        self, settings: Settings, job: str, elsewhere: Sequence[Labels] = (), live: frozenset[Labels] | None = None
    ) -> None:
        self._settings = settings
        self._job = job
        self._elsewhere = frozenset(elsewhere)
        self._columns: dict[Labels, int] = {}
        self._labels: dict[tuple[str, tuple[tuple[str, str], ...]], Labels] = {}
        self.live: set[Labels] = set(() if live is None else live - self._elsewhere)
        self._is_first = live is None
        self._earlier = set(self.live)  # those of an earlier configuration, until they go on in this one
        self.table: tuple[Labels, ...] = ()

    def row(self, snapshot: Snapshot) -> bytes:
        """The values of an interval, in the order of `table`, which may have grown."""
        values: dict[Labels, bytes] = {}
        for family in scrape_registry(snapshot, self._settings).collect():
            for sample in family.samples:
                labels = self._labels_of(sample.name, sample.labels)
                if labels not in self._elsewhere:
                    values[labels] = packed(sample.value)
        if self._is_first:
            self.live |= set(_gauges(self._settings, self._job)) - self._elsewhere
        for labels in self.live - values.keys():
            # Counters that could not be saved are left out for a while, but they have not ended.
            if snapshot.has_counters or not dict(labels)["__name__"].endswith("_total"):
                values[labels] = STALE
                self.live.discard(labels)
        self._is_first = False
        going_on = {labels for labels, value in values.items() if value != STALE}
        self.live |= going_on
        self._earlier -= going_on
        return self._row(values)

    def last_row(self) -> bytes:
        """Stale markers for everything that is live."""
        values = dict.fromkeys(self.live, STALE)
        self.live.clear()
        return self._row(values)

    def _row(self, values: Mapping[Labels, bytes]) -> bytes:
        # No row needs a column any longer for a series that ended with an earlier configuration.
        ended = (self._earlier & self._columns.keys()) - values.keys()
        if ended or values.keys() - self._columns.keys():
            kept = (labels for labels in self.table if labels not in ended)
            self.table = (*kept, *sorted(values.keys() - self._columns.keys()))
            self._columns = {labels: column for column, labels in enumerate(self.table)}
        return b"".join(values.get(labels, ABSENT) for labels in self.table)

    def _labels_of(self, name: str, labels: Mapping[str, str]) -> Labels:
        key = name, tuple(labels.items())
        known = self._labels.get(key)
        if known is None:
            known = self._labels[key] = labels_of(name, self._job, labels)
        return known


def _gauges(settings: Settings, job: str) -> Iterator[Labels]:
    """The gauges of devices, which a run before may have left live."""
    node = {"hostname": settings.hostname}
    series = (
        *DEVICE_SERIES,
        *METER_SERIES,
        *(EXTREME_SERIES if settings.metrics.extremes else ()),
        *(INA260_SERIES if settings.metrics.ina260_names else ()),
    )
    for device in settings.devices:
        for one in series:
            if not one.is_counter and one.chip in (None, device.chip):
                yield labels_of(one.name, job, {**node, "device": device.name})
