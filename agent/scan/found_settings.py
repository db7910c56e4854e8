"""Settings of what a scan finds, for commands that only look: nothing is pushed, saved or kept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.config import parse
from agent.scan.configuration import as_toml, found_devices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.scan.machine import MachineScan
    from agent.settings import ChipOptions, Settings


@dataclass(frozen=True, slots=True)
class FoundSettings:
    """What was found, as settings without a destination.

    Attributes:
        unknown_shunts: the devices whose shunt is invisible on the bus: that of `settings` is only assumed, so their
            amperes, watts and joules mean nothing.
        unsure_kinds: those of them whose chip may be of another kind, so that the volts may be wrong too.
    """

    settings: Settings
    unknown_shunts: frozenset[str]
    unsure_kinds: frozenset[str]


def found_settings(found: MachineScan, chips: Mapping[str, ChipOptions], *, hostname: str) -> FoundSettings:
    """The settings of a scan that found at least one device; `hostname` is the machine's own name.

    Raises:
        ConfigError: the machine's own name cannot be a hostname.
    """
    settings = parse(as_toml(found), chips, default_hostname=hostname, environ={"HOME": "/"})
    external = [device for device in found_devices(found) if device.has_external_shunt]
    return FoundSettings(
        replace(settings, pushgateway=None, state_dir=None, warnings=()),
        frozenset(device.name for device in external),
        frozenset(
            device.name
            for device in external
            if device.found_chip is not None and not device.found_chip.signature.is_sure
        ),
    )
