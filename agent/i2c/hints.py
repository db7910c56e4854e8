"""Hints on how to fix a bus that cannot be used; a run, a check and a scan print the same ones."""

from __future__ import annotations

import errno
import grp
import os
from pathlib import Path
from typing import TYPE_CHECKING

from agent import access
from agent.i2c.failures import is_nack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.i2c.place import Place
    from agent.i2c.sysfs import KernelOwner

_MODEL = Path("/proc/device-tree/model")
_HEADER_BUS_OF_MODEL = {"Orin": 7, "Thor": 7, "Xavier": 8}


def of_header_bus(model_file: Path = _MODEL) -> str:
    """The key that names the bus of the board's header by its number."""
    model = _model(model_file)
    number = _header_bus(model)
    return f"bus = {number} is /dev/i2c-{number}" + (f", the header of this {model}" if model else "")


def _model(file: Path) -> str:
    """What the board calls itself; empty on a PC, which has no device tree."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").rstrip("\0")
    except OSError:
        return ""


def _header_bus(model: str) -> int:
    return next((number for name, number in _HEADER_BUS_OF_MODEL.items() if name in model), 1)


_USB_ADAPTERS = {"BLINKA_MCP2221": "hidapi", "BLINKA_FT232H": "pyftdi"}
"""The variable that selects a USB adapter, and the library that Blinka then needs."""


def of_default_bus() -> str:
    """How to get the board's default bus, or that of the USB adapter which a variable selects instead."""
    for variable, library in _USB_ADAPTERS.items():
        if os.environ.get(variable):
            return (
                f"{variable} is set: is the adapter plugged in, is {library} installed where wattpush is, and may this "
                "user open the adapter? See docs/boards.md, USB adapters"
            )
    return f"name the bus by number instead: {of_header_bus()}"


_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that Docker and Podman put into their containers."""

_OVERFLOW_GROUP = 65534
"""Shown for every group that a user namespace does not map, such as with PrivateUsers=yes (user_namespaces(7))."""


def of_denied_permission(path: str, code: int | None = None) -> str:
    """How to let the user open a device file; `code` is the errno of the attempt.

    Source: EACCES is a matter of the file's mode. EPERM means that the cgroup of a service or container has no such
    device (kernel documentation, cgroup-v2, "Device controller").
    """
    if is_container():
        return f"start the container with --device {path} and --group-add $(stat -c %g {path})"
    if code == errno.EPERM:
        # DeviceAllow=char-i2c names nothing before the module is loaded, and systemd resolves it once.
        return "the service was started before i2c-dev was loaded: sudo systemctl restart wattpush"
    group = _group_of(path)
    if group == "root":
        # The group does not exist yet: Debian's i2c-tools creates it, with the rule that gives it the buses.
        return (
            "only root may open it: sudo apt install i2c-tools gives it to the group i2c at the next boot; "
            f"then sudo usermod -aG i2c {access.this_user()}, and log in again"
        )
    join = f"sudo usermod -aG {group} {access.this_user()}"
    return f"only the group {group} may open it: {join}, then log in again, or restart the service"


def of_missing_bus(numbers: Sequence[int] = (), path: str = "/dev/i2c-1", model_file: Path = _MODEL) -> str:
    """How to get a device file, on a machine that has the buses with these numbers."""
    listed = ", ".join(f"/dev/i2c-{number}" for number in numbers)
    if is_container():
        has = f"the container has {listed}: name one of them as bus, or " if numbers else ""
        return f"{has}start the container with --device {path}, if the machine has it"
    model = _model(model_file)
    is_raspberry_pi = model.startswith("Raspberry Pi")
    # A Raspberry Pi may have the buses of its HDMI sockets without that of the header. Elsewhere one that is there
    # shows that i2c-dev is loaded, so that another number is meant.
    if numbers and (_header_bus(model) in numbers or not is_raspberry_pi):
        return f"this machine has {listed}" + (
            f"; {of_header_bus(model_file)}" if model else "; i2cdetect -l says more"
        )
    if is_raspberry_pi:
        return "is I2C enabled? sudo raspi-config nonint do_i2c 0"
    load = (
        "is I2C enabled? sudo modprobe i2c-dev, also at boot: echo i2c-dev | sudo tee /etc/modules-load.d/i2c-dev.conf"
    )
    return load if model else f"{load}; on a Raspberry Pi: sudo raspi-config nonint do_i2c 0"


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


def of_kernel_owner(owner: KernelOwner) -> str:
    """How to read a chip that a kernel driver owns."""
    if owner.is_unread:
        return f"that is an IIO driver, which wattpush does not read; {of_unbinding(owner)}"
    return 'read it with chip = "hwmon" instead, or unbind the driver'


def of_unbinding(owner: KernelOwner) -> str:
    """How to take a chip from its kernel driver, now and after the next boot.

    Sources: kernel documentation, driver-api/driver-model/binding: the name of the device is written into `unbind`.
    modprobe.d(5): `blacklist` ignores the aliases of a module, by which udev loads it.
    """
    now = f"take the chip from it: echo {owner.client} | sudo tee /sys/bus/i2c/drivers/{owner.driver}/unbind"
    if owner.module is None:
        return f"{now}, again after each boot, or remove the chip's overlay or node from the device tree"
    return f"{now}; for good: echo blacklist {owner.module} | sudo tee /etc/modprobe.d/wattpush.conf"


def of_silent_mux(address: int, addresses: range) -> str:
    """Likely causes for a mux that does not answer, of a kind that can have these addresses.

    Source: SCPS207 and SCPS148, table 1: the pins A2, A1 and A0 are the last three bits of the address. SCPS204, 8.6.1:
    with four addresses there is no A2.
    """
    pins = (2, 1, 0) if address not in addresses else range((len(addresses) - 1).bit_length())[::-1]
    if not pins:
        return "check its power and its wiring; it has no address straps"
    straps = ", ".join(f"A{bit} {'high' if address >> bit & 1 else 'low'}" for bit in pins)
    return f"check its power, its wiring and its address straps: 0x{address:02x} is {straps}"


def of_silent_chip(place: Place, error: OSError) -> str:
    """Likely causes for a chip that does not answer at its place, by the error of a transfer to it."""
    if error.errno == errno.EBUSY:  # in a container that does not see which driver
        return 'read it with chip = "hwmon" instead, or unbind the driver'
    if not is_nack(error):
        return "is it powered?"
    return f"is it powered? {'Is the address' if place.mux is None else 'Are the channel and the address'} right?"


def of_held_channel() -> str:
    """Likely causes for a bus that blocks when a mux channel is opened, so that the mux can no longer be reached."""
    return "is a chip behind it holding SDA or SCL low, or without power? Unplug it, then power-cycle the mux"


def is_container() -> bool:
    """Whether this process is in a container of Docker or Podman."""
    return any(mark.exists() for mark in _CONTAINER_MARKS)


def _group_of(path: str) -> str:
    """The group that owns a file; if it cannot be seen, also from a sandbox, the group that usually owns I2C buses."""
    try:
        number = os.stat(path).st_gid  # noqa: PTH116 - Path.group() hides which of the two failed
        return "i2c" if number == _OVERFLOW_GROUP else grp.getgrgid(number).gr_name
    except (OSError, KeyError):
        return "i2c"
