"""Everything that a configuration names, built: wires, muxes, chips and the rails that they measure."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from agent.errors import UsageError
from agent.i2c.place import bus_path
from agent.simulate.i2c import SimulatedI2C
from agent.simulate.mux import CHANNEL_COUNTS, SimulatedMux
from agent.simulate.rails import LoadRail
from agent.simulate.recordings import Recording
from agent.simulate.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent.i2c.place import BusName, Mux, Place
    from agent.settings import Device, Settings
    from agent.simulate.part import Part
    from agent.simulate.rails import Rail


# Well within what chips with an external shunt can measure (INA3221: 163.8 mV).
_HIGHEST_SHUNT_VOLTS = 0.15


class BuildChip(Protocol):
    """The function `build` in the module here that has the name of a chip: its simulated twin."""

    def __call__(
        self, devices: Sequence[Device], address: int, rails: Mapping[str, Rail], now: Callable[[], float]
    ) -> Part:
        """Build the one chip that all these devices, the ones at its place, sit on.

        Args:
            devices: the devices that share the chip; one alone on a chip with a single input.
            address: its 7-bit address.
            rails: what is measured, by device name.
            now: the clock that the rails run on, in seconds.
        """


@dataclass(frozen=True, slots=True)
class World:
    """A simulated node.

    Attributes:
        wires: every bus that the configuration names.
        muxes: by mux name.
        chips: by device name; devices that share a chip have the same one. Without the chips that the kernel owns.
        rails: by device name, those of the kernel's chips included.
    """

    wires: dict[BusName, Wire]
    muxes: dict[str, SimulatedMux]
    chips: dict[str, Part]
    rails: dict[str, Rail]

    def open(self, bus: BusName) -> SimulatedI2C:
        """A new bus object; two of them on one bus do not know of each other, as in reality.

        Raises:
            FileNotFoundError: the configuration names no such bus.
        """
        if bus not in self.wires:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), bus_path(bus))
        return SimulatedI2C(self.wires[bus])


def build_world(settings: Settings, now: Callable[[], float], recordings: Mapping[str, Rail] | None = None) -> World:
    """Build what the configuration names, powered on at this moment.

    Args:
        settings: a configuration that has been found good.
        now: the clock of all chips, in seconds, never going back.
        recordings: what is played into which device; a `Recording` begins now, another rail is taken as it is. A
            device without one gets a `LoadRail`.

    Raises:
        UsageError: a recording for a device that is not configured, or a chip without a simulated twin.
    """
    recordings = recordings or {}
    names = [device.name for device in settings.devices]
    for name in recordings:
        if name not in names:
            raise UsageError(f"{name}: no such device to play a recording into; configured: {', '.join(names)}")
    began_seconds = now()
    rails = {device.name: _rail(device, recordings.get(device.name), began_seconds) for device in settings.devices}
    world = World(wires={}, muxes={}, chips={}, rails=rails)
    for mux in settings.muxes:
        world.muxes[mux.name] = SimulatedMux(mux.address, CHANNEL_COUNTS[mux.chip])
    for mux in settings.muxes:
        _attach(world, world.muxes[mux.name], (mux.bus, mux.parent, mux.parent_channel), now)
    for place, devices in _devices_by_place(settings.devices).items():
        chip = _twin_of(devices[0])(devices, place.address, rails, now)
        _attach(world, chip, (place.bus, place.mux, place.channel), now)
        world.chips.update({device.name: chip for device in devices})
    return world


def _rail(device: Device, recording: Rail | None, began_seconds: float) -> Rail:
    if recording is None:
        if device.shunt_ohms is None:
            return LoadRail(device.name)
        return LoadRail(device.name, _HIGHEST_SHUNT_VOLTS / device.shunt_ohms)
    return recording.beginning_at(began_seconds) if isinstance(recording, Recording) else recording


def _attach(
    world: World, part: Part, segment: tuple[BusName, Mux | None, int | None], now: Callable[[], float]
) -> None:
    bus, mux, channel = segment
    if mux is None or channel is None:
        world.wires.setdefault(bus, Wire(now)).attach(part)
    else:
        world.muxes[mux.name].attach(channel, part)


def _devices_by_place(devices: Sequence[Device]) -> dict[Place, list[Device]]:
    sharing: dict[Place, list[Device]] = {}
    for device in devices:
        if device.place is not None:
            sharing.setdefault(device.place, []).append(device)
    return sharing


def _twin_of(device: Device) -> BuildChip:
    module_name = f"{__package__}.{device.chip}"
    try:
        return cast("BuildChip", import_module(module_name).build)
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(
            f"{device.name}: chip {device.chip} has no simulated twin; run without --simulate, or add {module_name}"
        ) from error
