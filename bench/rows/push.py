"""64 groups pushed to a real Pushgateway over TLS, without latency and with a 40 ms round trip."""

from __future__ import annotations

import gc
import socket
import ssl
import time
from functools import partial
from typing import TYPE_CHECKING

from prometheus_client import push_to_gateway
from prometheus_client.exposition import tls_auth_handler

from agent.clock import SystemClock
from agent.metrics.groups import make_groups
from agent.push.gateway import Pushgateway
from agent.push.render import put_requests
from bench.measure import Effort, Findings, Goal, Row, Samples, interleaved
from bench.nodes import configuration, settings_of, snapshot_of
from bench.servers import Certificates, far_away, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent.metrics.catalogue import Snapshot
    from agent.metrics.groups import Group
    from agent.push.render import Request
    from agent.settings import Settings

_DEVICES = 64
_ONE_WAY_SECONDS = 0.02
_BUDGET_SECONDS = 60.0


def measure(effort: Effort, folder: Path) -> Findings:
    """Push the same 64 groups both variants, ours over new connections and over kept ones."""
    certificates = Certificates.made_in(folder)
    near = _near(certificates, effort, folder)
    # The gateway checks everything that it holds at every push, one push at a time. This takes the check away.
    unchecked = _near(certificates, effort, folder, "--push.disable-consistency-check")
    far = _far(certificates, effort, folder)
    wall, cpu = near
    wall_unchecked, _ = unchecked
    one_second, node_goal = Goal(1.0, "s"), Goal(0.3, "s")
    what, bare = "64 groups over TLS", "gateway without its consistency check"
    return Findings(
        (
            Row(f"{what}, new connections: wall", wall["stock"], wall["ours"], (Goal(0.35, is_ratio=True),)),
            Row(f"{what}, new connections: CPU", cpu["stock"], cpu["ours"], (Goal(0.2, is_ratio=True),)),
            Row(f"{what}, kept connections: wall", wall["stock"], wall["kept"]),
            Row(f"{what}, kept connections: CPU", cpu["stock"], cpu["kept"]),
            Row(f"{what}, the gateway's own time (bare client, prepared bytes): wall", wall["stock"], wall["floor"]),
            Row(f"{what}, new connections, {bare}: wall", wall_unchecked["stock"], wall_unchecked["ours"]),
            Row(f"{what}, kept connections, {bare}: wall", wall_unchecked["stock"], wall_unchecked["kept"]),
            Row(f"{what}, the gateway's own time, {bare}: wall", wall_unchecked["stock"], wall_unchecked["floor"]),
            Row(f"{what}, 40 ms round trip, new connections", far["stock"], far["ours"], (one_second,)),
            Row(f"{what}, 40 ms round trip, kept connections", far["stock"], far["kept"], (one_second,)),
            Row('64 devices over TLS, 40 ms round trip, `group_by = "node"`', far["stock"], far["node"], (node_goal,)),
        )
    )


def _near(
    certificates: Certificates, effort: Effort, folder: Path, *arguments: str
) -> tuple[dict[str, Samples], dict[str, Samples]]:
    """Wall and CPU seconds of each variant, each with a gateway that holds only its 64 groups."""
    with (
        running_pushgateway(*arguments, certificates=certificates, folder=folder) as port_of_stock,
        running_pushgateway(*arguments, certificates=certificates, folder=folder) as port,
    ):
        stock, node = _Node(port_of_stock, certificates, "device"), _Node(port, certificates, "device")
        taken = interleaved(
            effort.times(11, 3),
            {
                "stock": _timed(stock.push_stock),
                "ours": _timed(node.push_over_new_connections),
                "kept": _timed(node.push_over_kept_connections),
                "floor": _timed(_Floor(node, certificates).push),
            },
        )
        node.close()
    wall, cpu = ({variant: Samples(values[kind], "s") for variant, values in taken.items()} for kind in (0, 1))
    return wall, cpu


def _far(certificates: Certificates, effort: Effort, folder: Path) -> dict[str, Samples]:
    with (
        running_pushgateway(certificates=certificates, folder=folder) as port,
        far_away(port, _ONE_WAY_SECONDS) as far_port,
    ):
        node, node_in_one = _Node(far_port, certificates, "device"), _Node(far_port, certificates, "node")
        taken = interleaved(
            effort.times(3, 1),
            {
                "stock": _timed(node.push_stock),
                "ours": _timed(node.push_over_new_connections),
                "kept": _timed(node.push_over_kept_connections),
                "node": _timed(node_in_one.push_over_new_connections),
            },
        )
        node.close()
    return {variant: Samples(values[0], "s") for variant, values in taken.items()}


class _Node:
    """A node with 64 devices and both variants of pushing them."""

    def __init__(self, port: int, certificates: Certificates, group_by: str) -> None:
        self.port = port
        self._group_by = group_by
        self._settings = _settings(port, certificates, group_by)
        self._snapshot: Snapshot = snapshot_of(self._settings)
        self._groups: Sequence[Group] = make_groups(self._snapshot, self._settings, self._group_by)[:_DEVICES]
        self._address = f"https://127.0.0.1:{port}"
        # The stock handler requires a client certificate whenever it is given an authority.
        self._handler = partial(
            tls_auth_handler,
            certfile=certificates.cert_file,
            keyfile=certificates.key_file,
            cafile=certificates.ca_file,
        )
        self._kept = self._destination()

    def _destination(self) -> Pushgateway:
        assert self._settings.pushgateway is not None
        clock = SystemClock()
        return Pushgateway(self._settings.pushgateway, clock=clock, sleep=clock.sleep, environ={})

    def requests(self) -> Sequence[Request]:
        """The requests of our variant."""
        assert self._settings.pushgateway is not None
        return put_requests(self._groups, self._settings.pushgateway)

    def push_stock(self) -> None:
        """Push each group on its own."""
        for group in self._groups:
            push_to_gateway(
                self._address, "stock", group.registry, dict(group.grouping_key), timeout=30, handler=self._handler
            )

    def push_over_new_connections(self) -> None:
        """Push as `--once` does: from the sums of the readings to the answers, over new connections."""
        destination = self._destination()
        self._push(destination)
        destination.close()

    def push_over_kept_connections(self) -> None:
        """Push as a loop does, over the connections of the previous push."""
        self._push(self._kept)

    def _push(self, destination: Pushgateway) -> None:
        results = destination.push(
            make_groups(self._snapshot, self._settings, self._group_by)[:_DEVICES], _BUDGET_SECONDS
        )
        errors = [result.error for result in results if result.error is not None]
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Close the kept connections."""
        self._kept.close()


class _Floor:
    """The floor: prepared bytes over one connection, and answers that are barely parsed."""

    def __init__(self, node: _Node, certificates: Certificates) -> None:
        self._port = node.port
        self._tls = ssl.create_default_context(cafile=certificates.ca_file)
        self._requests = [
            b"\r\n".join(
                [
                    f"{request.method} {request.path} HTTP/1.1".encode(),
                    f"Host: 127.0.0.1:{node.port}".encode(),
                    *(f"{name}: {value}".encode() for name, value in request.headers),
                    f"Content-Length: {len(request.body)}".encode(),
                    b"",
                    request.body,
                ]
            )
            for request in node.requests()
        ]

    def push(self) -> None:
        """Push. Raises RuntimeError if the gateway does not accept."""
        with (
            socket.create_connection(("127.0.0.1", self._port), timeout=_BUDGET_SECONDS) as plain,
            self._tls.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
        ):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for request in self._requests:
                connection.sendall(request)
                answer = b""
                while not answer.endswith(b"\r\n\r\n"):  # the answer to an accepted push has no body
                    answer += connection.recv(4096)
                if not answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
                    raise RuntimeError(answer)


def _settings(port: int, certificates: Certificates, group_by: str) -> Settings:
    keys = f'ca_file = "{certificates.ca_file}"\ngroup_by = "{group_by}"\n'
    # A separate job: the gateway refuses the same series from two groups.
    keys += f'job = "{group_by}"\n'
    return settings_of(configuration(_DEVICES, url=f"https://127.0.0.1:{port}", pushgateway=keys + 'timeout = "10s"'))


def _timed(push: Callable[[], None]) -> Callable[[], tuple[float, float]]:
    """Wall and CPU seconds of one push."""

    def measured() -> tuple[float, float]:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        push()
        return time.perf_counter() - wall, time.process_time() - cpu

    push()  # the first one imports modules
    return measured
