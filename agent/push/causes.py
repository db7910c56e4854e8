"""Several groups that fail for one reason: one message, instead of one for each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent.log import counted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.errors import AgentError

# What differs between the errors of two groups that failed for one reason.
_OF_A_GROUP = re.compile(r"(?<=PUT )/\S+|(?<=DELETE )/\S+| \(\d+ attempts in [0-9.]+ s\)")


def cause_of(name: str, error: AgentError) -> str:
    """The message of a group's error without what only that group has: its name, path and attempts."""
    return _OF_A_GROUP.sub("", str(error).removeprefix(f"{name}: "))


def by_cause(errors: Iterable[tuple[str, AgentError]]) -> list[str]:
    """A message for each cause: its first group's, and the number of the others. `errors` has the groups' names."""
    messages: dict[str, list[str]] = {}
    for name, error in errors:
        messages.setdefault(cause_of(name, error), []).append(str(error))
    return [f"{first}{and_more(len(more))}" for first, *more in messages.values()]


def and_more(groups: int) -> str:
    """` (and 1 more group)`, for a message about several groups; nothing for none."""
    return f" (and {counted(groups, 'more group')})" if groups else ""
