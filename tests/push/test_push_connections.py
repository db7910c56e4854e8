"""Connections are kept, and replaced without a failure if they were dropped while idle."""

from __future__ import annotations

import ipaddress
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent.errors import UnreachableError
from agent.push.delivery import Delivery
from tests.push.pushing import PATIENT_SECONDS, TurnedClock, addresses, groups, message, push_one, pushgateway_for
from tests.run.running import LONG_SECONDS, until
from tests.servers import Server, answering, free_port, in_turn, raw, running_pushgateway

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Client


def test_ten_pushes_in_a_row_use_one_connection() -> None:
    with Server(answering("202 Accepted", b"fine")) as server, pushgateway_for(server.url) as destination:
        for _ in range(10):
            assert push_one(destination).error is None
    assert (server.connections, len(server.requests)) == (1, 10)


def test_slow_answers_add_connections_up_to_eight() -> None:
    clock = TurnedClock()
    eight_arrived = threading.Event()

    def answer_when_eight_wait(client: Client) -> None:
        while client.read_request() is not None:
            if not eight_arrived.is_set():
                clock.sleep(0.02)
                if len(client.server.requests) == 8:
                    eight_arrived.set()
                eight_arrived.wait(60)
            client.answer("200 OK")

    with (
        Server(answer_when_eight_wait) as server,
        pushgateway_for(server.url, clock=clock, timeout_seconds=60) as destination,
    ):
        pushed = groups(64)
        results = destination.push(pushed, 1000)
        assert all(result.error is None for result in results)
        assert [result.grouping_key for result in results] == [group.grouping_key for group in pushed]
    assert eight_arrived.is_set()
    assert (server.connections, len(server.requests)) == (8, 64)


@pytest.mark.reliability(
    9.12, "one group of many gets no answer, or must be retried", "the others are pushed meanwhile"
)
@pytest.mark.parametrize("how", ["hangs", "is tried again"])
def test_waiting_group_does_not_delay_the_others(how: str) -> None:
    others_arrived = threading.Event()
    refused: list[str] = []
    came_first: list[bool] = []

    def answer_the_first_last(client: Client) -> None:
        while (request := client.read_request()) is not None:
            is_first = "/device/d0/" in request.target
            if len({request.target for request in client.server.requests}) == 10:
                others_arrived.set()
            if is_first and how == "hangs":
                came_first.append(others_arrived.wait(60))
            if is_first and how == "is tried again" and not refused:
                refused.append(request.target)
                client.answer("503 Service Unavailable")
            else:
                client.answer("200 OK")

    def wait_for_others(_: float) -> None:
        came_first.append(others_arrived.wait(60))

    with (
        Server(answer_the_first_last) as server,
        pushgateway_for(server.url, timeout_seconds=60, sleep=wait_for_others) as destination,
    ):
        results = destination.push(groups(10), 120)
    assert came_first == [True], "the others came while the first waited"
    assert [result.error for result in results] == [None] * 10
    assert results[0].attempts == (1 if how == "hangs" else 2)


def test_no_result_is_lost_if_a_helper_starts_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller finds nothing left to do while the watchdog's thread is still starting a helper."""
    helper_runs, has_joined, has_started = threading.Event(), threading.Event(), threading.Event()
    left_behind: list[str] = []
    start, join = threading.Thread.start, Delivery._join

    def start_slowly(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "push-helper":
            helper_runs.set()
            has_joined.wait(0.5)  # returns early only if the caller does not wait for this start
            has_started.set()

    def join_and_look(delivery: Delivery, limit_seconds: float) -> None:
        join(delivery, limit_seconds)
        left_behind.extend(thread.name for thread in threading.enumerate() if thread.name == "push-helper")
        has_joined.set()

    def answer_the_helper_last(client: Client) -> None:
        is_helper = client.number > 1
        while client.read_request() is not None:
            assert (has_started if is_helper else helper_runs).wait(LONG_SECONDS)
            client.answer("200 OK")

    monkeypatch.setattr(threading.Thread, "start", start_slowly)
    monkeypatch.setattr(Delivery, "_join", join_and_look)
    with Server(answer_the_helper_last) as server, pushgateway_for(server.url) as destination:
        results = destination.push(groups(2), PATIENT_SECONDS)
    assert left_behind == []
    assert [result.error for result in results] == [None, None]


def test_a_push_without_a_thread_to_spare_fails_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "deadlines":
            raise RuntimeError("can't start new thread")
        start(thread)

    with Server(answering("200 OK")) as server, pushgateway_for(server.url) as destination:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            (result,) = destination.push(groups(1), PATIENT_SECONDS)
        assert isinstance(result.error, UnreachableError)
        assert str(result.error) == "device d0: not pushed: can't start new thread; raise TasksMax= or ulimit -u"
        assert destination.push(groups(1), PATIENT_SECONDS)[0].error is None


def test_a_lookup_without_a_thread_to_spare_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    start, refused = threading.Thread.start, list[str]()

    def refuse_once(thread: threading.Thread) -> None:
        if thread.name == "resolver" and not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    with Server(answering("200 OK")) as server:
        url = f"http://gateway.test:{server.port}"
        getaddrinfo = addresses(server.port)
        with pushgateway_for(url, clock=TurnedClock(), getaddrinfo=getaddrinfo) as destination:
            result = push_one(destination)
    assert (result.attempts, result.error, refused) == (2, None, ["resolver"])


def test_no_thread_is_left_after_a_push() -> None:
    before = threading.active_count()
    with Server(answering("200 OK")) as server, pushgateway_for(server.url) as destination:
        destination.push(groups(20), 10)
        assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("push-")]
    assert threading.active_count() <= before


@pytest.mark.reliability(9.15, "an idle connection that was dropped", "it is replaced without a failed attempt")
@pytest.mark.parametrize("how", ["fin", "rst"])
def test_dropped_idle_connection_costs_no_failed_attempt(how: str) -> None:
    dropped = threading.Event()

    def answer_once(client: Client) -> None:
        client.read_request()
        client.answer("200 OK")
        if client.number == 1:
            if how == "rst":
                client.reset()
            client.file.close()
            client.sock.close()
            client.server._sockets[0].close()
            dropped.set()

    with Server(answer_once) as server, pushgateway_for(server.url, clock=TurnedClock()) as destination:
        assert push_one(destination).attempts == 1
        dropped.wait()
        result = push_one(destination)
    assert (result.attempts, result.error) == (1, None)
    assert server.connections == 2


def test_connection_dropped_on_reuse_is_replaced_at_once() -> None:
    """A race that checking the connection beforehand cannot win: the server drops it when the request arrives."""

    def drop_second(client: Client) -> None:
        client.read_request()
        client.answer("200 OK")
        if client.number == 1:
            client.read_request()
        else:
            answering("200 OK")(client)

    clock = TurnedClock()
    with Server(drop_second) as server, pushgateway_for(server.url, clock=clock) as destination:
        push_one(destination)
        result = push_one(destination)
    assert (result.attempts, result.error, clock.slept) == (1, None, [])
    assert (server.connections, len(server.requests)) == (2, 3)


def test_unsolicited_answer_is_not_taken_for_the_next() -> None:
    """Some proxies send this on an idle connection before they close it."""
    output = threading.Event()

    def answer_and_say_more(client: Client) -> None:
        client.read_request()
        client.answer("200 OK")
        if client.number == 1:
            answered.wait(60)
            client.answer("408 Request Timeout")
            output.set()
            client.hang()

    answered = threading.Event()
    with Server(answer_and_say_more) as server, pushgateway_for(server.url, clock=TurnedClock()) as destination:
        push_one(destination)
        answered.set()
        assert output.wait(60)
        result = push_one(destination)
    assert (result.attempts, result.error) == (1, None)
    assert (server.connections, len(server.requests)) == (2, 2)


def test_next_push_reaches_a_restarted_gateway() -> None:
    port = free_port()
    with pushgateway_for(f"http://127.0.0.1:{port}", clock=TurnedClock()) as destination:
        for _ in range(2):
            with running_pushgateway(port=port):
                result = push_one(destination)
                assert (result.attempts, result.error) == (1, None)


def test_truncated_answer_still_accepts_the_push() -> None:
    cut_off = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")
    with Server(in_turn(cut_off, answering("200 OK"))) as server, pushgateway_for(server.url) as destination:
        assert push_one(destination).error is None
        assert push_one(destination).error is None
    assert server.connections == 2


def test_endless_answer_is_not_read_to_its_end() -> None:
    def endless(client: Client) -> None:
        client.read_request()
        client.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not client.server.closing.is_set():
            client.send(b"x" * 65536)

    with Server(endless) as server, pushgateway_for(server.url) as destination:
        assert push_one(destination).error is None
        assert push_one(destination).error is None
    assert server.connections == 2


def test_connection_with_unread_bytes_is_not_reused() -> None:
    def answer_too_long(client: Client) -> None:
        client.read_request()
        # One byte more than is read; the rest may come at any time.
        client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + b"x" * 8193)
        client.hang()

    with Server(answer_too_long) as server, pushgateway_for(server.url, clock=TurnedClock()) as destination:
        assert [push_one(destination).attempts for _ in range(2)] == [1, 1]
    assert server.connections == 2


class Dns:
    """A name server whose answers a test sets, and whose lookups it can await."""

    def __init__(self, *leads_to: tuple[str, int]) -> None:
        self.leads_to = leads_to
        self.error: OSError | None = None
        self.answer_now = threading.Event()
        self.answer_now.set()
        self.lookups = 0

    def __call__(self, *arguments: Any, **options: Any) -> list[Any]:
        self.lookups += 1
        self.answer_now.wait(LONG_SECONDS)
        if self.error is not None:
            raise self.error
        return [entry for host, port in self.leads_to for entry in addresses(port, host=host)()]

    def answered(self, lookups: int) -> None:
        """Wait until so many lookups have ended."""
        until(lambda: self.lookups == lookups and not lookups_under_way(), "the lookup")


def lookups_under_way() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "resolver"]


@pytest.mark.reliability(
    9.16,
    "a gateway that moves by DNS while the old one still answers",
    "the name is looked up every 5 minutes beside the pushes, and the kept connection follows it",
)
def test_a_gateway_that_moved_is_followed(measured: Callable[[str], None]) -> None:
    clock = TurnedClock()
    with Server(answering("200 OK"), host="127.0.0.2") as old, Server(answering("200 OK"), host="127.0.0.3") as new:
        dns = Dns(("127.0.0.2", old.port))
        with pushgateway_for("http://gateway.test", clock=clock, getaddrinfo=dns) as destination:
            push_one(destination)
            dns.leads_to = (("127.0.0.3", new.port),)
            for seconds in (0, 299):
                clock.sleep(seconds)
                push_one(destination)
            assert (dns.lookups, len(new.requests)) == (1, 0)
            clock.sleep(2)
            assert push_one(destination).error is None  # this begins the lookup, and does not wait for it
            dns.answered(2)
            assert push_one(destination).attempts == 1
            assert (len(old.requests), len(new.requests), dns.lookups) == (4, 1, 2)
    measured("the second push after 5 minutes goes to the new address")


@pytest.mark.parametrize("state", ["fails", "hangs", "still leads there", "has no thread"])
def test_a_kept_connection_stays_while_its_name(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = TurnedClock()
    with Server(answering("200 OK")) as server:
        dns = Dns(("127.0.0.1", server.port))
        with pushgateway_for("http://gateway.test", clock=clock, getaddrinfo=dns) as destination:
            push_one(destination)
            if state == "fails":
                dns.error = socket.gaierror(socket.EAI_AGAIN, "down")
            elif state == "hangs":
                dns.answer_now.clear()
            elif state == "still leads there":
                dns.leads_to = (("127.0.0.9", server.port), ("127.0.0.1", server.port))
            else:
                monkeypatch.setattr(threading.Thread, "start", refusing("resolver"))
            for lookups in range(1, 4):
                clock.sleep(301)
                assert (push_one(destination).attempts, push_one(destination).error) == (1, None)
                if state in ("fails", "still leads there"):
                    dns.answered(lookups + 1)
                    assert push_one(destination).attempts == 1
            dns.answer_now.set()
    assert server.connections == 1


def refusing(name: str) -> Callable[[threading.Thread], None]:
    """Threads of this name cannot be started."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    return refuse


def link_local() -> str:
    """An address of this machine with its zone, `fe80::1%eth0`; else the loopback address with its own."""
    for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
        address, _, _, _, _, interface = line.split()
        if address.startswith("fe80"):
            return f"{ipaddress.IPv6Address(bytes.fromhex(address))}%{interface}"
    return "::1%1"


@pytest.mark.reliability(
    9.32,
    "a gateway at a link-local address, `[fe80::1%25eth0]`",
    "the push goes through that interface; an unknown one is named",
)
def test_an_ipv6_zone_in_the_url_leads_through_its_interface(measured: Callable[[str], None]) -> None:
    address, _, zone = link_local().partition("%")
    family, kind, _, _, where = socket.getaddrinfo(f"{address}%{zone}", 0, type=socket.SOCK_STREAM)[0]
    with Server(answering("200 OK"), listener=listening(family, kind, where)) as server:
        with pushgateway_for(f"http://[{address}%25{zone}]:{server.port}") as destination:
            assert push_one(destination).error is None
    assert server.requests[0].headers["host"] == f"[{address}]:{server.port}"
    measured("pushed")


def listening(family: int, kind: int, where: Any) -> socket.socket:
    listener = socket.socket(family, kind)
    listener.bind(where)
    listener.listen()
    return listener


@pytest.mark.reliability(
    9.32,
    "a gateway at a link-local address, `[fe80::1%25eth0]`",
    "the push goes through that interface; an unknown one is named",
)
def test_an_unknown_ipv6_zone_is_named(measured: Callable[[str], None]) -> None:
    with pushgateway_for("http://[fe80::1%25nosuch0]:9091", clock=TurnedClock()) as destination:
        text = message(push_one(destination))
    assert "[fe80::1%nosuch0]:9091: this machine has no network interface of the name after the %" in text
    measured("the error names the zone")


def test_push_after_close_opens_a_new_connection() -> None:
    ended = threading.Event()

    def until_closed(client: Client) -> None:
        answering("200 OK")(client)
        ended.set()

    with Server(until_closed) as server, pushgateway_for(server.url) as destination:
        push_one(destination)
        destination.close()
        assert ended.wait(60)
        assert push_one(destination).error is None
    assert server.connections == 2


def test_abandoned_attempt_resets_its_connection() -> None:
    ends: list[str] = []

    def behave(client: Client) -> None:
        try:
            client.read_request()
            ends.append(f"read {client.sock.recv(1)!r}")
        except ConnectionResetError:
            ends.append("reset")

    with Server(behave) as server, pushgateway_for(server.url, timeout_seconds=0.2) as destination:
        while not server.connections:  # on a busy machine the attempt may be over before the server looks
            assert push_one(destination, 0.2).error is not None
    assert ends == ["reset"] * server.connections
