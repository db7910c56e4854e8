"""An attempt ends at its timeout and a push with its budget, whatever the other side does. Real clocks.

All limits here are generous: without a deadline, these operations would never end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from agent.errors import UnreachableError
from tests.push.pushing import (
    FOR_EVER_SECONDS,
    Stopwatch,
    addresses,
    groups,
    large_group,
    message,
    push_one,
    push_until_error_matches,
    pushgateway_for,
)
from tests.run.running import until
from tests.servers import Server, answering, hanging, trickling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers import Client


def never_reading(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.hang()


def calling(act: Callable[[], None], at_request: int = 1) -> Callable[[Client], None]:
    """Acts at this request, and answers none."""
    once = iter([act])

    def behave(client: Client) -> None:
        client.read_request()
        if len(client.server.requests) >= at_request:
            for only in once:
                only()
        client.hang()

    return behave


@contextlib.contextmanager
def repeatedly(act: Callable[[], None]) -> Iterator[None]:
    """Acts until the end, and so at some point while a push waits, which is not visible from outside."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.05):
            act()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def full_backlog() -> Iterator[int]:
    """A port whose queue of connections is full, so that it does not answer further ones."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


class SilentDNS:
    """A resolver that counts its calls and does not answer before the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.calls = 0

    def __call__(self, *_: object, **__: object) -> list[object]:
        self.calls += 1
        self.over.wait()
        return []


@pytest.fixture
def silent_dns() -> Iterator[SilentDNS]:
    resolver = SilentDNS()
    yield resolver
    resolver.over.set()


@pytest.mark.reliability(9.1, "an answer that never comes, or trickles", "the whole attempt ends at its time-out")
@pytest.mark.parametrize(
    "slow",
    [
        hanging,
        trickling(b""),
        trickling(b"HTTP/1.1 200 OK\r\n", b"X-Drop: 1\r\n"),
        trickling(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
        trickling(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        trickling(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["hangs", "trickles the status", "trickles headers", "trickles the body", "trickles chunks", "only continues"],
)
def test_attempt_ends_at_its_timeout(slow: Callable[[Client], None]) -> None:
    with Server(slow) as server, pushgateway_for(server.url, timeout_seconds=0.5) as destination:
        output = rf"127\.0\.0\.1:{server.port} timed out after \d+\.\d s, while waiting for the answer"
        push_until_error_matches(output, destination, 0.5)


def test_sending_a_body_ends_at_the_timeout() -> None:
    with Server(never_reading) as server, pushgateway_for(server.url, timeout_seconds=0.3) as destination:
        push_until_error_matches("timed out", destination, 0.4, large_group)


def test_hanging_tls_handshake_ends_at_the_timeout() -> None:
    with Server(hanging) as server:
        url = server.url.replace("http:", "https:")
        with pushgateway_for(url, timeout_seconds=0.5) as destination:
            push_until_error_matches(r"timed out after \d+\.\d s, while agreeing on TLS", destination, 0.5)


def test_connecting_ends_at_the_timeout() -> None:
    with full_backlog() as port, pushgateway_for(f"http://127.0.0.1:{port}", timeout_seconds=0.3) as destination:
        push_until_error_matches(r"timed out after \d+\.\d s, while connecting", destination, 0.3)


def test_address_that_swallows_packets_leaves_time_for_the_next() -> None:
    with (
        full_backlog() as port,
        Server(answering("200 OK")) as server,
        # The first address gets half of the time, which leaves the other half for the second.
        pushgateway_for(
            "http://gateway.test", timeout_seconds=1, getaddrinfo=addresses(port, server.port)
        ) as destination,
    ):
        # A busy machine may use up the second half; without one, no push would succeed.
        until(lambda: push_one(destination, budget_seconds=1).error is None, "a push to the second address")


def test_silent_dns_ends_at_the_timeout_and_is_asked_once(silent_dns: SilentDNS) -> None:
    before = threading.active_count()
    with pushgateway_for("http://gateway.test", timeout_seconds=0.2, getaddrinfo=silent_dns) as destination:
        push_until_error_matches(
            r"gateway\.test:80 timed out after \d+\.\d s, while looking up the name", destination, 0.2
        )
        watch = Stopwatch()
        destination.push(groups(16), 0.3)
        assert watch.seconds() < FOR_EVER_SECONDS
    assert silent_dns.calls == 1
    assert threading.active_count() <= before + 1


@pytest.mark.reliability(9.11, "64 groups against a gateway that hangs", "they share one budget and end within it")
def test_sixty_four_groups_against_a_hung_gateway_end_within_the_budget() -> None:
    output = "device d63: not pushed: the budget of 2.0 s was spent before; the last failure: 127.0.0.1:"

    def first_is_tried_and_last_names_the_budget() -> bool:
        watch = Stopwatch()
        results = destination.push(groups(64), 2.0)
        assert watch.seconds() < FOR_EVER_SECONDS
        assert len(results) == 64
        assert all(isinstance(result.error, UnreachableError) for result in results)
        assert results[-1].attempts == 0
        # On a busy machine, the budget may be spent before the first.
        return results[0].attempts >= 1 and message(results[-1]).startswith(output)

    with Server(hanging) as server, pushgateway_for(server.url, timeout_seconds=0.8) as destination:
        until(first_is_tried_and_last_names_the_budget, output)


def test_last_attempt_gets_the_rest_of_the_budget() -> None:
    with Server(hanging) as server, pushgateway_for(server.url, timeout_seconds=3600) as destination:
        assert push_until_error_matches("timed out after", destination, 0.3).attempts == 1


@pytest.mark.parametrize("count", [1, 20])
def test_stop_ends_a_hanging_push(count: int) -> None:
    with Server(hanging) as server, pushgateway_for(server.url, timeout_seconds=3600) as destination:
        server.behave = calling(destination.stop)
        watch = Stopwatch()
        results = destination.push(groups(count), 3600)
        assert watch.seconds() < FOR_EVER_SECONDS
        assert len(results) == count
        assert all("stopped" in message(result) for result in results)
        assert sum(result.attempts for result in results) <= 8
        server.behave = answering("200 OK")
        assert push_one(destination).error is None, "a push after the stop works again"


def send_signal() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


@pytest.mark.parametrize("count", [1, 20])
def test_signal_handler_may_stop_the_push_it_interrupts(count: int) -> None:
    with Server(calling(send_signal)) as server, pushgateway_for(server.url, timeout_seconds=3600) as destination:
        before = signal.signal(signal.SIGUSR1, lambda *_: destination.stop())
        try:
            watch = Stopwatch()
            results = destination.push(groups(count), 3600)
            assert watch.seconds() < FOR_EVER_SECONDS
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert all("stopped" in message(result) for result in results)


def test_exception_in_a_signal_handler_ends_push_and_threads() -> None:
    class LeaveNowError(Exception):
        pass

    def leave(*_: object) -> None:
        raise LeaveNowError

    # Once all eight connections wait for an answer: an exception while one is being made may leave its socket open.
    all_wait = calling(send_signal, at_request=8)
    with Server(all_wait) as server, pushgateway_for(server.url, timeout_seconds=3600) as destination:
        before = signal.signal(signal.SIGUSR1, leave)
        try:
            watch = Stopwatch()
            with pytest.raises(LeaveNowError):
                destination.push(groups(20), 3600)
            assert watch.seconds() < FOR_EVER_SECONDS
        finally:
            signal.signal(signal.SIGUSR1, before)
    until(lambda: not any(thread.name.startswith("push-") for thread in threading.enumerate()), "their end")


def test_stop_ends_a_hanging_lookup(silent_dns: SilentDNS) -> None:
    def stop_and_be_silent(*arguments: object, **options: object) -> list[object]:
        destination.stop()
        return silent_dns(*arguments, **options)

    with pushgateway_for("http://gateway.test", timeout_seconds=3600, getaddrinfo=stop_and_be_silent) as destination:
        watch = Stopwatch()
        result = push_one(destination, budget_seconds=3600)
        assert watch.seconds() < FOR_EVER_SECONDS
    assert "stopped before gateway.test:80 had answered" in message(result)


def test_stop_ends_connecting() -> None:
    with full_backlog() as port, pushgateway_for(f"http://127.0.0.1:{port}", timeout_seconds=3600) as destination:
        watch = Stopwatch()
        with repeatedly(destination.stop):
            result = push_one(destination, budget_seconds=3600)
        assert watch.seconds() < FOR_EVER_SECONDS
    assert "stopped" in message(result)
