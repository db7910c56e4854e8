"""The real program in a separate process, whose /dev/i2c-1 is a wire in the test's process.

`python -m tests.scan.emulated_program SOCKET FOLDER ARGUMENT...`: the socket of a `WireServer`; a folder for the files
that stand for the device files, with a `sys` in it that takes the place of /sys. $WATTPUSH_TEST_HOSTNAME, if it is
set, is the machine's own name.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from agent import __main__ as program
from agent.i2c import sysfs
from agent.scan import machine
from tests.emulated_i2c_dev import EmulatedI2CDev
from tests.reliability.remote_wire import RemoteWire


def main() -> int:
    address, folder, *arguments = sys.argv[1:]
    patches = pytest.MonkeyPatch()
    EmulatedI2CDev({1: RemoteWire(address)}, Path(folder)).install(patches)
    patches.setattr(sysfs, "bus_numbers", lambda: (1,))
    patches.setattr(machine, "SYSFS", Path(folder) / "sys")
    if "WATTPUSH_TEST_HOSTNAME" in os.environ:
        patches.setattr(socket, "gethostname", lambda: os.environ["WATTPUSH_TEST_HOSTNAME"])
    sys.argv[1:] = arguments
    return program.main()


if __name__ == "__main__":
    sys.exit(main())
