"""The right bus: a USB adapter that comes back under another number is never read in place of another one."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agent.check.hardware import check_hardware
from agent.chips import hwmon
from agent.energy.state import State
from agent.energy.state_file import StateFile
from agent.errors import BusError
from agent.i2c.adapters import open_bus
from agent.i2c.bus import Bus
from agent.i2c.sysfs import adapter_folder, bus_on, usb_port
from agent.measure.readings import Failure, Reading
from agent.measure.sweep import Sweep
from agent.run.assembly import Hardware, RunOptions, make_buses
from agent.simulate.rails import ConstantRail
from agent.simulate.world import build_world
from tests.bench import Bench, failure, ina260, settings_of
from tests.emulated_i2c_dev import EmulatedI2CDev

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.measure.readings import Outcome

LEFT, RIGHT, OTHER = "1-1.1:1.0", "1-1.2:1.0", "1-1.3:1.0"


class TwoAdapters:
    """Two USB adapters, each with an INA260 at 0x40: 5 V behind the left one, 25 V behind the right one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, names: tuple[str, str]) -> None:
        text = ina260("left", f"bus = {names[0]}") + ina260("right", f"bus = {names[1]}")
        self.bench = Bench(settings_of(text, 'sample_interval = "1s"\n'))
        self.bench.rails = {
            "left": ConstantRail(5.0, 1.0, self.bench.clock.monotonic),
            "right": ConstantRail(25.0, 1.0, self.bench.clock.monotonic),
        }
        world = build_world(self.bench.settings, self.bench.clock.monotonic, self.bench.rails)
        self.bench.world = world
        left, right = (device.place.bus for device in self.bench.settings.devices if device.place is not None)
        self.at = {LEFT: world.wires[left], RIGHT: world.wires[right], OTHER: world.wires[right]}
        self.folder, self.sysfs = folder, folder / "sys"
        self.dev = EmulatedI2CDev({}, folder)
        self.dev.install(monkeypatch)
        self.plug(LEFT, RIGHT)
        self.buses: list[Bus] = []
        self.start()

    def plug(self, *ports: str) -> None:
        self.dev.plug_in_order(ports, self.at, self.sysfs)

    def start(self, boot: str = "first boot") -> None:
        """Start, or start again with what the earlier run saved; `boot` is that of the machine."""
        state_file = StateFile(self.folder, "counters", boot)
        if self.buses:
            StateFile(self.folder, "counters", "first boot").save(
                State(adapters=self.bench.sweep.adapters()), ended_well=False
            )
            self.bench.sweep.close()
        settings, clock = self.bench.settings, self.bench.clock
        hardware = Hardware(settings, RunOptions(), clock, ExitStack())
        hardware.sysfs = self.sysfs
        self.buses = make_buses(settings, hardware, clock, state_file.load().adapters)
        self.bench.sweep = Sweep(settings, self.buses, clock)


@pytest.fixture
def start_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., TwoAdapters]]:
    """Starts a node whose buses have these names; its device files are closed afterwards."""
    started: list[TwoAdapters] = []

    def start(left: str = "0", right: str = "1") -> TwoAdapters:
        started.append(TwoAdapters(monkeypatch, tmp_path, (left, right)))
        return started[-1]

    yield start
    for node in started:
        node.bench.sweep.close()


@pytest.mark.reliability(
    2.1,
    "two USB adapters plugged in again in the other order: while the agent runs, between two runs, at a power cut",
    "nothing is read from the other adapter; the error says where the first one is now; back in the old "
    "order, both are read again",
)
@pytest.mark.parametrize("started_in", [None, "first boot", "second boot"], ids=lambda boot: f"started in {boot}")
def test_swapped_usb_adapters_are_never_read(
    start_node: Callable[..., TwoAdapters], measured: Callable[[str], None], started_in: str | None
) -> None:
    node = start_node()
    node.bench.run_until_read()
    node.plug(RIGHT, LEFT)
    if started_in is not None:
        node.start(started_in)
    wrong = 0
    outcomes: dict[str, Outcome] = {}
    for _ in range(20):
        outcomes = node.bench.run_next()  # checks what is read
        wrong += sum(isinstance(outcome, Reading) for outcome in outcomes.values())
    assert failure(outcomes["left"]) == (
        "/dev/i2c-0 is another adapter now (1-1.2:1.0 instead of 1-1.1:1.0); the one that was read before is "
        "/dev/i2c-1 now. Give each adapter a name of its own with a udev rule (wattpush check --hardware shows it), "
        'or take whatever has the number: bus = "/dev/i2c-0"'
    )
    measured(f"{wrong} readings of 20 sweeps")
    assert wrong == 0
    node.plug(LEFT, RIGHT)
    node.bench.clock.sleep(10.0)
    node.bench.run_until_read()


def test_an_adapter_that_is_not_plugged_in_is_said_so(start_node: Callable[..., TwoAdapters]) -> None:
    node = start_node()
    node.bench.run_until_read()
    node.plug(OTHER, RIGHT)
    node.bench.run_next()
    node.bench.clock.sleep(10.0)
    assert "the one that was read before is not plugged in" in failure(node.bench.run()["left"])


@pytest.mark.reliability(
    2.11,
    'the same with `bus = "/dev/i2c-rack"`, a link that udev makes for a USB port',
    "the link is resolved at each open: each adapter is read under its new number",
)
def test_a_link_follows_its_adapter_to_another_number(
    start_node: Callable[..., TwoAdapters], tmp_path: Path, measured: Callable[[str], None]
) -> None:
    left, right = tmp_path / "i2c-left", tmp_path / "i2c-right"
    left.symlink_to("/dev/i2c-0")
    right.symlink_to("/dev/i2c-1")
    node = start_node(f'"{left}"', f'"{right}"')
    node.bench.run_until_read()
    node.plug(RIGHT, LEFT)
    left.unlink()
    right.unlink()
    left.symlink_to("/dev/i2c-1")
    right.symlink_to("/dev/i2c-0")
    node.bench.run_next()
    node.bench.clock.sleep(10.0)
    node.bench.run_until_read()
    left.unlink()
    node.dev.unplug()
    node.dev.plug()
    node.bench.run_next()
    node.bench.clock.sleep(10.0)
    assert failure(node.bench.run()["left"]).startswith(f"{left}: no such link; is the adapter plugged in")
    measured("every reading is of the adapter that the link names")


@pytest.mark.reliability(
    2.12, "one bus configured under two names, such as a link and its number", "the second name is refused"
)
@pytest.mark.parametrize("second", ["link", "path", "other link"])
def test_a_bus_has_one_name(
    start_node: Callable[..., TwoAdapters], tmp_path: Path, measured: Callable[[str], None], second: str
) -> None:
    link, other = tmp_path / "i2c-rack", tmp_path / "i2c-other"
    link.symlink_to("/dev/i2c-0")
    other.symlink_to("/dev/i2c-0")
    first, name = {
        "link": ("0", str(link)),
        "path": ("0", "/dev/i2c-0"),
        "other link": (f'"{link}"', str(other)),
    }[second]
    node = start_node(first, f'"{name}"')
    node.bench.rails = dict.fromkeys(("left", "right"), node.bench.rails["left"])
    node.bench.run_next()
    for _ in range(3):
        refused, read = sorted(node.bench.run_next().values(), key=lambda outcome: isinstance(outcome, Reading))
        assert isinstance(refused, Failure)
        assert "is the same bus as /" in str(refused.error)
        assert isinstance(read, Reading)
    measured("an error that names both")


def test_a_name_is_free_once_its_link_leads_elsewhere(start_node: Callable[..., TwoAdapters], tmp_path: Path) -> None:
    link = tmp_path / "i2c-rack"
    link.symlink_to("/dev/i2c-0")
    node = start_node(f'"{link}"', "0")
    assert "same bus" in failure(node.bench.run_next()["right"])
    link.unlink()
    link.symlink_to("/dev/i2c-1")
    node.bench.clock.sleep(10.0)
    assert "same bus" not in str(getattr(node.bench.run_next()["right"], "error", ""))


@pytest.mark.parametrize("is_link_first", [False, True])
def test_a_link_is_read_if_its_number_was_anothers(
    start_node: Callable[..., TwoAdapters], tmp_path: Path, *, is_link_first: bool
) -> None:
    link = tmp_path / "i2c-rack"
    link.symlink_to("/dev/i2c-0" if is_link_first else "/dev/i2c-1")
    numbered, linked = ("right", "left") if is_link_first else ("left", "right")
    node = start_node(f'"{link}"', "1") if is_link_first else start_node("0", f'"{link}"')
    node.bench.run_until_read()
    node.plug(RIGHT, LEFT)
    link.unlink()
    link.symlink_to("/dev/i2c-1" if is_link_first else "/dev/i2c-0")
    for _ in range(5):
        node.bench.run_next()
    node.bench.clock.sleep(10.0)
    outcomes = node.bench.run()
    assert isinstance(outcomes[linked], Reading)
    assert "is another adapter now" in failure(outcomes[numbered])


def test_a_link_to_something_else_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "i2c-rack"
    link.symlink_to("/dev/null")
    with pytest.raises(BusError, match=r"i2c-rack: leads to /dev/null, which is no /dev/i2c-N; is the adapter"):
        open_bus(str(link))


def test_a_path_that_is_no_link_is_not_called_missing(tmp_path: Path) -> None:
    with pytest.raises(BusError, match=r": is no link to a /dev/i2c-N; is the adapter"):
        open_bus(str(tmp_path))


def adapter(sysfs: Path, number: int, folder: str) -> None:
    target = sysfs / "devices" / folder / f"i2c-{number}"
    target.mkdir(parents=True)
    link = sysfs / "bus/i2c/devices" / f"i2c-{number}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)


@pytest.mark.parametrize(
    ("folder", "port"),
    [
        ("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0", "1-1:1.0"),
        ("platform/soc/fe980000.usb/usb1/1-1/1-1.2/1-1.2:1.0", "1-1.2:1.0"),
        ("pci0000:00/0000:00:14.0/usb3/3-2/3-2:1.2/0003:04D8:00DD.0005", "3-2:1.2"),
        ("platform/soc/fe804000.i2c", None),
    ],
    ids=["i2c-tiny-usb", "behind a hub", "HID, with a number for each plug-in", "on the board"],
)
def test_the_port_of_a_usb_adapter_is_found(tmp_path: Path, folder: str, port: str | None) -> None:
    adapter(tmp_path, 7, folder)
    found = adapter_folder(7, tmp_path)
    assert found is not None
    assert usb_port(found) == port
    assert bus_on(found, tmp_path) == 7
    assert bus_on(found + "x", tmp_path) is None
    assert adapter_folder(8, tmp_path) is None


def test_an_adapter_on_the_board_is_not_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A new kernel may name its folder differently; its number is the device tree's."""
    bench = Bench.of(ina260("cpu", "bus = 1"))
    adapter(tmp_path, 1, "platform/soc/fe804000.i2c")
    EmulatedI2CDev(bench.world.wires, tmp_path).install(monkeypatch)
    bus = Bus(1, [], open_bus, bench.clock, tmp_path)
    with bus.session():
        pass
    assert bus.adapter is None
    bus.close()


def test_the_check_shows_the_udev_rule_of_a_usb_adapter(start_node: Callable[..., TwoAdapters]) -> None:
    node = start_node()
    found = [str(f) for f in check_hardware(node.bench.settings, node.buses, hwmon.Chip, node.sysfs)]
    assert (
        "bus: /dev/i2c-1 is a USB adapter, whose number depends on the order of plugging in; to name it by its port, "
        'write this line into /etc/udev/rules.d/61-wattpush-i2c.rules: SUBSYSTEM=="i2c-dev", KERNELS=="1-1.2:1.0", '
        'SYMLINK+="i2c-rack" and plug it in again; then set bus = "/dev/i2c-rack"'
    ) in found


def test_a_bus_that_is_another_adapter_fails_all_its_devices(start_node: Callable[..., TwoAdapters]) -> None:
    node = start_node()
    node.bench.run_until_read()
    node.plug(RIGHT, LEFT)
    assert all(isinstance(outcome, Failure) for outcome in node.bench.run_next().values())
