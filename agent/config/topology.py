"""Where the parts of a configuration are: from the names of muxes to `Mux` and `Place` values."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

from agent.config.clashes import MUX_KIND, ONLY_INPUT, Part
from agent.config.values import describe, nearest, quoted
from agent.i2c.muxes import MUX_ADDRESSES, mux_kind
from agent.i2c.place import Mux, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.config.tables import Table
    from agent.i2c.place import BusName
    from agent.settings import ChipOptions

# A longer row of muxes, one behind the other, would have to use one of the eight addresses twice on one path.
_MAX_MUX_DEPTH = len(MUX_ADDRESSES)


class Wiring:
    """The muxes of a file, resolved from names to `Mux` values as far as they are good."""

    def __init__(self, tables: Sequence[Table], *, all_read: bool) -> None:
        counts = Counter(table.good["name"] for table in tables if "name" in table.good)
        # A name that two muxes have means neither: what is behind it was said to be behind one of them, but which?
        self._tables = {name: t for t in tables if (name := t.good.get("name")) is not None and counts[name] == 1}
        self._names = tuple(counts)
        # If some mux has no name, or [[mux]] could not be read at all, a reference may well mean that one.
        self._names_are_complete = all_read and all("name" in table.good for table in tables)
        self._resolved: dict[str, Mux] = {}

    def check_keys(self, table: Table) -> None:
        """Refuse a table that does not say where its part is: `bus`, or `mux` and `channel`."""
        if "mux" not in table.given:
            if "channel" not in table.given:
                table.require("bus", "write bus = 1 for /dev/i2c-1, or mux and channel")
            elif "bus" in table.given:
                table.refuse_if_good(
                    "channel", 'goes with mux, which is missing; write mux = "..." or remove this line'
                )
            else:
                table.require("mux", "of which mux is this the channel?")
            return
        table.require("channel", "behind which channel of the mux, 0..7?")
        name = table.good.get("mux")
        if name is not None and name not in self._names and self._names_are_complete:
            meant = nearest(name, self._names)
            if meant:
                cure = f"did you mean {quoted(meant)}?"
            elif self._names:
                cure = f"there are {', '.join(map(quoted, self._names))}"
            else:
                cure = "describe it in a [[mux]] table"
            table.refuse("mux", f"no mux is named {quoted(name)}; {cure}")

    def resolve_muxes(self) -> None:
        """Make a `Mux` of every table that can be one, from the trunk inwards; refuse those in a circle."""
        waiting = dict(self._tables)
        for _ in range(_MAX_MUX_DEPTH):
            # Looked up before any of them is resolved, so that each round is one mux deeper.
            ready = [name for name, t in waiting.items() if "mux" not in t.given or t.good.get("mux") in self._resolved]
            for name in ready:
                table = waiting.pop(name)
                place, kind = self.place_of(table), mux_kind(table.good.get("chip", ""))
                if place is not None and kind is not None:
                    self._resolved[name] = Mux(name, kind, place)
        for table in waiting.values():
            if table.good.get("mux") in self._resolved:
                table.refuse(
                    "mux", f"more than {_MAX_MUX_DEPTH} muxes one behind the other cannot have different addresses"
                )
        self._refuse_circles(waiting)

    @staticmethod
    def _refuse_circles(waiting: Mapping[str, Table]) -> None:
        seen: set[str] = set()
        for start in waiting:
            path: list[str] = []
            name = start
            while name in waiting and name not in seen:
                seen.add(name)
                path.append(name)
                name = waiting[name].good.get("mux", "")
            if name in path:
                circle = [*path[path.index(name) :], name]
                shown = " behind ".join(map(quoted, circle))
                waiting[name].refuse("mux", f"the muxes go round in a circle: {shown}")

    def place_of(self, table: Table) -> Place | None:
        """Where a part is, after refusing what contradicts its mux; None if the file does not say it well enough."""
        bus: BusName | None = table.good.get("bus")
        mux: Mux | None = None
        channel: int | None = None
        if "mux" in table.given:
            mux = self._resolved.get(table.good.get("mux", ""))
            if mux is None:
                return None
            if bus is not None and bus != mux.bus:
                mux_bus = describe(mux.bus)
                table.refuse(
                    "bus", f"{describe(bus)} is not the bus of mux {quoted(mux.name)} ({mux_bus}); remove this line"
                )
            bus = mux.bus
            channels = mux.kind.channels
            if table.good.get("channel", 0) >= channels:
                what = f"mux {quoted(mux.name)} is a {mux.kind.name}"
                table.refuse("channel", f"{table.good['channel']} is not in 0..{channels - 1}: {what}")
            channel = table.good.get("channel")
            if channel is None:
                return None
        if bus is None or "address" not in table.good:
            return None
        return Place(bus=bus, mux=mux, channel=channel, address=table.good["address"])

    def muxes(self) -> tuple[Mux, ...]:
        """The resolved muxes in the order of the file."""
        return tuple(self._resolved[name] for name in self._tables if name in self._resolved)

    def mux_parts(self) -> list[Part]:
        """The resolved muxes as parts that can clash."""
        return [Part(self._tables[mux.name].title, MUX_KIND, mux.place) for mux in self.muxes()]


def device_parts(
    devices: Iterable[Table], places: Iterable[Place | None], chips: Mapping[str, ChipOptions]
) -> Iterator[Part]:
    """The devices on I2C as parts that can clash."""
    for device, place in zip(devices, places, strict=True):
        if place is not None and "chip" in device.good:
            chip = device.good["chip"]
            yield Part(device.title, chip, place, device.good.get("input") if chips[chip].inputs else ONLY_INPUT)


def check_shared_averaging(devices: Iterable[Table], places: Iterable[Place | None]) -> None:
    """Refuse two devices on one chip that want it set up differently."""
    first_at: dict[tuple[Place, str], Table] = {}
    for device, place in zip(devices, places, strict=True):
        averaging_is_bad = "averaging" in device.given and "averaging" not in device.good
        if place is None or "chip" not in device.good or averaging_is_bad:
            continue
        first = first_at.setdefault((place, device.good["chip"]), device)
        if first.good.get("averaging") != device.good.get("averaging"):
            device.refuse("averaging", f"differs from that of {first.title}, which is on the same chip")


def check_shared_kernel_inputs(devices: Iterable[Table]) -> None:
    """Refuse two devices that read one input of a chip that the kernel owns."""
    first_on: dict[tuple[object, ...], Table] = {}
    for device in devices:
        sensor, source = device.good.get("sensor"), (device.good.get("input"), device.good.get("label"))
        if sensor is None or source == (None, None):
            continue
        # A folder may be spelled in several ways.
        chip = os.path.normpath(sensor) if "/" in sensor else sensor
        first = first_on.setdefault((chip, *source), device)
        if first is not device:
            key = "label" if "label" in device.good else "input"
            device.refuse(key, f"{describe(device.good[key])} of {quoted(sensor)} is already read by {first.title}")
