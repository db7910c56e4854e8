"""What a Pushgateway holds, as its own /metrics shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.errors import AgentError, UnreachableError
from agent.push.probe import BODY_LIMIT_BYTES, Probe, UnansweredError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.samples import Sample

    from agent.http.client import Client
    from agent.http.connection import Answer

BUILD_INFO = b"pushgateway_build_info"
"""Every Pushgateway exposes this metric about itself."""

_PUSH_TIME = "push_time_seconds"
"""A series that a Pushgateway adds to every group, also to one that was only ever rejected."""

_METRICS_SHARE = 0.75
"""Of the time, how much the metrics may take; the rest is for the question whether the gateway answers at all."""

_UNAVAILABLE = frozenset({429, 502, 503, 504})

_RUN_LIMIT_BYTES = 4 * 2**20
"""The metrics of some two thousand groups: a run does not spend more memory on it."""


def held_samples(client: Client, labels: Mapping[str, str], timeout_seconds: float) -> dict[tuple[str, str], float]:
    """The samples of wattpush with these labels, by device ("" for the node) and name.

    Nothing if the gateway may not be read: it refuses, or only its metrics do not come in time. One that hangs, or that
    its proxy calls unavailable, is to be asked again: it may work again a moment later, and then take a push.

    Raises:
        AgentError: the gateway cannot be reached, or answers nothing.
    """
    try:
        answer = _get(client, "/metrics", timeout_seconds * _METRICS_SHARE)
    except UnansweredError:
        _get(client, "/-/ready", timeout_seconds * (1 - _METRICS_SHARE))
        return {}
    if answer.status in _UNAVAILABLE:
        raise UnreachableError(f"not pushed: the gateway cannot be read at the moment (HTTP {answer.status})")
    if answer.status != 200:
        return {}
    complete = answer.body[: answer.body.rfind(b"\n") + 1]  # the last line of an answer that was cut may be half a line
    try:
        samples = list(_samples(complete, "wattpush_", labels))
    except ValueError:  # not an exposition
        return {}
    return {(sample.labels.get("device", ""), sample.name): sample.value for sample in samples}


def _get(client: Client, path: str, timeout_seconds: float) -> Answer:
    probe = Probe(client, timeout_seconds, body_limit_bytes=_RUN_LIMIT_BYTES, prefix="not pushed: ")
    try:
        return probe.get(path)
    finally:
        probe.close()


def held_groups(client: Client, job: str, timeout_seconds: float) -> list[dict[str, str]] | None:
    """The grouping keys, without `job`, of the groups of this job; None if the gateway does not show them all."""
    probe = Probe(client, timeout_seconds)
    try:
        answer = probe.get("/metrics")
    except AgentError:
        return None
    finally:
        probe.close()
    if answer.status != 200 or len(answer.body) >= BODY_LIMIT_BYTES or BUILD_INFO not in answer.body:
        return None
    try:
        samples = list(_samples(answer.body, f"{_PUSH_TIME}{{", {"job": job}))
    except ValueError:
        return None
    # A group without `instance` in its key is shown with an empty one.
    return [{name: value for name, value in sample.labels.items() if name != "job" and value} for sample in samples]


def _samples(exposition: bytes, prefix: str, labels: Mapping[str, str]) -> Iterator[Sample]:
    """The samples with these labels whose names begin so; lines of others, most of a large answer, are not parsed.

    Raises:
        ValueError: it is not an exposition.
    """
    from prometheus_client.parser import text_string_to_metric_families

    quoted = [f'{name}="{_escaped(value)}"' for name, value in labels.items()]
    lines = [
        line
        for line in exposition.decode(errors="replace").split("\n")
        if line.startswith(prefix) and all(label in line for label in quoted)
    ]
    try:
        families = list(text_string_to_metric_families("\n".join([*lines, ""])))
    except IndexError as error:  # as the parser raises it for some lines
        raise ValueError("not an exposition") from error
    for family in families:
        for sample in family.samples:
            if all(sample.labels.get(name) == value for name, value in labels.items()):
                yield sample


def _escaped(value: str) -> str:
    """As in the text format: https://prometheus.io/docs/instrumenting/exposition_formats/."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
