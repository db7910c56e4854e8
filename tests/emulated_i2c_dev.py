"""The one emulation of /dev/i2c-N: the system calls that PureIO makes on it, answered by a wire.

Everything above the system calls is what runs on a real machine. The wire is a simulated one in this process, one in
another process (`tests.reliability.remote_wire`), or one of constant values that the benchmarks time (`bench.bus`).

Source: kernel documentation, i2c/dev-interface; include/uapi/linux/i2c.h and i2c-dev.h.
"""

from __future__ import annotations

import errno
import os
from ctypes import memmove, string_at
from typing import TYPE_CHECKING, Any, Protocol

from Adafruit_PureIO import smbus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pytest

    from agent.simulate.wire import Message

I2C_SLAVE = 0x0703
I2C_RDWR = 0x0707
I2C_M_RD = 0x0001


class Transfers(Protocol):
    """What a device file needs of a wire."""

    def transfer(self, messages: Sequence[Message], /) -> None:
        """Carry out one transaction; raise OSError if it fails."""


class EmulatedI2CDev:
    """The device files of some wires. A real file stands in for each, so that programs can lock it.

    Attributes:
        owned: addresses that a kernel driver has claimed: I2C_SLAVE refuses them, I2C_RDWR does not.
        reads_once_and_last: whether the adapter allows one read a transfer, at its end, as the Raspberry Pi's does.
        refusal: the errno with which opening a device file fails, if any.
        is_gone: whether the adapter is unplugged; set by `unplug` and `plug`.
        system_calls: the number of ioctl, read and write calls so far.
    """

    def __init__(self, wires: Mapping[Any, Transfers], folder: Path) -> None:
        self.wires = wires
        self.folder = folder
        self.owned: set[int] = set()
        self.reads_once_and_last = False
        self.refusal: int | None = None
        self.is_gone = False
        self.system_calls = 0
        self._files: dict[int, _DeviceFile] = {}

    def unplug(self) -> None:
        """Unplug the adapter: files that are open fail with ENODEV from now on, even after `plug`."""
        self.is_gone = True
        for file in self._files.values():
            file.is_dead = True

    def plug(self) -> None:
        self.is_gone = False

    def plug_in_order(self, ports: Sequence[str], at: Mapping[str, Transfers], sysfs: Path) -> None:
        """Plug USB adapters in again: the kernel numbers them from 0 in this order, which their folders in sysfs show.

        Args:
            ports: such as "1-1.2:1.0".
            at: the wire at each port.
            sysfs: the folder that stands in for /sys.
        """
        self.unplug()
        devices = sysfs / "bus/i2c/devices"
        devices.mkdir(parents=True, exist_ok=True)
        for link in devices.iterdir():
            link.unlink()
        for number, port in enumerate(ports):
            adapter = sysfs / "devices/pci0000:00/usb1" / port.partition(":")[0] / port / f"i2c-{number}"
            adapter.mkdir(parents=True, exist_ok=True)
            (devices / f"i2c-{number}").symlink_to(adapter)
        self.wires = {number: at[port] for number, port in enumerate(ports)}
        self.plug()

    def install(self, monkeypatch: pytest.MonkeyPatch | None = None) -> None:
        """Take over the system calls: for a test, or without `monkeypatch` for the rest of the process."""
        really_open = os.open

        def os_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
            if str(path).startswith("/dev/i2c-"):
                return really_open(self.stand_in(str(path)), flags)
            return really_open(path, flags, mode, **options)

        for module, name, replacement in (
            (smbus, "open", self._open),
            (smbus, "ioctl", self.ioctl),
            (os, "open", os_open),
        ):
            if monkeypatch is None:
                setattr(module, name, replacement)
            else:
                monkeypatch.setattr(module, name, replacement, raising=False)

    def stand_in(self, path: str) -> Path:
        """The real file that stands in for a device file."""
        number = int(path.removeprefix("/dev/i2c-"))
        code = errno.ENOENT if number not in self.wires or self.is_gone else self.refusal
        if code is not None:
            raise OSError(code, os.strerror(code), path)
        file = self.folder / f"i2c-{number}"
        file.touch()
        return file

    def _open(self, path: str, mode: str, buffering: int) -> _DeviceFile:
        assert (mode, buffering) == ("r+b", 0)
        file = _DeviceFile(self, path, self.stand_in(path))
        self._files[file.fileno()] = file
        return file

    def ioctl(self, file_descriptor: int, request: int, argument: Any) -> int:
        file = self._files[file_descriptor]
        if request == I2C_SLAVE:
            self.system_calls += 1
            if argument in self.owned:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            file.address = argument
            return 0
        assert request == I2C_RDWR
        described = argument.msgs[: argument.nmsgs]
        messages: list[Message] = [
            (message.addr, bool(message.flags & I2C_M_RD), bytearray(string_at(message.buf, message.len)))
            for message in described
        ]
        self.transfer(file, messages)
        for message, (_, is_read, buffer) in zip(described, messages, strict=True):
            if is_read:
                memmove(message.buf, bytes(buffer), len(buffer))
        return len(messages)

    def read(self, file: _DeviceFile, length: int) -> bytes:
        buffer = bytearray(length)
        self.transfer(file, [(file.address, True, buffer)])
        return bytes(buffer)

    def write(self, file: _DeviceFile, data: bytes) -> int:
        self.transfer(file, [(file.address, False, bytes(data))])
        return len(data)

    def transfer(self, file: _DeviceFile, messages: list[Message]) -> None:
        self.system_calls += 1
        if file.is_dead:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if self.reads_once_and_last and any(is_read for _, is_read, _ in messages[:-1]):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        file.wire.transfer(messages)


class _DeviceFile:
    """An open device file: read and write are a transfer each, with the address that I2C_SLAVE has set."""

    def __init__(self, dev: EmulatedI2CDev, path: str, stand_in: Path) -> None:
        self.name = path
        self.address = 0
        self.is_dead = False
        self.wire = dev.wires[int(path.removeprefix("/dev/i2c-"))]
        self._dev = dev
        self._file = stand_in.open("r+b", buffering=0)

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, length: int) -> bytes:
        return self._dev.read(self, length)

    def write(self, data: bytes) -> int:
        return self._dev.write(self, data)

    def close(self) -> None:
        self._file.close()
