"""The interface of a destination, which takes groups of metrics: a Pushgateway or a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent.errors import AgentError
    from agent.metrics.groups import Group


class GroupResult(Protocol):
    """The outcome for one group."""

    @property
    def name(self) -> str:
        """The group's name in messages."""

    @property
    def grouping_key(self) -> Mapping[str, str]:
        """The group's labels without `job`."""

    @property
    def error(self) -> AgentError | None:
        """Why it failed; None if it was accepted."""


class Destination(Protocol):
    """A place to push groups of metrics to."""

    @property
    def name(self) -> str:
        """Its name in the log: a URL without credentials."""

    @property
    def namespace(self) -> tuple[str, ...]:
        """Equal for two destinations whose groups replace each other."""

    @property
    def group_by(self) -> str:
        """`device` for a group per device and one for the node, `node` for a single group."""

    @property
    def timeout_seconds(self) -> float:
        """The least time that a push is given."""

    @property
    def delete_on_exit(self) -> bool:
        """Whether a clean stop deletes the groups."""

    def push(self, groups: Sequence[Group], budget_seconds: float) -> Sequence[GroupResult]:
        """Replace the groups; return a result for each."""

    def delete(self, grouping_keys: Sequence[Mapping[str, str]], budget_seconds: float) -> Sequence[GroupResult]:
        """Delete the groups; return a result for each."""

    def held(self, hostname: str, budget_seconds: float) -> Mapping[tuple[str, str], float]:
        """What it holds of a node, by device ("" for the node itself) and series; nothing if it may not be read.

        Raises:
            AgentError: it cannot be reached.
        """

    def stop(self) -> None:
        """Abort the push or deletion under way; may be called from any thread."""

    def close(self) -> None:
        """Close idle connections."""
