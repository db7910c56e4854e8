"""The base of a Pushgateway and its dry run: the properties of a destination that come from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.settings import PushgatewaySettings


class GatewayDestination:
    """The part of `run.destination.Destination` that the settings determine; subclasses push and delete."""

    _settings: PushgatewaySettings

    @property
    def name(self) -> str:
        """The gateway's URL."""
        return self._settings.url

    @property
    def namespace(self) -> tuple[str, ...]:
        """A gateway rejects a series that a group of the other `group_by` still holds, so that is part of it."""
        return self._settings.url, self._settings.job, self._settings.group_by

    @property
    def group_by(self) -> str:
        """`device` or `node`."""
        return self._settings.group_by

    @property
    def timeout_seconds(self) -> float:
        """Timeout of one request, and the least budget of a push."""
        return self._settings.timeout_seconds

    @property
    def delete_on_exit(self) -> bool:
        """Whether a clean stop deletes the groups."""
        return self._settings.delete_on_exit
