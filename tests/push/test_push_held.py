"""What a Pushgateway says that it holds, over connections that fail and from servers that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.errors import UnreachableError
from tests.push.pushing import pushgateway_for
from tests.servers import Server, answering

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.servers import Client

LABELS = 'device="cpu",hostname="node-17",instance="",job="power"'
HELD = (
    f"pushgateway_build_info 1\npush_time_seconds{{{LABELS}}} 1.7e+09\nwattpush_device_joules_total{{{LABELS}}} 12.5\n"
).encode()


def ending_early(body: bytes) -> Callable[[Client], None]:
    """Announces all of HELD, sends this much of it, and closes in good order."""

    def behave(client: Client) -> None:
        while client.read_request() is not None:
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(HELD) + body)
            return

    return behave


def test_the_whole_answer_shows_what_is_held() -> None:
    with Server(answering("200 OK", HELD)) as server, pushgateway_for(server.url) as destination:
        assert destination.held("node-17", 10.0) == {("cpu", "wattpush_device_joules_total"): 12.5}
        assert destination.held_groups() == [{"device": "cpu", "hostname": "node-17"}]


@pytest.mark.reliability(
    9.17,
    "the answer of the gateway, asked what it holds of this node, ends in the middle in good order",
    "it is asked again: half an answer is never taken for all that it holds",
)
def test_half_an_answer_shows_nothing(measured: Callable[[str], None]) -> None:
    for length in range(0, len(HELD), 20):
        with Server(ending_early(HELD[:length])) as server, pushgateway_for(server.url) as destination:
            with pytest.raises(UnreachableError, match=r"^not pushed: .* ended its answer in the middle$"):
                destination.held("node-17", 10.0)
            assert destination.held_groups() is None
    measured(f"cut after every 20 of {len(HELD)} bytes: 0 taken for complete")


@pytest.mark.parametrize("line", ["{device,\t=7", '{device="cpu} 12', "{" + LABELS + "} many"])
def test_what_is_no_exposition_shows_nothing(line: str) -> None:
    lines = f'pushgateway_build_info 1\npush_time_seconds{line} job="power"\nwattpush_x{line}{LABELS} 12\n'
    with Server(answering("200 OK", lines.encode())) as server, pushgateway_for(server.url) as destination:
        assert destination.held("node-17", 10.0) == {}
        assert destination.held_groups() is None
