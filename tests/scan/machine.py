"""A machine with one emulated bus, for the real program in separate processes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from agent.clock import SystemClock
from agent.simulate.world import build_world
from tests.bench import distinct_rails, settings_of
from tests.reliability.remote_wire import WireServer
from tests.run.running import LONG_SECONDS, PROJECT
from tests.scan.node import EEPROM, KERNELS, NODE, OTHER, sysfs_of
from tests.scan.parts import INA3221, Foreign, IdChip

if TYPE_CHECKING:
    from pathlib import Path

    from agent.simulate.wire import Transaction

    Completed = subprocess.CompletedProcess[str]


class Machine:
    """A machine with one bus, for programs in separate processes."""

    def __init__(self, folder: Path, text: str = NODE) -> None:
        self.folder = folder
        clock = SystemClock()
        self.settings = settings_of(text, 'sample_interval = "1s"\n')
        self.rails = distinct_rails(self.settings, clock)
        self.world = build_world(self.settings, clock.monotonic, self.rails)
        self.wire = self.world.wires[1]
        self.log: list[Transaction] = []
        self.wire.log = self.log
        self.server = WireServer(self.wire, folder)

    def add_strangers(self) -> None:
        """Add an EEPROM, an INA3221 at an address that none can have, and a chip that the kernel owns."""
        self.wire.attach(Foreign(EEPROM))
        self.wire.attach(Foreign(KERNELS))
        self.world.muxes["m1"].attach(2, IdChip(OTHER, INA3221))
        sysfs_of(self.folder / "sys", {(1, KERNELS): "ina3221"})

    def command(self, *arguments: str) -> list[str]:
        program = [sys.executable, "-m", "tests.scan.emulated_program", self.server.address, str(self.folder)]
        return [*program, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> Completed:
        with self.start(*arguments) as process:
            out, err = process.communicate(timeout=LONG_SECONDS)
        assert "Traceback" not in err, err
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def all_muxes_are_closed(self) -> bool:
        return all(mux.control == 0 for mux in self.world.muxes.values())
