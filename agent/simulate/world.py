"""Builds everything that a configuration names: wires, muxes, chips and the rails that they measure."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from agent import entry_points
from agent.errors import UsageError
from agent.i2c.place import bus_path
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.mux import SimulatedMux
from agent.simulate.part import Part
from agent.simulate.rails import LoadRail
from agent.simulate.recordings import Recording
from agent.simulate.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import ModuleType

    from agent.entry_points import Addition
    from agent.i2c.place import BusName, Place
    from agent.settings import ConfiguredChip, Device, Settings
    from agent.simulate.rails import Rail


# Well within what chips with an external shunt can measure (INA3221: 163.8 mV). The module of a twin whose chip
# measures less declares its own number.
_LOAD_SHUNT_VOLTS = 0.15


class BuildChip(Protocol):
    """The function `build` in the module of this package that is named after a chip: it makes the simulated twin."""

    def __call__(
        self, devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]
    ) -> Part:
        """Build the one chip that all these devices are read from.

        Args:
            devices: the devices that share the chip; just one on a chip with a single input.
            address: its 7-bit address.
            rails: the measured rails, by device name.
            now: the clock that the rails run on, in seconds.
        """


@dataclass(frozen=True, slots=True)
class World:
    """A simulated machine.

    Attributes:
        wires: every bus that the configuration names.
        muxes: by mux name.
        chips: by device name; devices that share a chip have the same one. Chips that the kernel owns are left out.
        rails: by device name, including those of the kernel's chips.
    """

    wires: dict[BusName, Wire]
    muxes: dict[str, SimulatedMux]
    chips: dict[str, Part]
    rails: dict[str, Rail]

    def open(self, bus: BusName) -> SimulatedI2C:
        """A new bus object; as on a real machine, two of them on one bus do not know about each other.

        Raises:
            FileNotFoundError: the configuration names no such bus.
        """
        if bus not in self.wires:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), bus_path(bus))
        return SimulatedI2C(self.wires[bus])


def build_world(settings: Settings, now: Callable[[], float], recordings: Mapping[str, Rail] | None = None) -> World:
    """Build everything that the configuration names, powered on at this moment.

    Args:
        settings: a checked configuration.
        now: the clock of all chips, in seconds; it never goes back.
        recordings: the rail to play into a device, by its name. A `Recording` begins now, any other rail is used as it
            is, and a device without one gets a `LoadRail`.

    Raises:
        UsageError: as from `refuse_unknown_devices`, or for a chip without a simulated twin.
    """
    recordings = recordings or {}
    refuse_unknown_devices(settings, recordings)
    began_seconds = now()
    rails = {device.name: _rail(device, recordings.get(device.name), began_seconds) for device in settings.devices}
    world = World(wires={}, muxes={}, chips={}, rails=rails)
    for mux in settings.muxes:
        world.muxes[mux.name] = SimulatedMux(mux.address, mux.kind)
    for mux in settings.muxes:
        _attach(world, world.muxes[mux.name], mux.place, now)
    for configured in settings.chips():
        build = _twin_of(configured)
        chip = build(configured.devices, configured.place.address, rails, now)
        _attach(world, chip, configured.place, now)
        world.chips.update({device.name: chip for device in configured.devices})
    return world


def refuse_unknown_devices(settings: Settings, recorded: Iterable[str]) -> None:
    """Raise UsageError if a recording is for a device that is not configured."""
    names = [device.name for device in settings.devices]
    for name in recorded:
        if name not in names:
            raise UsageError(f"{name}: no such device to play a recording into; configured: {', '.join(names)}")


def _rail(device: Device, recording: Rail | None, began_seconds: float) -> Rail:
    if recording is None:
        if device.shunt_ohms is None:
            return LoadRail(device.name)
        return LoadRail(device.name, _load_shunt_volts(device.chip) / device.shunt_ohms)
    return recording.beginning_at(began_seconds) if isinstance(recording, Recording) else recording


def _load_shunt_volts(chip: str) -> float:
    volts: float = getattr(_module(chip), "LOAD_SHUNT_VOLTS", _LOAD_SHUNT_VOLTS)
    return volts


def _attach(world: World, part: Part, place: Place, now: Callable[[], float]) -> None:
    if place.mux is None or place.channel is None:
        world.wires.setdefault(place.bus, Wire(now)).attach(part)
    else:
        world.muxes[place.mux.name].attach(place.channel, part)


def _twin_of(configured: ConfiguredChip) -> BuildChip:
    name = configured.chip
    build: BuildChip | None = getattr(_module(name), "build", None)
    if build is not None:
        return build
    module_name = _module_name(name)
    with suppress(KeyError):
        addition = entry_points.find(entry_points.CHIPS, name)
        if hasattr(addition.module, "build"):
            return partial(_build_of_package, addition)
        module_name = f"build to {addition.module.__name__}"
    raise UsageError(
        f"{configured.devices[0].name}: chip {name} has no simulated twin; run without --simulate, or add {module_name}"
    )


def _module(chip: str) -> ModuleType | None:
    """The module of the twin of a built-in chip; None for any other chip."""
    with suppress(ModuleNotFoundError):
        return import_module(_module_name(chip))
    return None


def _module_name(chip: str) -> str:
    return f"{__package__}.{chip.replace('-', '_')}"


def _build_of_package(
    addition: Addition, devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]
) -> Part:
    """See `BuildChip`. Raises ConfigError for any mistake of the package."""
    try:
        part = addition.module.build(devices, address, rails, now)
    except Exception as error:
        raise addition.unusable("its simulated twin cannot be built", error) from error
    if not isinstance(part, Part):
        raise addition.unusable("its build returns no RegisterChip, nor another Part")
    return part
