"""The kernel's view of the buses: the addresses that its drivers own, and the buses that are channels of its muxes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LEGACY_IIO_DRIVER = "ina3221x"
"""NVIDIA's older driver of the INA3221: the one IIO driver whose values `hwmon` reads."""

# The interface of a USB device: its port, then its configuration and number. See the kernel's usb_set_device_name().
_USB_INTERFACE = re.compile(r"\d+-\d+(\.\d+)*:\d+\.\d+")


@dataclass(frozen=True, slots=True)
class KernelOwner:
    """A kernel driver that owns an address.

    Attributes:
        driver: its name.
        client: the name of the chip's folder in /sys/bus/i2c/devices, such as 1-0040.
        chip: what the device tree or the overlay calls the chip, such as ina226; empty if that cannot be seen.
        module: the kernel's module of the driver; None if it is built in, or cannot be seen.
        is_unread: whether it is an IIO driver, whose values `hwmon` does not read.
    """

    driver: str
    client: str
    chip: str = ""
    module: str | None = None
    is_unread: bool = False


def owner_of(client: Path) -> KernelOwner | None:
    """Return the driver of a chip, by its folder in sysfs; None without one.

    Sources: kernel documentation, driver-api/driver-model/binding (the links `driver` and `module`); the folder
    `iio:deviceN` of an IIO device is in that of its chip (ABI/testing/sysfs-bus-iio), as `hwmon` is.
    """
    try:
        driver = (client / "driver").resolve(strict=True)
    except OSError:
        return None
    module = driver / "module"
    try:
        chip = (client / "name").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        chip = ""
    is_unread = (
        any(client.glob("iio:device*")) and not any(client.glob("hwmon/hwmon*")) and driver.name != LEGACY_IIO_DRIVER
    )
    return KernelOwner(driver.name, client.name, chip, module.resolve().name if module.exists() else None, is_unread)


def kernel_owner(number: int, address: int, sysfs: Path = Path("/sys")) -> KernelOwner | None:
    """Return the kernel driver that owns an address of /dev/i2c-`number`, or None.

    An owned address still answers to combined transfers, so look it up before touching it. If the bus is a channel of a
    mux that the kernel owns, parts before that mux answer too, so this finds their owners as well.
    Source: kernel documentation, i2c/dev-interface ("I2C_SLAVE ... EBUSY") and the sysfs tree of the I2C core.
    """
    bus: int | None = number
    while bus is not None:
        owner = owner_of(sysfs / "bus/i2c/devices" / f"{bus}-{address:04x}")
        if owner is not None:
            return owner
        bus = kernel_parent(bus, sysfs)
    return None


def kernel_parent(number: int, sysfs: Path = Path("/sys")) -> int | None:
    """Return N of the /dev/i2c-N that /dev/i2c-`number` is a kernel mux channel of; None if it is no such channel.

    Source: the sysfs tree of the kernel's I2C core: the adapter of a channel is in the folder of its parent adapter.
    """
    try:
        folder = (sysfs / "bus/i2c/devices" / f"i2c-{number}").resolve(strict=True)
    except OSError:
        return None
    kind, _, parent = folder.parent.name.partition("-")
    return int(parent) if kind == "i2c" and parent.isdecimal() else None


def adapter_folder(number: int, sysfs: Path = Path("/sys")) -> str | None:
    """Where the adapter of /dev/i2c-`number` is connected, below `sysfs`; None if that cannot be seen.

    For a USB adapter it ends with the port and the interface, such as `devices/.../usb1/1-1/1-1.2/1-1.2:1.0`. What
    follows may change at each plug-in, also the numbers that are in the adapter's own name.
    """
    try:
        folder = (sysfs / "bus/i2c/devices" / f"i2c-{number}").resolve(strict=True).parent
        parts = folder.relative_to(sysfs.resolve()).parts
    except (OSError, ValueError):
        return None
    ends = [depth for depth, part in enumerate(parts, 1) if _USB_INTERFACE.fullmatch(part)]
    return "/".join(parts[: ends[0]] if ends else parts)


def usb_port(adapter: str) -> str | None:
    """The port and interface in an `adapter_folder`, such as `1-1.2:1.0`; None if it is not on USB."""
    last = adapter.rpartition("/")[2]
    return last if _USB_INTERFACE.fullmatch(last) else None


def bus_on(adapter: str, sysfs: Path = Path("/sys")) -> int | None:
    """N of the /dev/i2c-N whose adapter has this `adapter_folder`; None if there is none."""
    numbers = (link.name.partition("-")[2] for link in (sysfs / "bus/i2c/devices").glob("i2c-*"))
    return next(
        (int(number) for number in numbers if number.isdecimal() and adapter_folder(int(number), sysfs) == adapter),
        None,
    )


def kernel_channels(number: int, address: int, sysfs: Path = Path("/sys")) -> tuple[tuple[int, int], ...]:
    """Return (channel, N of its /dev/i2c-N) for each channel of a mux that the kernel owns; empty for other chips.

    Source: the sysfs tree of the kernel's I2C core: the folder of the mux has a link `channel-N` to each adapter.
    """
    found = []
    for link in (sysfs / "bus/i2c/devices" / f"{number}-{address:04x}").glob("channel-*"):
        channel, bus = link.name.partition("-")[2], link.resolve().name.partition("-")[2]
        if channel.isdecimal() and bus.isdecimal():
            found.append((int(channel), int(bus)))
    return tuple(sorted(found))


def bus_numbers(dev: Path = Path("/dev")) -> tuple[int, ...]:
    """N of every /dev/i2c-N of this machine."""
    numbers = (path.name.removeprefix("i2c-") for path in dev.glob("i2c-*"))
    return tuple(sorted(int(number) for number in numbers if number.isdecimal()))
