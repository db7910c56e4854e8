"""The INA700 for wattpush: pyproject.toml names this module as the entry point of `chip = "ina700"`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wattpush_ina700.chip import OPTIONS, Chip

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.simulate.chips import Device, Rail, RegisterChip

__all__ = ["OPTIONS", "Chip", "build"]


def build(devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]) -> RegisterChip:
    """The simulated twin for `--simulate`; nothing else imports its file."""
    from wattpush_ina700 import twin

    return twin.build(devices, address, rails, now)
