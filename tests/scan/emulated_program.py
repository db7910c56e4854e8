"""The real program in a process of its own, whose /dev/i2c-1 is a wire in the test's process.

`python -m tests.scan.emulated_program SOCKET FOLDER ARGUMENT...`: the socket of a `WireServer`; a folder for the files
that stand for the device files, with a `sys` in it that takes the place of /sys.
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Client
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import __main__ as program
from agent.commands import scan
from agent.i2c import sysfs
from tests.emulated_i2c_dev import EmulatedI2CDev

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.simulate.wire import Message


class RemoteWire:
    """What an emulated device file needs of a wire. As in a kernel, no signal comes between a transfer and its end."""

    def __init__(self, address: str) -> None:
        self._connection = Client(address, "AF_UNIX")

    def transfer(self, messages: Sequence[Message]) -> None:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            self._connection.send([(address, is_read, bytes(buffer)) for address, is_read, buffer in messages])
            code, answers = self._connection.recv()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if code is not None:
            raise OSError(code, os.strerror(code))
        reads = (buffer for _, is_read, buffer in messages if is_read)
        for buffer, answer in zip(reads, answers, strict=True):
            memoryview(buffer)[:] = answer


def main() -> int:
    address, folder, *arguments = sys.argv[1:]
    patches = pytest.MonkeyPatch()
    EmulatedI2CDev({1: RemoteWire(address)}, Path(folder)).install(patches)  # type: ignore[dict-item] # all it needs
    patches.setattr(sysfs, "bus_numbers", lambda: (1,))
    patches.setattr(scan, "SYSFS", Path(folder) / "sys")
    sys.argv[1:] = arguments
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
