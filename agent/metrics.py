"""From snapshots to metric families: names, types and help of everything that wattpush publishes.

A registry is built fresh for every push and every scrape, so that nothing stale can stay in it. The same tables serve
three shapes: a group a device (no labels), one group a node (label `device`), a scrape (labels `hostname`, `device`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

from agent.groups import Group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from agent.energy.meter import DeviceSnapshot
    from agent.energy.state import NodeCounters
    from agent.identity import AgentInfo
    from agent.settings import Device, Settings


class Snapshot(NamedTuple):
    """Everything that is published at one moment.

    Attributes:
        devices: in the order of the configuration.
        sweep_seconds: how long the last sweep took; None before the first.
        push_seconds: how long the last push took; None before the first.
        has_counters: False where counters could not be saved and therefore may not be published.
    """

    devices: tuple[DeviceSnapshot, ...]
    agent: AgentInfo
    node: NodeCounters
    sweep_seconds: float | None
    push_seconds: float | None
    has_counters: bool


class Series(NamedTuple):
    """One metric: `value` takes it from a snapshot, or gives None where there is nothing to say.

    Attributes:
        chip: the only kind of chip whose devices have it; None for every kind.
    """

    name: str
    help: str
    value: Callable[[Any], float | None]
    chip: str | None = None

    @property
    def is_counter(self) -> bool:
        """Counters are told by their name, as everywhere with Prometheus."""
        return self.name.endswith("_total")

    def family(self) -> Metric:
        """Its family, still without samples: prometheus_client's own, without the work of its label lists."""
        return Metric(self.name.removesuffix("_total"), self.help, "counter" if self.is_counter else "gauge")


def _mean(name: str) -> Callable[[DeviceSnapshot], float | None]:
    return lambda device: getattr(device.means, name, None)


def _extreme(name: str) -> Callable[[DeviceSnapshot], float | None]:
    return lambda device: getattr(device.extremes, name, None)


DEVICE_SERIES = (
    Series("wattpush_device_volts", "Mean voltage of the load since the last push.", _mean("volts")),
    Series(
        "wattpush_device_amperes",
        "Mean current into the load since the last push; negative flows back.",
        _mean("amperes"),
    ),
    Series("wattpush_device_watts", "Mean power of the load since the last push; negative flows back.", _mean("watts")),
)

EXTREME_SERIES = tuple(
    Series(
        f"wattpush_device_{which}_{unit}",
        f"{adjective} {quantity} read since the last push.",
        _extreme(f"{which}_{unit}"),
    )
    for unit, quantity in (("volts", "voltage"), ("amperes", "current"), ("watts", "power"))
    for which, adjective in (("min", "Lowest"), ("max", "Highest"))
)

ACCOUNT_SERIES = (
    Series("wattpush_device_joules_total", "Energy delivered to the load.", lambda device: device.counters.joules),
    Series(
        "wattpush_device_returned_joules_total",
        "Energy that flowed back from the load.",
        lambda device: device.counters.returned_joules,
    ),
    Series(
        "wattpush_device_measured_seconds_total",
        "Time that the energy counters cover.",
        lambda device: device.counters.measured_seconds,
    ),
    Series("wattpush_device_up", "1 if the last reading succeeded.", lambda device: float(device.is_up)),
    Series(
        "wattpush_device_last_read_timestamp_seconds",
        "Unix time of the last good reading.",
        lambda device: device.last_read_unix_seconds,
    ),
    Series("wattpush_device_readings_total", "Good readings.", lambda device: device.counters.readings),
    Series("wattpush_device_read_errors_total", "Failed readings.", lambda device: device.counters.read_errors),
    Series(
        "wattpush_device_resets_total",
        "Power losses of the chip that were noticed.",
        lambda device: device.counters.resets,
    ),
)

INA260_SERIES = tuple(
    Series(name, f"Mean {quantity}, by the name that single-sensor exporters use.", _mean(unit), chip="ina260")
    for name, quantity, unit in (
        ("ina260_voltage_volts", "voltage", "volts"),
        ("ina260_current_amperes", "current", "amperes"),
        ("ina260_power_watts", "power", "watts"),
    )
)

NODE_SERIES = (
    Series(
        "wattpush_agent_simulated",
        "1 if the readings come from simulated chips.",
        lambda node: float(node.agent.is_simulated),
    ),
    Series(
        "wattpush_agent_start_time_seconds",
        "Unix time at which the agent started.",
        lambda node: node.agent.start_time_seconds,
    ),
    Series(
        "wattpush_agent_sweep_seconds", "Duration of the last sweep of all sensors.", lambda node: node.sweep_seconds
    ),
    Series("wattpush_agent_push_seconds", "Duration of the last push.", lambda node: node.push_seconds),
    Series("wattpush_agent_pushes_total", "Pushes begun, this one included.", lambda node: node.node.pushes),
    Series(
        "wattpush_agent_push_failures_total", "Pushes in which a group failed.", lambda node: node.node.push_failures
    ),
    Series(
        "wattpush_agent_missed_samples_total",
        "Readings left out because a sweep took too long.",
        lambda node: node.node.missed_samples,
    ),
)

DEVICE_INFO = ("wattpush_device_info", "Where the device is measured.")
AGENT_INFO = ("wattpush_agent_info", "The agent and what it runs on.")

_process_collector = ProcessCollector(registry=None)


class _Collected:
    """Families that are ready, in the form in which a registry takes them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = tuple(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def groups(snapshot: Snapshot, settings: Settings) -> list[Group]:
    """What a push sends: the groups of the devices and then the node's own, or one group that holds everything."""
    node_key = {"hostname": settings.hostname}
    series = _device_series(snapshot, settings)
    if settings.pushgateway is not None and settings.pushgateway.group_by == "node":
        labelled = _labelled(snapshot, settings, {})
        return [Group(node_key, _registry((*_device_families(series, labelled), *_node_families(snapshot, {}))))]
    return [
        *(
            Group({**node_key, "device": one.snapshot.device}, _registry(_device_families(series, (one,))))
            for one in _labelled(snapshot, settings, None)
        ),
        Group(node_key, _registry(_node_families(snapshot, {}))),
    ]


def grouping_keys(settings: Settings) -> list[dict[str, str]]:
    """The keys of all groups that a configuration makes."""
    if settings.pushgateway is not None and settings.pushgateway.group_by == "node":
        return [{"hostname": settings.hostname}]
    return grouping_keys_of_both_shapes(settings)


def grouping_keys_of_both_shapes(settings: Settings, earlier_devices: Iterable[str] = ()) -> list[dict[str, str]]:
    """The keys of all groups that these devices and those of a configuration can have, whatever its `group_by`."""
    node_key = {"hostname": settings.hostname}
    names = dict.fromkeys((*(device.name for device in settings.devices), *earlier_devices))
    return [*({**node_key, "device": name} for name in names), node_key]


def scrape_registry(snapshot: Snapshot, settings: Settings) -> CollectorRegistry:
    """What a scrape is told: everything in one registry."""
    node_labels = {"hostname": settings.hostname}
    labelled = _labelled(snapshot, settings, node_labels)
    series = _device_series(snapshot, settings)
    return _registry((*_device_families(series, labelled), *_node_families(snapshot, node_labels)))


def _registry(families: Iterable[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Collected(families))
    return registry


class _Labelled(NamedTuple):
    """A device, and the labels that its samples carry."""

    snapshot: DeviceSnapshot
    device: Device
    labels: dict[str, str]


def _labelled(snapshot: Snapshot, settings: Settings, node_labels: Mapping[str, str] | None) -> list[_Labelled]:
    """The devices, each with its own label beside those of the node; without any, where the grouping key has both."""
    by_name = {device.name: device for device in settings.devices}
    return [
        _Labelled(one, by_name[one.device], {} if node_labels is None else {**node_labels, "device": one.device})
        for one in snapshot.devices
    ]


def _device_series(snapshot: Snapshot, settings: Settings) -> tuple[Series, ...]:
    extremes = EXTREME_SERIES if settings.metrics.extremes else ()
    ina260 = INA260_SERIES if settings.metrics.ina260_names else ()
    every = (*DEVICE_SERIES, *extremes, *ACCOUNT_SERIES, *ina260)
    return tuple(series for series in every if snapshot.has_counters or not series.is_counter)


def _device_families(series: Iterable[Series], devices: Sequence[_Labelled]) -> Iterator[Metric]:
    for one_series in series:
        family = one_series.family()
        for device in devices:
            is_had = one_series.chip is None or one_series.chip == device.device.chip
            value = one_series.value(device.snapshot) if is_had else None
            if value is not None:
                family.add_sample(one_series.name, device.labels, value)
        if family.samples:  # a metric that no device has is left out
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
        "input": "" if device.input is None else str(device.input),
    }


def _node_families(snapshot: Snapshot, labels: Mapping[str, str]) -> Iterator[Metric]:
    agent = snapshot.agent
    info = Metric(*AGENT_INFO, "gauge")
    versions = {
        "version": agent.version,
        "python_version": agent.python_version,
        "blinka_version": agent.blinka_version,
    }
    info.add_sample(AGENT_INFO[0], {**labels, **versions, "machine": agent.machine}, 1.0)
    yield info
    for series in NODE_SERIES:
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
