"""A machine to scan: the parts of a configuration on simulated wires, and parts that no configuration names."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.i2c.bus import Bus
from agent.scan import scan_bus
from tests.bench import Bench, ina260, ina3221, mux
from tests.scan.parts import INA3221, Foreign, IdChip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent.i2c.place import Place
    from agent.scan import Progress
    from agent.scan.results import BusScan, FoundChip
    from agent.simulate.wire import Transaction

MUXES = mux("m0", 0x70) + mux("m1", 0x71) + mux("m2", 0x72, 'mux = "m0", channel = 6')

# Eleven chips with EEPROM, OTHER and KERNELS: the names are those that a scan gives.
NODE = MUXES + "".join(
    (
        ina260("m0-ch0-0x40", 'mux = "m0", channel = 0', more=""),
        ina260("m0-ch3-0x40", 'mux = "m0", channel = 3', more=""),
        ina3221("m0-ch4-0x41-in1", 'mux = "m0", channel = 4', 1, more=""),
        ina3221("m0-ch4-0x41-in2", 'mux = "m0", channel = 4', 2, more=""),
        ina3221("m0-ch4-0x41-in3", 'mux = "m0", channel = 4', 3, more=""),
        ina260("m1-ch0-0x40", 'mux = "m1", channel = 0', more=""),
        ina260("m1-ch0-0x45", 'mux = "m1", channel = 0', 0x45, more=""),
        ina260("m1-ch7-0x40", 'mux = "m1", channel = 7', more=""),
        ina260("m2-ch3-0x40", 'mux = "m2", channel = 3', more=""),
        ina260("i2c1-0x4f", "bus = 1", 0x4F, more=""),
    )
)
EEPROM, OTHER, KERNELS = 0x50, 0x44, 0x43


class ScannedNode:
    """A bench that has been powered for a second, whose wire logs every transaction."""

    def __init__(self, text: str = NODE, *, sysfs: Path = Path("/nonexistent")) -> None:
        self.bench = Bench.of(text)
        self.bench.clock.sleep(1.0)
        self.sysfs = sysfs
        self.wire = self.bench.wire
        self.log: list[Transaction] = []
        self.wire.log = self.log

    def add_strangers(self) -> None:
        """Add an EEPROM, an INA3221 at an address that none can have, and a chip that the kernel owns."""
        self.wire.attach(Foreign(EEPROM))
        self.wire.attach(Foreign(KERNELS))
        self.bench.world.muxes["m1"].attach(2, IdChip(OTHER, INA3221))

    def scan(self, hidden: Iterable[int] = (), progress: Progress = lambda *_: None) -> BusScan:
        """Scan, and check that every mux is closed and every lock free afterwards."""
        bus = Bus(1, [], self.bench._open, self.bench.clock, self.sysfs)
        try:
            return scan_bus(bus, (f"m{number}" for number in count()), hidden, progress)
        finally:
            assert self.bench.all_muxes_are_closed()
            for i2c in self.bench.opened:
                assert i2c.try_lock(), "a lock is still held"
                i2c.unlock()

    def assert_right(self, chips: Iterable[FoundChip]) -> int:
        """Check that every measurement is that of the rail at its place; return how many there are."""
        rails: dict[Place | None, dict[int | None, Any]] = {device.place: {} for device in self.bench.settings.devices}
        for device in self.bench.settings.devices:
            rails[device.place][device.input] = self.bench.rails[device.name]
        seen = 0
        for chip in chips:
            for found in chip.inputs:
                if found.measurement is None:
                    continue
                rail = rails[chip.place][found.number]
                assert abs(found.measurement.volts - rail.volts) < 1e-9, chip
                assert abs(found.measurement.amperes - rail.amperes) < 1e-9, chip
                seen += 1
        return seen


def sysfs_of(folder: Path, owned: dict[tuple[int, int], str]) -> Path:
    """A /sys in which kernel drivers own (bus, address)."""
    for (bus, address), driver in owned.items():
        (folder / "bus/i2c/drivers" / driver).mkdir(parents=True, exist_ok=True)
        client = folder / f"bus/i2c/devices/{bus}-{address:04x}"
        client.mkdir(parents=True)
        (client / "driver").symlink_to(folder / "bus/i2c/drivers" / driver)
    return folder


def messages_to(log: Iterable[Transaction], addresses: Iterable[int]) -> list[tuple[int, bool, bytes]]:
    wanted = set(addresses)
    return [(m.address, m.is_read, m.data) for t in log for m in t.messages if m.address in wanted]
