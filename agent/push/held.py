"""What a Pushgateway holds of this node, as its own /metrics shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import AgentError
from agent.http.deadline import WAITING_FOR_THE_ANSWER, NoThreadError, watchdog
from agent.http.failures import AttemptFailedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.http.client import Client

_BODY_LIMIT_BYTES = 4 * 2**20
"""The metrics of some two thousand groups. Of a longer answer only the beginning is read."""

_PREFIX = "wattpush_"


def read_held(client: Client, labels: Mapping[str, str], timeout_seconds: float) -> dict[tuple[str, str], float]:
    """The samples of wattpush with these labels, by device ("" for the node) and name.

    Nothing if the gateway may not be read: it refuses, or does not answer in time.

    Raises:
        AgentError: the gateway cannot be reached.
    """
    connection = client.new_connection(body_limit_bytes=_BODY_LIMIT_BYTES)
    try:
        with watchdog([connection.deadline]):
            ends_at_seconds = client.clock.monotonic() + timeout_seconds
            with client.attempt(connection, ends_at_seconds) as attempt:
                answer = attempt.exchange("GET", f"{client.route.endpoint.url.rstrip('/')}/metrics", {}, b"")
    except AttemptFailedError as failure:
        if isinstance(failure.__cause__, TimeoutError) and connection.deadline.phase == WAITING_FOR_THE_ANSWER:
            return {}
        raise failure.final_error(f"not pushed: {failure.text}") from failure
    except NoThreadError as error:
        raise AgentError(str(error)) from error
    finally:
        connection.close()
    return {} if answer.status != 200 else _samples(answer.body.decode(errors="replace"), labels)


def _samples(text: str, labels: Mapping[str, str]) -> dict[tuple[str, str], float]:
    from prometheus_client.parser import text_string_to_metric_families

    quoted = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    complete = text[: text.rfind("\n") + 1]  # the last line of an answer that was cut may be half a line
    ours = [
        line for line in complete.splitlines() if line.startswith(_PREFIX) and all(label in line for label in quoted)
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
