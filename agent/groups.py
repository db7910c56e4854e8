"""Groups of metrics under their grouping keys: what every sink is handed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry


def name_of(grouping_key: Mapping[str, str]) -> str:
    """How messages call a group: `device cpu`, or `node` for the node's own."""
    device = grouping_key.get("device")
    return "node" if device is None else f"device {device}"


class Group(NamedTuple):
    """Metrics that are pushed together and replace each other as a whole.

    Attributes:
        grouping_key: its labels without `job`, which is a setting: hostname, and device for the group of a device.
        registry: the metrics; no label of theirs may be in the grouping key, as the gateway would overwrite it.
    """

    grouping_key: Mapping[str, str]
    registry: CollectorRegistry

    @property
    def name(self) -> str:
        """How messages call it: `device cpu`, or `node` for the node's own."""
        return name_of(self.grouping_key)
