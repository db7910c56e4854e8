"""Renders groups as the HTTP requests that prometheus_client makes, captured before anything is sent.

Rendering is separate from sending so that all groups of a push show the same moment, no helper thread calls a
collector, a retry sends the same bytes again, and a dry run prints what a real run sends.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from prometheus_client import delete_from_gateway, push_to_gateway

from agent.metrics.groups import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.metrics.groups import Group
    from agent.settings import PushgatewaySettings


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the gateway, without credentials, which are added when it is sent.

    Attributes:
        grouping_key: of the group, without `job`.
        url: as prometheus_client makes it: grouping values escaped, or in base64 where they hold a slash or space.
        body: text exposition, gzip-compressed if `headers` declare it.
    """

    grouping_key: Mapping[str, str]
    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def name(self) -> str:
        """The group's name in messages."""
        return name_of(self.grouping_key)

    @property
    def path(self) -> str:
        """The path of the URL, with the gateway's own prefix."""
        return urlsplit(self.url).path


def put_requests(
    groups: Sequence[Group], settings: PushgatewaySettings, compression: Literal["gzip"] | None = "gzip"
) -> tuple[Request, ...]:
    """A PUT for each group, which replaces everything that the gateway holds of it.

    Compressing a body takes 0.02 ms and leaves a seventh of its size; a Pushgateway older than 1.5.0 (2022) cannot read
    it.

    Raises:
        Exception: as raised by a collector in a registry.
    """
    caught: list[Request] = []
    for group in groups:
        push_to_gateway(
            settings.url,
            job=settings.job,
            registry=group.registry,
            grouping_key=dict(group.grouping_key),
            handler=_catcher(group.grouping_key, caught),
        )
    return tuple(caught if compression is None else map(_compressed, caught))


def _compressed(request: Request) -> Request:
    """As prometheus_client does it, but without the time: its field ends in 2106, and a clock may be later."""
    headers = (*request.headers, ("Content-Encoding", "gzip"))
    return replace(request, headers=headers, body=gzip.compress(request.body, mtime=0))


def delete_requests(grouping_keys: Sequence[Mapping[str, str]], settings: PushgatewaySettings) -> tuple[Request, ...]:
    """A DELETE for each grouping key."""
    caught: list[Request] = []
    for key in grouping_keys:
        delete_from_gateway(settings.url, job=settings.job, grouping_key=dict(key), handler=_catcher(key, caught))
    return tuple(caught)


def _catcher(grouping_key: Mapping[str, str], caught: list[Request]) -> Callable[..., Callable[[], None]]:
    """A handler for prometheus_client (its `push_to_gateway` documents the arguments) that sends nothing."""

    def handler(
        url: str,
        method: str,
        timeout: float | None,  # noqa: ARG001 - prometheus_client calls with these names; the deadline is ours
        headers: list[tuple[str, str]],
        data: bytes,
    ) -> Callable[[], None]:
        return lambda: caught.append(Request(grouping_key, method, url, tuple(headers), data))

    return handler
