"""A fleet that sends to one VictoriaMetrics: real request bodies, of which only hostnames and times differ."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from agent.history.snappy import compress
from agent.history.write_request import HEADERS, message
from bench.processes import cpu_seconds_of, resident_bytes_of
from bench.remote_frames import HOSTNAME, INTERVAL_SECONDS, recorded
from bench.servers import running_victoria_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_CONNECTIONS = 4
_ANSWER_SECONDS = 60.0
_DISTINCT_BODIES = 8
_FIRST_INTERVALS = 2  # they lack series that need an earlier one


@dataclass(frozen=True, slots=True)
class Load:
    """What a server does with a fleet that sends evenly, one frame of each node in an interval.

    Attributes:
        samples_a_second: that come.
        taken_a_second: fewer if the server does not keep up.
        cores: of its CPU time meanwhile.
        resident_bytes: after that.
    """

    samples_a_second: float
    taken_a_second: float
    cores: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class Held:
    """What one server holds.

    Attributes:
        interval: with a sample of each series.
        sample: with every reading.
        most_nodes: with a sample of each series, that it takes in an interval if requests come as fast as it answers.
    """

    interval: Load
    sample: Load
    most_nodes: float


def measured_fleet(nodes: int, fast_seconds: float, folder: Path) -> Held:
    """Send a first frame of each node, which creates its series, then two intervals evenly, then as fast as possible.

    Raises:
        RuntimeError: the server refused a request, or does not hold what it took.
    """
    coarse, fine = Fleet("interval", nodes), Fleet("sample", nodes)
    with running_victoria_metrics(folder) as (port, pid):
        now = time.time()
        _post_all(port, coarse.bodies(0, now - INTERVAL_SECONDS))
        coarse_load = _evenly_loaded(port, pid, coarse, 1, now)
        fine_load = _evenly_loaded(port, pid, fine, 2, now + INTERVAL_SECONDS)
        began = time.perf_counter()
        ends = began + fast_seconds
        # Of the future, but no further than the server takes: the time of a sample makes no difference to the work.
        rounds = (coarse.bodies(number, now + INTERVAL_SECONDS * number) for number in itertools.count(3))
        fast = itertools.takewhile(lambda _: time.perf_counter() < ends, itertools.chain.from_iterable(rounds))
        posted = _post_all(port, fast)
        most_nodes = posted / (time.perf_counter() - began) * INTERVAL_SECONDS
        _check(port, nodes, (2 * nodes + posted) * coarse.samples_a_node + nodes * fine.samples_a_node)
    return Held(coarse_load, fine_load, most_nodes)


def _evenly_loaded(port: int, pid: int, fleet: Fleet, number: int, unix_seconds: float) -> Load:
    before, began = cpu_seconds_of(pid), time.perf_counter()
    _post_all(port, _evenly(fleet.bodies(number, unix_seconds), fleet.nodes / INTERVAL_SECONDS))
    seconds = time.perf_counter() - began
    cores = (cpu_seconds_of(pid) - before) / seconds
    samples = fleet.nodes * fleet.samples_a_node
    return Load(samples / INTERVAL_SECONDS, samples / seconds, cores, resident_bytes_of(pid))


class Fleet:
    """Nodes that share a few recordings.

    Attributes:
        samples_a_node: of each body.
    """

    def __init__(self, resolution: Literal["interval", "sample"], nodes: int) -> None:
        self.nodes = nodes
        self._rows = recorded(resolution, _FIRST_INTERVALS + _DISTINCT_BODIES)[_FIRST_INTERVALS:]
        (self.samples_a_node,) = {rows.frame(0).samples for rows in self._rows}

    def bodies(self, number: int, unix_seconds: float) -> Iterator[bytes]:
        """A body of each node; they end at the same moment."""
        at = round(unix_seconds * 1000)
        messages = [message(rows.frame(at - rows.times_milliseconds[-1])) for rows in self._rows]
        for node in range(self.nodes):
            hostname = f"node-{node:05}"
            assert len(hostname) == len(HOSTNAME)  # or the lengths before it would be wrong
            yield compress(messages[(number + node) % len(messages)].replace(HOSTNAME.encode(), hostname.encode()))


def _evenly(bodies: Iterable[bytes], a_second: float) -> Iterator[bytes]:
    began = time.perf_counter()
    for number, body in enumerate(bodies):
        wait = began + number / a_second - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        yield body


def _post_all(port: int, bodies: Iterator[bytes]) -> int:
    """Post all over a few kept connections; return how many.

    Raises:
        RuntimeError: the server did not take one.
    """
    turn = threading.Lock()
    posted = [0] * _CONNECTIONS
    errors: list[Exception] = []

    def work(worker: int) -> None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while not errors:
                    with turn:
                        body = next(bodies, None)
                    if body is None:
                        return
                    _post(connection, body)
                    posted[worker] += 1
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            errors.append(error)

    workers = [threading.Thread(target=work, args=(worker,)) for worker in range(_CONNECTIONS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return sum(posted)


_HEAD = "\r\n".join(
    ["POST /api/v1/write HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in HEADERS.items())]
).encode()


def _post(connection: socket.socket, body: bytes) -> None:
    connection.sendall(b"%s\r\nContent-Length: %d\r\n\r\n%s" % (_HEAD, len(body), body))
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):  # the answer to what is taken has no body
        received = connection.recv(4096)
        answer += received
        if not received or not b"HTTP/1.1 204".startswith(answer[:12]):
            raise RuntimeError(answer)


def _check(port: int, nodes: int, samples: int) -> None:
    """Make sure that the server has all of it. Raises RuntimeError if it has not."""
    _get(port, "/internal/force_flush")
    taken = next(
        int(line.rpartition(" ")[2])
        for line in _get(port, "/metrics").splitlines()
        if line.startswith('vm_rows_inserted_total{type="promremotewrite"}')
    )
    query = urlencode({"query": "count(last_over_time(wattpush_agent_info[10m]))", "nocache": "1"})
    known = json.loads(_get(port, f"/api/v1/query?{query}"))["data"]["result"][0]["value"][1]
    if (taken, int(known)) != (samples, nodes):
        raise RuntimeError(f"sent {samples} samples of {nodes} nodes, but the server has {taken} of {known}")


def _get(port: int, path: str) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {text}")
    return text
