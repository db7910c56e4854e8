"""What a person at the node can do about a bus that cannot be used: said by a run, a check and a scan alike."""

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
    """What lets the user open a device file."""
    group = _group_of(path)
    if group == "root":
        # Nothing has made the group: the rule that gives the buses to it comes with Debian's i2c-tools.
        return (
            "it belongs to root alone: sudo apt install i2c-tools gives it to the group i2c at the next boot; "
            "then sudo usermod -aG i2c $USER, and log in again"
        )
    return f"let the user into the group that owns it: sudo usermod -aG {group} $USER, then log in again"


def of_missing_bus(numbers: Sequence[int] = ()) -> str:
    """How to get a /dev/i2c-N, where there are those with these numbers."""
    listed = f"; here are {', '.join(f'/dev/i2c-{number}' for number in numbers)}" if numbers else ""
    return (
        "is I2C enabled? Raspberry Pi: sudo raspi-config nonint do_i2c 0; Jetson and others: "
        "echo i2c-dev | sudo tee /etc/modules-load.d/i2c-dev.conf, then sudo modprobe i2c-dev. "
        f"Is it the right one? {_HEADER_BUSES[0].upper()}{_HEADER_BUSES[1:]}{listed}"
    )


def of_silent_mux(address: int) -> str:
    """What may be wrong with a mux that does not answer.

    Source: SCPS207, table 1: the address is 0x70 with A2, A1, A0 as its last bits; the PCA9546A has the same.
    """
    straps = ", ".join(f"A{bit} {'high' if address >> bit & 1 else 'low'}" for bit in (2, 1, 0))
    return f"check its power, its wiring and its address straps: 0x{address:02x} is {straps}"


def of_held_channel() -> str:
    """What may be wrong where the bus is stuck since a channel of a mux was opened, which nobody can close any more."""
    return "does a chip behind it hold SDA or SCL low, or has one no power? Unplug it, and switch the mux off and on"


def _group_of(path: str) -> str:
    """The name of the group that a file belongs to; that of the I2C buses where it cannot be seen."""
    try:
        return grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116 - Path.group() hides which of the two failed
    except (OSError, KeyError):
        return "i2c"
