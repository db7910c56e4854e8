"""The destination of `--dry-run`: prints what a run would push, and sends nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from agent.metrics.groups import name_of
from agent.push.base import GatewayDestination
from agent.push.render import delete_requests, put_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.metrics.groups import Group
    from agent.push.render import Request
    from agent.settings import PushgatewaySettings


_SMALL = 0.001
"""Smaller numbers keep six digits: rounded to millionths they would lose too much."""


@dataclass(frozen=True, slots=True)
class Printed:
    """The result of a group that was printed."""

    grouping_key: Mapping[str, str]
    error: None = None

    @property
    def name(self) -> str:
        """The group's name in messages."""
        return name_of(self.grouping_key)


class DryRun(GatewayDestination):
    """Takes the place of a `Pushgateway`, without the imports that sending needs."""

    def __init__(
        self, settings: PushgatewaySettings, write: Callable[[str], None], then: Callable[[], None] = lambda: None
    ) -> None:
        """`then` is called after the groups of a push, to print what else a run would send."""
        self._settings = settings
        self._write = write
        self._then = then

    def push(self, groups: Sequence[Group], _budget_seconds: float) -> Sequence[Printed]:
        """Print the groups, each under a line such as `# PUT /metrics/job/power/device/cpu`."""
        results = self._print(put_requests(groups, self._settings, compression=None))
        self._then()
        return results

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], _budget_seconds: float) -> Sequence[Printed]:
        """Print the requests that would delete these groups."""
        return self._print(delete_requests(grouping_keys, self._settings))

    def held(self, _hostname: str, _budget_seconds: float) -> dict[tuple[str, str], float]:
        """Nothing: a dry run asks no gateway."""
        return {}

    def stop(self) -> None:
        """Nothing is under way."""

    def close(self) -> None:
        """Nothing is open."""

    def _print(self, requests: Sequence[Request]) -> Sequence[Printed]:
        for request in requests:
            self._write(f"# {request.method} {request.path}\n{readable(request.body.decode())}")
        return [Printed(request.grouping_key) for request in requests]


def readable(exposition: str) -> str:
    """The exposition with its numbers as people write them: 1796134161.58 for 1.7961341615800000e+09.

    A push sends all digits; here they are rounded to millionths, smaller ones to six digits.
    """
    return "".join(map(_readable_line, exposition.splitlines(keepends=True)))


def _readable_line(line: str) -> str:
    sample, space, value = line.rstrip("\n").rpartition(" ")
    if line.startswith("#") or not space:
        return line
    return f"{sample} {_readable_number(value)}\n"


def _readable_number(value: str) -> str:
    number = float(value)
    if not math.isfinite(number):
        return value
    is_small = 0 < abs(number) < _SMALL
    text = f"{Decimal(f'{number:.6g}'):f}" if is_small else f"{number:.6f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
