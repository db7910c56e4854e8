"""Hints on how to fix a bus that cannot be used; a run, a check and a scan print the same ones."""

from __future__ import annotations

import grp
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER_BUSES = (
    "the header's bus is 1 on a Raspberry Pi and a Jetson Nano, 8 on a Xavier, "
    "7 (pins 3 and 5) or 1 (pins 27 and 28) on an Orin or a Thor"
)


def of_denied_permission(path: str) -> str:
    """How to let the user open a device file."""
    group = _group_of(path)
    if group == "root":
        # The group does not exist yet: Debian's i2c-tools creates it, with the rule that gives it the buses.
        return (
            "only root may open it: sudo apt install i2c-tools gives it to the group i2c at the next boot; "
            "then sudo usermod -aG i2c $USER, and log in again"
        )
    return f"add the user to the group that owns it: sudo usermod -aG {group} $USER, then log in again"


def of_missing_bus(numbers: Sequence[int] = ()) -> str:
    """How to get a /dev/i2c-N, on a machine that has the buses with these numbers."""
    listed = f"; this machine has {', '.join(f'/dev/i2c-{number}' for number in numbers)}" if numbers else ""
    return (
        "is I2C enabled? Raspberry Pi: sudo raspi-config nonint do_i2c 0; Jetson and others: "
        "echo i2c-dev | sudo tee /etc/modules-load.d/i2c-dev.conf, then sudo modprobe i2c-dev. "
        f"Is it the right one? {_HEADER_BUSES[0].upper()}{_HEADER_BUSES[1:]}{listed}"
    )


def of_missing_link() -> str:
    """How to get a link to an adapter."""
    return "is the adapter plugged in, and is there a udev rule for the link? See docs/boards.md, USB adapters"


def of_another_adapter(number: int, present: int | None) -> str:
    """What to do if /dev/i2c-`number` is another adapter than before; the earlier one is /dev/i2c-`present`, if any."""
    where = "not plugged in" if present is None else f"/dev/i2c-{present} now"
    return (
        f"the one that was read before is {where}. Give each adapter a name of its own with a udev rule "
        f'(wattpush check --hardware shows it), or take whatever has the number: bus = "/dev/i2c-{number}"'
    )


def of_silent_mux(address: int) -> str:
    """Likely causes for a mux that does not answer.

    Source: SCPS207 and SCPS148, table 1: the pins A2, A1 and A0 are the last three bits of the address.
    """
    straps = ", ".join(f"A{bit} {'high' if address >> bit & 1 else 'low'}" for bit in (2, 1, 0))
    return f"check its power, its wiring and its address straps: 0x{address:02x} is {straps}"


def of_held_channel() -> str:
    """Likely causes for a bus that blocks when a mux channel is opened, so that the mux can no longer be reached."""
    return "is a chip behind it holding SDA or SCL low, or without power? Unplug it, then power-cycle the mux"


def _group_of(path: str) -> str:
    """The group that owns a file; if it cannot be seen, the group that usually owns I2C buses."""
    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116 - Path.group() hides which of the two failed
    except (OSError, KeyError):
        return "i2c"
