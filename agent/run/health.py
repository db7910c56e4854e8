"""The health of an agent, in words: for `systemctl status` and for `/-/healthy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.log import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.errors import AgentError

_GRACE_SECONDS = 10.0


def status_line(
    are_up: Sequence[bool], push_errors: Sequence[AgentError] | None, *, is_pushed: bool, history: str = ""
) -> str:
    """One line for a person.

    Args:
        are_up: of each device, whether its last reading succeeded.
        push_errors: of the last push; None before the first.
        is_pushed: whether anything is pushed at all.
        history: how remote write is doing; empty without it.
    """
    if not is_pushed:
        push = "" if history else "nothing is pushed"
    elif push_errors is None:
        push = "not pushed yet"
    else:
        push = f"last push failed: {push_errors[0]}" if push_errors else "last push accepted"
    return "; ".join(filter(None, (f"{sum(are_up)} of {counted(len(are_up), 'device')} up", push, history)))


def stall(swept_at_seconds: float | None, now_seconds: float, sample_interval_seconds: float) -> str | None:
    """Why the loop is unhealthy; None while it makes progress."""
    if swept_at_seconds is None:
        return "no sweep has finished yet"
    age_seconds = now_seconds - swept_at_seconds
    if age_seconds > 3 * sample_interval_seconds + _GRACE_SECONDS:
        return f"the last sweep ended {age_seconds:.0f} s ago"
    return None
