"""The places of the chips and muxes of a configuration, and which of them would answer at the same time.

To reach a chip behind muxes, every segment of bus from the trunk to that chip is connected at once:

    trunk ----+-------- m0 ==channel 2==+-------- m1 ==channel 5==+---
              |                         |                         |
            chip A                    chip B                    chip C

While C is read, A, m0, B and m1 hear every byte too. Two parts with one address then both drive the data line, and a
read returns the wired AND of both: a wrong number, and no error. Chips behind different channels of one mux never meet.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.config.values import describe, nearest, quoted
from agent.i2c.muxes import MUX_ADDRESSES, MUX_KINDS, mux_kind
from agent.i2c.place import Mux, Place, describe_segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent.config.tables import Table
    from agent.i2c.place import BusName
    from agent.settings import ChipOptions

# A longer chain of muxes would have to use one of the eight addresses twice on one path.
_MAX_MUX_DEPTH = len(MUX_ADDRESSES)

_MUX_KIND = "mux"
_ONLY_INPUT = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A mux, or a chip as one device sees it.

    Attributes:
        title: the name of its table in messages: `device[2] "cpu"`.
        kind: `_MUX_KIND`, or the name of the chip.
        place: where it sits.
        input: the input of the chip; `_ONLY_INPUT` if it has one; None if the file does not give it.
    """

    title: str
    kind: str
    place: Place
    input: int | None = _ONLY_INPUT


class Topology:
    """The muxes of a file: resolves names to `Mux` values, as far as these are good."""

    def __init__(self, tables: Sequence[Table], *, all_read: bool) -> None:
        counts = Counter(table.good["name"] for table in tables if "name" in table.good)
        # A name that two muxes share refers to neither: which of them a chip is behind is unknown.
        self._tables = {name: t for t in tables if (name := t.good.get("name")) is not None and counts[name] == 1}
        self._names = tuple(counts)
        # If some mux has no name, or [[mux]] could not be read at all, an unknown name may refer to that one.
        self._names_are_complete = all_read and all("name" in table.good for table in tables)
        self._resolved: dict[str, Mux] = {}

    def check_keys(self, table: Table) -> None:
        """Refuse a table without the place of its part: `bus`, or `mux` and `channel`."""
        if "mux" not in table.given:
            if "channel" not in table.given:
                table.require("bus", "write bus = 1 for /dev/i2c-1, or mux and channel")
            elif "bus" in table.given:
                table.refuse_if_good("channel", 'needs mux; write mux = "..." or remove this line')
            else:
                table.require("mux", "which mux is this a channel of?")
            return
        name = table.good.get("mux")
        if "channel" not in table.given:
            table.require("channel", f"which channel of the mux, 0..{self._channels_of(name) - 1}?")
        if name is not None and name not in self._names and self._names_are_complete:
            meant = nearest(name, self._names)
            if meant:
                hint = f"did you mean {quoted(meant)}?"
            elif self._names:
                hint = f"known are {', '.join(map(quoted, self._names))}"
            else:
                hint = "describe it in a [[mux]] table"
            table.refuse("mux", f"no mux is named {quoted(name)}; {hint}")

    def _channels_of(self, name: str | None) -> int:
        """How many channels a mux has, or the largest one if the file does not say which it is."""
        table = self._tables.get(name) if name is not None else None
        kind = mux_kind(table.good.get("chip", "")) if table is not None else None
        return kind.channels if kind is not None else max(kind.channels for kind in MUX_KINDS.values())

    def resolve_muxes(self) -> None:
        """Make a `Mux` of every table that is good enough, from the trunk inwards; refuse loops."""
        waiting = dict(self._tables)
        for _ in range(_MAX_MUX_DEPTH):
            # Collected before any of them is resolved, so that each round goes one mux deeper.
            ready = [name for name, t in waiting.items() if "mux" not in t.given or t.good.get("mux") in self._resolved]
            for name in ready:
                table = waiting.pop(name)
                place, kind = self.place_of(table), mux_kind(table.good.get("chip", ""))
                if place is not None and kind is not None:
                    self._resolved[name] = Mux(name, kind, place)
        for table in waiting.values():
            if table.good.get("mux") in self._resolved:
                table.refuse("mux", f"more than {_MAX_MUX_DEPTH} muxes in a chain cannot all have different addresses")
        self._refuse_loops(waiting)

    @staticmethod
    def _refuse_loops(waiting: Mapping[str, Table]) -> None:
        seen: set[str] = set()
        for start in waiting:
            path: list[str] = []
            name = start
            while name in waiting and name not in seen:
                seen.add(name)
                path.append(name)
                name = waiting[name].good.get("mux", "")
            if name in path:
                loop = [*path[path.index(name) :], name]
                shown = " behind ".join(map(quoted, loop))
                waiting[name].refuse("mux", f"the muxes form a loop: {shown}")

    def place_of(self, table: Table) -> Place | None:
        """The place of a part, or None if it is missing or bad; refuses keys that contradict its mux."""
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
                what = f"mux {quoted(mux.name)} is a {self._tables[mux.name].good['chip']}"
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

    def warnings(self) -> Iterator[str]:
        """A line for each mux at an address that its kind cannot have by the datasheet: clones exist."""
        for mux in self.muxes():
            allowed = mux.kind.addresses
            if mux.address not in allowed:
                table = self._tables[mux.name]
                where = f"0x{allowed[0]:02x}" + (f" to 0x{allowed[-1]:02x}" if len(allowed) > 1 else "")
                yield (
                    f"{table.title}: address: 0x{mux.address:02x}, but a {table.good['chip'].upper()} answers only at "
                    f"{where}; is it another kind?"
                )

    def mux_parts(self) -> list[Part]:
        """The resolved muxes as parts that can clash."""
        return [Part(self._tables[mux.name].title, _MUX_KIND, mux.place) for mux in self.muxes()]


def device_parts(
    devices: Iterable[Table], places: Iterable[Place | None], chips: Mapping[str, ChipOptions]
) -> Iterator[Part]:
    """The devices on I2C as parts that can clash."""
    for device, place in zip(devices, places, strict=True):
        if place is not None and "chip" in device.good:
            chip = device.good["chip"]
            yield Part(device.title, chip, place, device.good.get("input") if chips[chip].inputs else _ONLY_INPUT)


def check_shared_averaging(devices: Iterable[Table], places: Iterable[Place | None]) -> None:
    """Refuse two devices on one chip with different averaging."""
    first_at: dict[tuple[Place, str], Table] = {}
    for device, place in zip(devices, places, strict=True):
        averaging_is_bad = "averaging" in device.given and "averaging" not in device.good
        if place is None or "chip" not in device.good or averaging_is_bad:
            continue
        first = first_at.setdefault((place, device.good["chip"]), device)
        if first.good.get("averaging") != device.good.get("averaging"):
            device.refuse("averaging", f"differs from that of {first.title} on the same chip")


def check_shared_kernel_inputs(devices: Iterable[Table]) -> None:
    """Refuse two devices that read one input of a chip that the kernel owns, or one rail of the board."""
    first_on: dict[tuple[object, ...], Table] = {}
    for device in devices:
        rail = device.good.get("rail")
        if rail is not None:
            first = first_on.setdefault((device.good.get("chip"), rail), device)
            if first is not device:
                device.refuse("rail", f"{quoted(rail)} is already read by {first.title}")
            continue
        sensor, source = device.good.get("sensor"), (device.good.get("input"), device.good.get("label"))
        if sensor is None or source == (None, None):
            continue
        # The same folder can be spelled differently.
        chip = os.path.normpath(sensor) if "/" in sensor else sensor
        first = first_on.setdefault((chip, *source), device)
        if first is not device:
            key = "label" if "label" in device.good else "input"
            device.refuse(key, f"{describe(device.good[key])} of {quoted(sensor)} is already read by {first.title}")


def find_clashes(parts: Sequence[Part]) -> Iterator[str]:
    """A line for each part that cannot be where it is, `title: key: problem`, in the order of the parts."""
    parts_at: defaultdict[Place, list[Part]] = defaultdict(list)
    for part in parts:
        yield from _clashes_at_one_place(part, parts_at[part.place])
        parts_at[part.place].append(part)

    inner_parts_of: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        for place in _same_address_on_path(part.place):
            if place in parts_at:
                inner_parts_of[parts_at[place][0].title].append(part)
    for part in parts:
        inner_parts = inner_parts_of.get(part.title)
        if inner_parts:
            yield _describe_inner_clash(part, inner_parts)


def _clashes_at_one_place(part: Part, earlier_parts: Sequence[Part]) -> Iterator[str]:
    """The clash between a part and those before it at the same place: one line, or none."""
    if not earlier_parts:
        return
    first = earlier_parts[0]
    if _MUX_KIND in {first.kind, part.kind}:
        yield f"{part.title}: address: {part.place} is already used by {first.title}"
    elif part.kind != first.kind:
        yield f"{part.title}: chip: {part.kind} at {part.place}, where {first.title} has an {first.kind}"
    else:
        for earlier in earlier_parts:
            if part.input is not None and part.input == earlier.input:
                key, what = (
                    ("address", "") if part.input == _ONLY_INPUT else ("input", f"{part.input} of the {part.kind} at ")
                )
                yield f"{part.title}: {key}: {what}{part.place} is already read by {earlier.title}"
                return


def _same_address_on_path(place: Place) -> Iterable[Place]:
    """The same address on every segment of bus between the trunk and this place."""
    return [replace(hop.mux.place, address=place.address) for hop in reversed(place.path)]


def _describe_inner_clash(part: Part, inner_parts: Sequence[Part]) -> str:
    first = inner_parts[0]
    where = describe_segment(first.place.bus, first.place.path)
    others = f" and {len(inner_parts) - 1} more" if len(inner_parts) > 1 else ""
    return (
        f"{part.title}: address: {part.place} clashes with {first.title} {where}{others}: "
        "they would answer at once; give one of them another address"
    )
