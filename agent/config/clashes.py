"""Which parts would answer at the same time: the addresses of a whole configuration against each other.

To reach a chip behind muxes, every stretch of bus from the trunk to that chip is connected at once:

    trunk ----+-------- m0 ==channel 2==+-------- m1 ==channel 5==+---
              |                         |                         |
            chip A                    chip B                    chip C

While C is read, A, m0, B and m1 hear every byte too. Two parts with one address then both drive the data line, and what
is read is the wired AND of both: a wrong number, and no error. Chips behind different channels of one mux never meet.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent.i2c.place import describe_segment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agent.i2c.place import Place

MUX_KIND = "mux"
ONLY_INPUT = 0


@dataclass(frozen=True, slots=True)
class Part:
    """A mux, or a chip as one device sees it.

    Attributes:
        title: what messages call its table: `device[2] "cpu"`.
        kind: `MUX_KIND`, or the name of the chip.
        place: where it sits.
        input: which input of the chip; `ONLY_INPUT` where there is one; None where the file does not say it.
    """

    title: str
    kind: str
    place: Place
    input: int | None = ONLY_INPUT


def find_clashes(parts: Sequence[Part]) -> Iterator[str]:
    """One line for every part that cannot be where it is, `title: key: problem`, in the order of the parts."""
    parts_at: defaultdict[Place, list[Part]] = defaultdict(list)
    for part in parts:
        yield from _clashes_at_one_place(part, parts_at[part.place])
        parts_at[part.place].append(part)

    inner_parts_of: defaultdict[str, list[Part]] = defaultdict(list)
    for part in parts:
        for place in _places_heard_on_the_way(part.place):
            if place in parts_at:
                inner_parts_of[parts_at[place][0].title].append(part)
    for part in parts:
        inner_parts = inner_parts_of.get(part.title)
        if inner_parts:
            yield _describe_inner_clash(part, inner_parts)


def _clashes_at_one_place(part: Part, earlier_parts: Sequence[Part]) -> Iterator[str]:
    """What is wrong with a part beside those that were at its place before it: one line, or none."""
    if not earlier_parts:
        return
    first = earlier_parts[0]
    if MUX_KIND in {first.kind, part.kind}:
        yield f"{part.title}: address: {part.place} is already that of {first.title}"
    elif part.kind != first.kind:
        yield f"{part.title}: chip: {part.kind} at {part.place}, where {first.title} has an {first.kind}"
    else:
        for earlier in earlier_parts:
            if part.input is not None and part.input == earlier.input:
                key, what = (
                    ("address", "") if part.input == ONLY_INPUT else ("input", f"{part.input} of the {part.kind} at ")
                )
                yield f"{part.title}: {key}: {what}{part.place} is already read by {earlier.title}"
                return


def _places_heard_on_the_way(place: Place) -> Iterable[Place]:
    """The same address on every stretch of bus between the trunk and this place."""
    return [replace(hop.mux.place, address=place.address) for hop in reversed(place.path)]


def _describe_inner_clash(part: Part, inner_parts: Sequence[Part]) -> str:
    first = inner_parts[0]
    where = describe_segment(first.place.bus, first.place.path)
    others = f" and {len(inner_parts) - 1} more" if len(inner_parts) > 1 else ""
    return (
        f"{part.title}: address: {part.place} clashes with {first.title} {where}{others}: "
        "they answer at once; give one of them another address"
    )
