"""/dev/i2c-N at the boundary of system calls: what PureIO opens and asks the kernel for, onto a simulated wire.

Source: kernel documentation, i2c/dev-interface; include/uapi/linux/i2c.h and i2c-dev.h.
"""

from __future__ import annotations

import errno
import os
from ctypes import POINTER, addressof, c_uint8, cast, memmove
from typing import TYPE_CHECKING, Any

from Adafruit_PureIO import smbus

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from agent.simulate.wire import Message, Wire

I2C_SLAVE = 0x0703
I2C_RDWR = 0x0707
I2C_M_RD = 0x0001


class EmulatedI2CDev:
    """The device files of some wires. A real file stands for each, so that real locks can be taken on it.

    Attributes:
        owned: addresses that a kernel driver has claimed: I2C_SLAVE refuses them, I2C_RDWR does not.
        reads_once_and_last: whether the adapter takes one read a transfer only, at its end, as the Raspberry Pi's.
        refusal: what opening a device file fails with, if anything.
        is_gone: whether the adapter is unplugged; set by `unplug` and `plug`.
        system_calls: how many ioctl, read and write there were.
    """

    def __init__(self, wires: Mapping[Any, Wire], folder: Path) -> None:
        self.wires = wires
        self.folder = folder
        self.owned: set[int] = set()
        self.reads_once_and_last = False
        self.refusal: int | None = None
        self.is_gone = False
        self.system_calls = 0
        self._files: dict[int, _DeviceFile] = {}

    def unplug(self) -> None:
        """Take the adapter away: files opened before fail with ENODEV from now on, also when it is back."""
        self.is_gone = True
        for file in self._files.values():
            file.is_dead = True

    def plug(self) -> None:
        self.is_gone = False

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(smbus, "open", self._open, raising=False)
        monkeypatch.setattr(smbus, "ioctl", self._ioctl)
        really_open = os.open

        def os_open(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
            if str(path).startswith("/dev/i2c-"):
                return really_open(self.stand_in(str(path)), flags)
            return really_open(path, flags, mode, **options)

        monkeypatch.setattr(os, "open", os_open)

    def stand_in(self, path: str) -> Path:
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

    def _ioctl(self, file_descriptor: int, request: int, argument: Any) -> int:
        file = self._files[file_descriptor]
        if request == I2C_SLAVE:
            self.system_calls += 1
            if argument in self.owned:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            file.address = argument
            return 0
        assert request == I2C_RDWR
        described = [argument.msgs[index] for index in range(argument.nmsgs)]
        buffers = [bytearray(_bytes_of(message)) for message in described]
        messages: list[Message] = [
            (message.addr, bool(message.flags & I2C_M_RD), buffer)
            for message, buffer in zip(described, buffers, strict=True)
        ]
        self.transfer(file, messages)
        for message, (_, is_read, _), buffer in zip(described, messages, buffers, strict=True):
            if is_read:
                memmove(message.buf, (c_uint8 * len(buffer)).from_buffer(buffer), len(buffer))
        return len(messages)

    def transfer(self, file: _DeviceFile, messages: list[Message]) -> None:
        self.system_calls += 1
        if file.is_dead:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        if self.reads_once_and_last and any(is_read for _, is_read, _ in messages[:-1]):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        file.wire.transfer(messages)


class _DeviceFile:
    """What `open` gives: read and write go to the address that I2C_SLAVE set, a transfer each."""

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
        buffer = bytearray(length)
        self._dev.transfer(self, [(self.address, True, buffer)])
        return bytes(buffer)

    def write(self, data: bytes) -> int:
        self._dev.transfer(self, [(self.address, False, bytes(data))])
        return len(data)

    def close(self) -> None:
        self._file.close()


def _bytes_of(message: Any) -> bytes:
    if not message.len:
        return b""
    array = cast(message.buf, POINTER(c_uint8 * message.len)).contents
    assert addressof(array)
    return bytes(array)
