"""The catalogue of published series: name, type, help, and how to take the value from a snapshot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prometheus_client.core import Metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.build_info import AgentInfo
    from agent.energy.meter import DeviceSnapshot
    from agent.energy.state import AgentCounters, RemoteCounters


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    """Remote write and its backlog at one moment.

    Attributes:
        backlog_samples: produced, and not settled yet.
        backlog_bytes: on disk and in memory.
        oldest_seconds: Unix time of the oldest sample of the backlog; None if there is none, or it is not known yet.
        accepted_seconds: Unix time of the newest sample that the server has taken; None before the first.
    """

    counters: RemoteCounters
    backlog_samples: int
    backlog_bytes: int
    backlog_limit_bytes: int
    oldest_seconds: float | None
    accepted_seconds: float | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is published at one moment.

    Attributes:
        devices: in the order of the configuration.
        sweep_seconds: duration of the last sweep; None before the first.
        push_seconds: duration of the last push; None before the first.
        has_counters: False if the counters could not be saved and therefore must not be published.
        remote: remote write; None without it.
    """

    devices: tuple[DeviceSnapshot, ...]
    agent: AgentInfo
    counters: AgentCounters
    sweep_seconds: float | None
    push_seconds: float | None
    has_counters: bool
    remote: RemoteStatus | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One series.

    Attributes:
        value: takes the value from a snapshot; returns None if it has none.
        chip: only devices with this chip have the series; None for all devices.
    """

    name: str
    help: str
    value: Callable[[Any], float | None]
    chip: str | None = None

    @property
    def is_counter(self) -> bool:
        """Whether it is a counter, by the naming convention of Prometheus."""
        return self.name.endswith("_total")

    def family(self) -> Metric:
        """Make its family, without samples. The base class, because its subclasses spend time on lists of labels."""
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


METER_SERIES = (
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
    Series(
        "wattpush_device_retries_total",
        "Transfers on the bus that were repeated at once.",
        lambda device: device.counters.retries,
    ),
    Series(
        "wattpush_device_implausible_total",
        "Readings discarded because a check contradicted them.",
        lambda device: device.counters.implausible,
    ),
)


CHARGE_SERIES = (
    Series("wattpush_device_coulombs_total", "Charge delivered to the load.", lambda device: device.counters.coulombs),
    Series(
        "wattpush_device_returned_coulombs_total",
        "Charge that flowed back from the load.",
        lambda device: device.counters.returned_coulombs,
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


AGENT_SERIES = (
    Series(
        "wattpush_agent_simulated",
        "1 if the readings come from simulated chips.",
        lambda snapshot: float(snapshot.agent.is_simulated),
    ),
    Series(
        "wattpush_agent_start_time_seconds",
        "Unix time at which the agent started.",
        lambda snapshot: snapshot.agent.started_at_seconds(),
    ),
    Series(
        "wattpush_agent_sweep_seconds",
        "Duration of the last sweep of all sensors.",
        lambda snapshot: snapshot.sweep_seconds,
    ),
    Series("wattpush_agent_push_seconds", "Duration of the last push.", lambda snapshot: snapshot.push_seconds),
    Series(
        "wattpush_agent_pushes_total", "Pushes begun, this one included.", lambda snapshot: snapshot.counters.pushes
    ),
    Series(
        "wattpush_agent_push_failures_total",
        "Pushes in which a group failed.",
        lambda snapshot: snapshot.counters.push_failures,
    ),
    Series(
        "wattpush_agent_missed_samples_total",
        "Readings left out because a sweep took too long.",
        lambda snapshot: snapshot.counters.missed_samples,
    ),
    Series(
        "wattpush_agent_mux_conflicts_total",
        "Times a mux was found switched by somebody else.",
        lambda snapshot: snapshot.counters.mux_conflicts,
    ),
)


def _remote(value: Callable[[RemoteStatus], float | None]) -> Callable[[Snapshot], float | None]:
    return lambda snapshot: None if snapshot.remote is None else value(snapshot.remote)


REMOTE_SERIES = (
    Series(
        "wattpush_agent_remote_samples_total",
        "Samples that the remote write server has accepted.",
        _remote(lambda remote: remote.counters.accepted),
    ),
    Series(
        "wattpush_agent_remote_refused_samples_total",
        "Samples that the remote write server will never accept.",
        _remote(lambda remote: remote.counters.refused),
    ),
    Series(
        "wattpush_agent_remote_dropped_samples_total",
        "Samples of the backlog given up because of its size, their age or the disk.",
        _remote(lambda remote: remote.counters.dropped),
    ),
    Series(
        "wattpush_agent_remote_undated_samples_total",
        "Samples given up because the clock was never set while they were taken.",
        _remote(lambda remote: remote.counters.undated),
    ),
    Series(
        "wattpush_agent_remote_requests_total",
        "Remote write requests sent.",
        _remote(lambda remote: remote.counters.requests),
    ),
    Series(
        "wattpush_agent_remote_request_failures_total",
        "Remote write requests that were not accepted.",
        _remote(lambda remote: remote.counters.request_failures),
    ),
    Series(
        "wattpush_agent_remote_backlog_samples",
        "Samples waiting to be sent by remote write.",
        _remote(lambda remote: remote.backlog_samples),
    ),
    Series(
        "wattpush_agent_remote_backlog_bytes",
        "Size of the samples waiting to be sent, on disk and in memory.",
        _remote(lambda remote: remote.backlog_bytes),
    ),
    Series(
        "wattpush_agent_remote_backlog_limit_bytes",
        "Size at which the oldest samples are given up.",
        _remote(lambda remote: remote.backlog_limit_bytes),
    ),
    Series(
        "wattpush_agent_remote_oldest_timestamp_seconds",
        "Unix time of the oldest sample waiting to be sent.",
        _remote(lambda remote: remote.oldest_seconds),
    ),
    Series(
        "wattpush_agent_remote_accepted_timestamp_seconds",
        "Unix time of the newest sample that the remote write server has accepted.",
        _remote(lambda remote: remote.accepted_seconds),
    ),
)


DEVICE_INFO = ("wattpush_device_info", "Where the device is measured.")


AGENT_INFO = ("wattpush_agent_info", "The agent and what it runs on.")
