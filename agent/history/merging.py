"""Joins small frames to larger ones before they go to disk: they take less room, and one request carries more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agent.history.frame_records import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.history.frame_records import Packed

_LONGEST_FRAME_SECONDS = 90.0
"""What came in while the first one waited."""

MOST_VALUES: Final = 20_000
"""In a frame, so that a request stays small, however long an interval is."""

_LARGEST_OFFSET_DIFFERENCE = 1000
"""In milliseconds. Offsets of neighbouring frames differ because NTP slews the clock; more is a step."""


def merged(frames: Sequence[Packed], frozen_until: int, offset_of: Callable[[Packed], int | None]) -> list[Packed]:
    """Join neighbours.

    Args:
        frames: in their order.
        frozen_until: frames before this place may have been sent, and stay as they are.
        offset_of: the offset of a frame; None if it is not dated.
    """
    groups: list[list[Packed]] = []
    for packed in frames:
        if groups and groups[-1][0].start >= frozen_until and _fits(groups[-1], packed, offset_of):
            groups[-1].append(packed)
        else:
            groups.append([packed])
    return [_joined(group, offset_of) for group in groups]


def _fits(group: Sequence[Packed], packed: Packed, offset_of: Callable[[Packed], int | None]) -> bool:
    """Whether a frame may be joined to those before it."""
    first, last = group[0], group[-1]
    if (first.boot, first.table, last.end) != (packed.boot, packed.table, packed.start):
        return False
    before, offset = offset_of(first), offset_of(packed)
    if before is None or offset is None:
        if before is not offset:
            return False
    elif abs(before - offset) > _LARGEST_OFFSET_DIFFERENCE:
        return False
    seconds = (packed.last_milliseconds - first.first_milliseconds) / 1000
    values = sum(one.rows for one in (*group, packed)) * len(first.table)
    return (
        packed.first_milliseconds > last.last_milliseconds
        and seconds <= _LONGEST_FRAME_SECONDS
        and values <= MOST_VALUES
    )


def _joined(group: Sequence[Packed], offset_of: Callable[[Packed], int | None]) -> Packed:
    if len(group) == 1:
        return group[0]
    frames = [unpack(packed) for packed in group]
    return pack(
        replace(
            frames[0],
            offset_milliseconds=offset_of(group[0]),
            times_milliseconds=tuple(time for frame in frames for time in frame.times_milliseconds),
            values=b"".join(frame.values for frame in frames),
            samples=sum(frame.samples for frame in frames),
        )
    )
