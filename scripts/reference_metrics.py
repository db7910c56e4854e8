"""The text of docs/metrics.md, made from what `agent.metrics` publishes.

A node with every kind of series is published in each of the three shapes, and the table is what came out: names, types,
help, labels and make_groups. When a series is absent is found by taking things away from that node, one at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from agent import chips
from agent.build_info import AgentInfo
from agent.config import parse
from agent.energy.counters import Counters
from agent.energy.interval import Extremes, Means
from agent.energy.meter import DeviceSnapshot
from agent.energy.state import NodeCounters
from agent.metrics.catalogue import Snapshot
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
ina260_names = {ina260_names}

[[device]]
name = "cpu"
chip = "{chip}"
bus = 1
address = 0x40
{chip_keys}
"""


class Published(NamedTuple):
    """A family of metrics as it was published. `labels` are those of its samples."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]


def _settings(
    *, group_by: str = "device", extremes: bool = True, ina260_names: bool = True, chip: str = "ina260"
) -> Settings:
    text = CONFIGURATION.format(
        group_by=group_by,
        extremes=str(extremes).lower(),
        ina260_names=str(ina260_names).lower(),
        chip=chip,
        chip_keys="input = 1\nshunt_ohms = 0.1" if chip == "ina3221" else "",
    )
    return parse(text, chips.options(), default_hostname="node-17", environ={"HOME": "/home/pi"})


def _snapshot(
    *,
    is_measured: bool = True,
    was_ever_read: bool = True,
    has_counters: bool = True,
    was_swept: bool = True,
    was_pushed: bool = True,
) -> Snapshot:
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
        node=NodeCounters(),
        sweep_seconds=1.0 if was_swept else None,
        push_seconds=1.0 if was_pushed else None,
        has_counters=has_counters,
    )


# When something is absent, in words, and a node of which that is true.
ABSENCES: tuple[tuple[str, Snapshot, Settings], ...] = (
    ("no good reading since the last push", _snapshot(is_measured=False), _settings()),
    ("no good reading ever", _snapshot(was_ever_read=False), _settings()),
    ("the counters cannot be saved", _snapshot(has_counters=False), _settings()),
    ("before the first sweep", _snapshot(was_swept=False), _settings()),
    ("before the first push", _snapshot(was_pushed=False), _settings()),
    ("`extremes = false`", _snapshot(), _settings(extremes=False)),
    ("`ina260_names = false`, the default", _snapshot(), _settings(ina260_names=False)),
    ("another chip than an INA260", _snapshot(), _settings(chip="ina3221")),
)

UNITS = ("volts", "amperes", "watts", "joules", "seconds", "ohms", "celsius", "bytes", "ratio")


def page() -> str:
    """The whole page."""
    device_group, node_group = make_groups(_snapshot(), _settings())
    device = list(_published(device_group.registry))
    node = list(_published(node_group.registry))
    info = {family.name: family.labels for family in (*device, *node)}
    ours = [family for family in node if not family.name.startswith("process_")]
    process = [family for family in node if family.name.startswith("process_")]
    plain = [family for family in device if not family.name.startswith("ina260_")]
    renamed = [family for family in device if family.name.startswith("ina260_")]
    return f"""\
# Metrics

Every series that wattpush publishes: made from what the code publishes (`make generated`). Base units only: volts,
amperes, watts, joules, seconds. Currents and powers are signed: positive flows into the load.

## Where the labels are

{_shapes()}

`job` is that of `[pushgateway]`; a scrape gets Prometheus' own `job` and `instance`. The gateway adds
`push_time_seconds` and `push_failure_time_seconds` to every group, by its own clock. No series has a timestamp, and
none tells when a counter was created (`_created`).

## Of each device

{_table(plain)}

`wattpush_device_info` is 1; its labels say where the device is measured: {_in_code(info["wattpush_device_info"])}.

The means and the extremes are over the readings since the last push; at `[serve]` they are those of the last whole
`interval`. `joules_total` less `returned_joules_total`, divided by `measured_seconds_total`, is the true mean power of
the time that was measured.

With `ina260_names = true` the means of INA260s are published once more:

{_table(renamed)}

## Of the node

{_table(ours)}

`wattpush_agent_info` is 1, with the labels {_in_code(info["wattpush_agent_info"])}.
The last is a short hash of the machine's id: two machines under one hostname differ in it.

The agent's own process, as `prometheus_client` tells it, where there is a `/proc`:

{_table(process)}

## What can be relied on

- A device without one good reading since the last push has no volts, amperes and watts, and its `wattpush_device_up` is
  0. Nothing old is ever repeated as if it were new.
- Counters survive a restart. A pushed counter never goes back, except to zero. Where they cannot be saved, they are not
  published at all.
- A push replaces its make_groups as a whole (PUT): what is absent now is gone from the gateway.
"""


def _published(registry: CollectorRegistry) -> Iterable[Published]:
    for family in registry.collect():
        sample = family.samples[0]
        yield Published(sample.name, family.type, family.documentation, tuple(sample.labels))


def _everything(snapshot: Snapshot, settings: Settings) -> dict[str, Published]:
    return {family.name: family for group in make_groups(snapshot, settings) for family in _published(group.registry)}


def _table(families: Iterable[Published]) -> str:
    lines = ["| name | type | unit | what it says | absent when |", "|---|---|---|---|---|"]
    for name, kind, text, _ in families:
        lines.append(f"| `{name}` | {kind} | {_unit(name)} | {text} | {'; '.join(_absences(name)) or '-'} |")
    return "\n".join(lines)


def _absences(name: str) -> list[str]:
    if name.startswith("process_"):
        return ["there is no `/proc`"]
    return [words for words, snapshot, settings in ABSENCES if name not in _everything(snapshot, settings)]


def _unit(name: str) -> str:
    """The unit, which by the rules of Prometheus ends the name: https://prometheus.io/docs/practices/naming/."""
    words = name.removesuffix("_total").split("_")
    if words[-2:] == ["timestamp", "seconds"] or words[-3:] == ["start", "time", "seconds"]:
        return "Unix seconds"
    return words[-1] if words[-1] in UNITS else "-"


def _shapes() -> str:
    """A row for each shape and group: its key, and the labels in its body."""
    rows = ["| shape | series of | pushed to | further labels |", "|---|---|---|---|"]
    for group_by in ("device", "node"):
        settings = _settings(group_by=group_by)
        made = make_groups(_snapshot(), settings)
        rows += [
            f'| `group_by = "{group_by}"` | {whose} | `{path}` | {labels} |'
            for group, path in zip(made, _paths(made, settings), strict=True)
            for whose, labels in _labels_in(group.registry)
        ]
    rows += [
        f"| `[serve]` | {whose} | - | {labels} |"
        for whose, labels in _labels_in(scrape_registry(_snapshot(), _settings()))
    ]
    return "\n".join(rows)


def _paths(made: Sequence[Group], settings: Settings) -> list[str]:
    """Where the make_groups are pushed to, as a dry run says it above each."""
    printed: list[str] = []
    assert settings.pushgateway is not None  # noqa: S101 - it is in CONFIGURATION
    DryRun(settings.pushgateway, printed.append).push(made, 1.0)
    heads = [line for line in "".join(printed).splitlines() if line.startswith("# PUT ")]
    return [head.removeprefix("# PUT ") for head in heads]


def _labels_in(registry: CollectorRegistry) -> Iterable[tuple[str, str]]:
    labels = {family.name: _in_code(family.labels) for family in _published(registry)}
    for whose, name in (("each device", "wattpush_device_up"), ("the node", "wattpush_agent_start_time_seconds")):
        if name in labels:
            yield whose, labels[name] or "-"


def _in_code(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)
