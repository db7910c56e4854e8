"""How many nodes one Pushgateway holds: real payloads of this agent, from as many simulated nodes of 8 devices."""

from __future__ import annotations

import http.client
import itertools
import math
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from agent.metrics.groups import make_groups
from agent.push.render import put_requests
from agent.settings import MetricsSettings
from bench.measure import Effort, Findings, Goal, Row, Samples, interleaved, number
from bench.nodes import configuration, settings_of, snapshot_of
from bench.servers import running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent.push.render import Request

_DEVICES = 8
_CONNECTIONS = 4
_DISTINCT_PAYLOADS = 10  # values do not matter to the gateway: nodes share them in turns
_INTERVAL_SECONDS = 15.0
_REQUEST_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Kind:
    group_by: str
    has_extremes: bool
    is_checked: bool

    def __str__(self) -> str:
        extremes = "with" if self.has_extremes else "without"
        check = "on" if self.is_checked else "off"
        return f'`group_by = "{self.group_by}"`, {extremes} extremes, consistency check {check}'


@dataclass(frozen=True, slots=True)
class _Cell:
    """What a gateway that knows `nodes` nodes can take.

    Attributes:
        scrape_seconds: how long one GET of all that it holds takes.
    """

    nodes: int
    node_pushes_a_second: float
    scrape_seconds: float

    @property
    def shortest_interval_seconds(self) -> float:
        """The shortest push interval at which it keeps up with its nodes."""
        return self.nodes / self.node_pushes_a_second


def measure(effort: Effort, folder: Path) -> Findings:
    """Fill a gateway with each number of nodes, then push as fast as it takes it for some seconds."""
    sizes = (10, 100) if effort.is_quick else (10, 100, 300, 1000)
    seconds = effort.times(3, 1)
    cells: dict[_Kind, list[_Cell]] = {}
    for group_by, has_extremes in itertools.product(("device", "node"), (True, False)):
        for nodes in sizes:
            requests = _requests_of_nodes(nodes, group_by, has_extremes=has_extremes)
            filled = _filled(requests, folder)
            for is_checked in (True, False):
                kind = _Kind(group_by, has_extremes, is_checked)
                cell = _measured(requests, filled, seconds, is_checked=is_checked)
                cells.setdefault(kind, []).append(cell)
    held = interleaved(
        effort.times(5, 1),
        {
            group_by: partial(_measured_where_it_ends, cells, group_by, effort, folder)
            for group_by in ("device", "node")
        },
    )
    rows = (
        Row(
            'fleet: nodes of 8 at 15 s on one gateway, check on: `group_by = "node"` to `"device"`',
            Samples(held["device"][0], "nodes"),
            Samples(held["node"][0], "nodes"),
            (Goal(4, is_ratio=True, at_least=True),),
        ),
        _row_of_speeds(cells, 100, is_checked=True),
        _row_of_speeds(cells, sizes[-1], is_checked=False),
    )
    return Findings(rows, _text(cells, sizes))


def _measured_where_it_ends(
    cells: dict[_Kind, list[_Cell]], group_by: str, effort: Effort, folder: Path
) -> tuple[float]:
    """How many nodes the checking gateway holds at 15 s, measured with just as many as the coarse sizes lead to expect.

    On a line in logarithms between sizes that lie wide apart it would be wrong by a quarter.
    """
    kind = _Kind(group_by, has_extremes=True, is_checked=True)
    expected = round(_nodes_held(cells[kind], _INTERVAL_SECONDS))
    requests = _requests_of_nodes(expected, group_by, has_extremes=True)
    cell = _measured(requests, _filled(requests, folder), effort.times(8, 2), is_checked=True)
    # What a push costs grows with the nodes, and so the interval with their square.
    return (expected * math.sqrt(_INTERVAL_SECONDS / cell.shortest_interval_seconds),)


def _requests_of_nodes(nodes: int, group_by: str, *, has_extremes: bool) -> list[list[Request]]:
    """The requests of each node's push."""
    settings = settings_of(configuration(_DEVICES, pushgateway=f'group_by = "{group_by}"'))
    settings = replace(settings, metrics=MetricsSettings(extremes=has_extremes))
    assert settings.pushgateway is not None  # noqa: S101 - the configuration has the section
    snapshots = [snapshot_of(settings, seed) for seed in range(min(nodes, _DISTINCT_PAYLOADS))]
    groups = [make_groups(snapshot, settings, group_by) for snapshot in snapshots]
    requests = []
    for node in range(nodes):
        renamed = [
            replace(group, grouping_key={**group.grouping_key, "hostname": f"node-{node}"})
            for group in groups[node % len(groups)]
        ]
        requests.append(put_requests(renamed, settings.pushgateway))
    return [list(one) for one in requests]


def _filled(requests: Sequence[Sequence[Request]], folder: Path) -> Path:
    """The file of a gateway that knows all nodes: unchecked, or it would take hours for many."""
    filled = folder / "gateway.data"
    filled.unlink(missing_ok=True)
    arguments = (f"--persistence.file={filled}", "--push.disable-consistency-check")
    with running_pushgateway(*arguments, folder=folder) as port:
        _push_all(port, iter([request for one in requests for request in one]))
    return filled


def _measured(requests: Sequence[Sequence[Request]], filled: Path, seconds: float, *, is_checked: bool) -> _Cell:
    # A copy, as the gateway writes to its file when it ends.
    copy = filled.with_suffix(".copy")
    copy.write_bytes(filled.read_bytes())
    unchecked = () if is_checked else ("--push.disable-consistency-check",)
    with running_pushgateway(f"--persistence.file={copy}", *unchecked, folder=filled.parent) as port:
        began = time.perf_counter()
        _get_metrics(port)
        scrape_seconds = time.perf_counter() - began
        began = time.perf_counter()
        deadline = began + seconds
        in_turn = itertools.chain.from_iterable(itertools.cycle(requests))
        pushed = _push_all(port, itertools.takewhile(lambda _: time.perf_counter() < deadline, in_turn))
        took = time.perf_counter() - began
    return _Cell(len(requests), pushed / len(requests[0]) / took, scrape_seconds)


def _push_all(port: int, requests: Iterator[Request]) -> int:
    """Push over a few kept connections until there is nothing more; return how many were accepted.

    Raises:
        RuntimeError: one was not.
    """
    turn = threading.Lock()
    accepted = [0] * _CONNECTIONS
    errors: list[Exception] = []

    def work(worker: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_TIMEOUT_SECONDS)
        try:
            while not errors:
                with turn:
                    request = next(requests, None)
                if request is None:
                    return
                _put(connection, request)
                accepted[worker] += 1
        except Exception as error:  # noqa: BLE001 - raised in the thread that waits
            errors.append(error)
        finally:
            connection.close()

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(_CONNECTIONS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return sum(accepted)


def _put(connection: http.client.HTTPConnection, request: Request) -> None:
    connection.request(request.method, request.path, request.body, dict(request.headers))
    answer = connection.getresponse()
    body = answer.read()
    if answer.status not in {200, 202}:
        raise RuntimeError(f"{request.path}: {answer.status} {body!r}")


def _get_metrics(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
        connection.getresponse().read()
    finally:
        connection.close()


def _nodes_held(cells: Sequence[_Cell], interval_seconds: float) -> float:
    """How many nodes can push at this interval: between two sizes, or beyond the last, on a line in logarithms."""
    points = [(math.log(cell.nodes), math.log(cell.shortest_interval_seconds)) for cell in cells]
    goal = math.log(interval_seconds)
    pairs = list(itertools.pairwise(points))
    (x0, y0), (x1, y1) = next((pair for pair in pairs if goal <= pair[1][1]), pairs[-1])
    slope = max((y1 - y0) / (x1 - x0), 1.0)  # twice the nodes never need less than twice the time
    return math.exp(x1 + (goal - y1) / slope) if goal > y1 else math.exp(x0 + (goal - y0) / slope)


def _row_of_speeds(cells: dict[_Kind, list[_Cell]], nodes: int, *, is_checked: bool) -> Row:
    """How often nodes can push while the gateway knows so many; nothing here lies beyond what was measured."""
    by_device, by_node = (
        next(
            cell.node_pushes_a_second
            for cell in cells[_Kind(group_by, has_extremes=True, is_checked=is_checked)]
            if cell.nodes == nodes
        )
        for group_by in ("device", "node")
    )
    check = "on" if is_checked else "off"
    return Row(
        f'fleet of {nodes:,} nodes of 8: pushes of a node, check {check}: `group_by = "node"` to `"device"`',
        Samples((by_device,), "/s"),
        Samples((by_node,), "/s"),
        (Goal(4, is_ratio=True, at_least=True),),
    )


def _text(cells: dict[_Kind, list[_Cell]], sizes: Sequence[int]) -> str:
    lines = [
        "### One gateway and its fleet",
        "",
        "Pushes of a whole node (8 devices) that the gateway accepts in a second while it knows so many nodes, and in",
        "parentheses the shortest push interval at which it keeps up with them; then how many nodes it holds at three",
        "intervals (between the measured sizes on a line in logarithms). All of it on one machine, the pushing side",
        f"included, over {_CONNECTIONS} connections.",
        "",
        f"| gateway | {' | '.join(f'{size:,} nodes' for size in sizes)} | at 15 s | at 60 s | at 5 min |",
        f"|---|{'---:|' * (len(sizes) + 3)}",
    ]
    for kind, measured in cells.items():
        speeds = [
            f"{number(cell.node_pushes_a_second)}/s ({number(cell.shortest_interval_seconds)} s)" for cell in measured
        ]
        held = [_held(measured, interval_seconds) for interval_seconds in (15.0, 60.0, 300.0)]
        lines.append(f"| {kind} | {' | '.join([*speeds, *held])} |")
    lines += ["", "One scrape of everything that the gateway holds takes, with the extremes:", ""]
    for group_by in ("device", "node"):
        measured = cells[_Kind(group_by, has_extremes=True, is_checked=True)]
        times = ", ".join(f"{cell.nodes:,} nodes {number(cell.scrape_seconds)} s" for cell in measured)
        lines.append(f"- `{group_by}`: {times}")
    return "\n".join(lines)


def _held(cells: Sequence[_Cell], interval_seconds: float) -> str:
    """Two digits, as more would pretend; and nothing of what is far beyond the measured."""
    nodes, most = _nodes_held(cells, interval_seconds), cells[-1].nodes
    return f"> {most:,}" if nodes > most else f"{int(float(f'{nodes:.2g}')):,}"
