"""`wattpush delete`: remove this node's groups from the gateway."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.commands import is_simulated, load_settings
from agent.errors import AgentError, ExitCode, UnreachableError, UsageError
from agent.http.endpoint import authority
from agent.log import print_error

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping, Sequence

    from agent.settings import Settings

HELP = "remove this node's groups from the gateway"

_DESCRIPTION = """\
Deletes what the gateway still shows of this node: the groups of all configured devices, and of those in the saved
energy counters. A running service pushes its own groups again, so stop it first. The counters and the history stay."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--device",
        metavar="NAME",
        action="append",
        default=[],
        help="delete only the group of this device, whether or not it is configured; may be repeated",
    )


def _devices_of_earlier_runs(settings: Settings, *, simulated: bool) -> list[str]:
    """The devices in the saved counters: one that has since been renamed or removed still has its group."""
    from agent.energy.state_file import StateFile, boot_id, file_name

    if settings.state_dir is None:
        return []
    name = file_name(is_simulated=simulated)
    with suppress(AgentError):  # a user who may not read them deletes only the configured groups
        return list(StateFile(settings.state_dir, name, boot_id()).load(is_read_only=True).devices)
    return []


def run(options: Namespace) -> int:
    """Delete; return the exit code."""
    from agent.errors import exit_code
    from agent.push.causes import and_more, by_cause
    from agent.push.gateway import Pushgateway

    settings = load_settings(options)
    if settings.remote_write is not None:
        server = authority(settings.remote_write.url)
        sys.stdout.write(f"kept: the history at {server}, which only the server itself can delete\n")
    if settings.pushgateway is None:
        if settings.remote_write is not None:
            return ExitCode.OK
        if not settings.has_destination:
            raise UsageError("delete needs a configuration: the built-in node of --simulate pushes nothing")
        raise UsageError("delete needs a gateway, but the configuration has no [pushgateway] url")
    earlier = _devices_of_earlier_runs(settings, simulated=is_simulated(options))
    keys = _grouping_keys(settings, earlier, options.device)
    clock = SystemClock()
    gateway = Pushgateway(settings.pushgateway, clock=clock, sleep=clock.sleep, environ=os.environ)
    held = gateway.held_groups()
    results = gateway.delete(keys, max(settings.interval_seconds, settings.pushgateway.timeout_seconds))
    gateway.close()
    known = {*earlier, *(device.name for device in settings.devices)}
    unreachable = [result.error for result in results if isinstance(result.error, UnreachableError)]
    if unreachable:
        print_error(f"{unreachable[0]}{and_more(len(unreachable) - 1)}")
    errors = [(result.name, result.error) for result in results if result.error is not None]
    for message in by_cause((name, error) for name, error in errors if error not in unreachable):
        print_error(message)
    for result in results:
        is_held = held is None or result.grouping_key in held
        device = result.grouping_key.get("device")
        if result.error is None:
            sys.stdout.write(f"{'deleted' if is_held else 'not there'}: {result.name}\n")
            if device is not None and device not in known and (held is None or not is_held):
                print_error(f'no device is called "{device}"; those of this node are {", ".join(sorted(known))}')
    return exit_code(result.error for result in results if result.error is not None)


def _grouping_keys(settings: Settings, earlier: Sequence[str], devices: Sequence[str]) -> Sequence[Mapping[str, str]]:
    """The groups to delete: those of `devices` if there are any, else all of the node."""
    from agent.metrics.groups import grouping_keys_of_both_shapes

    for name in devices:
        if name in ("", ".", ".."):
            raise UsageError(f'delete --device "{name}": no device can have this name')
    if not devices:
        return grouping_keys_of_both_shapes(settings, earlier)
    if settings.pushgateway is not None and settings.pushgateway.group_by == "node":
        print_error(
            'with group_by = "node" a device has no separate group, except one that an earlier group_by left; '
            "its present series are in the group of the node: run wattpush delete without --device"
        )
    return [{"hostname": settings.hostname, "device": name} for name in dict.fromkeys(devices)]
