"""From a snapshot to the metrics of a push or a scrape.

Every push and every scrape gets a new registry, so that no stale series stays in it. The catalogue serves three shapes:
one group for each device (no labels), one group for the node (label `device`), and a scrape (labels `hostname` and
`device`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

from agent.metrics.catalogue import (
    AGENT_INFO,
    AGENT_SERIES,
    CHARGE_SERIES,
    DEVICE_INFO,
    DEVICE_SERIES,
    EXTREME_SERIES,
    INA260_SERIES,
    METER_SERIES,
    REMOTE_SERIES,
    Series,
    Snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.energy.meter import DeviceSnapshot
    from agent.settings import Device, Settings


def name_of(grouping_key: Mapping[str, str]) -> str:
    """Return the group's name in messages: `device cpu`, or `node` for the node's own."""
    device = grouping_key.get("device")
    return "node" if device is None else f"device {device}"


@dataclass(frozen=True, slots=True)
class Group:
    """Metrics that are pushed together; a push replaces the whole group.

    Attributes:
        grouping_key: `hostname`, and `device` for the group of a device; without `job`, which is a setting.
        registry: the metrics. None of their labels may be in the grouping key: the gateway would overwrite it.
    """

    grouping_key: Mapping[str, str]
    registry: CollectorRegistry

    @property
    def name(self) -> str:
        """Its name in messages: `device cpu`, or `node` for the node's own."""
        return name_of(self.grouping_key)


_process_collector = ProcessCollector(registry=None)


class _Collected:
    """A collector of finished metric families."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def make_groups(snapshot: Snapshot, settings: Settings, group_by: str) -> list[Group]:
    """Make the groups of a push: one for each device and then the node's own, or one that holds everything.

    Args:
        snapshot: the values.
        settings: the devices, the hostname, and which metrics to make.
        group_by: "device" or "node".
    """
    node_key = {"hostname": settings.hostname}
    series = _device_series(snapshot, settings)
    if group_by == "node":
        labelled = _labelled(snapshot, settings, {})
        return [Group(node_key, _registry((*_device_families(series, labelled), *_agent_families(snapshot, {}))))]
    return [
        *(
            Group({**node_key, "device": one.snapshot.device}, _registry(_device_families(series, (one,))))
            for one in _labelled(snapshot, settings, None)
        ),
        Group(node_key, _registry(_agent_families(snapshot, {}))),
    ]


def grouping_keys(settings: Settings, group_by: str) -> list[dict[str, str]]:
    """Return the grouping keys of `make_groups`, in the same order."""
    if group_by == "node":
        return [{"hostname": settings.hostname}]
    return grouping_keys_of_both_shapes(settings)


def grouping_keys_of_both_shapes(settings: Settings, earlier_devices: Iterable[str] = ()) -> list[dict[str, str]]:
    """Return every grouping key that the configured and the earlier devices can have, whatever `group_by` is."""
    node_key = {"hostname": settings.hostname}
    names = dict.fromkeys((*(device.name for device in settings.devices), *earlier_devices))
    return [*({**node_key, "device": name} for name in names), node_key]


def scrape_registry(snapshot: Snapshot, settings: Settings) -> CollectorRegistry:
    """Make the registry of a scrape: all devices and the node."""
    node_labels = {"hostname": settings.hostname}
    labelled = _labelled(snapshot, settings, node_labels)
    series = _device_series(snapshot, settings)
    return _registry((*_device_families(series, labelled), *_agent_families(snapshot, node_labels)))


def _registry(families: Iterable[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return registry


@dataclass(frozen=True, slots=True)
class _Labelled:
    """A device, and the labels that its samples carry."""

    snapshot: DeviceSnapshot
    device: Device
    labels: dict[str, str]


def _labelled(snapshot: Snapshot, settings: Settings, node_labels: Mapping[str, str] | None) -> list[_Labelled]:
    """Label each device with its name and the node's labels; with no labels at all if `node_labels` is None."""
    by_name = {device.name: device for device in settings.devices}
    return [
        _Labelled(one, by_name[one.device], {} if node_labels is None else {**node_labels, "device": one.device})
        for one in snapshot.devices
    ]


def _device_series(snapshot: Snapshot, settings: Settings) -> tuple[Series, ...]:
    extremes = EXTREME_SERIES if settings.metrics.extremes else ()
    charge = CHARGE_SERIES if settings.metrics.charge else ()
    ina260 = INA260_SERIES if settings.metrics.ina260_names else ()
    every = (*DEVICE_SERIES, *extremes, *METER_SERIES, *charge, *ina260)
    return tuple(series for series in every if snapshot.has_counters or not series.is_counter)


def _device_families(series: Iterable[Series], devices: Sequence[_Labelled]) -> Iterator[Metric]:
    for one_series in series:
        family = one_series.family()
        for device in devices:
            applies = one_series.chip is None or one_series.chip == device.device.chip
            value = one_series.value(device.snapshot) if applies else None
            if value is not None:
                family.add_sample(one_series.name, device.labels, value)
        if family.samples:  # leave out a metric that no device has
            yield family
    info = Metric(*DEVICE_INFO, "gauge")
    for device in devices:
        info.add_sample(DEVICE_INFO[0], {**device.labels, **_place_labels(device.device)}, 1.0)
    yield info


def _place_labels(device: Device) -> dict[str, str]:
    place = device.place
    mux = None if place is None else place.mux
    channel = None if place is None else place.channel
    return {
        "chip": device.chip,
        "bus": "" if place is None else str(place.bus),
        "mux": "" if mux is None else mux.name,
        "channel": "" if channel is None else str(channel),
        "address": "" if place is None else f"0x{place.address:02x}",
        "input": device.rail or ("" if device.input is None else str(device.input)),
    }


def _agent_families(snapshot: Snapshot, labels: Mapping[str, str]) -> Iterator[Metric]:
    agent = snapshot.agent
    info = Metric(*AGENT_INFO, "gauge")
    versions = {
        "version": agent.version,
        "python_version": agent.python_version,
        "blinka_version": agent.blinka_version,
    }
    info.add_sample(AGENT_INFO[0], {**labels, **versions, "machine": agent.machine}, 1.0)
    yield info
    for series in (*AGENT_SERIES, *REMOTE_SERIES):
        value = series.value(snapshot)
        if value is None or (series.is_counter and not snapshot.has_counters):
            continue
        family = series.family()
        family.add_sample(series.name, dict(labels), value)
        yield family
    for process_family in _process_collector.collect():
        process_family.samples = [
            sample._replace(labels={**sample.labels, **labels}) for sample in process_family.samples
        ]
        yield process_family
