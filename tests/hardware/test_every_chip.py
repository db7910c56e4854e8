"""Every chip, and every kind of mux before a chip: configured, simulated, scanned, read, lost and brought back.

Each test runs for every file of agent/chips, on a node that is assembled as `wattpush --simulate` assembles it.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from agent import chips, cli
from agent.config import parse
from agent.errors import ExitCode
from agent.i2c.muxes import MUX_KINDS, mux_names
from agent.i2c.place import Place
from agent.run.assembly import RunOptions, Runtime, make_agent
from agent.settings import CHIP_ALIASES
from agent.simulate import world as simulated
from agent.simulate.clock import HandClock
from agent.simulate.hwmon import SimulatedHwmon
from agent.simulate.rails import ConstantRail
from tests.run.running import INFO, HandPublisher, HandWaiting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.run.agent import Agent
    from agent.settings import ChipOptions, Settings
    from agent.simulate.rails import Rail
    from agent.simulate.world import World

HEAD = 'hostname = "node"\n[serve]\nlisten = "127.0.0.1:0"\n'

KERNEL_KEYS: Mapping[str, tuple[str, ...]] = {
    "hwmon": ('sensor = "ina3221"\nlabel = "VDD_IN"', 'sensor = "ina3221"\nlabel = "VDD_SOC"'),
    "rpi-pmic": ('rail = "all"',),
}
"""For each chip that the kernel reads, the keys of its devices."""

LOST_SECONDS = 30


def configuration(name: str, place: str = "bus = 1", mux: str = "") -> str:
    """A device for every input of a chip, with the keys that its options require and no others."""
    options = chips.options()[name]
    return (
        HEAD + mux + "\n".join(f'[[device]]\nname = "d{n}"\n{keys}\n' for n, keys in enumerate(_keys(options, place)))
    )


def _keys(options: ChipOptions, place: str) -> Iterator[str]:
    if options.addresses is None:
        assert options.chip in KERNEL_KEYS, f"say in {__name__} which keys a device on {options.chip} has"
        yield from (f'chip = "{options.chip}"\n{keys}' for keys in KERNEL_KEYS[options.chip])
        return
    for number in options.inputs or (None,):
        keys = [f'chip = "{options.chip}"', place, f"address = {options.addresses[-1]}"]
        keys += [] if number is None else [f"input = {number}"]
        keys += ["shunt_ohms = 0.1"] if options.external_shunt else []
        yield "\n".join(keys)


def settings_of(text: str) -> Settings:
    return parse(text, chips.options(), default_hostname="node", environ={"HOME": "/nowhere"})


class Node:
    """An agent on simulated chips, with constant rails that differ between the inputs of a chip.

    Attributes:
        world: its simulated chips.
        trees: the folders of its simulated hwmon.
        has_old_firmware: whether the firmware of a simulated Raspberry Pi 5 does not know the command, as on a Pi 4.
    """

    def __init__(self, text: str, monkeypatch: pytest.MonkeyPatch, stack: ExitStack) -> None:
        # Nobody is served, and no counters are kept.
        self.settings = replace(settings_of(text), serve=None, state_dir=None)
        self.clock = HandClock()
        self.rails: dict[str, ConstantRail] = {
            # Multiples of the LSB of every chip.
            device.name: ConstantRail(3.2 * (number + 1), 0.48 - 0.12 * number, self.clock.monotonic)
            for number, device in enumerate(self.settings.devices)
        }
        self.trees: list[SimulatedHwmon] = []
        build_world, make_tree = simulated.build_world, SimulatedHwmon.__init__

        def build(settings: Settings, now: Callable[[], float], recordings: Mapping[str, Rail] | None = None) -> World:
            self.world = build_world(settings, now, {**(recordings or {}), **self.rails})
            return self.world

        def make(tree: SimulatedHwmon, *arguments: object) -> None:
            make_tree(tree, *arguments)  # type: ignore[arg-type] # passed on as they came
            self.trees.append(tree)

        monkeypatch.setattr(simulated, "build_world", build)
        monkeypatch.setattr(SimulatedHwmon, "__init__", make)
        self.has_old_firmware = False
        if "rpi-pmic" in chips.names():
            firmware = import_module("agent.simulate.rpi_pmic").SimulatedFirmware
            answer = firmware.answer
            old = 'error=1 error_msg="Command not registered"'
            monkeypatch.setattr(firmware, "answer", lambda this: old if self.has_old_firmware else answer(this))
        runtime = Runtime(self.clock, HandWaiting(self.clock), {}, HandPublisher(self.clock), INFO, lambda: None)
        self.agent: Agent = make_agent(self.settings, RunOptions(is_simulated=True), runtime, stack)
        self.began_seconds = self.clock.seconds

    def run(self, seconds: int) -> dict[str, dict[str, float]]:
        """Sweep once a second; return what is published then, by device and series without `wattpush_device_`."""
        for _ in range(seconds):
            self.clock.sleep(1.0)
            self.agent.take_sweep()
        self.agent.begin_push()
        registry = self.agent.scrape_registry()
        assert registry is not None
        published: dict[str, dict[str, float]] = {device.name: {} for device in self.settings.devices}
        for sample in (sample for family in registry.collect() for sample in family.samples):
            if "device" in sample.labels:
                published[sample.labels["device"]][sample.name.removeprefix("wattpush_device_")] = sample.value
        return published

    def assert_right(self, published: Mapping[str, Mapping[str, float]]) -> None:
        """Every device is up and shows its own rail, and its energy is that of the time that it was measured."""
        assert set(published) == set(self.rails)
        for name, series in published.items():
            rail = self.rails[name]
            assert series["up"] == 1
            assert series["volts"] == pytest.approx(rail.volts, rel=1e-6)
            assert series["amperes"] == pytest.approx(rail.amperes, rel=1e-6)
            self.assert_energy_is_that_of_the_measured_time(series, rail)

    def assert_energy_is_that_of_the_measured_time(self, series: Mapping[str, float], rail: ConstantRail) -> None:
        joules = rail.volts * rail.amperes * series["measured_seconds_total"]
        assert series["joules_total"] == pytest.approx(joules, rel=1e-6)
        assert series["returned_joules_total"] == 0
        assert series["measured_seconds_total"] <= self.clock.seconds - self.began_seconds + 2.0


@pytest.fixture
def node_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Node]]:
    with ExitStack() as stack:
        yield lambda text: Node(text, monkeypatch, stack)


def lose(node: Node, name: str) -> Callable[[], None]:
    """Take the chip away; return what brings it back."""
    if name == "hwmon":
        (tree,) = node.trees
        # Without its inputs, the simulated kernel updates no file: the driver is unbound.
        inputs, tree._inputs = tree._inputs, []
        for _, *files in inputs:
            for file in files:
                file.unlink()
        return lambda: tree._inputs.extend(inputs)
    if name == "rpi-pmic":
        node.has_old_firmware = True
        return partial(setattr, node, "has_old_firmware", False)
    (chip,) = set(node.world.chips.values())
    chip.unplug()
    return chip.plug


@pytest.mark.parametrize("name", chips.names())
def test_a_chip_is_configured_with_the_keys_that_it_declares(name: str) -> None:
    settings = settings_of(configuration(name))
    assert {device.chip for device in settings.devices} == {name}
    assert settings.warnings == ()


@pytest.mark.parametrize("name", chips.names())
def test_a_chip_is_read_lost_and_brought_back(name: str, node_of: Callable[[str], Node]) -> None:
    node = node_of(configuration(name))
    before = node.run(15)
    node.assert_right(before)
    bring_back = lose(node, name)
    node.run(2)  # an interval with good readings at its beginning, and then errors
    lost = node.run(LOST_SECONDS)
    for device, series in lost.items():
        assert series["up"] == 0
        assert series["read_errors_total"] > before[device]["read_errors_total"]
        assert not {"volts", "amperes", "watts"} & set(series)
        assert series["joules_total"] >= before[device]["joules_total"]
    bring_back()
    after = node.run(30)
    node.assert_right(after)
    for device, series in after.items():
        assert series["readings_total"] > before[device]["readings_total"] + 10
        assert series["joules_total"] > lost[device]["joules_total"]
        if chips.options()[name].addresses is not None:
            # It lost its power: what flowed meanwhile is unknown.
            assert series["resets_total"] == 1
            assert series["measured_seconds_total"] < node.clock.seconds - node.began_seconds - LOST_SECONDS + 5


@pytest.mark.parametrize("name", chips.names())
def test_a_scan_names_a_chip_and_configures_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.toml"
    file.write_text(configuration(name), encoding="utf-8")
    assert cli.main(["scan", "--simulate", "--config", str(file)]) == ExitCode.OK
    table = capsys.readouterr().out
    assert cli.main(["scan", "--simulate", "--config", str(file), "--toml"]) == ExitCode.OK
    found = settings_of(capsys.readouterr().out)
    wanted = settings_of(file.read_text(encoding="utf-8"))
    assert len(found.devices) == len(wanted.devices)
    assert [device.place for device in found.devices] == [device.place for device in wanted.devices]
    if chips.options()[name].addresses is None:
        assert [device.chip for device in found.devices] == [device.chip for device in wanted.devices]
    else:
        # Chips without an ID of their own share a row, which names each of them.
        assert name.upper() in re.findall(r"INA\d+", table)


@pytest.mark.parametrize("kind", MUX_KINDS)
def test_a_chip_behind_each_kind_of_mux_is_read_lost_and_brought_back(
    kind: str, node_of: Callable[[str], Node]
) -> None:
    last = MUX_KINDS[kind].channels - 1
    mux = f'[[mux]]\nname = "m0"\nchip = "{kind}"\nbus = 1\naddress = 0x70\n'
    node = node_of(configuration("ina260", f'mux = "m0"\nchannel = {last}', mux))
    node.assert_right(node.run(15))
    node.world.muxes["m0"].unplug()
    node.run(2)
    assert node.run(10)["d0"]["up"] == 0
    node.world.muxes["m0"].plug()
    node.assert_right(node.run(30))
    assert node.world.muxes["m0"].control == 0


@pytest.mark.parametrize("alias", sorted({*CHIP_ALIASES, *mux_names()} - {*MUX_KINDS}))
def test_another_name_of_a_part_means_the_same_part(alias: str) -> None:
    if alias in CHIP_ALIASES:
        settings = settings_of(configuration(CHIP_ALIASES[alias]).replace(CHIP_ALIASES[alias], alias))
        assert settings.devices == settings_of(configuration(CHIP_ALIASES[alias])).devices
    else:
        mux = f'[[mux]]\nname = "m0"\nchip = "{alias}"\nbus = 1\naddress = 0x70\n'
        (made,) = settings_of(configuration("ina260", 'mux = "m0"\nchannel = 0', mux)).muxes
        assert alias in made.kind.aliases
        assert made.place == Place(1, None, None, 0x70)
