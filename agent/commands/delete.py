"""`wattpush delete`: remove this node's groups from the gateway."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.commands import is_simulated, load_settings
from agent.errors import AgentError, UsageError
from agent.log import print_error

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from agent.settings import Settings

HELP = "remove this node's groups from the gateway"


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        action="append",
        default=[],
        help="delete only the group of this device, whether or not it is configured; may be repeated",
    )


def _devices_of_earlier_runs(settings: Settings, *, simulated: bool) -> list[str]:
    """The devices in the saved counters: one that has since been renamed or removed still has its group."""
    from agent.energy.state import COUNTERS, SIMULATED_COUNTERS, StateFile, boot_id

    if settings.state_dir is None:
        return []
    name = SIMULATED_COUNTERS if simulated else COUNTERS
    with suppress(AgentError):  # a user who may not read them deletes only the configured groups
        return list(StateFile(settings.state_dir, name, boot_id()).load(is_read_only=True).devices)
    return []


def run(options: Namespace) -> int:
    """Delete; return the exit code."""
    from agent.errors import exit_code
    from agent.metrics.groups import grouping_keys_of_both_shapes
    from agent.push.gateway import Pushgateway

    settings = load_settings(options)
    if settings.pushgateway is None:
        raise UsageError("delete needs a gateway, but the configuration has no [pushgateway] url")
    keys = grouping_keys_of_both_shapes(settings, _devices_of_earlier_runs(settings, simulated=is_simulated(options)))
    for name in options.device:
        if name in ("", ".", ".."):
            raise UsageError(f'delete --device "{name}": no device can have this name')
    if options.device:
        keys = [{"hostname": settings.hostname, "device": name} for name in options.device]
        if settings.pushgateway.group_by == "node":
            print_error(
                'with group_by = "node" a device has no separate group, except one that an earlier group_by left; '
                "its present series are in the group of the node: run wattpush delete without --device"
            )
    clock = SystemClock()
    gateway = Pushgateway(settings.pushgateway, clock=clock, sleep=clock.sleep, environ=os.environ)
    results = gateway.delete(keys, max(settings.interval_seconds, settings.pushgateway.timeout_seconds))
    gateway.close()
    errors = [result.error for result in results if result.error is not None]
    for result in results:
        if result.error is None:
            sys.stdout.write(f"deleted: {result.name}\n")
        else:
            print_error(str(result.error))
    return exit_code(errors)
