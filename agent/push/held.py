"""What a Pushgateway holds of this node, as its own /metrics shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import UnreachableError
from agent.http.deadline import WAITING_FOR_THE_ANSWER, watchdog
from agent.http.failures import AttemptFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.http.client import Client
    from agent.http.connection import Answer

_BODY_LIMIT_BYTES = 4 * 2**20
"""The metrics of some two thousand groups. Of a longer answer only the beginning is read."""

_METRICS_SHARE = 0.75
"""Of the time, how much the metrics may take; the rest is for the question whether the gateway answers at all."""

_UNAVAILABLE = frozenset({429, 502, 503, 504})

_PREFIX = "wattpush_"


def read_held(client: Client, labels: Mapping[str, str], timeout_seconds: float) -> dict[tuple[str, str], float]:
    """The samples of wattpush with these labels, by device ("" for the node) and name.

    Nothing if the gateway may not be read: it refuses, or only its metrics do not come in time. One that hangs, or that
    its proxy calls unavailable, is to be asked again: it may work again a moment later, and then take a push.

    Raises:
        AgentError: the gateway cannot be reached, or answers nothing.
    """
    answer = _get(client, "/metrics", timeout_seconds * _METRICS_SHARE)
    if answer is None and _get(client, "/-/ready", timeout_seconds * (1 - _METRICS_SHARE)) is None:
        raise UnreachableError("not pushed: the gateway does not answer in time")
    if answer is None:
        return {}
    if answer.status in _UNAVAILABLE:
        raise UnreachableError(f"not pushed: the gateway cannot be read at the moment (HTTP {answer.status})")
    return {} if answer.status != 200 else _samples(answer.body.decode(errors="replace"), labels)


def _get(client: Client, path: str, timeout_seconds: float) -> Answer | None:
    """The answer; None if it does not come in time."""
    connection = client.new_connection(body_limit_bytes=_BODY_LIMIT_BYTES)
    try:
        with watchdog([connection.deadline]):
            ends_at_seconds = client.clock.monotonic() + timeout_seconds
            with client.attempt(connection, ends_at_seconds) as attempt:
                return attempt.exchange("GET", f"{client.route.endpoint.url.rstrip('/')}{path}", {}, b"")
    except AttemptFailedError as failure:
        if isinstance(failure.__cause__, TimeoutError) and connection.deadline.phase == WAITING_FOR_THE_ANSWER:
            return None
        raise failure.final_error(f"not pushed: {failure.text}") from failure
    finally:
        connection.close()


def _samples(text: str, labels: Mapping[str, str]) -> dict[tuple[str, str], float]:
    from prometheus_client.parser import text_string_to_metric_families

    quoted = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    complete = text[: text.rfind("\n") + 1]  # the last line of an answer that was cut may be half a line
    ours = [
        line for line in complete.split("\n") if line.startswith(_PREFIX) and all(label in line for label in quoted)
    ]
    found: dict[tuple[str, str], float] = {}
    try:
        for family in text_string_to_metric_families("\n".join([*ours, ""])):
            for sample in family.samples:
                if all(sample.labels.get(name) == value for name, value in labels.items()):
                    found[sample.labels.get("device", ""), sample.name] = sample.value
    except ValueError:  # not an exposition
        return {}
    return found


def _escaped(value: str) -> str:
    """As in the text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
