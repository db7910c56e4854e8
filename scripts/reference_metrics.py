"""The text of docs/metrics.md, generated from the series that `agent.metrics.catalogue` publishes.

It renders a node with every kind of series in each of the three setups, and tabulates the names, types, help, labels
and groups of the result. To find when a series is absent, it removes one thing at a time from that node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent import chips
from agent.build_info import AgentInfo
from agent.config import parse
from agent.energy.counters import Counters
from agent.energy.interval import Extremes, Means
from agent.energy.meter import DeviceSnapshot
from agent.energy.state import AgentCounters, RemoteCounters
from agent.metrics.catalogue import REMOTE_SERIES, RemoteStatus, Snapshot
from agent.metrics.groups import make_groups, scrape_registry
from agent.push.dry_run import DryRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client import CollectorRegistry

    from agent.metrics.groups import Group
    from agent.settings import Settings

CONFIGURATION = """\
hostname = "node-17"

[pushgateway]
url = "http://127.0.0.1:9091"
group_by = "{group_by}"

[metrics]
extremes = {extremes}
charge = {charge}
ina260_names = {ina260_names}

[[device]]
name = "cpu"
chip = "{chip}"
bus = 1
address = 0x40
{chip_keys}
"""


class Published(NamedTuple):
    """A published metric family; `labels` are the label names of its samples."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]


def _settings(
    *,
    group_by: str = "device",
    extremes: bool = True,
    charge: bool = True,
    ina260_names: bool = True,
    chip: str = "ina260",
) -> Settings:
    text = CONFIGURATION.format(
        group_by=group_by,
        extremes=str(extremes).lower(),
        charge=str(charge).lower(),
        ina260_names=str(ina260_names).lower(),
        chip=chip,
        chip_keys="input = 1\nshunt_ohms = 0.1" if chip == "ina3221" else "",
    )
    return parse(text, chips.options(), default_hostname="node-17", environ={"HOME": "/home/pi"})


def _snapshot(  # noqa: PLR0913 - one switch for each reason why a series is absent
    *,
    is_measured: bool = True,
    was_ever_read: bool = True,
    has_counters: bool = True,
    was_swept: bool = True,
    was_pushed: bool = True,
    has_remote: bool = True,
    has_backlog: bool = True,
    was_accepted: bool = True,
) -> Snapshot:
    remote = RemoteStatus(
        RemoteCounters(),
        backlog_samples=1,
        backlog_bytes=8,
        backlog_limit_bytes=64_000_000,
        oldest_seconds=1.0 if has_backlog else None,
        accepted_seconds=1.0 if was_accepted else None,
    )
    return Snapshot(
        devices=(
            DeviceSnapshot(
                device="cpu",
                counters=Counters(),
                means=Means(12.0, 1.0, 12.0) if is_measured else None,
                extremes=Extremes(12.0, 12.0, 1.0, 1.0, 12.0, 12.0) if is_measured else None,
                is_up=is_measured,
                last_read_unix_seconds=1.0 if was_ever_read else None,
            ),
        ),
        agent=AgentInfo("", "", "", "", is_simulated=False, start_time_seconds=1.0),
        counters=AgentCounters(),
        sweep_seconds=1.0 if was_swept else None,
        push_seconds=1.0 if was_pushed else None,
        has_counters=has_counters,
        remote=remote if has_remote else None,
    )


# Each condition under which series are absent, with a node that meets it.
ABSENCES: tuple[tuple[str, Snapshot, Settings], ...] = (
    ("no good reading since the last push", _snapshot(is_measured=False), _settings()),
    ("no good reading yet", _snapshot(was_ever_read=False), _settings()),
    ("the counters cannot be saved", _snapshot(has_counters=False), _settings()),
    ("before the first sweep", _snapshot(was_swept=False), _settings()),
    ("before the first push", _snapshot(was_pushed=False), _settings()),
    ("without `[remote_write]`", _snapshot(has_remote=False), _settings()),
    ("nothing is waiting, or its time is not known", _snapshot(has_backlog=False), _settings()),
    ("before the first accepted request", _snapshot(was_accepted=False), _settings()),
    ("`extremes = false`", _snapshot(), _settings(extremes=False)),
    ("`charge = false`, the default", _snapshot(), _settings(charge=False)),
    ("`ina260_names = false`, the default", _snapshot(), _settings(ina260_names=False)),
    ("any chip other than an INA260", _snapshot(), _settings(chip="ina3221")),
)

UNITS = ("volts", "amperes", "watts", "joules", "coulombs", "seconds", "ohms", "celsius", "bytes", "ratio")


def page() -> str:
    """Return the whole page."""
    device_group, node_group = make_groups(_snapshot(), _settings(), "device")
    device = list(_published(device_group.registry))
    node = list(_published(node_group.registry))
    info = {family.name: family.labels for family in (*device, *node)}
    remote = [family for family in node if family.name in {series.name for series in REMOTE_SERIES}]
    ours = [family for family in node if not family.name.startswith("process_") and family not in remote]
    process = [family for family in node if family.name.startswith("process_")]
    plain = [family for family in device if not family.name.startswith("ina260_")]
    renamed = [family for family in device if family.name.startswith("ina260_")]
    return f"""\
# Metrics

All series that wattpush publishes, generated from the code (`make generated`). All units are base units: volts,
amperes, watts, joules, coulombs, seconds. Currents and powers are signed; positive values flow into the load.

## Labels

{_shapes()}

A push has the `job` of `[pushgateway]`; a scrape gets `job` and `instance` from Prometheus. The gateway adds
`push_time_seconds` and `push_failure_time_seconds`, by its own clock, to every group. `[remote_write]` sends the series
of a scrape with its own `job`, each sample with its time; the others have no timestamp. There are no `_created` series.

## Series per device

{_table(plain)}

`wattpush_device_info` is always 1. Its labels describe where the device is measured:
{_in_code(info["wattpush_device_info"])}.

Means and extremes cover the readings since the last push; with `[serve]`, those of the last whole `interval`. The true
mean power over the measured time is `joules_total` minus `returned_joules_total`, divided by `measured_seconds_total`.
The coulombs give the true mean current in the same way, by their increase: a node that was upgraded has counted them
for a shorter time. One ampere-hour is 3,600 coulombs.

`ina260_names = true` adds the means of every INA260 under these names:

{_table(renamed)}

## Series per node

{_table(ours)}

`wattpush_agent_info` is always 1, with the labels {_in_code(info["wattpush_agent_info"])}.
The last is a short hash of the machine id: it differs if two machines push under one hostname.

With `[remote_write]`, its [history](history.md) at this moment; they are pushed and scraped too, because there one sees
that the remote write server is away:

{_table(remote)}

The first four and `wattpush_agent_remote_backlog_samples` add up to all samples that were produced, at every moment and
through every crash.

Series about the agent's process, from `prometheus_client`, on systems with `/proc`:

{_table(process)}

## Guarantees

- A device without a good reading since the last push has no volts, amperes and watts, and its `wattpush_device_up` is
  0. An old value is never published as a new one.
- Counters survive a restart. A pushed counter never goes down, except to zero. If counters cannot be saved, they are
  not published at all.
- A push replaces its whole groups (PUT): a series that is absent from a push disappears from the gateway.
"""


def _published(registry: CollectorRegistry) -> Iterable[Published]:
    for family in registry.collect():
        sample = family.samples[0]
        yield Published(sample.name, family.type, family.documentation, tuple(sample.labels))


def _everything(snapshot: Snapshot, settings: Settings) -> dict[str, Published]:
    groups = make_groups(snapshot, settings, "device")
    return {family.name: family for group in groups for family in _published(group.registry)}


def _table(families: Iterable[Published]) -> str:
    lines = ["| name | type | unit | meaning | absent when |", "|---|---|---|---|---|"]
    for name, kind, text, _ in families:
        lines.append(f"| `{name}` | {kind} | {_unit(name)} | {text} | {'; '.join(_absences(name)) or '-'} |")
    return "\n".join(lines)


def _absences(name: str) -> list[str]:
    if name.startswith("process_"):
        return ["there is no `/proc`"]
    return [words for words, snapshot, settings in ABSENCES if name not in _everything(snapshot, settings)]


def _unit(name: str) -> str:
    """Return the unit, which ends the name by Prometheus convention: https://prometheus.io/docs/practices/naming/."""
    words = name.removesuffix("_total").split("_")
    if words[-2:] == ["timestamp", "seconds"] or words[-3:] == ["start", "time", "seconds"]:
        return "Unix seconds"
    return words[-1] if words[-1] in UNITS else "-"


def _shapes() -> str:
    """Return one row per setup and group: its grouping key, and the labels in its body."""
    rows = ["| setup | series of | pushed to | additional labels |", "|---|---|---|---|"]
    for group_by in ("device", "node"):
        settings = _settings(group_by=group_by)
        made = make_groups(_snapshot(), settings, group_by)
        rows += [
            f'| `group_by = "{group_by}"` | {owner} | `{path}` | {labels} |'
            for group, path in zip(made, _paths(made, settings), strict=True)
            for owner, labels in _labels_in(group.registry)
        ]
    rows += [
        f"| `[serve]` | {owner} | - | {labels} |"
        for owner, labels in _labels_in(scrape_registry(_snapshot(), _settings()))
    ]
    return "\n".join(rows)


def _paths(made: Sequence[Group], settings: Settings) -> list[str]:
    """Return the path of each group, as a dry run prints it."""
    printed: list[str] = []
    assert settings.pushgateway is not None
    DryRun(settings.pushgateway, printed.append).push(made, 1.0)
    heads = [line for line in "".join(printed).splitlines() if line.startswith("# PUT ")]
    return [head.removeprefix("# PUT ") for head in heads]


def _labels_in(registry: CollectorRegistry) -> Iterable[tuple[str, str]]:
    labels = {family.name: _in_code(family.labels) for family in _published(registry)}
    for owner, name in (("each device", "wattpush_device_up"), ("the node", "wattpush_agent_start_time_seconds")):
        if name in labels:
            yield owner, labels[name] or "-"


def _in_code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
