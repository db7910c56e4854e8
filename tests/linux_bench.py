"""A bench on the path of a real run, and another process that holds its bus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.i2c.adapters import open_bus
from tests.bench import Bench
from tests.emulated_i2c_dev import EmulatedI2CDev

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HOLD_THE_BUS = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print("held", flush=True)
sys.stdin.read()
"""
"""A program: takes the lock on the file that it is given, and keeps it until its input ends."""


class LinuxBench:
    """A bench whose sweep runs over /dev/i2c-1."""

    def __init__(self, text: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.bench = Bench.of(text)
        self.dev = EmulatedI2CDev(self.bench.world.wires, folder)
        self.dev.install(monkeypatch)
        self.bench.sweep = self.bench.new_sweep(open_bus)
