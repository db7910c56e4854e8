"""Checks that every chip that the kernel reads is there, and that no two devices read the same input of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.check import failed, ok
from agent.check.measurements import low_side_warning, shown
from agent.errors import AgentError, ConfigError, SensorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.check import Finding
    from agent.chips import KernelChip, Measurement
    from agent.settings import Device, Settings


def check_kernel_chips(
    settings: Settings, open_kernel_chip: Callable[[Sequence[Device]], KernelChip]
) -> Iterator[Finding]:
    """Read every device that the kernel or the firmware measures: a finding for each.

    Args:
        settings: the expected hardware.
        open_kernel_chip: makes the reader of a chip, for its devices.
    """
    read_by: dict[str, str] = {}
    for devices in settings.kernel_chips():
        yield from _check(devices, open_kernel_chip, read_by)


def _check(
    devices: Sequence[Device], open_kernel_chip: Callable[[Sequence[Device]], KernelChip], read_by: dict[str, str]
) -> list[Finding]:
    """Read the chip. `read_by` holds the inputs of earlier devices: a label and a number may mean the same input."""
    try:
        chip = open_kernel_chip(devices)
        results = chip.read()
    except AgentError as error:
        return [failed(device.name, error) for device in devices]
    return [
        _finding(device, result, where, read_by)
        for device, result, where in zip(devices, results, chip.where(), strict=True)
    ]


def _finding(device: Device, result: Measurement | SensorError, where: str, read_by: dict[str, str]) -> Finding:
    if isinstance(result, SensorError):
        return failed(device.name, result)
    files = where.removesuffix(f" ({device.label})")
    other = read_by.setdefault(files, device.name)
    if other != device.name:
        return failed(device.name, ConfigError((f"{files}: already read by {other}; remove one of them",)))
    return low_side_warning(device, where, result) or ok(device.name, f"{where}: {shown(result)}")
